"""What a notebook shows and asks: reports side by side, strips of tokens, predictions, claims."""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ..tasks import Task
from ..workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from ipywidgets import Widget
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

    from ..evaluation.judges.person import Labelling
    from ..preferences import Audit
    from ..training import Flag
    from ..training.checklist import Preflight
    from .bandit import World
    from .gallery import Recorded

_CELL = "vertical-align:top;text-align:left;padding:6px 12px;border:1px solid #8884"
_TEXT = (
    "white-space:pre-wrap;word-break:normal;margin:0;font-size:12px;line-height:1.5;"
    "text-align:left;background:transparent"
)
_FAULT = "color:#D55E00;font-weight:bold"
_CHANGED = "border-left:3px solid #0072B2;padding-left:4px"


def side_by_side(
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    responses: Mapping[str, Sequence[str]],
    changes: bool = False,
) -> HTML:
    """A table with a line for each row: what it asks, then each model's response.

    Where the task knows the truth, a line of a response that has a fault is marked with ✗ and
    coloured, and below each response stands its overall score.

    Args:
        rows: N rows of the task.
        responses: N responses under each model's name.
        changes: set off the lines that the model in the column before did not write.
    """
    from IPython.display import HTML

    width = f"width:{100 / (len(responses) + 1):.0f}%"
    head = "".join(
        f'<th style="{_CELL};{width}">{escape(name)}</th>' for name in (task.asked, *responses)
    )
    body = []
    for index, row in enumerate(rows):
        cells = [f'<td style="{_CELL}"><pre style="{_TEXT}">{escape(task.shown(row))}</pre></td>']
        before: str | None = None
        for texts in responses.values():
            cells.append(_response_cell(task, row, texts[index], before if changes else None))
            before = texts[index]
        body.append(f"<tr>{''.join(cells)}</tr>")
    legend = [f'<span style="{_FAULT}">✗</span> marks a fault'] * ("✗" in "".join(body))
    legend += [f'<span style="{_CHANGED}">a bar</span> marks what has changed'] * changes
    return HTML(
        f'<table style="border-collapse:collapse;max-width:1000px"><tr>{head}</tr>'
        f"{''.join(body)}</table>"
        + (f'<p style="font-size:12px">{"; ".join(legend)}.</p>' if legend else "")
    )


def _response_cell(task: Task, row: Mapping[str, Any], text: str, before: str | None) -> str:
    score = f"score {task.truth(row, text):.2f}" if task.knows_truth else ""
    return (
        f'<td style="{_CELL}"><pre style="{_TEXT}">{_marked(task, row, text, before)}</pre>'
        f'<div style="margin-top:6px;font-size:12px">{score}</div></td>'
    )


def _marked(task: Task, row: Mapping[str, Any], text: str, before: str | None = None) -> str:
    """The response's lines: faults marked, and with `before` those that it did not have set off."""
    faults = task.faults(row, text)
    known = set(text.split("\n") if before is None else before.split("\n"))
    lines = []
    for line in text.split("\n"):
        shown = (
            f'<span style="{_FAULT}">✗ {escape(line)}</span>' if line in faults else escape(line)
        )
        lines.append(shown if line in known else f'<span style="{_CHANGED}">{shown}</span>')
    return "\n".join(lines)


def pager(
    task: Task, rows: Sequence[Mapping[str, Any]], responses: Mapping[str, Sequence[str]]
) -> Widget:
    """Page through `side_by_side`, one row at a time, changes set off. Needs a running kernel.

    Arrow keys move the slider when it has the focus. Returns the slider.
    """
    from IPython.display import clear_output, display
    from ipywidgets import IntSlider, Output, VBox

    slider = IntSlider(value=1, min=1, max=len(rows), description="prompt", continuous_update=False)
    panel = Output()

    def draw(_=None) -> None:
        at = slider.value - 1
        shown = {name: texts[at : at + 1] for name, texts in responses.items()}
        with panel:
            clear_output(wait=True)
            display(side_by_side(task, rows[at : at + 1], shown, changes=True))

    slider.observe(draw, names="value")
    draw()
    _show_widget(VBox([slider, panel]), "Run this cell to page through the answers.")
    return slider


# Keys for who labels, and what they do.
_KEYS = {"1": "left", "2": "right", "3": "tie", "t": "tie", "s": "skip", "u": "undo"}


def label_pairs(work: Labelling, rubric: str = "") -> Widget:
    """Label pairs: two responses side by side, 1 or 2 for the better, 3 a tie, s skip, u undo.

    Plain ipywidgets, so that it works in JupyterLab, Colab and VS Code; without a mouse: type into
    the box, or go through the buttons with Tab. Every label is saved at once, so it may be left and
    called again at any time. Needs a running kernel. Returns the widget.

    rubric: markdown, to unfold beside the pairs.
    """
    from ipywidgets import HTML, Button, HBox, Text, VBox

    from ..common.prompts import as_text

    head, pair = HTML(), HTML()
    keys = Text(placeholder="1, 2, 3 (tie), s (skip), u (undo)", description="keys")
    names = {"1": "1: left", "2": "2: right", "3": "3: tie", "s": "s: skip", "u": "u: undo"}
    buttons = {key: Button(description=name) for key, name in names.items()}

    def draw() -> None:
        shown = work.current
        head.value = f"<b>{work.done} of {len(work.items)} pairs labelled</b>, saved"
        if shown is None:
            pair.value = "<p>✓ All pairs have a label. Thank you.</p>"
            return
        texts = [
            f'<td style="{_CELL};width:33%"><pre style="{_TEXT}">{escape(text)}</pre></td>'
            for text in (as_text(shown.row["prompt"]), shown.left, shown.right)
        ]
        titles = "".join(f'<th style="{_CELL}">{name}</th>' for name in ("prompt", "1", "2"))
        pair.value = (
            '<table style="border-collapse:collapse;width:100%;max-width:1000px">'
            f"<tr>{titles}</tr><tr>{''.join(texts)}</tr></table>"
        )

    def act(key: str) -> None:
        action = _KEYS.get(key.lower())
        if action == "undo":
            work.undo()
        elif action and work.current:
            work.label(action)
        draw()

    def typed(change) -> None:
        # The box keeps what was typed: emptied from here, it would race with who types on.
        if change["new"].startswith(change["old"]):
            for key in change["new"][len(change["old"]) :]:
                act(key)

    keys.observe(typed, names="value")
    for key, button in buttons.items():
        button.on_click(lambda _, key=key: act(key))
    draw()
    parts = [head, pair, keys, HBox(list(buttons.values()))]
    if rubric:
        parts.append(
            HTML(
                "<details><summary>The rubric</summary>"
                f'<pre style="{_TEXT};max-width:760px">{escape(rubric)}</pre></details>'
            )
        )
    box = VBox(parts)
    _show_widget(box, "Run this cell to label pairs.")
    return box


def comparison(table: pd.DataFrame) -> Styler:
    """`evaluation.comparison_table` for reading: two digits, the interval in one column.

    A difference whose interval leaves out zero is bold.
    """
    from ..common.markup import styled

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
            f'<span style="{_FAULT};white-space:nowrap">{marks[item.outcome]}</span>',
            *(escape(text) for text in (item.check, item.found, item.effect, item.fix)),
        )
        for item in audit.problems
    ]
    head = ("", "check", "found", "what it does to training", "how to mend it")
    table = _table(lines, head) if lines else "<p>✓ Nothing was found.</p>"
    rest = []
    for outcome, name in (("ok", "Passed"), ("not measured", "Not measured")):
        checks = [item.check for item in audit.findings if item.outcome == outcome]
        if checks:
            rest.append(f"<p style='font-size:12px'>{name}: {escape(', '.join(checks))}.</p>")
    return HTML(f"<p><b>{audit.n} triples</b></p>{table}{''.join(rest)}")


def _table(lines: Sequence[Sequence[str]], head: Sequence[str] = (), width: int = 1000) -> str:
    """A table of cells that are HTML already, in small print, `width` pixels at most."""
    top = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells) + "</tr>"
        for cells in lines
    )
    return (
        f'<table style="border-collapse:collapse;max-width:{width}px;font-size:12px">'
        f"{f'<tr>{top}</tr>' if head else ''}{body}</table>"
    )


def checklist(found: Preflight) -> HTML:
    """The pre-flight checks: what was found, and where one failed, why it matters and the fix."""
    from IPython.display import HTML

    lines = []
    for check in found.checks:
        mark = "✓" if check.passed else f'<span style="{_FAULT}">✗</span>'
        more = "" if check.passed else f"<br><i>{escape(check.why)}</i><br>→ {escape(check.fix)}"
        lines.append((mark, escape(check.name), escape(check.found) + more))
    verdict = "Ready to train." if found.passed else "Not ready: mend what is marked."
    return HTML(f"{_table(lines, width=860)}<p><b>{verdict}</b></p>")


def flags(raised: Sequence[Flag]) -> HTML:
    """Red flags as a table, or the sentence that there is none."""
    from IPython.display import HTML

    if not raised:
        return HTML("<p>✓ No red flag.</p>")
    lines = []
    for flag in raised:
        name = escape(flag.name) + (" (harmless here)" if flag.harmless else "")
        style = "" if flag.harmless else f' style="{_FAULT}"'
        lines.append(
            (
                f"<span{style}>{name}</span>",
                escape(str(flag.since)),
                *(escape(text) for text in (flag.certainty, flag.evidence, flag.advice)),
            )
        )
    head = ("flag", "since step", "certainty", "what was seen", "what to try")
    return HTML(_table(lines, head))


def live(plot: Callable[[pd.DataFrame], Figure]) -> Callable[[pd.DataFrame], None]:
    """A figure that is redrawn in place, for `Monitor(show=live(plot_monitor))`.

    It appears in the output of the cell that calls `live`. When the run ends the last picture
    stays, as a plain one. Outside a notebook nothing is drawn.
    """
    from IPython.display import HTML, Image, display

    from ..common.progress import in_notebook

    if not in_notebook():
        return lambda metrics: None
    handle = display(HTML(""), display_id=True)

    def show(metrics: pd.DataFrame) -> None:
        picture = BytesIO()
        plot(metrics).savefig(picture, format="png")  # IPython would draw it twice to trim it
        handle.update(Image(picture.getvalue()))

    return show


def exhibits(cases: Mapping[str, Recorded], row: Mapping[str, Any], place: int) -> HTML:
    """Recorded runs under each other: curves, an answer, scores; what is wrong folds away.

    Args:
        cases: runs with `end`, by the letter to call them. row: the recorded task's row whose
            answer is shown. place: of that row among those whose answers were recorded.
    """
    from IPython.display import HTML

    return HTML("".join(_exhibit(letter, run, row, place) for letter, run in cases.items()))


def _exhibit(letter: str, run: Recorded, row: Mapping[str, Any], place: int) -> str:
    from ..training import red_flags
    from .figures.results import plot_exhibit
    from .gallery import RECORDED_TASK

    picture = BytesIO()
    plot_exhibit(run.metrics).savefig(picture, format="png", dpi=90)
    image = b64encode(picture.getvalue()).decode()
    end, letter = run.end, escape(letter)
    scores = _table(
        [
            (
                escape(metric),
                *(
                    f"{end.scores[model][metric]:.{0 if metric == 'length' else 2}f}"
                    for model in ("SFT", "this run")
                ),
            )
            for metric in end.scores["SFT"]
        ],
        ("", "SFT", "this run"),
    )
    won, low, high = end.win_rate
    raised = [flag for flag in red_flags(run.metrics, run.beta) if not flag.harmless]
    named = "; ".join(f"{flag.name} since step {flag.since} ({flag.certainty})" for flag in raised)
    part = "flex:1 1 230px;max-width:360px"
    return (
        '<div style="border-top:2px solid #8888;padding:6px 0;max-width:1000px">'
        f'<b>Run {letter}</b><img style="width:100%;background:#fff" alt="Run {letter}: margin, '
        'pairs ranked right, KL, entropy and length, and wins over SFT, by step" '
        f'src="data:image/png;base64,{image}">'
        '<div style="display:flex;gap:24px;flex-wrap:wrap;align-items:flex-start">'
        f'<div style="{part}"><pre style="{_TEXT}">{escape(RECORDED_TASK.shown(row))}</pre></div>'
        f'<div style="{part}"><pre style="{_TEXT}">'
        f"{_marked(RECORDED_TASK, row, end.answers['this run'][place])}</pre></div>"
        f"<div>{scores}<p style='font-size:12px'>wins over SFT: {won:.0%} ({low:.0%} to {high:.0%})"
        f"</p></div></div><details style='margin:6px 0'><summary>What is wrong with run {letter}?"
        f'</summary><p style="margin:4px 18px"><b>{escape(run.condition.name)}.</b> '
        f"{_emphasised(run.condition.story)}<br><i>Red flags: {escape(named or 'none')}.</i></p>"
        "</details></div>"
    )


def _emphasised(text: str) -> str:
    return re.sub(r"\*(.+?)\*", r"<em>\1</em>", escape(text))


def token_strip(tokens: Sequence[str], logps: Sequence[float], skip: int = 0) -> HTML:
    """Tokens in a row, each on a colour that says how likely the model found it.

    Args:
        tokens: T texts.
        logps: T - 1 log-probabilities in nats: of each token but the first, given those before it.
        skip: the first `skip` tokens (the prompt) are grey: their probabilities do not count.
    """
    from IPython.display import HTML

    pieces = []
    for index, token in enumerate(tokens):
        shown = escape(token).replace("\n", "↵").replace(" ", "&nbsp;") or "∅"
        line_ends = "<br>" if "\n" in token and index >= skip else ""
        style = "padding:1px 2px;margin:1px;border-radius:3px;display:inline-block"
        if index < skip or index == 0:
            pieces.append(f'<span style="{style};color:#888">{shown}</span>')
            continue
        probability = math.exp(logps[index - 1])
        # From orange (unlikely) to white (certain): light throughout, so that black text reads.
        style += f";color:#000;background:rgba(230,159,0,{0.85 * (1 - probability):.2f})"
        title = f"p = {probability:.3f}, log p = {logps[index - 1]:.2f}"
        pieces.append(
            f'<span style="{style}" title="{title}">{shown}'
            f'<sub style="font-size:8px;color:#333">{probability:.2f}</sub></span>{line_ends}'
        )
    return HTML(
        '<div style="font:13px monospace;line-height:2;background:#fff;padding:8px">'
        + "".join(pieces)
        + "</div>"
        '<p style="font-size:12px">Grey: the prompt. The small number is each token\'s probability '
        "given all before it; the stronger the orange, the less likely.</p>"
    )


class Prediction:
    """What a learner expects, before a cell shows it. Made by `predict`, looked at by `held`."""

    def __init__(self, question: str, options: Sequence[str], choice: str | None) -> None:
        self.question, self.options, self.choice = question, list(options), choice


def predict(question: str, options: Sequence[str], choice: str | None = None) -> Prediction:
    """Ask for a prediction: click an option, or, where widgets do not work, pass `choice`.

    Raises ValueError for a `choice` that is none of the options.
    """
    from ipywidgets import HTML, RadioButtons, VBox

    if choice is not None and choice not in options:
        raise ValueError(f"{choice!r} is none of the options: {', '.join(map(repr, options))}")
    prediction = Prediction(question, options, choice)
    buttons = RadioButtons(
        options=list(options), value=choice, layout={"width": "max-content"}, disabled=False
    )

    def chosen(change) -> None:
        prediction.choice = change["new"]

    buttons.observe(chosen, names="value")
    print(f"Predict: {question}")
    print(
        "  " + "   ".join(f"({letter}) {o}" for letter, o in zip("abcdef", options, strict=False))
    )
    _show_widget(
        VBox([HTML("<b>Your prediction</b>"), buttons]),
        'To answer, run this cell and click, or add choice="..." to the call.',
    )
    return prediction


def _show_widget(widget: Widget, instead: str) -> None:
    """Display `widget`; where widgets do not work (a page, a saved notebook) the text `instead`."""
    from IPython.display import display

    # Spelt out: ipywidgets 8 would give it by `_repr_mimebundle_`, which ipywidgets 7 (Colab's)
    # does not have.
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    bundle = {"application/vnd.jupyter.widget-view+json": view, "text/plain": instead}
    display(bundle, raw=True)


def held(prediction: Prediction, truth: str, evidence: str) -> None:
    """Say what came out, and whether the prediction held.

    `truth`: the option that this run shows, computed by the cell. Raises ValueError if it is none.
    """
    if truth not in prediction.options:
        raise ValueError(f"{truth!r} is none of the options: {', '.join(prediction.options)}")
    print(f"{prediction.question}\n→ {truth}: {evidence}")
    if prediction.choice is None:
        print("(You made no prediction.)")
    elif prediction.choice == truth:
        print("✓ Your prediction held.")
    else:
        print(f"✗ You predicted: {prediction.choice}. Why was it otherwise?")


def quiz(questions: Sequence[tuple[str, str]]) -> HTML:
    """Questions whose answers fold away."""
    from IPython.display import HTML

    return HTML(
        "".join(
            f'<details style="margin:6px 0"><summary>{escape(question)}</summary>'
            f'<p style="margin:4px 18px">{escape(answer)}</p></details>'
            for question, answer in questions
        )
    )


def claim(holds: bool, sentence: str) -> None:
    """State a result of this run and check it.

    What does not hold is a finding, and is shown as one; but on the course's own run, where it was
    seen to hold (`is_the_courses_own`), it is a fault, and raises AssertionError.
    """
    if holds:
        print(f"✓ {sentence}")
    elif Workspace().is_the_courses_own:
        raise AssertionError(f"This run does not show it: {sentence}")
    else:
        print(f"✗ This run does not show it: {sentence}")


def beta_slider(world: World, prompt: int = 0) -> None:
    """A slider for beta: the optimum at one prompt and its place on the frontier.

    Needs a running kernel; the static figures beside it show the same.
    """
    import matplotlib.pyplot as plt
    from IPython.display import clear_output, display
    from ipywidgets import FloatLogSlider, Output, VBox

    from .figures.results import STYLE
    from .figures.theory import draw_optimum

    slider = FloatLogSlider(value=1.0, base=10, min=-1.3, max=1.3, step=0.05, description="beta")
    panel = Output()

    def draw(_=None) -> None:
        with panel, plt.rc_context(STYLE):
            clear_output(wait=True)
            figure, axes = plt.subplots(figsize=(5, 2.8))
            draw_optimum(axes, world, slider.value, prompt)
            axes.legend(loc="upper left")
            plt.close(figure)
            display(figure)

    slider.observe(draw, names="value")
    draw()
    _show_widget(VBox([slider, panel]), "Run this cell to move beta.")
