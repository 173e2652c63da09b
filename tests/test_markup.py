"""Whatever somebody calls a model, a column or a rubric: it shows as text, and does nothing."""

import re
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from nbconvert.filters.markdown_mistune import markdown2html_mistune as render

from coursekit.common.markup import as_code, as_markdown, from_markdown, styled
from coursekit.evaluation import comparison_table, to_markdown
from coursekit.preferences import data_card, save_card
from coursekit.preferences.auditing import Audit, Finding
from coursekit.tasks.triage import sample_alerts
from coursekit.week.gallery import load_recorded
from coursekit.week.widgets import comparison, exhibits, findings

HOSTILE = "<img src=x onerror=alert(1)> | [a](javascript:b) `c` *d* $e$ &lt;"
TEXTS = [HOSTILE, "a\n\n# b", "x]: y", "\\", "![i](j)", "SFT+DPO", "[71.5%, 77.5%] on 300", "a_b_c"]


def visible(html, unwanted="img a code em script h2"):
    """The text that a page shows, and that it has no element of the hostile name's making."""
    from html import unescape

    html = re.sub(r'<a class="anchor-link".*?</a>| id="[^"]*"', "", html)  # nbconvert's, of heads
    made = set(re.findall(r"<(\w+)", html)) & set(unwanted.split())
    assert not made and "MathJax" not in html
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


def hostile_card():
    row = {"prompt": "p", "chosen": "a", "rejected": "b", HOSTILE: 1, "c|d": 1, "judge": HOSTILE}
    sources = {f"{side}_{what}": HOSTILE for side in ("chosen", "rejected") for what in SOURCE}
    audit = Audit(1, [Finding(HOSTILE, "fault", HOSTILE, HOSTILE, HOSTILE)])
    card = data_card([row | sources], [row], audit, title=HOSTILE, model=HOSTILE)
    return card, audit


SOURCE = ("source", "temperature")


def test_a_data_card_is_text_throughout(tmp_path):
    card, audit = hostile_card()
    assert visible(render(card), "img a em script").count("alert(1)") == 8
    assert findings(audit).data.count("&lt;img") == 4 and "<img" not in findings(audit).data
    saved = save_card(card, tmp_path).read_text(encoding="utf-8")
    front = yaml.safe_load(saved.split("---\n")[1])
    assert front == {"pretty_name": HOSTILE, "tags": ["preference", "dpo"]}


@pytest.mark.parametrize("title", ['a: "b" # c', "x\nlicense: mit", "é 😀", "---", "[x]", "yes"])
def test_a_title_is_one_value_of_the_front_matter(title, tmp_path):
    _, audit = hostile_card()
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    card = data_card([row], [row], audit, title=title)
    front = save_card(card, tmp_path).read_text(encoding="utf-8").split("\n---\n")[0]
    assert yaml.safe_load(front) == {
        "pretty_name": " ".join(title.split()),
        "tags": ["preference", "dpo"],
    }


def test_exhibits_escape_what_was_recorded():
    run = next(run for run in load_recorded() if run.end)
    scores = {model: {HOSTILE: 0.5} for model in run.end.scores}
    answers = {model: [HOSTILE] * 2 for model in run.end.answers}
    (alert,) = sample_alerts("evaluation", 1)
    spoilt = replace(run, end=replace(run.end, scores=scores, answers=answers))
    html = exhibits({"<b>A</b>": spoilt}, {"facts": alert.to_dict()}, 0).data
    assert "<img src=x" not in html and "<b>A" not in html and html.count("&lt;img") == 2
