"""Labels beside points, none upon another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

from matplotlib.text import Text
from matplotlib.transforms import Bbox

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKER = 4  # points, half as wide as a marker is
_DISTANCES = (4, 14, 26, 40, 56)  # points from the marker to its label
_DIRECTIONS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))


def label_points(axes: Axes, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each text beside its point: in the nearest place that is free, with a line to it.

    Free is what lies within the axes, and on no marker, label or legend. If no place is, the label
    is left out. Call it last, when the axes have their limits.

    labels: x, y, the text and its colour.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # now the layout is known
    points = [axes.transData.transform((x, y)) for x, y, *_ in labels]
    half = MARKER * figure.dpi / 72
    taken = [Bbox([point - half, point + half]) for point in points]
    if legend := axes.get_legend():
        taken.append(legend.get_window_extent())
    for point, (x, y, text, colour) in zip(points, labels, strict=True):
        note = axes.annotate(
            text,
            (x, y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=colour,
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkA": 0, "shrinkB": 2},
        )
        note.set_in_layout(False)  # it has its place within the axes
        size = Text.get_window_extent(note)  # without its line
        place = next(_free(point, size, axes.bbox, taken, figure.dpi / 72), None)
        note.set_visible(place is not None)
        if place:
            taken.append(place)
            middle = (place.min + place.max) / 2
            note.set_position((middle - point) * 72 / figure.dpi)


def _free(
    point: Sequence[float], size: Bbox, within: Bbox, taken: Sequence[Bbox], pixels: float
) -> Iterator[Bbox]:
    """Places for a box of that size around a point, the nearest first. `pixels`: of a point."""
    for distance, (right, up) in product(_DISTANCES, _DIRECTIONS):
        away = (MARKER + distance) * pixels
        x = point[0] + right * (away + size.width / 2) - size.width / 2
        y = point[1] + up * (away + size.height / 2) - size.height / 2
        place = Bbox.from_bounds(x, y, size.width, size.height)
        inside = within.x0 <= place.x0 and place.x1 <= within.x1
        inside = inside and within.y0 <= place.y0 and place.y1 <= within.y1
        if inside and not place.count_overlaps(taken):
            yield place
