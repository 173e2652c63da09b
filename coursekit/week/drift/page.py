"""Findings on a terminal, and as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from html import escape

from ...common.hypertext import html_page
from .compare import KINDS, Comparison, Finding

SHOWN = 4  # findings of a kind on a terminal; the page has all

_STYLE = """
.finding { border-left: 4px solid #D55E00; padding: 2px 12px; margin: 12px 0 }
.noise { border-color: #8888 }
.two { display: flex; flex-wrap: wrap; gap: 12px }
.two > * { flex: 1 1 45%; min-width: 0 }
pre { background: #8881; padding: 6px; margin: 2px 0 }
"""


def in_short(comparison: Comparison) -> str:
    """What drifted, a line for each of the first of its kind; one line if nothing did."""
    counts = _counts(comparison)
    drift, noise = comparison.drift, len(comparison.findings) - len(comparison.drift)
    if not drift:
        said = f"nothing but noise (small differences: {noise})" if noise else "as shipped"
        return f"{comparison.session}: {said}; compared: {counts}"
    lines = [f"{comparison.session}: DRIFT; compared: {counts}"]
    for kind, title in KINDS.items():
        found = [finding for finding in drift if finding.kind == kind]
        if found:
            lines.append(f"  {title}: {len(found)}")
            lines += [f"    {_line(finding)}" for finding in found[:SHOWN]]
            lines += [f"    and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "\n".join(lines)


def _counts(comparison: Comparison) -> str:
    parts = (f"{n} {what if n != 1 else what[:-1]}" for what, n in comparison.counts.items())
    return ", ".join(parts)


def _line(finding: Finding) -> str:
    was, now = _first(finding.before), _first(finding.after)
    if finding.kind == "number" and finding.note:  # it has both numbers
        what = f"{finding.note}: {now}" if now else finding.note
    elif finding.kind == "cell":
        what = f"{finding.note}: {now or was}"
    elif was or now:
        what = f"{was or '(nothing)'}  →  {now or '(nothing)'}"
        what += f"  ({finding.note})" if finding.note else ""
    else:
        what = finding.note
    return f"{finding.where}: {what}"


def _first(text: str) -> str:
    """The first line, not too long."""
    line = text.partition("\n")[0]
    return line if len(line) <= 100 else f"{line[:99]}…"


def page(comparisons: Sequence[Comparison]) -> str:
    """All findings, those that are noise folded away, with both pictures where one differs."""
    sections = [(each.session, "".join(_session(each))) for each in comparisons]
    return html_page("What changed since the notebooks were shipped", sections, style=_STYLE)


def _session(comparison: Comparison) -> Iterator[str]:
    yield f"<p>Compared: {_counts(comparison)}.</p>"
    drift = comparison.drift
    for kind, title in KINDS.items():
        if found := [finding for finding in drift if finding.kind == kind]:
            yield f"<h3>{title.capitalize()}: {len(found)}</h3>" + "".join(map(_finding, found))
    noise = [finding for finding in comparison.findings if finding.noise]
    if not drift:
        yield "<p>Nothing but noise.</p>" if noise else "<p>As shipped.</p>"
    if noise:
        yield f"<details><summary>Small differences, taken for noise: {len(noise)}</summary>"
        yield "".join(map(_finding, noise)) + "</details>"


def _finding(finding: Finding) -> str:
    head = f"<b>{escape(finding.where)}</b> {escape(finding.note)}"
    sides = ""
    if finding.before or finding.after:
        texts = zip(("shipped", "now"), (finding.before, finding.after), strict=True)
        sides = "".join(f"<div>{name}<pre>{escape(text)}</pre></div>" for name, text in texts)
    if any(finding.pictures):
        sides += "".join(map(_picture, ("shipped", "now"), finding.pictures))
    style = "finding noise" if finding.noise else "finding"
    return f'<div class="{style}">{head}<div class="two">{sides}</div></div>'


def _picture(name: str, png: bytes | None) -> str:
    if png is None:
        return f"<figure><figcaption>{name}: no figure</figcaption></figure>"
    data = base64.b64encode(png).decode("ascii")
    return (
        f"<figure><figcaption>{name}</figcaption>"
        f'<img alt="the figure, {name}" src="data:image/png;base64,{data}"></figure>'
    )
