"""`task.toml`: what a task's folder says of itself."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .problems import Problem, nearest
from .task import SPLITS

FILE = "task.toml"
SHARES = dict(zip(SPLITS, (40, 30, 10, 20), strict=True))  # per cent of the prompts
_TYPES: dict[str, type] = {
    "name": str,
    "title": str,
    "description": str,
    "limits": list,
    "asked": str,
    "instruction": str,
    "truth": list,
    "metrics": dict,
    "splits": dict,
}
_WORDS = {str: "a text in quotes", list: "a list of texts", dict: "a table"}
_DIRECTIONS = ("higher", "lower", "neither")


@dataclass(frozen=True)
class MetricSettings:
    """Of one metric; see `task.Metric`."""

    bounds: tuple[float, float] | None = (0.0, 1.0)
    better: Literal["higher", "lower"] | None = "higher"


@dataclass(frozen=True)
class Settings:
    """Of a task; see `task.Task`.

    instruction: put before every prompt, empty for none. truth: names of the metrics that tell what
    is right. metrics: what is said of them, by name. shares: of the splits, in per cent.
    """

    name: str = ""
    title: str = ""
    description: str = ""
    limits: tuple[str, ...] = ()
    asked: str = "prompt"
    instruction: str = ""
    truth: tuple[str, ...] = ()
    metrics: dict[str, MetricSettings] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=lambda: dict(SHARES))


def spoken(name: str) -> str:
    """The name of a metric in tables: the function's, with blanks."""
    return name.replace("_", " ").strip()


def read_settings(text: str, path: Path, problems: list[Problem]) -> Settings:
    """The settings that can be read; what is wrong with others is added to `problems`."""
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        problems.append(_not_toml(error, text, path))
        return Settings(name=default_name(path.parent))
    reader = _Reader(text, path, problems)
    reader.check_keys(found, _TYPES)
    for key in ("title", "description"):
        if not str(found.get(key, "")).strip():
            reader.add((key,), f"no {key}", f'write {key} = "..." above the first [table]')
    found = {key: value for key, value in found.items() if reader.has_type(key, value)}
    texts = {key: value for key, value in found.items() if isinstance(value, str)}
    return Settings(
        **{"name": default_name(path.parent)} | texts,
        limits=tuple(found.get("limits", ())),
        truth=tuple(spoken(name) for name in found.get("truth", ())),
        metrics=reader.metrics(found.get("metrics", {})),
        shares=reader.shares(found["splits"]) if "splits" in found else dict(SHARES),
    )


def default_name(folder: Path) -> str:
    """The folder's name, as a word for files."""
    return re.sub(r"\W+", "_", folder.resolve().name).strip("_") or "task"


def line_of(text: str, *keys: str) -> int | None:
    """The line in which a key of a TOML text begins, None if it is not there.

    Found by reading longer and longer beginnings of the text: TOML's own rules say where a text of
    several lines ends, and which table a key belongs to.
    """
    lines, whole = text.split("\n"), 0
    for number in range(1, len(lines) + 1):
        try:
            found: Any = tomllib.loads("\n".join(lines[:number]))
        except (ValueError, RecursionError):
            continue
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if found is not None:
            return whole + 1
        whole = number
    return None


def _not_toml(error: Exception, text: str, path: Path) -> Problem:
    place = re.search(r" \(at line (\d+), column \d+\)$", str(error))
    line = int(place[1]) if place else text.rstrip().count("\n") + 1
    said = str(error).removesuffix(place[0]) if place else str(error).split(" (at ")[0]
    remedy = 'write key = value, texts in double quotes ("..."), each key once'
    return Problem(path, line, f"not TOML ({said})", remedy)


@dataclass(frozen=True)
class _Reader:
    """Reads the parts of `text`, and adds to `problems` what is wrong with them."""

    text: str
    path: Path
    problems: list[Problem]

    def add(self, keys: tuple[str, ...], what: str, remedy: str) -> None:
        self.problems.append(Problem(self.path, line_of(self.text, *keys), what, remedy))

    def check_keys(self, found: dict, known: Any, *table: str) -> None:
        """Add each key that is not known; `table` are the names of the table that it is in."""
        for key in found:
            if key not in known:
                where = f" in [{'.'.join(table)}]" if table else ""
                remedy = f"{nearest(key, known)}; correct it or take it out"
                self.add((*table, key), f"unknown key {key!r}{where}", remedy)

    def has_type(self, key: str, value: Any) -> bool:
        """Whether the value is of the type that a known key wants; adds what is wrong."""
        wanted = _TYPES.get(key)
        if wanted is None:
            return False
        sound = isinstance(value, wanted) and not (
            wanted is list and not all(isinstance(item, str) for item in value)
        )
        if not sound:
            self.add((key,), f"{key} is {value!r:.60}", f"write {_WORDS[wanted]}")
        elif key == "name" and not re.fullmatch(r"[A-Za-z0-9][\w-]*", value, re.ASCII):
            remedy = "write a word of letters, digits, _ and -: files are named after it"
            self.add((key,), f"name is {value!r}", remedy)
            return False
        return sound

    def metrics(self, tables: dict[str, Any]) -> dict[str, MetricSettings]:
        found = {}
        for name, table in tables.items():
            if isinstance(table, dict):
                self.check_keys(table, ("bounds", "better"), "metrics", name)
                found[spoken(name)] = self._metric(name, table)
            else:
                what = f"[metrics] has {name} = {table!r:.60}"
                self.add(("metrics", name), what, f"write a table: [metrics.{name}]")
        return found

    def _metric(self, name: str, table: dict[str, Any]) -> MetricSettings:
        bounds, better = table.get("bounds", [0.0, 1.0]), table.get("better", "higher")
        if better not in _DIRECTIONS:
            what = f"better is {better!r:.60}"
            remedy = "write one of " + ", ".join(f'"{word}"' for word in _DIRECTIONS)
            self.add(("metrics", name, "better"), what, remedy)
        if bounds != "any" and not _are_bounds(bounds):
            what = f"bounds are {bounds!r:.60}"
            remedy = 'write [least, greatest], two numbers, or "any"'
            self.add(("metrics", name, "bounds"), what, remedy)
            bounds = "any"
        return MetricSettings(
            None if bounds == "any" else (float(bounds[0]), float(bounds[1])),
            better if better in ("higher", "lower") else None,
        )

    def shares(self, table: dict[str, Any]) -> dict[str, float]:
        """Those not named are 0."""
        if table.keys() - set(SPLITS):
            self.check_keys(table, SPLITS, "splits")
            return dict(SHARES)
        shares = {split: table.get(split, 0) for split in SPLITS}
        for split, share in shares.items():
            if not _is_number(share) or share < 0:
                what = f"the share of {split} is {share!r:.60}"
                self.add(("splits", split), what, "write a number of per cent, 0 or more")
                return dict(SHARES)
        if not math.isclose(total := sum(shares.values()), 100):
            remedy = "let them add up to 100 per cent; splits not named get none"
            self.add(("splits",), f"the shares add up to {total:g}", remedy)
            return dict(SHARES)
        return shares


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_bounds(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(map(_is_number, value))
        and value[0] < value[1]
    )
