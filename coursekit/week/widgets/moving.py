"""Figures that move: one that follows a run, one that follows a slider."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import page

if TYPE_CHECKING:
    import pandas as pd

    from ..bandit import World
    from ..figures.told import ToldFigure


def live(plot: Callable[[pd.DataFrame], ToldFigure]) -> Callable[[pd.DataFrame], None]:
    """A figure that is redrawn in place, for `Monitor(show=live(plot_monitor))`.

    It appears in the output of the cell that calls `live`. When the run ends the last picture
    stays, as a plain one. Outside a notebook nothing is drawn.
    """
    from IPython.display import HTML, display

    from ...common.progress import in_notebook

    if not in_notebook():
        return lambda metrics: None
    handle = display(HTML(""), display_id=True)

    def show(metrics: pd.DataFrame) -> None:
        handle.update(plot(metrics).bundle(), raw=True)

    return show


def beta_slider(world: World, prompt: int = 0) -> None:
    """A slider for beta: the optimum at one prompt and its place on the frontier.

    Needs a running kernel; the static figures beside it show the same.
    """
    from IPython.display import clear_output, display
    from ipywidgets import FloatLogSlider, Output, VBox

    from ..figures.theory import plot_optimum

    slider = FloatLogSlider(value=1.0, base=10, min=-1.3, max=1.3, step=0.05, description="beta")
    panel = Output()

    def draw(_=None) -> None:
        with panel:
            clear_output(wait=True)
            display(plot_optimum(world, slider.value, prompt))

    slider.observe(draw, names="value")
    draw()
    page.show_widget(VBox([slider, panel]), "Run this cell to move beta.")
