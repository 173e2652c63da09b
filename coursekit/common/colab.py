"""Colab: get its runtime ready for the course, and leave the rest of it alone.

The first cell of each notebook calls `set_up`, before anything is installed: what is imported here
is the standard library, and in functions `packaging`, which Colab has.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from .profile import ROOT

PINS = ROOT / "requirements-colab.txt"
ON_DRIVE = "MyDrive/dpo-course/artifacts"
# peft raises ImportError beside an older one; the course uses none.
TORCHAO_FROM = "0.16.0"


class RestartNeeded(Exception):
    """Nothing went wrong, so it is shown as its sentence, without a traceback; cells below wait."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def set_up(drive: bool = False) -> None:
    """Install what must rise, let new processes find the course, keep results on Drive if wanted.

    A second run installs nothing. Raises RestartNeeded where a package was loaded before it was
    replaced, and RuntimeError, with what pip said, where pip does not succeed.
    """
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(ROOT), *filter(None, paths)]))
    pins = read_pins(PINS)
    _install(pins)
    if stale := loaded_and_replaced([*pins, "torchao"]):
        raise RestartNeeded(
            "Restart now (menu Runtime, Restart session), then run this cell again and go on: "
            f"{', '.join(stale)} had been loaded before the course's version was installed."
        )
    if drive:
        _keep_on_drive()
    print("The course is ready.")


def read_pins(file: Path) -> dict[str, str]:
    """Version by normalised name, of the lines `name==version` of a requirements file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {normalised(name): version.strip() for name, version in pairs}


def normalised(name: str) -> str:
    """`huggingface_hub` -> `huggingface-hub`, as package indexes compare names."""
    from packaging.utils import canonicalize_name

    return canonicalize_name(name.strip())


def to_install(pins: Mapping[str, str], there: Mapping[str, str]) -> dict[str, str]:
    """Those pins that are not there, or are there in an older version. A newer one stays."""
    return {name: pin for name, pin in pins.items() if is_older(there.get(name), pin)}


def is_older(version: str | None, than: str) -> bool:
    """Whether `version` is below `than`; so is None, for a package that is not there."""
    from packaging.version import Version

    return version is None or Version(version) < Version(than)


def loaded_and_replaced(names: Iterable[str]) -> list[str]:
    """Packages of which this process has loaded another version than now lies on the disk."""
    there, stale = _installed(), []
    for name in names:
        loaded = getattr(sys.modules.get(name.replace("-", "_")), "__version__", None)
        if loaded and there.get(name) != loaded:
            stale.append(f"{name} {loaded}")
    return stale


def unmet(name: str, there: Mapping[str, str], python: str | None = None) -> Iterator[str]:
    """What the package wants, by its metadata as it is installed here, and does not find `there`.

    python: "3.13", for another Python than this one.
    """
    from packaging.requirements import Requirement

    other = {"python_version": python, "python_full_version": f"{python}.0"} if python else {}
    for requirement in map(Requirement, metadata.requires(name) or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": "", **other}):
            continue
        version = there.get(normalised(requirement.name))
        if version is None:
            yield f"{name} wants {requirement}, which is not there"
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"{name} wants {requirement}, and {version} is there"


def _installed() -> dict[str, str]:
    """Version by normalised name, of what this Python imports; what has no plain one is left out.

    A package that lies in two places of the search path counts as what is imported: the first.
    """
    from packaging.version import InvalidVersion, Version

    found: dict[str, str] = {}
    for package in metadata.distributions():
        try:
            found.setdefault(normalised(package.name), str(Version(package.version)))
        except (InvalidVersion, TypeError):  # of the system's own packages, or half removed
            continue
    return found


def _install(pins: Mapping[str, str]) -> None:
    """Install what is missing or too old, and that alone: without what it depends on.

    Else pip might replace what Colab's kernel rests on. That Colab has the rest is checked before
    the course is published (`colab_drift`), and told here where it has changed since.
    """
    there = _installed()
    if "torchao" in there and is_older(there["torchao"], TORCHAO_FROM):
        print(f"Removing torchao {there['torchao']}: peft does not work beside it.")
        _pip("uninstall", "--yes", "torchao")
    if wanted := to_install(pins, there):
        print("Installing " + ", ".join(f"{name} {pin}" for name, pin in wanted.items()))
        _pip("install", "--no-deps", *(f"{name}=={pin}" for name, pin in wanted.items()))
        for name in pins:
            for lack in unmet(name, _installed()):
                print(f"Colab has changed: {lack}. If a cell fails, tell who publishes the course.")


def _pip(command: str, *arguments: str) -> None:
    """Raises RuntimeError, with the end of what pip said, if it does not succeed."""
    line = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*line, *arguments], capture_output=True, text=True)
    importlib.invalidate_caches()  # what has just come is found
    if done.returncode:
        raise RuntimeError(
            f"pip {command} did not succeed. Run this cell again; if it stays so, Colab has "
            f"changed, and whoever publishes the course wants to know:\n{done.stderr[-1500:]}"
        )


def _keep_on_drive() -> None:
    """Mount the learner's Google Drive (Colab asks for leave) and let artifacts go there."""
    from google.colab import drive

    mounted = "/content/drive"
    drive.mount(mounted)
    os.environ.setdefault("COURSE_ARTIFACTS", f"{mounted}/{ON_DRIVE}")
    print(f"Results are kept in {os.environ['COURSE_ARTIFACTS']}")
