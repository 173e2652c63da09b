"""Say where the course is published: `python -m coursekit address OWNER/NAME`.

A notebook opened on Colab comes alone, and its first cell fetches the course from GitHub. So the
address stands in the notebooks, sources and saved ones, and in the README's links;
`pyproject.toml` has the one that counts. Without an argument the command prints it.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

from ..common.profile import ROOT
from .sources import sources

_ON_GITHUB = re.compile(r"https://github\.com/([\w-]+/[\w.-]+)")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m coursekit address", description=__doc__.split("\n")[0]
    )
    parser.add_argument("repository", nargs="?", help="OWNER/NAME of a public GitHub repository")
    wanted = parser.parse_args().repository
    try:
        print("\n".join(map(str, publish_at(wanted))) if wanted else address())
    except ValueError as error:
        sys.exit(str(error))
    return 0


def address(root: Path = ROOT) -> str:
    """`OWNER/NAME` on GitHub, as `pyproject.toml` has it."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return _repository(project["urls"]["Repository"])


def say_it(root: Path = ROOT) -> list[Path]:
    """The files that say where the course is published."""
    pairs = ((source, source.with_suffix(".ipynb")) for source in sources(root / "notebooks"))
    return [root / "pyproject.toml", root / "README.md", *(file for pair in pairs for file in pair)]


def publish_at(repository: str, root: Path = ROOT) -> list[Path]:
    """Put `repository` (`OWNER/NAME`, or its address) in the place of what is said now.

    Returns the files that were changed. Raises ValueError for what is no repository on GitHub.
    """
    old, new, changed = address(root), _repository(repository), []
    for file in say_it(root):
        text = file.read_text(encoding="utf-8")
        # As an address, and in Colab's links, which open github/OWNER/NAME.
        said = re.sub(rf"(github\.com/|/github/){re.escape(old)}(?![\w.-])", rf"\g<1>{new}", text)
        if said != text:
            file.write_text(said, encoding="utf-8")
            changed.append(file)
    return changed


def _repository(said: str) -> str:
    """`OWNER/NAME` of an address or of itself."""
    address = said if "://" in said else f"https://github.com/{said}"
    if not (found := _ON_GITHUB.fullmatch(address.removesuffix("/").removesuffix(".git"))):
        raise ValueError(
            f"{said} is no repository on GitHub, from where Colab opens notebooks: write "
            "OWNER/NAME, or https://github.com/OWNER/NAME"
        )
    return found[1]


if __name__ == "__main__":
    sys.exit(main())
