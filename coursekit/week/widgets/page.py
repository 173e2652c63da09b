"""What the parts of a page have in common: styles, a plain table, a widget with its stand-in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.markup import as_link
from ...common.progress import in_notebook

if TYPE_CHECKING:
    from IPython.display import HTML
    from ipywidgets import Widget

CELL = "vertical-align:top;text-align:left;padding:6px 12px;border:1px solid #8884"
TEXT = (
    "white-space:pre-wrap;word-break:normal;margin:0;font-size:12px;line-height:1.5;"
    "text-align:left;background:transparent"
)
FAULT = "color:#D55E00;font-weight:bold"
CHANGED = "border-left:3px solid #0072B2;padding-left:4px"


def as_table(lines: Sequence[Sequence[str]], head: Sequence[str] = (), width: int = 1000) -> str:
    """A table of cells that are HTML already, in small print, `width` pixels at most."""
    top = "".join(f'<th style="{CELL}">{escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="{CELL}">{cell}</td>' for cell in cells) + "</tr>"
        for cells in lines
    )
    return (
        f'<table style="border-collapse:collapse;max-width:{width}px;font-size:12px">'
        f"{f'<tr>{top}</tr>' if head else ''}{body}</table>"
    )


def show_widget(widget: Widget, instead: str, html: str = "") -> None:
    """Display `widget`; where widgets do not work (a page, a saved notebook) the text `instead`.

    html: what stands there for those who are shown HTML; it needs no script and no style sheet.
    """
    from IPython.display import display

    # Spelt out: ipywidgets 8 would give it by `_repr_mimebundle_`, which ipywidgets 7 (Colab's)
    # does not have.
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    bundle = {"application/vnd.jupyter.widget-view+json": view, "text/plain": instead}
    bundle |= {"text/html": html} if html else {}
    display(bundle, raw=True)


def show_text(text: str) -> Callable[[str], None]:
    """Display plain text, and return what puts another in its place. Outside a notebook: print."""
    if not in_notebook():
        print(text)
        return print
    from IPython.display import TextDisplayObject, display

    class Text(TextDisplayObject):
        def __repr__(self) -> str:
            return self.data

    handle = display(Text(text), display_id=True)
    return lambda text: handle.update(Text(text))


def file_link(path: Path, what: str) -> HTML:
    """A line with a link to a file that the notebook has made: `what: NAME`."""
    from IPython.display import HTML

    return HTML(f"{escape(what)}: {as_link(path)}")
