"""Results as tables: the comparison, the audit, the pre-flight checks, red flags."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from . import page
from .page import as_table

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from pandas.io.formats.style import Styler

    from ...preferences import Audit
    from ...training import Flag
    from ...training.checklist import Preflight


def head_tables() -> None:
    """From now on the tables that this kernel shows say what their headers head. Elsewhere: no-op.

    pandas' own leave out the `scope` by which a screen reader names a cell's row and column.
    """
    from IPython import get_ipython

    if shell := get_ipython():
        import pandas as pd

        from ...common.inline_table import with_scopes

        def shown(frame: pd.DataFrame) -> str | None:
            html = frame._repr_html_()  # nothing, if pandas is told to show text
            return html and with_scopes(html)

        shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, shown)


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
        .set_properties(subset=["what it shows"], **{"min-width": "15em"})  # else a word a line
        .set_caption(
            f"{table['n'].iloc[0]} prompts; {escape(difference)}p: McNemar's exact test, for yes "
            "or no metrics"
        )
    )


def win_rates(table: pd.DataFrame) -> Styler:
    """`lab.record.win_table` for reading: a line a curve, intervals beside their values.

    A difference that is shown, by its interval and by each seed, is bold.
    """
    import pandas as pd

    from ...common.markup import styled

    def with_interval(name: str, prefix: str, form: str) -> list[str]:
        ends = (table[column] for column in (name, f"{prefix}low", f"{prefix}high"))
        return [
            f"{value:{form}} ({low:{form}} to {high:{form}})"
            for value, low, high in zip(*ends, strict=True)
        ]

    shown = table[["curve"]].assign(**{"win rate over SFT": with_interval("win rate", "", ".1%")})
    clear = [False] * len(table)
    if "difference" in table:
        against = table["curve"] == table.attrs.get("against")
        found = with_interval("difference", "difference ", "+.1%")
        shown["difference"] = pd.Series(found, table.index).mask(against, "")
        clear = table["shown"]
    shown["true reward"], shown["KL, nats"] = table["reward"], table["kl"]
    shown["tokens"], shown["chosen, nats"] = table["length"], table["chosen"]
    bold = ["font-weight:bold" if is_clear else "" for is_clear in clear]
    return (
        styled(shown)
        .format("{:.3f}", subset=["true reward"])
        .format("{:.2f}", subset=["KL, nats"])
        .format("{:.0f}", subset=["tokens"])
        .format("{:+.1f}", subset=["chosen, nats"])
        .apply(lambda column: bold, subset=list(shown.columns.intersection(["difference"])))
        .hide(axis="index")
    )


def findings(audit: Audit) -> HTML:
    """The audit as a table: what was found, what it does to training, how to mend it.

    What passed, and what could not be measured, stands in a line below.
    """
    from IPython.display import HTML

    marks = {"fault": "✗\u00a0rows", "bias": "≠\u00a0bias"}
    lines = [
        (
            page.fault(marks[item.outcome]),
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
        mark = "✓" if check.passed else page.fault("✗")
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
        name = escape(flag.name)
        lines.append(
            (
                f"{name} (harmless here)" if flag.harmless else page.fault(f"✗ {name}"),
                escape(str(flag.since)),
                *(escape(text) for text in (flag.certainty, flag.evidence, flag.advice)),
            )
        )
    head = ("flag", "since step", "certainty", "what was seen", "what to try")
    return HTML(as_table(lines, head))
