"""What the parts of a page have in common: styles, a plain table, a widget with its stand-in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.hypertext import unbroken
from ...common.markup import as_link
from ...common.progress import in_notebook

if TYPE_CHECKING:
    from IPython.display import HTML
    from ipywidgets import Widget

# The attributes of a cell: GitHub takes each `style` out and leaves the rest.
CELL = (
    'align="left" valign="top" '
    'style="vertical-align:top;text-align:left;padding:6px 12px;border:1px solid #8884"'
)
# Colours stand on their own ground, because the page may be light or dark.
_FAULT = "color:#8A3A00;background:#FFEBDD;font-weight:bold"
_CHANGED = "border-left:3px solid #0072B2;padding-left:4px"
_TEXT = (
    "display:block;white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere;"
    "font-family:monospace;font-size:12px;line-height:1.5;text-align:left"
)


def fault(html: str) -> str:
    """Something wrong: bold, and in a colour where colours are shown. A mark in it says so too."""
    return f'<b style="{_FAULT}">{html}</b>'


def changed(html: str) -> str:
    """A line that is new: a plus, and a bar where styles are kept."""
    return f'<span style="{_CHANGED}">+ {html}</span>'


def as_written(html: str) -> str:
    """Lines as they were written, but for those that are too long for the page.

    Not `pre`, which wraps nothing where its style is taken out.
    """
    return f'<samp style="{_TEXT}">{html.replace(chr(10), "<br>")}</samp>'


def as_table(lines: Sequence[Sequence[str]], head: Sequence[str] = (), width: int = 1000) -> str:
    """A table of cells that are HTML already, in small print, `width` pixels at most."""
    top = "".join(f'<th scope="col" {CELL}>{escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td {CELL}>{unbroken(cell)}</td>" for cell in cells) + "</tr>"
        for cells in lines
    )
    return (
        f'<table style="border-collapse:collapse;max-width:{width}px;font-size:12px">'
        f"{f'<tr>{top}</tr>' if head else ''}{body}</table>"
    )


def beside_each_other(
    head: Sequence[str], lines: Sequence[Sequence[str]], width: int = 1000
) -> str:
    """A table of texts, HTML already, in columns that are equally wide."""
    share = f"{100 / len(head):.0f}%"
    top = "".join(f'<th scope="col" width="{share}" {CELL}>{escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td {CELL}>{cell}</td>" for cell in cells) + "</tr>" for cells in lines
    )
    return (
        f'<table width="100%" style="border-collapse:collapse;max-width:{width}px;'
        f'table-layout:fixed"><tr>{top}</tr>{body}</table>'
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
