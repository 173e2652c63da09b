"""Text that somebody else wrote, put into markdown or HTML as text: it shows, and does nothing."""

from __future__ import annotations

import os
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from .profile import ROOT

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

# What CommonMark gives a meaning within a line. A bracket only where it would make a link: before
# others a backslash is harmless there, but to some renderers it opens a formula.
_ACTIVE = re.compile(r"[\\`*<>&|$]|\](?=[(\[:])")


def as_markdown(text: object) -> str:
    """`text` in one line of markdown that renders as `text`: within a paragraph, heading or cell.

    Line ends become spaces; markup, HTML, links, formulas and cell borders are escaped
    (CommonMark 0.31, section 2.4).
    """
    return _ACTIVE.sub(r"\\\g<0>", " ".join(str(text).split()))


def from_markdown(text: str) -> str:
    """What `as_markdown` was given, up to white space."""
    return re.sub(r"\\([\\`*<>&|$\]])", r"\1", text)


def as_code(text: object) -> str:
    """`text` as a code span in a paragraph or a cell; escaped as text where a span cannot hold it.

    A span knows no escapes, so a backquote would end it and a bar the cell.
    """
    line = " ".join(str(text).split())
    return as_markdown(line) if not line or re.search(r"[`|]", line) else f"`{line}`"


def styled(frame: pd.DataFrame) -> Styler:
    """`frame.style` that needs no style sheet, with cells and headers escaped.

    pandas itself leaves their HTML alive.
    """
    from .inline_table import inline_styler

    return inline_styler(frame)


def as_link(path: Path, text: str = "") -> str:
    """HTML of a link to a file, relative to the working folder: JupyterLab opens it from there.

    Of a file outside the course's folder, which JupyterLab does not serve, the path is given; where
    no learner works (`COURSE_DIARY=off`) the name alone: saved outputs are read elsewhere.
    """
    path = path.resolve()
    is_off = os.environ.get("COURSE_DIARY") == "off"
    if is_off or not path.is_relative_to(ROOT):
        shown = path.name if is_off else str(path)
        return f"{escape(f'{text}: ' if text else '')}<code>{escape(shown)}</code>"
    target = quote(os.path.relpath(path).replace(os.sep, "/"))
    return f'<a href="{escape(target)}">{escape(text or path.name)}</a>'
