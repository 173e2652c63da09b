"""The page: one HTML file that needs nothing beside it, asks nothing of a network, and reads
without scripts too; with them, DataTables (by `itables`) searches, pages and sorts.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from ...common.chance import drawn_number
from ...workspace import Workspace
from .facts import Fact, facts
from .gather import Glance, gather
from .pictures import pictures
from .rows import ANSWERS, PAIRS, Kind, samples_table

Row = TypeVar("Row")
PAGE = "explore.html"
MOST = 4_000_000  # bytes of a page, whatever the size of the run
_HEADS = 10_000  # bytes, more than headings, filters and headers of the two large tables take
_TITLES = {
    "numbers": "The numbers",
    "answers": "Answers, side by side",
    "pairs": "Preference pairs",
    "training": "Training",
}


def write_page(workspace: Workspace, path: str | Path | None = None) -> tuple[Path, Glance]:
    """Write the page of what is there of a run, `explore.html` in its folder if no path is given.

    Returns its place, and what it shows. Nothing else is written, and nothing is made.
    """
    glance = gather(workspace)
    path = Path(path or workspace.folder / PAGE)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A response may hold half a character, which no file can.
    path.write_bytes(page_of(glance).encode("utf-8", "replace"))
    return path, glance


def page_of(glance: Glance, most: int = MOST) -> str:
    """The page, of at most so many bytes: rows are left out where they would be more."""
    parts = {
        "numbers": "".join(_numbers(glance)),
        "training": "".join(_training(glance)),
    }
    found = _findings(glance)
    room = most - _size(_whole(glance, parts)) - _size(found) - _HEADS
    parts["answers"] = _section(ANSWERS, glance, glance.answers, room // 2)
    room -= _size(parts["answers"])
    parts["pairs"] = found + _section(PAIRS, glance, glance.pairs, room)
    return _whole(glance, parts)


def _size(html: str) -> int:
    """Bytes in the file."""
    return len(html.encode("utf-8", "replace"))


def in_short(glance: Glance) -> str:
    """The facts and the table as plain HTML, for where no page can be shown: without styles."""
    return f"<p>{_about(glance)}</p>{_facts(glance, links=False)}{''.join(_numbers(glance))}"


# The frame.


def _whole(glance: Glance, parts: dict[str, str]) -> str:
    title = f"A run at a glance: {escape(glance.workspace.task.title)}"
    filled = {name: parts[name] for name in _TITLES if parts.get(name)}
    links = "".join(f'<li><a href="#{name}">{_TITLES[name]}</a></li>' for name in filled)
    body = "".join(
        f'<section id="{name}"><h2>{_TITLES[name]}</h2>{html}</section>'
        for name, html in filled.items()
    )
    scripts = _scripts() if glance.answers or glance.pairs else ()
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_styles()}</style></head><body>"
        f'<header><h1>{title}</h1><p class="about">{_about(glance)}</p></header>'
        f'<nav aria-label="Parts of the page"><ul>{links}</ul></nav><main>'
        f'<section id="facts"><h2>Before you believe a number</h2>{_facts(glance)}</section>'
        f"{body}</main>{''.join(f'<script type=module>{code}</script>' for code in scripts)}"
        "</body></html>"
    )


def _about(glance: Glance) -> str:
    return "".join(
        f"<span>{escape(name)}: <b>{escape(text)}</b></span> "
        for name, text in glance.about.items()
    )


def _policy(scripts: Sequence[str]) -> str:
    """What the browser may do: run our scripts and no others, fetch nothing."""
    hashes = " ".join(
        f"'sha256-{b64encode(sha256(code.encode()).digest()).decode()}'" for code in scripts
    )
    allowed = hashes or "'none'"
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:"


@cache
def _scripts() -> tuple[str, str]:
    """DataTables as itables brings it, and what uses it here."""
    import itables.options

    source = Path(itables.options.dt_bundle).read_text(encoding="utf-8")
    # A module's export is of no use to a script in the same page: the name is what is wanted.
    exported = re.search(r"export\{[^}]*?([\w$]+) as default[^}]*\};?", source)
    if exported is None:
        raise ValueError("itables has another bundle than the pinned one: install requirements.txt")
    name = f"window.DataTable={exported[1]};"
    library = source[: exported.start()] + name + source[exported.end() :]
    return library.replace("</script", r"<\/script").replace("<!--", r"<\!--"), _file("explore.js")


@cache
def _styles() -> str:
    import itables.options

    library = Path(itables.options.dt_bundle).with_suffix(".css").read_text(encoding="utf-8")
    return library + _file("style.css")


def _file(name: str) -> str:
    return (files(__package__) / "files" / name).read_text(encoding="utf-8")


# Its parts.


def _facts(glance: Glance, links: bool = True) -> str:
    lines = "".join(_fact(fact, links) for fact in facts(glance))
    missing = "".join(f"<li>{escape(sentence)}</li>" for sentence in glance.missing)
    return (f'<ul class="facts">{lines}</ul>' if lines else "") + (
        f'<div class="note"><p>Not shown:</p><ul>{missing}</ul></div>' if missing else ""
    )


def _fact(fact: Fact, links: bool) -> str:
    mark, kind = ("⚑", "alarming") if fact.is_alarming else ("·", "plain")
    text = escape(fact.sentence)
    if links and fact.where:
        about = f'aria-label="look: {text}" data-only="{fact.only}"'
        text += f' <a href="#{fact.where}" {about}>look</a>'
    return f'<li class="{kind}"><span class="mark">{mark}</span>{text}</li>'


def _numbers(glance: Glance) -> Iterator[str]:
    """The evaluation as it was saved; from markdown, in which HTML is text."""
    import mistune

    if glance.record is None:
        return
    html = mistune.create_markdown(escape=True, plugins=["table"])
    for name, text in glance.record.sections.items():
        table = re.sub(r"<th\b", '<th scope="col"', html(text))
        yield f'<h3>{escape(name)}</h3><div class="scroll">{table}</div>'


def _training(glance: Glance) -> Iterator[str]:
    from ..widgets.tables import flags

    yield from pictures(glance)
    if glance.red_flags is not None:
        yield f'<h3>Red flags</h3><div class="scroll">{flags(glance.red_flags).data}</div>'
    if glance.samples:
        yield "<h3>The same prompts along training</h3>" + samples_table(glance.samples)


def _findings(glance: Glance) -> str:
    from ..widgets.tables import findings

    if glance.audit is None:
        return ""
    return (
        "<h3>What the audit found</h3>"
        f'<div class="scroll">{findings(glance.audit).data}</div><h3>All pairs</h3>'
    )


def _section(kind: Kind, glance: Glance, rows: Sequence[Row], room: int) -> str:
    """A table of as many rows as there is room for, with its filters."""
    if not rows:
        return ""
    cells = _fitting(rows, lambda row: kind.line(glance, row), room)
    left_out = (
        f'<p class="note">{len(cells):,} of {len(rows):,} are shown, as the page would be too '
        f"large: what is flagged or lost first, of the others as many at random as there is room "
        f"for. All of them are in {escape(kind.file)}.</p>"
        if len(cells) < len(rows)
        else ""
    )
    head = "".join(
        f'<th scope="col"{" class=plain" if place else ""}>{escape(name)}</th>'
        for place, name in enumerate(kind.head(glance))
    )
    return (
        f"<p>{kind.legend}</p>{left_out}{_filters(kind, rows)}"
        f'<table class="rows" aria-label="{kind.name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(cells)}</tbody></table>"
    )


def _filters(kind: Kind, rows: Sequence[Row]) -> str:
    boxes = []
    for name, (words, holds) in kind.filters.items():
        count = sum(map(holds, rows))
        off = "" if count else " disabled"
        box = f'<input type="checkbox" autocomplete="off" value="{name}"{off}>'
        boxes.append(f"<label>{box} {escape(words)} ({count:,})</label>")
    return f"<fieldset><legend>Show only:</legend>{''.join(boxes)}</fieldset>"


def _fitting(rows: Sequence[Row], line: Callable[[Row], str], room: int) -> list[str]:
    """Lines of HTML, in their order, that take no more than `room` bytes together.

    First those that a person has to see, then others as chance draws them.
    """
    lines: dict[int, str] = {}
    order = sorted(
        range(len(rows)), key=lambda place: (not rows[place].is_telling, drawn_number(str(place)))
    )
    for place in order:
        found = line(rows[place])
        room -= _size(found)
        if room < 0:
            break
        lines[place] = found
    return [lines[place] for place in sorted(lines)]
