"""A session as a page to read and to print: it asks nothing of the network, and nothing is cut off.

`make course` writes such pages. `make lab` makes them of what is printed there (File, Print) or
exported as HTML: both are nbconvert's, with the `LAB_OPTIONS`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import latex2mathml.converter
from nbconvert import HTMLExporter
from nbconvert.filters import add_anchor
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode

from .saved import tidy, title_of

TEMPLATES = Path(__file__).with_name("templates")
_FORMULA = {
    "block": re.compile(r"\$\$(.+?)\$\$", re.DOTALL),
    "inline": re.compile(r"(?<![\\$])\$([^$`]+?)\$"),
}
# How latex2mathml writes \big( and \Big(: fonts without a table for mathematics do not heed it.
_SIZED = re.compile(r'minsize="([\d.]+em)" maxsize="\1"')
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)


class Readable(Preprocessor):
    """What nbconvert does to a notebook for the page: formulas as MathML, a title, its sections."""

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        page = with_mathml(nb)
        tidy(page)
        page.metadata["title"] = title_of(page) or resources.get("metadata", {}).get("name", "")
        headings = [
            heading.strip()
            for cell in page.cells
            if cell.cell_type == "markdown"
            for heading in _HEADING.findall(cell.source)
        ]
        resources["sections"] = [(heading, _id(heading)) for heading in headings]
        return page, resources


def _id(heading: str) -> str:
    """What nbconvert calls a heading."""
    return re.search(r'id="([^"]*)"', add_anchor(f"<h2>{escape(heading)}</h2>"))[1]


_OPTIONS = {
    "template_name": "reading",
    "extra_template_basedirs": [str(TEMPLATES)],
    "preprocessors": [f"{__name__}.{Readable.__name__}"],
}
# For `jupyter lab`: what it prints or exports becomes such a page.
LAB_OPTIONS = [
    f"--HTMLExporter.{name}={value if isinstance(value, str) else value[0]}"
    for name, value in _OPTIONS.items()
]


def as_page(notebook: NotebookNode) -> str:
    """The notebook as one HTML file that needs nothing else."""
    return HTMLExporter(**_OPTIONS).from_notebook_node(notebook)[0]


def with_mathml(notebook: NotebookNode) -> NotebookNode:
    """A copy whose formulas are MathML, which browsers draw without a script from the network."""
    result = copy.deepcopy(notebook)
    for cell in result.cells:
        if cell.cell_type == "markdown":
            for display, pattern in _FORMULA.items():
                cell.source = pattern.sub(_as_mathml(display), cell.source)
    return result


def _as_mathml(display: str) -> Callable[[re.Match[str]], str]:
    """Brackets that are to be big are drawn big, whatever the font can stretch.

    Signs that markdown would take for emphasis become entities.
    """

    def replace(match: re.Match[str]) -> str:
        mathml = latex2mathml.converter.convert(match[1].strip(), display=display)
        mathml = _SIZED.sub(r'stretchy="false" mathsize="\1"', mathml)
        return mathml.replace("*", "&#x2217;").replace("_", "&#x5f;")

    return replace
