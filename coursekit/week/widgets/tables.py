"""Results as tables: the comparison, the audit, the pre-flight checks, red flags."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from .page import FAULT, as_table

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from pandas.io.formats.style import Styler

    from ...preferences import Audit
    from ...training import Flag
    from ...training.checklist import Preflight


def comparison(table: pd.DataFrame) -> Styler:
    """`evaluation.comparison_table` for reading: two digits, the interval in one column.

    A difference whose interval leaves out zero is bold.
    """
    from ...common.markup import styled

    shown = table.drop(columns=["low", "high", "n", "p", "conclusion"]).rename_axis(None)
    shown["95 % interval"] = [
        f"{low:+.2f} to {high:+.2f}" for low, high in zip(table["low"], table["high"], strict=True)
    ]
    shown["p"] = [
        "" if p != p else "< 0.001" if p < 0.001 else f"{p:.3f}" for p in table["p"].tolist()
    ]
    shown["what it shows"] = table["conclusion"]
    clear = (table["low"] > 0) | (table["high"] < 0)
    texts = ["kind", "what it shows"]
    to_the_left = [
        {"selector": f"th.col{shown.columns.get_loc(name)}", "props": "text-align:left"}
        for name in texts
    ]
    candidate, baseline = table.attrs.get("candidate"), table.attrs.get("baseline")
    difference = f"difference: {candidate} over {baseline}; " if candidate and baseline else ""
    return (
        styled(shown)
        .format(precision=2, subset=list(shown.columns[1:-3]))
        .format("{:+.2f}", subset=["difference"])
        .apply(
            lambda column: ["font-weight:bold" if is_clear else "" for is_clear in clear],
            subset=["difference", "95 % interval"],
        )
        .set_properties(subset=texts, **{"text-align": "left"})
        .set_properties(subset=["95 % interval", "p"], **{"white-space": "nowrap"})
        .set_table_styles(to_the_left)
        .set_caption(
            f"{table['n'].iloc[0]} prompts; {escape(difference)}p: McNemar's exact test, for yes "
            "or no metrics"
        )
    )


def findings(audit: Audit) -> HTML:
    """The audit as a table: what was found, what it does to training, how to mend it.

    What passed, and what could not be measured, stands in a line below.
    """
    from IPython.display import HTML

    marks = {"fault": "✗ rows", "bias": "≠ bias"}
    lines = [
        (
            f'<span style="{FAULT};white-space:nowrap">{marks[item.outcome]}</span>',
            *(escape(text) for text in (item.check, item.found, item.effect, item.fix)),
        )
        for item in audit.problems
    ]
    head = ("", "check", "found", "what it does to training", "how to mend it")
    table = as_table(lines, head) if lines else "<p>✓ Nothing was found.</p>"
    rest = []
    for outcome, name in (("ok", "Passed"), ("not measured", "Not measured")):
        checks = [item.check for item in audit.findings if item.outcome == outcome]
        if checks:
            rest.append(f"<p style='font-size:12px'>{name}: {escape(', '.join(checks))}.</p>")
    return HTML(f"<p><b>{audit.n} triples</b></p>{table}{''.join(rest)}")


def checklist(found: Preflight) -> HTML:
    """The pre-flight checks: what was found, and where one failed, why it matters and the fix."""
    from IPython.display import HTML

    lines = []
    for check in found.checks:
        mark = "✓" if check.passed else f'<span style="{FAULT}">✗</span>'
        more = "" if check.passed else f"<br><i>{escape(check.why)}</i><br>→ {escape(check.fix)}"
        lines.append((mark, escape(check.name), escape(check.found) + more))
    verdict = "Ready to train." if found.passed else "Not ready: mend what is marked."
    return HTML(f"{as_table(lines, width=860)}<p><b>{verdict}</b></p>")


def flags(raised: Sequence[Flag]) -> HTML:
    """Red flags as a table, or the sentence that there is none."""
    from IPython.display import HTML

    if not raised:
        return HTML("<p>✓ No red flag.</p>")
    lines = []
    for flag in raised:
        name = escape(flag.name) + (" (harmless here)" if flag.harmless else "")
        style = "" if flag.harmless else f' style="{FAULT}"'
        lines.append(
            (
                f"<span{style}>{name}</span>",
                escape(str(flag.since)),
                *(escape(text) for text in (flag.certainty, flag.evidence, flag.advice)),
            )
        )
    head = ("flag", "since step", "certainty", "what was seen", "what to try")
    return HTML(as_table(lines, head))
