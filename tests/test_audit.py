"""The audit finds what is planted, at 2 % and at 10 % of the rows, and nothing in clean data."""

import math
import random
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pytest
from conftest import ROOT
from scipy.stats import binomtest

from coursekit.common import progress
from coursekit.evaluation.judges import Agreement, ProgramJudge, both_orders
from coursekit.preferences import (
    audit,
    auditing,
    data_card,
    load_triples,
    save_card,
    split_by_prompt,
)
from coursekit.preferences.auditing import detectable, share
from coursekit.preferences.similar import near_duplicates, normalised
from coursekit.tasks import Task
from coursekit.tasks.triage import TRIAGE
from coursekit.week.widgets import side_by_side

SHARED = ROOT.parent / "shared" / "data" / "instruction-preferences.json"
WORDS = [first + second for first in "bdfgklmnprst" for second in ("a", "ela", "ino", "o", "uri")]
WORDS += [one + other for one in WORDS for other in ("n", "s", "le", "mi")]


def sentence(rng, low=11, high=26):
    words = [rng.choice(WORDS) for _ in range(rng.randint(low, high))]
    return " ".join(words).capitalize() + "."


def clean(n, seed=0):
    """Triples without fault or bias, with full provenance."""
    rng = random.Random(seed)
    rows = []
    for index in range(n):
        temperatures = rng.choice(((0.7, 1.0), (1.0, 0.7), (0.7, 0.7)))
        scores = sorted(rng.sample(range(100), 2), reverse=True)
        sources = rng.sample(("one", "other"), 2)
        rows.append(
            {
                "prompt": sentence(rng, 20, 40),
                "chosen": sentence(rng),
                "rejected": sentence(rng),
                "chosen_temperature": temperatures[0],
                "rejected_temperature": temperatures[1],
                "chosen_source": sources[0],
                "rejected_source": sources[1],
                "chosen_score": scores[0] / 100,
                "rejected_score": scores[1] / 100,
                "chosen_position": rng.choice((1, 2)),
                "asked": 1,
                "prompt_id": index,
            }
        )
    return rows


def pairs_of(rows, rng, flips=0.0):
    """Judged pairs in both orders; a share `flips` of them with an answer that goes by position."""
    pairs = []
    for row in rows:
        winner = rng.choice(("first", "second"))
        answers = [winner, {"first": "second", "second": "first"}[winner]]
        if rng.random() < flips:
            answers = ["first", "first"]
        pairs.append(
            {
                "prompt": row["prompt"],
                "first": {"response": row["chosen"]},
                "second": {"response": row["rejected"]},
                "answers": answers,
                "winner": winner,
                "consistent": answers[0] != answers[1],
            }
        )
    return pairs


class AgreesMostly:
    name = "second"

    def __init__(self, pairs, errors):
        self.labels = {pair["first"]["response"]: pair["winner"] for pair in pairs}
        self.errors = errors

    def compare(self, row, first, second):
        turned = first not in self.labels
        winner = self.labels[second if turned else first]
        wrong = random.Random(min(first, second)).random() < self.errors
        return {"first": "second", "second": "first"}[winner] if turned != wrong else winner


# Rows that are faulty: what is done to a row, and the check that must name it.


def cut(row, rng, rows):
    text = row["chosen"]
    return {**row, "chosen": text[: rng.randint(len(text) // 2, len(text) - 8)].rstrip(" .")}


def retyped(row, rng, rows):
    prompt = rng.choice(rows)["prompt"]
    return {**row, "prompt": prompt.upper().replace(".", " !")}


def one_word_other(row, rng, rows):
    words = rng.choice(rows)["prompt"].split()
    words[len(words) // 2] = f"zz{rng.randrange(10**9)}"
    return {**row, "prompt": " ".join(words)}


FAULTS = {
    "empty responses": lambda row, rng, rows: {**row, rng.choice(("chosen", "rejected")): " "},
    "truncated responses": cut,
    "identical pairs": lambda row, rng, rows: {**row, "rejected": row["chosen"] + " "},
    "doubled rows": lambda row, rng, rows: dict(rng.choice(rows)),
    "contradictions": lambda row, rng, rows: (
        (other := rng.choice(rows)) | {"chosen": other["rejected"], "rejected": other["chosen"]}
    ),
    "repeated prompts": retyped,
    "near-duplicate prompts": one_word_other,
    "lopsided lengths": lambda row, rng, rows: {**row, "chosen": sentence(rng, 130, 150)},
    "labels against scores": lambda row, rng, rows: {
        **row,
        "chosen_score": row["rejected_score"],
        "rejected_score": row["chosen_score"],
    },
}


def plant(fault, rate, n=600, seed=1):
    """Clean rows of which a share is made faulty, in the second half, from the first half."""
    rng = random.Random(seed)
    rows = clean(n)
    chosen = rng.sample(range(n // 2, n), round(rate * n))
    for index in chosen:
        rows[index] = fault(rows[index], rng, rows[: n // 2])
    return rows, set(chosen)


@pytest.mark.parametrize("seed", range(5))
def test_clean_data_pass_in_silence(seed):
    rows = clean(600, seed)
    pairs = pairs_of(rows, random.Random(seed))
    found = audit(
        rows[:500],
        validation=rows[500:],
        evaluation=[row["prompt"] for row in clean(100, seed + 100)],
        pairs=pairs[:500],
        second_judge=AgreesMostly(pairs, 0.02),
    )
    assert [(item.check, item.found) for item in found.problems] == []
    assert not [item.check for item in found.findings if item.outcome == "not measured"]
    assert found.without_faults(rows[:500]) == rows[:500]


@pytest.mark.parametrize("rate", [0.02, 0.1])
@pytest.mark.parametrize("check", FAULTS)
def test_planted_rows_are_found(check, rate):
    rows, planted = plant(FAULTS[check], rate)
    found = audit(rows)
    named = set(found[check].rows)
    assert found[check].outcome == "fault" and found[check].effect and found[check].fix
    if check == "contradictions":  # both of the pair
        assert planted <= named and len(named) <= 2 * len(planted)
    elif check == "truncated responses":  # a guess: most, and few others
        assert len(named & planted) >= 0.9 * len(planted) and named <= planted
    else:
        assert named == planted
    rest = found.without_faults(rows)
    assert len(rest) == len(rows) - len({row for item in found.findings for row in item.rows})
    assert audit(rest)[check].outcome == "ok"
    others = {item.check for item in found.problems} - {check}
    # A response that was cut may be lopsided; of two flipped pairs one may double the other.
    related = {"truncated responses": {"lopsided lengths"}, "contradictions": {"doubled rows"}}
    assert others <= related.get(check, set()) | {"length bias"}, others


@pytest.mark.parametrize("rate", [0.02, 0.1])
@pytest.mark.parametrize("where", ["validation", "evaluation"])
@pytest.mark.parametrize("how", ["same", "retyped", "one word other"])
def test_leaks_are_found(where, how, rate):
    rows = clean(600)
    train, held_out = rows[:500], rows[500:]
    rng = random.Random(2)
    leaked = rng.sample(range(500), round(rate * 500))
    for index, target in zip(leaked, rng.choices(held_out, k=len(leaked)), strict=True):
        fault = {"same": lambda row, rng, rows: rows[0], "retyped": retyped}.get(
            how, one_word_other
        )
        prompt = fault(train[index], rng, [target])["prompt"]
        train[index] = {**train[index], "prompt": prompt}
    options = {"validation": held_out} if where == "validation" else {}
    if where == "evaluation":
        options = {"evaluation": [row["prompt"] for row in held_out]}
    found = audit(train, **options)[f"{where} leak"]
    assert found.outcome == "fault" and set(found.rows) == set(leaked)


# Biases: a share of the labels goes by something else than quality. What 2 % of labels do to a
# share near one half is within chance until there are very many rows; the check says so.


def goes_by(rows, rate, better, swap, seed=3):
    """In a share `rate` of rows, the side that `better` prefers is made the chosen one."""
    rng = random.Random(seed)
    out = []
    for row in rows:
        if rng.random() < rate and not better(row):
            row = swap(row)
        out.append(row)
    return out


def swapped(row, *names):
    return {**row, **{f"chosen{n}": row[f"rejected{n}"] for n in names}} | {
        f"rejected{n}": row[f"chosen{n}"] for n in names
    }


BIASES = {
    "length bias": (
        lambda row: len(row["chosen"]) >= len(row["rejected"]),
        lambda row: swapped(row, ""),
    ),
    "temperature confound": (
        lambda row: row["chosen_temperature"] < row["rejected_temperature"],
        lambda row: swapped(row, "_temperature"),
    ),
    "source confound": (
        lambda row: row["chosen_source"] == "one",
        lambda row: swapped(row, "_source"),
    ),
    "position bias": (
        lambda row: row["chosen_position"] == 1,
        lambda row: {**row, "chosen_position": 1},
    ),
}


@pytest.fixture(scope="module")
def many():
    """So many rows that 2 % of the labels show; short, since only shares are looked at."""
    rng = random.Random(5)
    rows = []
    for index in range(80_000):
        temperatures = rng.sample((0.7, 1.0), 2)
        sources = rng.sample(("one", "other"), 2)
        rows.append(
            {
                "prompt": str(index),
                "chosen": "a " * rng.randint(1, 40),
                "rejected": "a " * rng.randint(1, 40),
                "chosen_temperature": temperatures[0],
                "rejected_temperature": temperatures[1],
                "chosen_source": sources[0],
                "rejected_source": sources[1],
                "chosen_position": rng.choice((1, 2)),
            }
        )
    return rows


def single_check(name, rows):

    if name == "source confound":  # at equal temperatures
        rows = [{**row, "rejected_temperature": row["chosen_temperature"]} for row in rows]
    return {
        "length bias": lambda: auditing._length(rows, {}),
        "temperature confound": lambda: auditing._temperature(rows, {}),
        "source confound": lambda: auditing._source(rows, {}),
        "position bias": lambda: auditing._position(rows, [], {}),
    }[name]()


@pytest.mark.parametrize("name", BIASES)
def test_planted_biases_are_found(name, many):
    better, swap = BIASES[name]
    assert single_check(name, many).outcome == "ok"
    for rate, n in ((0.02, 80_000), (0.1, 5_000)):
        found = single_check(name, goes_by(many[:n], rate, better, swap))
        assert found.outcome == "bias", found.found
        assert found.effect and found.fix
    assert detectable(80_000) < 0.01 < 0.02 < detectable(5_000) < 0.05
    few = single_check(name, goes_by(many[:300], 0.02, better, swap))
    assert few.outcome == "ok" and "would not show" in few.found


@pytest.mark.parametrize(("rate", "n"), [(0.02, 2000), (0.1, 600)])
def test_telltale_openings_are_found(rate, n):
    rows = clean(n)
    for row in random.Random(4).sample(rows, round(rate * n)):
        row["rejected"] = "Look, " + row["rejected"]
    found = audit(rows)["telltale openings"]
    assert found.outcome == "bias" and '"look" opens 0 chosen' in found.found


@pytest.mark.parametrize("errors", [0.25, 0.5])
def test_a_judge_who_disagrees_is_found(errors):
    rows = clean(400)
    pairs = pairs_of(rows, random.Random(0))
    found = audit(rows, pairs=pairs, second_judge=AgreesMostly(pairs, errors))
    assert found["agreement with a second judge"].outcome == "bias"
    assert "kappa" in found["agreement with a second judge"].found
    table = found.agreements["with second"].table
    assert table.to_numpy().sum() == 200


def test_a_judge_who_flips_is_found():
    rows = clean(600)
    pairs = pairs_of(rows, random.Random(0), flips=0.3)
    found = audit(rows, pairs=pairs)
    assert found["judge's self-consistency"].outcome == "bias"
    assert found["position bias"].outcome == "bias"
    few = audit(rows, pairs=pairs_of(rows, random.Random(0), flips=0.02))
    assert few["judge's self-consistency"].outcome == "ok"


def test_an_answer_that_cannot_be_read_counts_nowhere():
    """Verdicts of an LLM judge may be invalid: neither first nor second, nor an agreement."""
    pairs = pairs_of(clean(40), random.Random(0))
    for pair in pairs[:10]:
        pair |= {"answers": ["first", "invalid"], "winner": "invalid", "consistent": True}
    found = audit(clean(40), pairs=pairs)
    without = audit(clean(40), pairs=pairs[10:])
    assert found.agreements["with itself, order changed"].table.to_numpy().sum() == 30
    assert found.shares["the first shown won"].n == 70  # 10 answers of 10 pairs, 60 of 30
    assert without["judge's self-consistency"] == found["judge's self-consistency"]
    once = [{**pair, "answers": ["invalid"]} for pair in pairs]
    assert audit(clean(40), pairs=[pairs[0]])["judge's self-consistency"].outcome == "not measured"
    assert "the first shown won" in audit(clean(40), pairs=once).shares  # from the triples

    class Invalid:
        name = "broken"

        def compare(self, row, first, second):
            return "invalid"

    mostly = AgreesMostly(pairs, 0.0)
    found = audit(clean(40), pairs=pairs, second_judge=mostly).agreements["with second"]
    assert found.table.to_numpy().sum() == 30 and found.observed == 1
    found = audit(clean(40), pairs=pairs, second_judge=Invalid())["agreement with a second judge"]
    assert found.outcome == "not measured" and found.found == "no pair has both verdicts"


def by_taste(prompts, pairs, rng):
    """Clean data with many pairs a prompt: what its judge happens to like, all its pairs show.

    One prompt's rater favours short answers, another's long ones, cool or hot, and so on; over the
    prompts nothing is favoured.
    """
    rows = []
    for number in range(prompts):
        tastes = {name: rng.choice((True, False)) for name in ("long", "cool", "one", "first")}
        for _ in range(pairs):
            texts = sorted(("yes " + "a " * rng.randint(1, 9), "no " + "a " * rng.randint(10, 20)))
            chosen, rejected = texts if tastes["long"] else texts[::-1]
            cool, one = tastes["cool"], tastes["one"]
            rows.append(
                {
                    "prompt": f"Prompt {number}",
                    "prompt_id": number,
                    "chosen": chosen,
                    "rejected": rejected,
                    "chosen_temperature": 0.7 if cool else 1.0,
                    "rejected_temperature": 1.0 if cool else 0.7,
                    "chosen_source": "one" if one else "other",
                    "rejected_source": "other" if one else "one",
                    "chosen_position": 1 if tastes["first"] else 2,
                }
            )
    return rows


CHECKS = {
    "length bias": lambda rows: auditing._length(rows, {}),
    "telltale openings": auditing._openings,
    "temperature confound": lambda rows: auditing._temperature(rows, {}),
    "source confound": lambda rows: single_check("source confound", rows),
    "position bias": lambda rows: auditing._position(rows, [], {}),
}


@pytest.mark.parametrize("pairs", [1, 10])
@pytest.mark.parametrize("check", CHECKS)
def test_many_pairs_of_a_prompt_raise_no_false_alarm(check, pairs):
    """At p < 0.001 three or more alarms in 200 clean sets would be a one in a thousand event."""
    rng = random.Random(7)
    alarms = sum(CHECKS[check](by_taste(60, pairs, rng)).outcome == "bias" for _ in range(200))
    assert alarms <= 2


def test_what_all_prompts_favour_is_still_found():
    rows = by_taste(60, 10, random.Random(1))
    for row in rows:
        row |= {"chosen_temperature": 0.7, "rejected_temperature": 1.0}
    found = auditing._temperature(rows, {})
    assert found.outcome == "bias" and "100% of 600" in found.found


def test_the_interval_is_as_wide_as_the_prompts_allow():
    """Ten copies of a row say no more than the row."""
    won = [True] * 40 + [False] * 20
    often = [result for result in won for _ in range(10)]
    once, copied, together = share(won), share(often), share(often, [i // 10 for i in range(600)])
    assert (together.low, together.high) == pytest.approx((once.low, once.high))
    assert together.effective == pytest.approx(60) and together.n == 600
    assert copied.effective == 600 and copied.sure and not together.sure
    alternating = share([True, False] * 30, [i // 2 for i in range(60)])
    assert alternating.effective == 60  # going against each other makes no prompt count double


@pytest.mark.parametrize("score", [float("nan"), float("inf"), "nan", None, "high", [1], 10**400])
def test_scores_that_are_no_numbers_are_missing(score):
    rows = clean(40)
    rows[3] |= {"chosen_score": score}
    found = audit(rows)
    assert len(found.margins) == 39 and found["labels against scores"].outcome == "ok"


def test_provenance_from_a_csv_counts_as_numbers():
    rows = clean(40)
    texts = [
        {
            name: value if name in ("chosen", "rejected") else str(value)
            for name, value in row.items()
        }
        for row in rows
    ]
    expected, found = audit(rows), audit(texts)
    assert found.table().equals(expected.table()) and found.margins == expected.margins


def test_rows_of_another_task_go_through_everything():
    """No `alert` and no rubric: the learner's own triples."""
    rows = [
        {"prompt": f"Question {number}?", "chosen": "Yes.", "rejected": "No, never."}
        for number in range(8)
    ]
    train, validation = split_by_prompt(rows, 0.25)
    found = audit(train, validation=validation, evaluation=["Question 9?"])
    card = data_card(train, validation, found, title="Questions")
    assert "| train | 6 | 6 |" in card and "alert" not in card
    shown = side_by_side(
        Task(), rows[:2], {"SFT": ["<Yes>", "No"], "DPO": ["Yes", "No"]}, changes=True
    ).data
    assert "Question 0?" in shown and "&lt;Yes&gt;" in shown
    assert shown.endswith(" marks what the column before does not have.</p>")
    assert "score" not in shown and "✗" not in shown and ">alert<" not in shown


def test_what_is_no_triple_is_told():
    with pytest.raises(ValueError, match="row 2 has no column 'rejected'"):
        audit([*clean(1), {"prompt": "a", "chosen": "b"}])
    with pytest.raises(ValueError, match="the validation triples, row 1 is str"):
        audit(clean(1), validation=["a"])


def test_a_long_audit_says_how_far_it_is(monkeypatch):
    """From two seconds on; before, and where nobody looks, it is silent."""
    clock, shown = (0.7 * tick for tick in range(10**6)), []
    rows = clean(30)
    monkeypatch.setattr(progress, "_writer", lambda: lambda line, last: shown.append(line))
    audit(rows, validation=clean(5, 9))
    assert not shown
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    audit(rows, validation=clean(5, 9))
    assert shown[0].startswith("audit: 30 of 450 steps") and shown[-1].startswith("audit: 450 s")
    shown.clear()
    audit(rows, validation=clean(5, 9), evaluation=["Another?"])
    assert shown[0].startswith("audit: 30 of 510 steps") and shown[-1].startswith("audit: 510 s")


def test_a_label_does_not_tell_the_second_judge_the_answer():
    """Triples alone: the second judge sees them in an order that says nothing."""
    rows = clean(400)

    class First:
        name = "first"

        def compare(self, row, first, second):
            return "first"

    assert audit(rows, second_judge=First()).agreements["with first"].observed == 0  # all ties

    class Longer:
        name = "longer"

        def compare(self, row, first, second):
            return "first" if len(first) > len(second) else "second"

    found = audit(rows, second_judge=Longer()).agreements["with longer"]
    assert abs(found.kappa) < 0.2 and set(found.table.index) >= {"first", "second"}


def test_reports_cut_short_are_found(triples):
    """Forms end with the same field: another ending is a cut."""
    rows = [dict(row) for row in triples * 4]
    assert audit(rows)["truncated responses"].outcome == "ok"
    rows[5]["chosen"] = rows[5]["chosen"].rsplit("\n", 2)[0]
    assert audit(rows)["truncated responses"].rows == (5,)


def test_pairs_of_one_sampling_are_no_repetition(triples):
    rows = [{**row, "prompt_id": 0, "prompt": "same"} for row in triples]
    assert audit(rows)["repeated prompts"].outcome == "ok"
    rows[3]["prompt_id"] = 1
    assert audit(rows)["repeated prompts"].rows == (3,)


def test_no_triples_is_told():
    with pytest.raises(ValueError, match="no triples to audit"):
        audit([])


# Hand-made rows: each threshold from both sides, each count to the row.


def rows_of(*responses, **provenance):
    """A triple with a prompt of its own for each (chosen, rejected)."""
    return [
        {"prompt": f"Prompt {number}", "chosen": chosen, "rejected": rejected, **provenance}
        for number, (chosen, rejected) in enumerate(responses)
    ]


def test_what_the_audit_says_of_rows():
    found = audit(rows_of(("Same.", "Same."), *[("Yes.", "No.")] * 3))
    assert found["identical pairs"].found == (
        "1 of 4 rows (25.0%) have the same text as chosen and rejected: row 1"
    )
    three, four = (auditing._identical(rows_of(*[("a", "a")] * n)).found for n in (3, 4))
    assert three.endswith(": row 1, 2, 3") and four.endswith(": row 1, 2, 3, …")
    assert found.length_differences == (0, 1, 1, 1) and found.n == 4
    table = found.table()
    fault = table.loc["identical pairs"]
    assert fault["what it does to training"] and fault["how to mend it"]
    clean = table.loc["empty responses"]
    assert (clean["what it does to training"], clean["how to mend it"]) == ("", "")
    missing = table.loc["evaluation leak"]
    assert missing["what it does to training"] == "" and missing["how to mend it"]


ENDED = ("It is so and so.", "It is not so.")
CUT = "It is so and so"  # five words


@pytest.mark.parametrize(
    ("rows", "faulty"),
    [
        ([ENDED] * 3 + [(CUT, "It is not so.")], [3]),
        ([ENDED] * 3 + [("It is not so.", CUT)], [3]),
        ([ENDED] * 3 + [("It is not so", "It is so and so.")], []),  # four words: no prose
        ([ENDED] * 3 + [(CUT, "It is not so")], []),  # its rival ends no better
        ([ENDED] * 3 + [("It is so:\n" + CUT, "It is not so.")], []),  # a list, say
        ([ENDED] * 3 + [(CUT, "It is not so.")] * 2, [3, 4]),  # 8 of 10 end with a sign
        ([ENDED] * 2 + [(CUT, "It is not so.")] * 2, []),  # 6 of 8
        ([ENDED] * 3 + [(CUT, "It is not so."), ("", " ")], [3]),  # what is empty has no end
        ([("", " ")], []),
        ([("So", "")], []),
    ],
)
def test_what_ends_without_a_sign_is_cut_where_others_end_with_one(rows, faulty):
    assert auditing._cut_short(rows_of(*rows)) == faulty


FORM = "Verdict: none\nAction: wait"


@pytest.mark.parametrize(
    ("rows", "faulty"),
    [
        ([(FORM, FORM)] * 4 + [(FORM, "Verdict: none\nAct")], [4]),
        ([(FORM, FORM)] * 4 + [("Verdict: none", FORM)], [4]),
        ([(FORM, FORM)] * 4 + [("Verdict:", "Verdict: none")], [4, 4]),  # 8 of 10 are forms
        ([(FORM, FORM)] * 3 + [("Verdict:", "Verdict: none")], []),  # 6 of 8
        ([(FORM, FORM)] * 4 + [("", FORM)], []),
    ],
)
def test_forms_that_do_not_end_with_the_usual_field_are_cut(rows, faulty):
    assert auditing._cut_short(rows_of(*rows)) == faulty


@pytest.mark.parametrize(
    ("chosen", "rejected", "faulty"),
    [
        (20, 61, True),  # more than three times as long
        (61, 20, True),
        (20, 60, False),
        (11, 41, False),  # 30 more
        (10, 41, True),
        (0, 80, False),  # empty: another check's
        (1, 32, True),
    ],
)
def test_lopsided_is_over_three_times_and_thirty_characters(chosen, rejected, faulty):
    found = auditing._lopsided(rows_of(("a" * chosen, "a" * rejected)))
    assert found.rows == ((0,) if faulty else ())


def test_an_empty_response_is_a_finding_and_no_error():
    rows = rows_of(("", "No."), ("Yes.", " "), ("Yes.", "No."))
    found = audit(rows, validation=rows)
    assert found["empty responses"].rows == (0, 1)
    assert found["validation leak"].rows == (0, 1, 2)
    assert found["evaluation leak"].found == "no evaluation prompts given"


def test_which_rows_repeat_and_which_contradict():
    def at(prompt, chosen, rejected, **provenance):
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **provenance}

    rows = [
        at("One?", "a", "b"),
        at("One?", "a", "b"),  # a double, and no further repetition
        at("one", "c", "d"),  # repeated
        at("Two?", "a", "b"),
        at("Two?", "b ", "a"),  # contradicts the row before
        at("Three?", "e", "e "),  # identical: nothing to contradict
        at("Three?", "e ", "e"),
        at("Four?", "a", "b", prompt_id=4),
        at("Four?", "c", "d", prompt_id=4),  # of one sampling
        at("Four?", "e", "f", prompt_id=5),
    ]
    assert auditing._doubles(rows).rows == (1,)
    assert auditing._contradictions(rows).rows == (3, 4)
    found = auditing._repeated_prompts(rows, auditing._different_prompts(rows)[1])
    assert found.rows == (2, 4, 6, 9)


@pytest.mark.parametrize(
    ("scores", "margin"),
    [
        ({"chosen_score": 3, "rejected_score": 1}, 2),
        ({"score_chosen": "3", "score_rejected": "1.5"}, 1.5),  # of UltraFeedback, and a CSV's text
        ({"chosen_score": 2, "rejected_score": 2}, 0),
        ({"chosen_score": 3}, None),
        ({"chosen_score": 3, "score_rejected": 1}, None),  # not of one scale
        ({"chosen_score": 3, "rejected_score": float("nan")}, None),
        ({}, None),
    ],
)
def test_margins(scores, margin):
    assert auditing._margins(rows_of(("a", "b"), **scores)) == [margin]


def test_a_label_without_a_better_score_is_a_fault():
    assert auditing._against_scores([0.5, 0, None, -1]).rows == (1, 3)
    assert auditing._against_scores([0.5, None]).outcome == "ok"
    assert auditing._against_scores([None, None]).outcome == "not measured"


@pytest.mark.parametrize(("won", "n"), [(10, 20), (7, 10), (1, 40), (30, 30), (1, 1)])
def test_the_interval_of_a_share_is_wilsons(won, n):
    found = share([True] * won + [False] * (n - won))
    expected = binomtest(won, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-4)
    assert (found.value, found.n) == pytest.approx((won / n, n))


def test_how_many_rows_tell_a_share_from_one_half():
    """All of 11, not all of 10: 3.29 standard errors of 1 / (2 sqrt(n))."""
    assert share([True] * 11).sure and not share([True] * 10).sure
    assert share([False] * 11).sure and not share([False] * 10).sure
    assert not share([]).sure and share([]).effective == 0
    limit = auditing.Share(1.0, 0.0, 1.0, 11, effective=auditing.SURE**2)
    assert not limit.sure
    assert detectable(100) == pytest.approx(0.1645) and math.isnan(detectable(0))
    halves = {n: auditing.Share(0.5, 0.4, 0.6, 12, n) for n in (10, auditing.SURE**2, 11)}
    found = [auditing._bias("x", {}, "it won", half, "", "").found for half in halves.values()]
    assert found[0] == found[1] == "it won: 50% of 12 (40% to 60%); too few"
    assert found[2] == "it won: 50% of 12 (40% to 60%); a bias below 50% would not show"


def test_how_far_a_sum_is_from_zero():
    """Sums of 2 and -1 over the prompts a and b: (2 - 1) / sqrt(4 + 1)."""
    assert auditing._deviation(np.array([1.0, 1, -1]), ["a", "a", "b"]) == pytest.approx(5**-0.5)
    assert auditing._deviation(np.array([1.0, -1]), ["a", "a"]) == 0


def lengths(*differences):
    """Triples whose chosen response is so many characters longer."""
    return rows_of(*[("a" * (50 + difference), "a" * 50) for difference in differences])


def test_length_counts_how_often_and_by_how_much():
    shares = {}
    found = auditing._length(lengths(*[30] * 14, *[-1] * 6, *[0] * 5), shares)
    assert shares["the longer won"].n == 20 and shares["the longer won"].value == 0.7
    # Of those 14 of 20 alone nothing follows; the 14 differ by much more than the 6.
    assert found.outcome == "bias" and "but by more: correlation with length +0.74" in found.found
    found = auditing._length(lengths(*[-30] * 14, *[1] * 6), {})
    assert found.outcome == "bias" and "correlation with length -0.82" in found.found
    found = auditing._length(lengths(*[30] * 11, *[-1] * 6), {})  # 3.26 standard errors
    assert found.outcome == "ok" and "correlation with length +0.79" in found.found
    found = auditing._length(lengths(0, 0), {})
    assert found.outcome == "ok" and "correlation with length +0.00; too few" in found.found
    found = auditing._length(lengths(*[1] * 11), {})
    assert found.outcome == "bias" and found.found.startswith("the longer won: 100% of 11")
    assert found.found.endswith(", correlation with length +1.00")


def opening(word, chosen, rejected, start=0):
    """So many chosen and so many rejected that open with `word`; no rival opens alike."""
    rivals = (f"z{word}{number} x." for number in range(start, start + chosen + rejected))
    return [(f"{word} x.", next(rivals)) for _ in range(chosen)] + [
        (next(rivals), f"{word} x.") for _ in range(rejected)
    ]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (opening("Look", 0, 10), "none"),
        (opening("Look", 0, 11), '"look" opens 0 chosen and 11 rejected'),
        (opening("Look", 11, 0), '"look" opens 11 chosen and 0 rejected'),
        (opening("Look", 20, 8), "none"),  # 12 / sqrt(28) = 2.3 standard errors
        (opening("Look", 8, 20), "none"),
        # Both open alike: it counts, but favours neither.
        ([*opening("Look", 0, 11), ("Look!", "Look?")], '"look" opens 1 chosen and 12 rejected'),
        ([*opening("Look", 0, 10), *[("Look!", "Look?")] * 5], "none"),
        # A second word that many rows open with: each must be surer.
        ([*opening("Look", 0, 12), *opening("Well", 6, 6)], "none"),
        # A word of ten rows could tell nothing, and is not counted.
        (
            [*opening("Look", 0, 11), *opening("Well", 5, 5)],
            '"look" opens 0 chosen and 11 rejected',
        ),
        (
            [*opening("Look", 0, 13), *opening("Well", 6, 6)],
            '"look" opens 0 chosen and 13 rejected',
        ),
        ([("", "Yes."), ("", "No."), ("No.", "")] * 5, "none"),
        # The three that differ most, of four.
        (
            [
                *opening("Four", 0, 14),
                *opening("Two", 0, 31),
                *opening("One", 0, 35),
                *opening("Three", 40, 10),
            ],
            '"one" opens 0 chosen and 35 rejected; "two" opens 0 chosen and 31 rejected; '
            '"three" opens 40 chosen and 10 rejected',
        ),
    ],
)
def test_which_openings_tell(rows, found):
    finding = auditing._openings(rows_of(*rows))
    assert (finding.found, finding.outcome) == (found, "ok" if found == "none" else "bias")


def test_an_opening_of_one_prompts_rows_tells_nothing():
    rows = [{**row, "prompt": "same"} for row in rows_of(*opening("Look", 0, 40))]
    assert auditing._openings(rows).outcome == "ok"


def test_which_rows_show_the_cooler_and_the_source():
    def at(cool, hot, one="a", other="b"):
        row = {"chosen_temperature": cool, "rejected_temperature": hot}
        return row | {"chosen_source": one, "rejected_source": other}

    kinds = [at(0.7, 1.0), at(1.0, 0.7), at(0.7, "1.0"), at(1.0, 1.0), at(None, 1.0), {}]
    kinds += [at(1.0, 1.0, "b", "a"), at(None, 0.5, "b", "a"), at(1, 1, "a", "c")]
    kinds += [at(1, 1, "c", "b"), at(1, 1, "a", "a"), at(1, 1, "a", None), at(1, 1, "a", "b")]
    rows = [row | kind for row, kind in zip(rows_of(*[("a", "b")] * 13), kinds, strict=True)]
    shares = {}
    auditing._temperature(rows, shares)
    assert (shares["the cooler won"].value, shares["the cooler won"].n) == (2 / 3, 3)
    auditing._source(rows, shares)
    # Won by a: rows 4, 5, 9 and 13; lost: 7 and 8. Row 10 is not among a's.
    assert (shares["'a' won"].value, shares["'a' won"].n) == (4 / 6, 6)
    assert auditing._temperature(rows[3:], {}).outcome == "not measured"
    assert auditing._source(rows[:3], {}).outcome == "not measured"
    assert auditing._source([rows[10]], {}).outcome == "not measured"


def test_where_the_winner_stood():
    rows = [
        {"prompt": str(number), "chosen": "a", "rejected": "b", "chosen_position": place}
        for number, place in enumerate([1, 1, "1", 2, 2, 0, 3, None, "first"])
    ]
    shares = {}
    auditing._position(rows, [], shares)
    assert (shares["the first shown won"].value, shares["the first shown won"].n) == (0.6, 5)
    both = [{**row, "asked": 2} for row in rows]
    assert auditing._position(both, [], {}).outcome == "not measured"
    once = [{**row, "asked": 1} for row in rows]
    assert auditing._position(once, [], {}).found == auditing._position(rows, [], {}).found
    pairs = [{"prompt": "a", "answers": ["first", "tie"]}, {"prompt": "b"}]
    pairs += [{"prompt": "c", "answers": ["second", "first", "invalid"]}]
    auditing._position(rows, pairs, shares)
    assert (shares["the first shown won"].value, shares["the first shown won"].n) == (2 / 3, 3)


def test_consistency_is_that_of_pairs_asked_twice():
    answers = [["first", "second"]] * 3 + [["first", "first"], ["first"], ["first", "invalid"]]
    agreements = {}
    pairs = [{"prompt": str(number), "answers": found} for number, found in enumerate(answers)]
    auditing._consistency([*pairs, {"prompt": "not asked"}], agreements)
    found = agreements["with itself, order changed"]
    assert found.observed == 0.75 and found.table.to_numpy().sum() == 4
    assert auditing._consistency(pairs[4:5], {}).outcome == "not measured"
    tripled, once = {}, agreements["with itself, order changed"]
    auditing._consistency(pairs * 3, tripled)  # the same prompts' pairs are no more news
    same = tripled["with itself, order changed"]
    assert same.kappa == once.kappa and (same.low, same.high) == (once.low, once.high)


@pytest.mark.parametrize(
    ("kappa", "low", "outcome"),
    [(0.7, 0.6, "ok"), (0.7, 0.59, "bias"), (float("nan"), 0.0, "ok")],
)
def test_agreement_should_be_above_moderate(kappa, low, outcome):
    found = Agreement(0.9, 0.5, kappa, low, 0.8, table=None)
    assert auditing._agreement_finding("x", found, "", "").outcome == outcome


def test_the_order_of_the_second_judge_is_drawn_from_the_row():
    """The same in every run, whichever of the two is the chosen one, alone or with its pair."""
    row = {"prompt": "p", "chosen": "b", "rejected": "a"}
    swapped = {"prompt": "p", "chosen": "a", "rejected": "b"}
    pair = {"prompt": "p", "first": {"response": "b"}, "second": {"response": "a"}, "winner": "tie"}
    expected = int(sha256(b"p\0a\0b").hexdigest()[:16], 16)
    assert {auditing._draw(item) for item in (row, swapped, pair)} == {expected}
    assert auditing._oriented(pair) == (("b", "a"), "tie")
    drawn = {"p": ("a", "b"), "q": ("a", "b")}
    for prompt, (chosen, rejected) in drawn.items():
        item = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        texts, label = auditing._oriented(item)
        odd = auditing._draw(item) % 2 == 1
        assert (texts, label) == ((("a", "b"), "first") if odd else (("b", "a"), "second"))
    sides = [auditing._oriented({**row, "prompt": str(number)})[1] for number in range(40)]
    assert 10 <= sides.count("first") <= 30


def test_the_second_judge_sees_the_first_of_the_draw():
    """So many, in the order of the draw; an invalid verdict has no label to compare."""
    rows = rows_of(*[("yes", "no")] * 6)
    seen = []

    class Asked:
        name = "asked"

        def compare(self, row, first, second):
            seen.append(row["prompt"])
            return "first" if first == "yes" else "second"

    found = audit(rows, second_judge=Asked(), sample=2)
    first = [row["prompt"] for row in sorted(rows, key=auditing._draw)[:2]]
    assert list(dict.fromkeys(seen)) == first
    assert found.agreements["with asked"].observed == 1
    assert found.agreements["with asked"].table.to_numpy().sum() == 2


# Similarity.


def shingles(text):
    return set(pairwise(["^", *normalised(text).split(), "$"]))


def test_near_duplicates_are_those_of_brute_force():
    rng = random.Random(0)
    texts = [sentence(rng, 1, 25) for _ in range(60)]
    for text in list(texts):
        words = text.split()
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        texts.append(" ".join(words))
    sets = [shingles(text) for text in texts]
    for threshold in (0.5, 0.8, 1.0):
        expected = {
            (i, j)
            for i in range(120)
            for j in range(i)
            if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold
        }
        assert set(near_duplicates(texts, threshold=threshold)) == expected
        halves = set(near_duplicates(texts[60:], texts[:60], threshold))
        assert halves == {(i - 60, j) for i, j in expected if i >= 60 > j}
    assert len(set(near_duplicates(texts, threshold=0.5))) > 20


def test_wilson_interval():
    """Of 10 of 20: 0.299 to 0.701 (Wilson's interval as tabulated)."""
    found = share([True, False] * 10)
    assert (round(found.low, 3), round(found.high, 3)) == (0.299, 0.701)
    for won, n in ((0, 1), (1, 1), (0, 30), (7, 30), (30, 30), (200, 400)):
        ours = share([True] * won + [False] * (n - won))
        by_scipy = binomtest(won, n).proportion_ci(method="wilson")
        assert (ours.low, ours.high) == pytest.approx(tuple(by_scipy), abs=1e-12)
    assert not found.sure and share([True] * 95 + [False] * 5).sure
    assert share([]).n == 0 and not share([]).sure


# The card.


def test_the_card_is_written_from_the_data(triples, tmp_path):
    rows = [
        {**row, "design": "d", "judge": "rubric", "prompt_id": i} for i, row in enumerate(triples)
    ]
    train, validation = split_by_prompt(rows, 0.25)
    pairs = [
        {"winner": "tie", "consistent": False, "answers": ["first", "first"]},
        {"winner": "first", "consistent": True, "answers": ["first", "second"]},
    ]
    card = data_card(train, validation, audit(train), title="Reports", pairs=pairs, model="a model")
    assert card.startswith("# Reports\n")
    saved = save_card(card, tmp_path / "deep").read_text(encoding="utf-8")
    assert saved.startswith("---\npretty_name: Reports\n") and card in saved
    assert "| train | 12 | 12 |" in card and "| validation | 4 | 4 |" in card
    assert "2 pairs; 1 were ties (50%), of these 1 because" in card
    assert "| identical pairs | ok | none |" in card and "sampled from a model" in card
    assert "| `prompt_id` | the same for all pairs of one prompt |" in card
    other = data_card(train[:5], validation, audit(train[:5]), title="Reports")
    assert "| train | 5 | 5 |" in other


@pytest.mark.skipif(not SHARED.is_file(), reason="the shared data are not here")
def test_what_is_in_the_real_file():
    rows = load_triples(SHARED)
    found = audit(rows)
    assert len(found["identical pairs"].rows) == 6
    assert '"look" opens 0 chosen' in found["telltale openings"].found
    assert found["repeated prompts"].outcome == "fault"
    assert len(found["lopsided lengths"].rows) > 20
    assert audit(found.without_faults(rows))["identical pairs"].outcome == "ok"


def test_audit_of_what_the_rubric_judged(triples):
    """Scores and verdicts of one judge agree with themselves."""
    judge = ProgramJudge(TRIAGE)
    for row in triples:
        assert both_orders(judge, row, row["chosen"], row["rejected"]).winner == "first"
    found = audit(triples, second_judge=judge)
    assert found.agreements["with program"].observed == 1
