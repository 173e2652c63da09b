"""Training curves as pictures in the page: SVG, in the colours of the page's own text."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import TYPE_CHECKING

from .gather import Glance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = "#010203"  # stands for the colour of the page's text, which a picture does not know
_STYLE = {
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
    ),
    "svg.fonttype": "none",  # text stays text: small, and found by a search
    "svg.hashsalt": "explore",  # the same figure gives the same file
    "font.family": "sans-serif",
}


def pictures(glance: Glance) -> Iterator[str]:
    """A picture for each of what the trainers logged and what the monitor measured."""
    import matplotlib.pyplot as plt

    from ..figures.results import plot_monitor, plot_weeks

    with plt.rc_context(_STYLE):
        if any(glance.curves.values()):
            yield _picture(
                plot_weeks({"this run": glance.curves}),
                "What the trainers logged",
                "SFT's loss, DPO's reward margin and the share of pairs that it ranks right, over "
                "the steps; a dot is measured on held-out pairs",
            )
        if glance.metrics is not None and "kl/k1" in glance.metrics:
            yield _picture(
                plot_monitor(glance.metrics),
                "What the monitor measured during DPO",
                "margin, implicit rewards, KL from the reference, held-out log-ratios, entropy and "
                "length of responses, over the steps",
            )


def _picture(figure: Figure, title: str, words: str) -> str:
    file = StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue().partition("<svg")[2].replace(_INK, "currentColor")
    return f'<h3>{title}</h3><svg role="img" aria-label="{words}"{svg}'
