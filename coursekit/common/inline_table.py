"""Tables of pandas that carry their looks in each cell, and so wherever they are shown.

JupyterLab takes the style sheet out of an output that it does not trust, and GitHub every `style`
as well, but no other attribute. So what lies left or right is said in both ways. Headers say what
they head (WCAG 2.2, technique H63), and an interval stays on one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from jinja2 import Environment
from pandas.io.formats.style import Styler

from .hypertext import unbroken

_TEMPLATE = """\
{% set looks = cellstyle + cellstyle_index + cellstyle_columns %}\
<table style="border-collapse:collapse">
{% if caption %}<caption style="text-align:left">{{ caption }}</caption>
{% endif %}{% for part, rows in (("thead", head), ("tbody", body)) %}<{{ part }}>
{% for row in rows %}<tr>{% for cell in row if cell.is_visible %}\
{{ element(cell, part, looks) }}{% endfor %}</tr>
{% endfor %}</{{ part }}>
{% endfor %}</table>
"""


def _element(cell: Mapping[str, Any], part: str, looks: Iterable[Mapping[str, Any]]) -> str:
    """A cell of the head or the body as HTML. `looks`: properties and the ids that have them."""
    kind, text = cell["type"], unbroken(str(cell["display_value"]))
    if kind == "th" and text in ("", "&nbsp;"):
        return "<td></td>"  # it heads nothing
    style: dict[str, str] = {}
    for look in looks:
        if cell.get("id") in look["selectors"]:
            style |= dict(look["props"])
    attributes = {
        "scope": _scope(cell, part) if kind == "th" else "",
        "align": style.get("text-align", ""),
        "style": ";".join(f"{name}:{value}" for name, value in style.items()),
    }
    own = cell.get("attributes") or ""  # how many columns or rows a header spans
    given = (f'{name}="{value}"' for name, value in attributes.items() if value)
    return f"<{' '.join((kind, *given, own)).rstrip()}>{text}</{kind}>"


def _scope(cell: Mapping[str, Any], part: str) -> str:
    spans = "span=" in (cell.get("attributes") or "")
    return ("col" if part == "thead" else "row") + "group" * spans


class InlineStyler(Styler):
    """pandas' Styler, whose table needs no style sheet."""

    template_html = Environment().from_string(_TEMPLATE, globals={"element": _element})


def inline_styler(frame: pd.DataFrame) -> InlineStyler:
    """A Styler of `frame`, cells and headers escaped; numbers lie right, all else left."""
    sides = ["right" if pd.api.types.is_numeric_dtype(dtype) else "left" for dtype in frame.dtypes]
    looks = [f"text-align:{side}" for side in sides]
    styler = InlineStyler(frame).format(escape="html").format_index(escape="html")
    styler.format_index(escape="html", axis="columns")
    styler.apply(lambda row: looks, axis="columns")
    return styler.apply_index(lambda names: looks, axis="columns", level=frame.columns.nlevels - 1)


def with_scopes(html: str) -> str:
    """What `DataFrame.to_html` gives, with a scope for each header, and none that is empty."""
    head, tag, body = html.partition("<tbody>")
    return _scoped(head, "col") + tag + _scoped(body, "row")


def _scoped(html: str, scope: str) -> str:
    html = re.sub(r"<th[^>]*>\s*</th>", "<td></td>", html)
    html = re.sub(r"<th(?= (?:col|row)span)", f'<th scope="{scope}group"', html)
    return re.sub(r"<th(?=>| (?!scope))", f'<th scope="{scope}"', html)
