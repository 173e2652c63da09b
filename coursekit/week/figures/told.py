"""Figures in one style that are told in words too, for whoever does not see them.

JupyterLab, nbconvert and GitHub give no text to a picture that comes as `image/png`, so these come
as HTML. The palette is safe for colour-blind readers; no figure tells things apart by colour alone.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from functools import wraps
from html import escape
from io import BytesIO
from typing import Any, ParamSpec

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

# Okabe and Ito's palette: blue, vermilion, green, grey, orange.
BLUE, VERMILION, GREEN, GREY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#7F7F7F", "#E69F00"
# Letters need more contrast than lines: 4.5 on white (WCAG 2.2, 1.4.3).
INK = {BLUE: "#0072B2", VERMILION: "#B34700", GREEN: "#00734F", GREY: "#666666"}

STYLE: dict[str, Any] = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
}

Given = ParamSpec("Given")


class ToldFigure(Figure):
    """A figure that a notebook shows with `alt`, the text that stands for it."""

    alt = ""

    def to_html(self) -> str:
        """The figure as an element of a page, within the page's width, on white."""
        picture = BytesIO()
        self.savefig(picture, format="png")
        data = b64encode(picture.getvalue()).decode("ascii")
        width = round(self.get_figwidth() * self.dpi)
        return (
            f'<img alt="{escape(self.alt)}" width="{width}" '
            f'style="max-width:100%;background:#fff" src="data:image/png;base64,{data}">'
        )

    def bundle(self) -> dict[str, str]:
        """What it is displayed as, by media type."""
        return {"text/html": self.to_html(), "text/plain": self.alt}

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.bundle(), raw=True)


def told(
    in_words: Callable[Given, str], **style: Any
) -> Callable[[Callable[Given, Figure]], Callable[Given, ToldFigure]]:
    """Of a function that draws a figure: it draws in the course's style, and tells it `in_words`.

    in_words: says what the figure shows, of the same arguments. style: changes to `STYLE`.
    """

    def decorate(draw: Callable[Given, Figure]) -> Callable[Given, ToldFigure]:
        @wraps(draw)
        def plot(*args: Given.args, **options: Given.kwargs) -> ToldFigure:
            with plt.rc_context(STYLE | style):
                figure = draw(*args, **options)
            plt.close(figure)  # a cell that ends in the figure would show it twice
            figure.alt = in_words(*args, **options)
            return figure

        return plot

    return decorate


def subplots(*shape: int, **options: Any) -> tuple[ToldFigure, Any]:
    """`plt.subplots`, with a figure that can be told in words."""
    return plt.subplots(*shape, FigureClass=ToldFigure, **options)
