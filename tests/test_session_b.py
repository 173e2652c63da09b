"""What session B draws and shows."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from coursekit.preferences import audit
from coursekit.tasks.triage import TRIAGE
from coursekit.training import red_flags
from coursekit.training.checklist import Check, Preflight
from coursekit.week.exercises.session_b import choose_setting
from coursekit.week.figures.results import plot_audit, plot_frontier, plot_label_noise, plot_monitor
from coursekit.week.gallery import load_recorded, mystery_cases
from coursekit.week.widgets import checklist, findings, flags, live


@pytest.fixture(scope="module")
def reports(triples):
    rows = [{**row, "prompt_id": index} for index, row in enumerate(triples)]
    faulty = [*rows, {**rows[0], "rejected": rows[0]["chosen"]}, rows[1]]
    return {"clean": audit(rows), "faulty": audit(faulty)}


def test_findings_say_what_to_do(reports):
    html = findings(reports["faulty"]).data
    for check in ("identical pairs", "doubled rows"):
        finding = reports["faulty"][check]
        for text in (check, finding.found.split(":")[0], finding.effect, finding.fix):
            assert text in html
    assert "Passed: " in html and "Not measured: " in html and "18 triples" in html
    assert "identical pairs" not in findings(reports["clean"]).data.split("Passed: ")[0]


def test_texts_of_a_data_set_are_no_html(triples):
    rows = [
        {**row, "chosen": f"<b>x</b> {row['chosen']}", "prompt_id": i}
        for i, row in enumerate(triples * 3)
    ]
    assert "<b>x" not in findings(audit(rows)).data


def test_the_audit_is_drawn(reports):
    faults, shares, lengths, margins = plot_audit(reports["faulty"]).axes
    assert [label.get_text() for label in faults.get_yticklabels()] == [
        item.check for item in reports["faulty"].findings if item.outcome == "fault"
    ]
    widths = [100 * len(item.rows) / 18 for item in reports["faulty"].findings if item.rows]
    assert [bar.get_width() for bar in faults.patches] == pytest.approx(widths)
    assert [label.get_text() for label in shares.get_yticklabels()] == ["the longer won"]
    assert sum(bar.get_height() for bar in lengths.patches) == 18
    assert "not in the data" in [text.get_text() for text in margins.texts]
    assert not [item for item in reports["clean"].findings if item.rows]
    clean = plot_audit(reports["clean"]).axes[0]
    assert "none" in [text.get_text() for text in clean.texts] and not clean.patches
    assert not plt.get_fignums()


def test_the_noise_is_drawn():
    table = pd.DataFrame(
        [
            {
                "loss": loss,
                "rate": rate,
                "win_rate": 0.7 - rate / 2,
                "low": 0.68 - rate / 2,
                "high": 0.72 - rate / 2,
                "seeds": [0.7, 0.69, 0.71],
            }
            for loss in ("DPO", "robust DPO")
            for rate in (0.0, 0.2, 0.4)
        ]
    )
    left, right = plot_label_noise(table, 0.3).axes
    assert {"DPO", "robust DPO", "single seeds"} <= {
        text.get_text() for text in left.get_legend().get_texts()
    }
    pulls = {line.get_label(): line for line in right.lines}
    for line in pulls.values():  # all pull alike at margin 0
        assert line.get_ydata()[100] == pytest.approx(1)
    assert pulls["DPO"].get_ydata()[-1] < 0.1 < 0.15 < pulls["robust, 10%"].get_ydata()[-1]
    assert not plt.get_fignums()


@pytest.fixture(scope="module")
def run():
    return next(run for run in load_recorded() if run.condition.name == "learning rate too high")


def test_a_setting_is_chosen_by_differences_on_the_same_prompts():
    """Behind on one prompt in eight and ahead on none is worse, however wide both intervals are."""
    best = torch.tensor([1.0, 0.5, 0.5, 0.0] * 20)
    behind, other = best.clone(), best.roll(1)
    behind[::8] = 0.5
    other[:2] = 0.0
    points = torch.stack([best, behind, other])
    assert choose_setting.solution(points, torch.tensor([3.0, 1.0, 2.0])) == 2
    assert choose_setting.solution(points, torch.tensor([1.0, 2.0, 3.0])) == 0


def test_the_mystery_runs_differ_in_what_was_changed():
    """Several flags may be raised in each; the question that is asked has one answer."""
    cases = mystery_cases(load_recorded())
    assert len({run.condition.name for run in cases.values()}) == len(cases) == 4


def test_the_monitor_is_drawn(run):
    gap, rewards, kl, *_ = plot_monitor(run.metrics).axes
    measured = run.metrics[run.metrics["kl/k1"].notna()]
    lines = {line.get_label(): line for line in gap.lines}
    assert list(lines["held out"].get_ydata()) == measured["held/margin"].tolist()
    assert len(lines["train"].get_xdata()) == run.metrics["step"].max()
    assert {"chosen", "rejected"} <= {line.get_label() for line in rewards.lines}
    assert {text.get_text() for text in kl.get_legend().get_texts()} == {"k1", "k3"}
    first = run.metrics.iloc[:1]  # before the first step there is no reward yet
    plot_monitor(first.dropna(axis="columns"))
    assert not plt.get_fignums()


def test_the_frontier_is_drawn():
    rows = [(0.05, 5e-4), (0.1, 5e-4), (1.0, 5e-4), (0.1, 2e-3)]
    table = pd.DataFrame(
        [
            {
                "beta": beta,
                "learning_rate": rate,
                "kl": i + 0.5,
                "gap": 0.1 * i,
                "win_rate": 0.6,
                "low": 0.55,
                "high": 0.65,
            }
            for i, (beta, rate) in enumerate(rows)
        ]
    )
    left, right = plot_frontier(table, (0.1, 5e-4)).axes
    shown = [text.get_text() for text in left.texts]
    assert shown == ["0.05", "0.1", "1", "0.0005", "0.002"]
    assert len(right.texts) == 5 and not plt.get_fignums()


def test_flags_and_checks_as_tables(run):
    html = flags(red_flags(run.metrics, run.beta)).data
    assert "KL running away" in html and "what to try" in html
    assert flags([]).data == "<p>✓ No red flag.</p>"
    sound = Check("a", True, "<found>", "why", "fix")
    broken = Check("b", False, "found", "why it matters", "mend it")
    html = checklist(Preflight((sound, broken))).data
    assert "Not ready" in html and "why it matters" in html and "&lt;found&gt;" in html
    assert "Ready to train" in checklist(Preflight((sound,))).data


def test_nothing_is_drawn_outside_a_notebook(run):
    def plot(metrics):
        raise AssertionError("drawn")

    live(plot)(run.metrics)


def test_changes_are_set_off_and_paged(triples):
    from coursekit.week.widgets import pager, side_by_side

    texts = {side: [row[side] for row in triples] for side in ("rejected", "chosen")}
    plain = side_by_side(
        TRIAGE, triples[:1], {"SFT": texts["rejected"], "DPO": texts["chosen"]}
    ).data
    marked = side_by_side(
        TRIAGE, triples[:1], {"SFT": texts["rejected"], "DPO": texts["chosen"]}, changes=True
    ).data
    changed = set(texts["chosen"][0].split("\n")) - set(texts["rejected"][0].split("\n"))
    assert plain.count("border-left:3px") == 0
    assert marked.count("border-left:3px") == len(changed) + 1  # and the legend
    slider = pager(TRIAGE, triples, texts)
    slider.value = 5
    assert slider.max == 16


def test_what_was_saved_is_verified(quick, sft_folder, tokenizer, tmp_path, monkeypatch):
    """In a process that knows the profile, whatever the environment says there."""
    from coursekit.lm.generation import generate
    from coursekit.lm.loading import load_model
    from coursekit.lm.verify import verify_saved

    prompts = ["What next?\nservice: a", "Tell the team.\nservice: b"]
    texts = generate(load_model(sft_folder, quick), tokenizer, prompts, max_new_tokens=96)
    quick = replace(quick, name="mine")
    monkeypatch.setenv("COURSE_PROFILE", "gone.toml")
    assert str(verify_saved(sft_folder, prompts, texts, quick)).startswith("2 of 2 answers")
    other = verify_saved(sft_folder, prompts, [texts[0], "x"], quick)
    assert other.same == 1 and other.first == ("x", texts[1])
    with pytest.raises(RuntimeError, match=r"a new process cannot use the model in .*: no .*json"):
        verify_saved(tmp_path, prompts, texts, quick)


def where_it_runs(held):
    """In a worker: its process, and whether it sees what the test has put into this module."""
    import os

    return os.getpid(), held in globals()


def test_what_is_run_apart_has_nothing_that_this_process_holds(monkeypatch):
    import math
    import os

    from coursekit.common.parallel import run_apart

    monkeypatch.setitem(globals(), "held_here", True)
    process, sees = run_apart(where_it_runs, "held_here")
    assert process != os.getpid() and not sees
    with pytest.raises(ValueError):
        run_apart(math.sqrt, -1.0)


def test_answers_that_part_at_a_tie_are_the_same(model, tokenizer):
    """Rounding may decide between two tokens that are equally likely, and only between those."""
    import torch

    from coursekit.lm.verify import is_tie

    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert is_tie(model, tokenizer, "What next?", "service: a", "service: b")
    (token,) = tokenizer(" a", add_special_tokens=False)["input_ids"][-1:]
    with torch.no_grad():
        model.lm_head.weight[token] = 1.0
    assert not is_tie(model, tokenizer, "What next?", "service: a", "service: b")
    assert not is_tie(model, tokenizer, "What next?", "the same", "the same")
