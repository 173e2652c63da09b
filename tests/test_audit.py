"""The audit finds what is planted, at 2 % and at 10 % of the rows, and nothing in clean data."""

import random

import pytest
from conftest import ROOT

from coursekit import progress
from coursekit.judging import RubricJudge, both_orders
from coursekit.preferences import (
    audit,
    auditing,
    data_card,
    load_triples,
    save_card,
    split_by_prompt,
)
from coursekit.preferences.auditing import detectable, share
from coursekit.preferences.similar import jaccard, near_duplicates, shingles
from coursekit.widgets import side_by_side

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
        rows[:2], {"SFT": ["<Yes>", "No"], "DPO": ["Yes", "No"]}, changes=True
    ).data
    assert "Question 0?" in shown and "&lt;Yes&gt;" in shown and "has changed" in shown
    assert "score" not in shown and "✗" not in shown and ">alert<" not in shown


def test_what_is_no_triple_is_told():
    with pytest.raises(ValueError, match="row 2 has no column 'rejected'"):
        audit([*clean(1), {"prompt": "a", "chosen": "b"}])
    with pytest.raises(ValueError, match="the validation triples, row 1 is str"):
        audit(clean(1), validation=["a"])


def test_a_long_audit_says_how_far_it_is(monkeypatch):
    """From two seconds on; before, and where nobody looks, it is silent."""
    clock, shown = iter(range(10**6)), []
    rows = clean(30)
    monkeypatch.setattr(progress, "_writer", lambda: lambda line, last: shown.append(line))
    audit(rows, validation=clean(5, 9))
    assert not shown
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    audit(rows, validation=clean(5, 9))
    assert shown[0].startswith("audit: 1 of 120 steps") and shown[-1].startswith("audit: 120 steps")


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


# Similarity.


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
            (i, j) for i in range(120) for j in range(i) if jaccard(sets[i], sets[j]) >= threshold
        }
        assert set(near_duplicates(texts, threshold=threshold)) == expected
        halves = set(near_duplicates(texts[60:], texts[:60], threshold))
        assert halves == {(i - 60, j) for i, j in expected if i >= 60 > j}
    assert len(set(near_duplicates(texts, threshold=0.5))) > 20


def test_wilson_interval():
    """Of 10 of 20: 0.299 to 0.701 (Wilson's interval as tabulated)."""
    found = share([True, False] * 10)
    assert (round(found.low, 3), round(found.high, 3)) == (0.299, 0.701)
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
    judge = RubricJudge()
    for row in triples:
        assert both_orders(judge, row, row["chosen"], row["rejected"]).winner == "first"
    found = audit(triples, second_judge=judge)
    assert found.agreements["with rubric"].observed == 1
