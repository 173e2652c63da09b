"""Do two pictures look alike?"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SHIFT = 2  # pixels: a line that is drawn so much further is the same line
LEVELS = 0.1  # of the range from black to white: less is the smoothing of an edge


def share_that_differs(before: bytes, after: bytes) -> float:
    """The share of pixels of one PNG for which the other has none alike within `SHIFT` pixels.

    0 for pictures that look alike, 1 where the sizes differ by more than `SHIFT`. The root mean
    square of matplotlib's own comparison is higher for a line that moved by half a pixel than for
    a point that is missing.
    """
    if before == after:
        return 0.0
    one, other = _pixels(before), _pixels(after)
    heights, widths = zip(one.shape[:2], other.shape[:2], strict=True)
    if max(heights) - min(heights) > SHIFT or max(widths) - min(widths) > SHIFT:
        return 1.0
    one, other = (picture[: min(heights), : min(widths)] for picture in (one, other))
    return float(max(_beyond(one, other).mean(), _beyond(other, one).mean()))


def _beyond(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pixels (height, width) of `picture` that are outside what `other` has around them."""
    from scipy.ndimage import maximum_filter, minimum_filter

    around = (2 * SHIFT + 1, 2 * SHIFT + 1, 1)
    above = picture > maximum_filter(other, around) + LEVELS
    below = picture < minimum_filter(other, around) - LEVELS
    return (above | below).any(axis=2)


def _pixels(png: bytes) -> np.ndarray:
    """Colours (height, width, 3) from 0 to 1, on white where the picture is transparent."""
    from matplotlib.image import imread

    image = imread(BytesIO(png), format="png")  # (height, width), or with 3 or 4 channels
    colours = image[:, :, :3] if image.ndim == 3 else image[:, :, None].repeat(3, axis=2)
    opacity = image[:, :, 3:] if image.ndim == 3 and image.shape[2] == 4 else 1.0
    return colours * opacity + (1.0 - opacity)
