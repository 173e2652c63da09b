"""Every check can fail: the solution passes, the stub is not attempted, each mistake is named."""

import math

import pytest
import torch

from coursekit.week.exercises import session_a, session_b, session_c
from coursekit.week.exercises.exercise import Exercise, Mistake

SESSIONS = {"A": session_a.EXERCISES, "B": session_b.EXERCISES, "C": session_c.EXERCISES}
ALL = session_a.EXERCISES | session_b.EXERCISES | session_c.EXERCISES


def stub(*arguments):
    raise NotImplementedError


def test_there_are_enough():
    assert len(SESSIONS["A"]) >= 8 and len(SESSIONS["B"]) >= 4 and len(SESSIONS["C"]) >= 5
    assert len(ALL) == sum(map(len, SESSIONS.values()))  # no name twice


@pytest.mark.parametrize("name", ALL)
def test_solution_passes(name):
    assert ALL[name].judge(ALL[name].solution).state == "correct"


@pytest.mark.parametrize("name", ALL)
def test_untouched_stub_is_not_attempted(name, capsys):
    assert ALL[name].judge(stub).state == "not attempted"
    assert ALL[name].check(stub) is ALL[name].solution
    assert "not attempted yet" in capsys.readouterr().out


MISTAKES = [(name, i) for name, exercise in ALL.items() for i in range(len(exercise.mistakes))]


@pytest.mark.parametrize(("name", "index"), MISTAKES)
def test_each_mistake_fails_with_the_message_that_fits(name, index, capsys):
    exercise = ALL[name]
    mistake = exercise.mistakes[index]
    outcome = exercise.judge(mistake.answer)
    assert outcome.state == "wrong"
    assert outcome.message == mistake.message  # and not that of another mistake
    assert exercise.check(mistake.answer) is exercise.solution
    assert "✗" in capsys.readouterr().out


def test_each_exercise_knows_three_mistakes():
    assert all(len(exercise.mistakes) >= 3 for exercise in ALL.values())


@pytest.mark.parametrize("name", ALL)
def test_other_wrong_answers_fail_too(name):
    """Answers that nobody foresaw: nothing, a word, a constant, noise, the wrong shape, a crash."""
    exercise = ALL[name]
    right = torch.as_tensor(exercise.solution(*exercise.cases[0]))
    answers = {
        "returns None": lambda *_: None,
        "not numbers": lambda *_: "ln 2",
        "got [0" if right.dim() else "got 0": lambda *_: torch.zeros_like(right),
        "expected": lambda *a: exercise.solution(*a) * 1.001,
        "shape": lambda *a: torch.as_tensor(exercise.solution(*a))[..., None],
        "ZeroDivisionError": lambda *_: 1 / 0,
    }
    for message, answer in answers.items():
        outcome = exercise.judge(answer)
        assert outcome.state == "wrong" and message in outcome.message


def test_an_answer_that_changes_its_input_does_not_spoil_the_check():
    def in_place(policy, reference, beta):
        return policy.sub_(reference).mul_(beta)

    exercise = session_a.implicit_reward
    assert exercise.judge(in_place).state == "correct"
    assert exercise.judge(exercise.solution).state == "correct"


def test_a_right_answer_of_another_make_passes():
    def with_exponentials(won, lost):
        return 1 / (1 + torch.exp(lost - won))

    assert session_a.preference_probability.judge(with_exponentials).state == "correct"


def test_gradients_are_compared_where_they_count():
    exercise = session_a.kto_desirable
    assert exercise.compare_gradients
    no_gradient = exercise.judge(lambda *a: exercise.solution(*a).detach())
    assert no_gradient.state == "wrong" and "no gradient" in no_gradient.message


def test_cards_show_task_hint_and_solution():
    for exercise in ALL.values():
        html = exercise.card().data
        assert "<details" in html and "Solution" in html and f"{exercise.minutes} minutes" in html
        assert "def _" in html and "return" in html
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
    }
    for name, (arguments, expected) in hand.items():
        assert ALL[name].solution(*arguments).item() == pytest.approx(expected), name


def test_a_known_mistake_is_named_only_if_it_fits_every_case():
    exercise = Exercise(
        title="double",
        task="",
        difficulty=1,
        importance=1,
        minutes=1,
        hint="",
        solution=lambda x: 2 * x,
        cases=[(torch.tensor(2.0),), (torch.tensor(3.0),)],
        mistakes=[Mistake(lambda x: x + x**2, "squared")],
    )
    assert exercise.judge(lambda x: x + x**2).message == "squared"
    assert exercise.judge(lambda x: 6.0).message == "expected 4, got 6."
