"""Where the notebooks lie: sessions in `notebooks`, and labs, which are optional, in `labs` there.

A notebook is a percent-format source and, beside it, the executed file of that name. Wherever else
notebooks are written they lie as they do here, so that their links to one another lead somewhere.
"""

from __future__ import annotations

from pathlib import Path

from ..common.profile import ROOT

NOTEBOOKS = ROOT / "notebooks"


def sessions(folder: Path = NOTEBOOKS) -> list[Path]:
    """The sources of the sessions, in their order."""
    return sorted(folder.glob("*.py"))


def labs(folder: Path = NOTEBOOKS) -> list[Path]:
    """The sources of the labs."""
    return sorted((folder / "labs").glob("*.py"))


def sources(folder: Path = NOTEBOOKS) -> list[Path]:
    """All of them, each after those on whose results it may rest."""
    return [*sessions(folder), *labs(folder)]


def named(only: str, folder: Path = NOTEBOOKS) -> list[Path]:
    """The sources whose names begin with `only`, sessions and labs alike."""
    return [source for source in sources(folder) if source.stem.startswith(only)]


def notebook_in(folder: Path, source: Path, notebooks: Path = NOTEBOOKS) -> Path:
    """Where the notebook of `source` lies in a `folder` that is laid out as `notebooks` is."""
    return (folder / source.relative_to(notebooks)).with_suffix(".ipynb")
