"""The run at a glance, in a notebook."""

from __future__ import annotations

from html import escape

from ...workspace import Workspace
from . import page
from .page import file_link


def explore(workspace: Workspace) -> None:
    """Write the page of what is there of a run, and show it below the cell.

    The page (`explore.html` in the workspace's folder) is whole in itself: search and filters need
    no kernel. Where no widget can be shown its facts and the table stand instead, as plain HTML.
    """
    from ipywidgets import HTML, Layout

    from ..explore import in_short, write_page

    path, glance = write_page(workspace)
    html = path.read_text(encoding="utf-8")
    # In a frame, so that neither the page's styles nor its scripts reach the notebook.
    frame = (
        '<iframe title="A run at a glance" sandbox="allow-scripts" style="width:100%;height:900px;'
        f'box-sizing:border-box;border:1px solid #8885" srcdoc="{escape(html)}"></iframe>'
    )
    link = file_link(path, "The same as a page").data
    page.show_widget(
        HTML(f"{link}{frame}", layout=Layout(width="100%")),
        f"Run this cell to look around in the run, or open {path.name}.",
        f"{in_short(glance)}<p>{link}</p>",
    )
