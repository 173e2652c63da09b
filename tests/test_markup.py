"""Whatever somebody calls a model, a column or a rubric: it shows as text, and does nothing."""

import re

import pandas as pd
import pytest
from nbconvert.filters.markdown_mistune import markdown2html_mistune as render

from coursekit.evaluation import comparison_table, to_markdown
from coursekit.markup import as_code, as_markdown, from_markdown, styled
from coursekit.widgets import comparison

HOSTILE = "<img src=x onerror=alert(1)> | [a](javascript:b) `c` *d* $e$ &lt;"
TEXTS = [HOSTILE, "a\n\n# b", "x]: y", "\\", "![i](j)", "SFT+DPO", "[71.5%, 77.5%] on 300", "a_b_c"]


def visible(html):
    """The text that a page shows, and that it has no element of the hostile name's making."""
    from html import unescape

    assert not re.search(r"<(img|a|code|em|script|h2)\b", html) and "MathJax" not in html
    return unescape(re.sub(r"<[^>]*>", "", html)).strip()


@pytest.mark.parametrize("text", TEXTS)
def test_markdown_shows_the_text_itself(text):
    line = " ".join(text.split())
    assert visible(render(f"so: {as_markdown(text)}")) == f"so: {line}"
    assert from_markdown(as_markdown(text)) == line
    table = f"| a | b |\n|---|---|\n| {as_markdown(text)} | 2 |"
    assert render(table).count("<td") == 2


def test_code_is_a_span_where_it_can_be():
    assert as_code("chosen_score") == "`chosen_score`"
    for name in ("a`b", "a|b", ""):
        assert as_code(name) == as_markdown(name)


def hostile_table():
    scores = pd.concat(
        pd.DataFrame({"model": name, "row": range(2), HOSTILE: values})
        for name, values in {"SFT": [0.0, 1.0], HOSTILE: [1.0, 1.0]}.items()
    )
    return comparison_table(scores, candidate=HOSTILE, baseline="SFT")


def test_names_in_the_three_way_table_are_text():
    html = render(to_markdown(hostile_table()))
    assert "alert(1)" in visible(html) and len(re.findall("<t[hd][ >]", html)) == 2 * 6


def test_styled_tables_escape_cells_and_headers():
    html = styled(pd.DataFrame({HOSTILE: [HOSTILE]}, index=[HOSTILE])).to_html()
    assert visible(html).count("alert(1)") == 3
    assert visible(comparison(hostile_table()).to_html()).count("alert(1)") >= 4
