"""Every check can fail, and none is fooled: right answers pass, wrong ones hear what is wrong."""

from __future__ import annotations

import ast
import math
import re
import textwrap
import time
from functools import cache

import jupytext
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from right_answers import RIGHT
from wrong_answers import WRONG

from coursekit.week.exercises import Exercise, Mistake, session_a, session_b, session_c
from coursekit.week.exercises.exercise import GOES_ON

SESSIONS = {
    "A_paper_math": session_a.EXERCISES,
    "B_preferences_and_training": session_b.EXERCISES,
    "C_three_way_eval": session_c.EXERCISES,
}
ALL = session_a.EXERCISES | session_b.EXERCISES | session_c.EXERCISES
SEEDS = (0, 1, 2)  # 0 is the check's own


def stub(*arguments):
    raise NotImplementedError


# The notebooks: their stubs, and the names that stand when one comes to a stub.


@cache
def cells(session: str) -> list[str]:
    """Code cells of a session, without the marks of those that need something."""
    found = jupytext.read(ROOT / "notebooks" / f"{session}.py").cells
    return [re.sub(r"^%%needs.*\n", "", c.source) for c in found if c.cell_type == "code"]


def where(name: str) -> tuple[str, int]:
    """The session of an exercise, and which of its cells holds the stub."""
    session = next(session for session, exercises in SESSIONS.items() if name in exercises)
    (place,) = [i for i, cell in enumerate(cells(session)) if f"def {name}(" in cell]
    return session, place


def stub_of(name: str) -> ast.FunctionDef:
    session, place = where(name)
    functions = [node for node in ast.parse(cells(session)[place]).body if hasattr(node, "args")]
    return next(node for node in functions if node.name == name)


@cache
def imported(session: str, place: int) -> dict:
    """What the cells of `session` before `place` have imported."""
    imports = [
        node
        for cell in cells(session)[:place]
        for node in ast.parse("\n".join(s for s in cell.splitlines() if s[:1] not in "%!")).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    names: dict = {}
    exec(compile(ast.Module(imports, []), session, "exec"), names)
    return names


def written(name: str, source: str) -> str:
    """The stub with `source` in place of its body: as a learner leaves it."""
    body = textwrap.dedent(source).strip()
    body = body if "return" in body else f"return {body}"
    return f"def {name}({ast.unparse(stub_of(name).args)}):\n{textwrap.indent(body, '    ')}"


def run(name: str, code: str, **more):
    """The function `name` that `code` makes of the notebook's names, and `more`."""
    names = {**imported(*where(name)), **more}
    exec(code, names)
    return names[name]


def answer(name: str, source: str):
    """A learner's function; whoever needs `math` or `F` has imported them."""
    return run(name, written(name, source), math=math, torch=torch, F=F, pd=pd)


def each(answers: dict) -> list:
    """One case for each answer, with a readable name."""
    return [
        pytest.param(name, entry, id=f"{name}-{index}")
        for name, entries in answers.items()
        for index, entry in enumerate(entries)
    ]


def test_there_are_enough():
    assert len(session_a.EXERCISES) >= 8 and len(session_b.EXERCISES) >= 4
    assert len(session_c.EXERCISES) >= 5
    assert len(ALL) == sum(map(len, SESSIONS.values()))  # no name twice
    assert set(ALL) == set(WRONG) == set(RIGHT)
    assert all(len(wrong) >= 9 for wrong in WRONG.values())
    assert all(len(right) >= 2 for right in RIGHT.values())
    assert sum(map(len, WRONG.values())) >= 250


# Solutions and hints run where they are pasted.


@pytest.mark.parametrize("name", ALL)
def test_the_solution_can_be_pasted_over_the_stub(name):
    """Alone, among the notebook's own imports; and it has the stub's name and arguments."""
    pasted = run(name, ALL[name].code())
    assert pasted is not ALL[name].solution
    assert ALL[name].judge(pasted).state == "correct"
    (solution,) = [node for node in ast.parse(ALL[name].code()).body if hasattr(node, "args")]
    assert ast.unparse(solution.args) == ast.unparse(stub_of(name).args)
    assert ast.unparse(solution.returns) == ast.unparse(stub_of(name).returns)


@pytest.mark.parametrize("name", ALL)
def test_the_hints_code_runs(name):
    """One piece after another, in the notebook, with the arguments of the first test input."""
    pieces = re.findall(r"`([^`]+)`", ALL[name].hint)
    assert pieces
    names = {**imported(*where(name)), **ALL[name].inputs()[0]}
    for piece in pieces:
        exec(piece, names)


def test_a_solution_brings_what_it_imports_and_no_more():
    code = session_b.leaked.code()
    assert code.startswith("import re\n\n\ndef leaked(train: list[str]")
    assert "@exercise" not in code and "torch" not in code
    assert session_a.dpo_loss.code().splitlines()[:2] == [
        "import torch",
        "import torch.nn.functional as F",
    ]


# Right answers pass.


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ALL)
def test_solution_passes(name, seed):
    assert ALL[name].judge(ALL[name].solution, seed).state == "correct"


@pytest.mark.parametrize(("name", "source"), each(RIGHT))
def test_a_right_answer_in_another_style_passes(name, source):
    for seed in SEEDS:
        outcome = ALL[name].judge(answer(name, source), seed)
        assert outcome.state == "correct", outcome


def test_an_answer_that_changes_its_input_does_not_spoil_the_check():
    def without_missing(preferences):
        while None in preferences:
            preferences.remove(None)
        return session_c.win_rate_of.solution(preferences)

    assert session_c.win_rate_of.judge(without_missing).state == "correct"
    assert session_c.win_rate_of.judge(session_c.win_rate_of.solution).state == "correct"


# Wrong answers do not, and hear why.


@pytest.mark.parametrize(("name", "wrong"), each(WRONG))
def test_a_wrong_answer_is_told_what_is_wrong(name, wrong):
    source, fragment = wrong
    for seed in SEEDS:
        outcome = ALL[name].judge(answer(name, source), seed)
        assert outcome.state == "wrong"
        assert fragment in " ".join((outcome.message, *outcome.evidence)), outcome


MISTAKES = [(name, i) for name, exercise in ALL.items() for i in range(len(exercise.mistakes))]
RAISE = ("torch.quantile wants the quantiles in the dtype", "None - 1 is no number")


@pytest.mark.parametrize(("name", "index"), MISTAKES)
def test_each_mistake_fails_with_the_message_that_fits(name, index, capsys):
    exercise = ALL[name]
    mistake = exercise.mistakes[index]
    for seed in SEEDS:
        outcome = exercise.judge(mistake.answer, seed)
        assert outcome.state == "wrong"
        assert outcome.message == mistake.message  # and not that of another mistake
        raised = any("it raises" in line for line in outcome.evidence)
        assert raised == mistake.message.startswith(RAISE)  # no other raises, by accident
    assert exercise.check(mistake.answer) is exercise.solution
    assert "✗" in capsys.readouterr().out


@pytest.mark.parametrize("name", ALL)
def test_untouched_stub_is_not_attempted(name, capsys):
    assert ALL[name].judge(stub).state == "not attempted"
    assert ALL[name].check(stub) is ALL[name].solution
    assert "not attempted yet" in capsys.readouterr().out


@pytest.mark.parametrize("name", ALL)
def test_other_wrong_answers_fail_too(name):
    """Answers that nobody foresaw: nothing, a word, a constant, noise, the wrong shape, a crash."""
    exercise = ALL[name]
    right = torch.as_tensor(exercise.solution(*exercise.inputs()[0].values()))
    answers = {
        "returns None": lambda *_: None,
        "not numbers": lambda *_: "ln 2",
        "got 0": lambda *_: torch.zeros_like(right),
        "expected": lambda *a: torch.as_tensor(exercise.solution(*a)) * 1.001,
        "shape": lambda *a: torch.as_tensor(exercise.solution(*a))[..., None],
        "ZeroDivisionError": lambda *_: 1 / 0,
    }
    for message, wrong in answers.items():
        outcome = exercise.judge(wrong)
        assert outcome.state == "wrong"
        assert message in " ".join((outcome.message, *outcome.evidence)), outcome


@pytest.mark.parametrize("name", [name for name, exercise in ALL.items() if exercise.gradients])
def test_gradients_are_compared_where_they_count(name):
    exercise = ALL[name]
    outcome = exercise.judge(lambda *a: exercise.solution(*a).detach())
    assert outcome.state == "wrong" and f"no gradient reaches `{exercise.gradients[0]}`" in (
        outcome.message
    )
    doubled = lambda *a: 2 * exercise.solution(*a) - exercise.solution(*a).detach()  # noqa: E731
    outcome = exercise.judge(doubled)
    assert "its gradient with respect to" in outcome.message


# What a refusal shows.


def test_a_refusal_shows_input_first_difference_and_what_goes_on(capsys):
    wrong = answer("dpo_loss", "-F.logsigmoid(beta * (policy_chosen - policy_rejected))")
    session_a.dpo_loss.check(wrong)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("✗ the DPO loss: the reference is missing")
    assert lines[1:6] == [
        "policy_chosen = [-10, -31, -20]",
        "policy_rejected = [-12, -30, -60]",
        "reference_chosen = [-11, -30, -25]",
        "reference_rejected = [-11.5, -33, -40]",
        "beta = 0.1",
    ]
    got, expected = math.log1p(math.exp(-0.2)), math.log1p(math.exp(-0.15))
    assert lines[6] == f"got {got:.6g}, expected {expected:.6g} (the first that differs, at [0])."
    assert lines[7:] == [GOES_ON]


def test_the_learners_prints_are_shown_once(capsys):
    def answer(sd, half_width):
        print(f"sd is {sd:.2f}")
        return math.ceil((1.96 * sd / half_width) ** 2) + (half_width == 0.1)

    assert session_c.prompts_for.check(answer) is session_c.prompts_for.solution
    out = capsys.readouterr().out
    assert out.count("sd is") == 1 and "sd is 0.50" in out  # that of the input that is shown
    assert "half_width = 0.1" in out

    def right(sd, half_width):
        print("asked")
        return session_c.prompts_for.solution(sd, half_width)

    assert session_c.prompts_for.check(right) is right
    assert capsys.readouterr().out.count("asked") == 1


def test_an_error_is_shown_with_its_line(tmp_path):
    path = tmp_path / "cell.py"
    path.write_text("def answer(sd, half_width):\n    return sd / (sd - sd)\n", encoding="utf-8")
    names: dict = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    outcome = session_c.prompts_for.judge(names["answer"])
    assert outcome.message == (
        "it raises ZeroDivisionError: float division by zero, at `return sd / (sd - sd)`"
    )
    assert outcome.evidence == ("sd = 0.35", "half_width = 0.05")


def test_long_inputs_are_shown_by_their_shape():
    outcome = session_c.bootstrap_interval.judge(lambda values, picks: values[:2])
    assert "picks = a tensor of shape (200, 8)" in outcome.evidence
    assert any(line.startswith("values = [0, 0, 0.25, -0.25") for line in outcome.evidence)


def _twice(mistakes, solution=lambda x: 2 * x) -> Exercise:
    return Exercise(
        solution=solution,
        title="double",
        task="",
        difficulty=1,
        importance=1,
        minutes=1,
        hint="",
        cases=lambda draw: [(torch.tensor(2.0),), (torch.tensor(3.5),)],
        mistakes=mistakes,
    )


def test_a_known_mistake_is_named_only_if_it_fits_every_case():
    exercise = _twice([Mistake(lambda x: x + x**2, "squared")])
    assert exercise.judge(lambda x: x + x**2).message == "squared"
    assert exercise.judge(lambda x: x + 4).message == "got 6, expected 4."
    assert exercise.judge(lambda x: 6.0).message.startswith("the answer is the same whatever `x`")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: -2 * x, "negated"),
        (lambda x: torch.exp(2 * x), "exp of what is asked for"),
        (lambda x: torch.log(2 * x), "the logarithm of what is asked for"),
        (lambda x: 2 * x / math.log(2), "in bits"),
        (lambda x: 1 - 2 * x, "1 minus"),
        (lambda x: 200 * x, "in per cent"),
        (lambda x: 2.01 * x, "nearly right"),
        (lambda x: 2 * x + torch.log(x - 10), "inf or nan"),
    ],
)
def test_mistakes_that_any_exercise_may_meet(wrong, message):
    exercise = _twice([], lambda x: 2 * x + 0.1)
    assert message in exercise.judge(lambda x: wrong(x + 0.05)).message


# The card, the oracle, the time.


def test_cards_show_task_hint_and_solution():
    for name, exercise in ALL.items():
        html = exercise.card().data
        assert "<details" in html and "Solution" in html and f"{exercise.minutes} minutes" in html
        assert f"def {name}(" in html and "return" in html and "<code>" in html
        assert "`" not in html and "@exercise" not in html
        assert exercise.difficulty in range(1, 6) and exercise.importance in range(1, 6)


def test_solutions_by_hand():
    """The oracle itself, against the formulas written with `math` on single numbers."""
    t = lambda *values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
    e, ln = math.exp, math.log
    hand = {
        "preference_probability": ((t(2.0), t(1.0)), e(2) / (e(2) + e(1))),
        "implicit_reward": ((t(-10.0), t(-12.0), 0.1), 0.2),
        "dpo_loss": ((t(-10.0), t(-12.0), t(-11.0), t(-11.5), 0.1), ln(1 + e(-0.15))),
        "gradient_weight": ((t(1.0), t(-1.0)), 1 / (1 + e(2))),
        "ipo_loss": ((t(1.0), t(0.0), 0.1), 16.0),
        "kto_desirable": ((t(1.0), t(0.5, 2.5, -0.3), 0.5), 1 - 1 / (1 + e(-0.05))),
        "log_odds_ratio": (
            (t(-0.5), t(-1.0)),
            ln(e(-0.5) / (1 - e(-0.5))) - ln(e(-1) / (1 - e(-1))),
        ),
        "kl_from_samples": ((t(-1.0, -2.0)[None], t(-3.0, -9.0)[None], t(1.0, 0.0)[None]), 2.0),
        "win_rate_of": (([2, 0, None, 1.8],), (1 + 0.5 + 0.8) / 3),
        "prompts_for": ((0.5, 0.1), 97),
    }
    for name, (arguments, expected) in hand.items():
        assert float(ALL[name].solution(*arguments)) == pytest.approx(expected), name


@pytest.mark.parametrize("session", SESSIONS)
def test_the_checks_of_a_session_take_no_time(session, capsys):
    """Right answers and, dearer, wrong ones that no mistake explains: less than two seconds."""
    start = time.process_time()
    for exercise in SESSIONS[session].values():
        exercise.check(exercise.solution)
        exercise.check(lambda *a, right=exercise.solution: torch.as_tensor(right(*a)) * 1.5 + 0.2)
    assert time.process_time() - start < 2
