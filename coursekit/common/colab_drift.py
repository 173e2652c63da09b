"""Does the course still fit Colab? `python -m coursekit colab-drift FREEZE.txt`, for maintainers.

FREEZE.txt is what `pip freeze` says on Colab; its makers publish it, too, for each image. Compared
with it is what the notebooks' first cell installs (`requirements-colab.txt`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from .colab import PINS, TORCHAO_FROM, is_older, read_pins, to_install, unmet
from .profile import ROOT

COLABS_PYTHON = "3.13"
# Colab's kernel, its front end and its other packages are built for the versions that are there.
RUNTIME = frozenset(
    "google-colab ipykernel ipython ipywidgets jupyter-client jupyter-core jupyter-server "
    "matplotlib notebook numpy pandas pip psutil pyzmq scipy setuptools torch torchaudio "
    "torchvision tornado traitlets triton".split()
)
# Of requirements.txt: for tests, and for those who run the course from a terminal.
NOT_NEEDED = frozenset("jupyterlab nbval ruff".split())


def main(arguments: list[str] | None = None) -> int:
    """Print what changes and what clashes; 1 if anything clashes."""
    parser = argparse.ArgumentParser(
        prog="python -m coursekit colab-drift", description=__doc__.split("\n")[0]
    )
    parser.add_argument("freeze", type=Path, help="a file with Colab's `pip freeze`")
    try:
        there = read_pins(parser.parse_args(arguments).freeze)
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"Cannot read Colab's list: {error}. Save the output of `pip freeze` as UTF-8.")
    if not there:
        sys.exit("No line of that file says name==version: save the output of `pip freeze`.")
    pins = read_pins(PINS)
    found = list(clashes(pins, there, read_pins(ROOT / "requirements.txt")))
    print("\n".join([*notes(pins, there), *(f"CLASH: {clash}" for clash in found)]))
    print(f"{len(found)} clashes" if found else "Nothing clashes.")
    return int(bool(found))


def notes(pins: Mapping[str, str], there: Mapping[str, str]) -> Iterator[str]:
    """What the first cell does on that Colab, and which pins it would do without."""
    for name, pin in to_install(pins, there).items():
        yield f"rises: {name} {there[name]} to {pin}" if name in there else f"new: {name} {pin}"
    for name in pins.keys() & there.keys():
        if there[name] == pins[name]:
            yield f"there already: {name} {pins[name]}, so its pin may go"
    if "torchao" in there and is_older(there["torchao"], TORCHAO_FROM):
        yield f"removed: torchao {there['torchao']}, since peft wants {TORCHAO_FROM} or none"


def clashes(
    pins: Mapping[str, str], there: Mapping[str, str], course: Mapping[str, str]
) -> Iterator[str]:
    """Where pins and Colab do not go together, a sentence each.

    Args:
        pins: what the first cell installs; there: what Colab has; course: `requirements.txt`.
    """
    for name in sorted(pins.keys() & there.keys()):
        if name in RUNTIME and there[name] != pins[name]:
            yield f"{name} {there[name]} belongs to Colab's runtime: take its pin {pins[name]} away"
        elif is_older(pins[name], there[name]):
            yield f"{name} {there[name]} is newer than the pin {pins[name]}: test with it, raise it"
    for name in sorted(course.keys() - pins.keys() - there.keys() - NOT_NEEDED):
        yield f"{name} is not there: pin it in {PINS.name}"
    for name, pin in pins.items():
        if course.get(name, pin) != pin:
            yield f"{name} is pinned to {pin}, and in requirements.txt to {course[name]}"
        if (here := _version(name)) != pin:
            yield f"{name} {pin} is {here} here, so what it wants is unknown: install {PINS.name}"
            continue
        for lack in unmet(name, {**there, **pins}, COLABS_PYTHON):
            yield f"{lack}: pin it in {PINS.name}, if it may rise"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
