"""What session A shows: memory arithmetic, predictions, strips, revisions, notes, figures."""

import math

import numpy as np
import pytest
import torch

from coursekit.lm import memory_budget as memory
from coursekit.tasks.triage import sample_alerts, score_report
from coursekit.tasks.triage.constitution import PRINCIPLES, revise
from coursekit.tasks.triage.reports import expected_values, write_report
from coursekit.week.bandit import (
    CONDITIONS,
    Condition,
    compare_estimators,
    make_world,
    overoptimise,
    true_at_kl,
)
from coursekit.week.deliverables import TEMPLATES, count_words, notes
from coursekit.week.widgets import beta_slider, held, predict, quiz, token_strip


def test_lora_parameters_of_known_models():
    llama_3_2_3b = memory.lora_parameters(16, 28, 3072, 24, 8, 128)
    llama_3_8b = memory.lora_parameters(16, 32, 4096, 32, 8, 128)
    assert (llama_3_2_3b, llama_3_8b) == (9_175_040, 13_631_488)


def test_lora_parameters_against_peft(model):
    from peft import LoraConfig, get_peft_model

    config = model.config
    expected = memory.lora_parameters(
        8,
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
    )
    lora = LoraConfig(r=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    assert get_peft_model(model, lora).get_nb_trainable_parameters()[0] == expected


def test_memory_by_hand():
    table = memory.memory_table({"1B": 2**30}, adapter_share=0.01)
    dpo = table.loc[("1B", "DPO")]
    assert (dpo["weights"], dpo["gradients"], dpo["optimiser"]) == (4, 2, 12)
    assert table.loc[("1B", "PPO"), "total"] == 2 * 16 + 2 * 2
    lora = table.loc[("1B", "DPO + LoRA")]
    assert lora["total"] == pytest.approx(2 + 0.01 * 16)
    # A twenty-fifth of the weights, embeddings and head, stays in 16 bit.
    assert table.loc[("1B", "DPO + QLoRA"), "total"] == pytest.approx(
        0.96 * 0.5 + 0.04 * 2 + 0.01 * 16
    )


def test_full_dpo_needs_what_its_recipe_says():
    """8, 16 and 16 bytes a parameter to train it, and the reference as the weights are."""
    table = memory.recipe_table(7e9)
    total = (table["total"] * memory.GIB / 7e9).round(6).to_dict()
    assert total == {"all bf16": 10, "bf16, fp32 master copy": 18, "all fp32": 20}
    usual = memory.memory_table({"7B": 7e9}).loc[("7B", "DPO")]
    assert table.loc["bf16, fp32 master copy", "total"] == usual["total"]
    assert table["total"].round().to_list() == [65, 117, 130]


def test_quantisation_leaves_embeddings_and_head():
    whole = memory.frozen_4_bit(100 * 2**30, embeddings=10 * 2**30)
    assert whole == {"weights": 90 * 0.5 + 10 * 2, "gradients": 0, "optimiser": 0}


def test_predictions(capsys):
    prediction = predict("Up or down?", ["up", "down"])
    held(prediction, "up", "it rose by 3")
    assert "made no prediction" in capsys.readouterr().out
    prediction = predict("Up or down?", ["up", "down"], choice="down")
    held(prediction, "up", "it rose by 3")
    assert "You predicted: down" in capsys.readouterr().out
    prediction = predict("Up or down?", ["up", "down"], choice="up")
    held(prediction, "up", "it rose by 3")
    assert "held" in capsys.readouterr().out
    with pytest.raises(ValueError, match="'left' is none of the options"):
        predict("Up or down?", ["up", "down"], choice="left")
    with pytest.raises(ValueError, match="'left' is none of the options"):
        held(prediction, "left", "")


@pytest.fixture()
def shown(monkeypatch):
    """The widgets that are displayed, and the texts that stand in for them."""
    from coursekit.week.widgets import page

    displayed = []
    monkeypatch.setattr(page, "show_widget", lambda *shown: displayed.append(shown))
    return displayed


def test_a_click_is_a_prediction(shown):
    prediction = predict("Up or down?", ["up", "down"])
    box, instead = shown[0]
    box.children[1].value = "down"
    assert prediction.choice == "down" and "choice=" in instead


def test_token_strip_escapes_and_skips():
    html = token_strip(["a", "<b>", " c"], [-0.1, -2.0], skip=2).data
    assert "&lt;b&gt;" in html and "p = 0.135" in html and "p = 0.905" not in html


def test_quiz_folds_answers_away():
    html = quiz([("Why <now>?", "Because.")]).data
    assert html.count("<details") == 1 and "&lt;now&gt;" in html


def test_the_slider_redraws(shown, monkeypatch):
    from coursekit.week.figures import theory

    drawn = []
    monkeypatch.setattr(theory, "plot_optimum", lambda world, beta, prompt: drawn.append(beta))
    beta_slider(make_world())
    slider, _ = shown[0][0].children
    slider.value = 0.1
    assert drawn == [1.0, pytest.approx(0.1)]


def test_a_widget_is_shown_by_its_public_name_alone(monkeypatch):
    """ipywidgets 7, which Colab has, knows no `_repr_mimebundle_`."""
    from types import SimpleNamespace

    from coursekit.week.widgets import page

    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: bundles.append(bundle))
    page.show_widget(SimpleNamespace(model_id="abc"), "Run this cell.")
    view = bundles[0]["application/vnd.jupyter.widget-view+json"]
    assert view == {"version_major": 2, "version_minor": 0, "model_id": "abc"}


def test_a_widget_has_a_text_for_where_it_cannot_be_shown(monkeypatch):
    """Else it is what ipywidgets itself would show."""
    from coursekit.week.widgets import page

    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: bundles.append(bundle))
    shown = []
    real = page.show_widget
    monkeypatch.setattr(page, "show_widget", lambda box, text: (shown.append(box), real(box, text)))
    predict("Up or down?", ["up", "down"])
    assert "add choice=" in bundles[0]["text/plain"]
    if hasattr(shown[0], "_repr_mimebundle_"):  # ipywidgets 7, Colab's, shows itself otherwise
        itself = shown[0]._repr_mimebundle_()
        assert bundles[0] == {**itself, "text/plain": bundles[0]["text/plain"]}


def test_revision_mends_what_breaks_a_principle_and_nothing_else():
    alert = next(alert for alert in sample_alerts("validation", 50) if not alert.change)
    values = expected_values(alert)
    right = write_report(values)
    assert revise(alert, right).revised == right and not revise(alert, right).critiques
    wrong = write_report(values | {"cause": "suspected deploy 7", "next": "monitor the situation"})
    revision = revise(alert, wrong)
    assert len(revision.critiques) == 2 and revision.revised == right
    assert score_report(alert, revision.revised).overall == 1
    other = write_report(values | {"region": "eu-north-9", "cause": "suspected deploy 7"})
    assert "eu-north-9" in revise(alert, other).revised  # no principle speaks of it
    assert revise(alert, "heads up").revised == "heads up"
    assert len(PRINCIPLES) == 3


def test_notes_are_never_overwritten(profile, tmp_path):
    from dataclasses import replace

    here = replace(profile, artifacts=tmp_path)
    first = notes("dpo", here)
    assert first.words == 0 and first.path.read_text(encoding="utf-8") == TEMPLATES["dpo"]
    first.path.write_text(
        TEMPLATES["dpo"] + "\nThe constant cancels, doesn't it?\n", encoding="utf-8"
    )
    again = notes("dpo", here)
    assert again.words == 5 and "doesn't it" in again.path.read_text(encoding="utf-8")
    assert str(again) == "dpo.md: 5 words so far"
    with pytest.raises(ValueError, match="unknown notes 'ppo'"):
        notes("ppo", here)
    assert count_words("", "x") == 0


def test_estimators_differ_as_their_classes_do():
    small = {
        "few": Condition(100),
        "blind": Condition(5000, visible=1),
        "unseen": Condition(5000, unseen=0.5),
    }
    results = compare_estimators(small, seeds=4)
    mean = results.pivot_table(index="condition", columns="method", values="regret")
    assert (results["regret"] > -1e-9).all()
    assert mean.loc["few", "RLHF"] < mean.loc["few", "DPO"]
    assert mean.loc["unseen", "RLHF"] < mean.loc["unseen", "DPO"]
    assert mean.loc["blind", "DPO"] < mean.loc["blind", "RLHF"]
    assert set(CONDITIONS) >= {"plenty of pairs", "half never seen"}


def test_the_kl_term_stops_where_early_stopping_would():
    """Natural gradient in a table: every beta climbs along one path and ends elsewhere on it."""
    free, held_back = (overoptimise(beta, seeds=2) for beta in (0.0, 1.0))
    ends = held_back.groupby("seed")[["kl", "true"]].last()
    stopped = true_at_kl(free, ends["kl"])
    assert stopped.to_list() == pytest.approx(ends["true"].to_list(), abs=0.01)
    assert (ends["kl"] < free.groupby("seed")["kl"].last() / 2).all()
    with pytest.raises(ValueError, match=r"world 0 goes .* nats at most, not 99\.00"):
        true_at_kl(free, ends["kl"] * 0 + 99)


def test_the_ridge_reaches_both_fits():
    few = {"few": Condition(100)}
    weak, strong = (
        compare_estimators(few, seeds=1, ridge=ridge).set_index("method")["regret"]
        for ridge in (0.01, 10.0)
    )
    assert weak["reference"] == strong["reference"]
    assert abs(weak["DPO"] - strong["DPO"]) > 0.01
    assert abs(weak["RLHF"] - strong["RLHF"]) > 0.001


def test_the_figures_show_what_they_are_given():
    from matplotlib.text import Text

    from coursekit.week.bandit import sample_pairs
    from coursekit.week.figures import theory as figures

    world = make_world()
    assert sample_pairs(world, 3).prompts.dtype == torch.int64
    shown = " ".join(text.get_text() for text in figures.plot_pipeline().findobj(Text))
    assert "Bradley-Terry" in shown and "DPO: one supervised stage" in shown

    shifted = figures.plot_reward_fit({"a": world.reward, "b": world.reward + 5}, world.reward)
    for (
        axes
    ) in shifted.axes:  # a constant for each prompt is no error: on the diagonal all the same
        true, fitted = axes.collections[0].get_offsets().T
        assert fitted.tolist() == pytest.approx(true.tolist(), abs=1e-6) and true.std() > 0.1

    far, near = figures.plot_optima(world, [0.1, 10]).axes
    for axes in (far, near):
        reference, optimum = ([bar.get_height() for bar in bars] for bars in axes.containers)
        assert sum(reference) == pytest.approx(1) and sum(optimum) == pytest.approx(1)
    assert optimum == pytest.approx(reference, abs=0.1)  # a high beta keeps it near

    gradient, distance, frontier = figures.plot_beta(world, [0.1, 0.5, 1, 3]).axes
    assert list(gradient.lines[0].get_ydata()) == [0.05, 0.25, 0.5, 1.5]
    assert list(distance.lines[0].get_ydata()) == list(frontier.lines[0].get_xdata())
    kl, reward = frontier.lines[0].get_xydata().T
    assert sorted(kl, reverse=True) == list(kl) and sorted(reward, reverse=True) == list(reward)

    of_a_pair = {line.get_label(): line for line in figures.plot_loss_family(0.5).axes[0].lines}
    h, loss = (np.asarray(values) for values in of_a_pair["DPO"].get_data())
    assert loss[np.abs(h).argmin()] == pytest.approx(math.log(2))
    h, loss = (np.asarray(values) for values in of_a_pair["IPO, divided by 50"].get_data())
    assert h[loss.argmin()] == pytest.approx(1 / (2 * 0.5))

    (axes,) = figures.plot_margins({"DPO": [0.1, 0.2], "IPO": [0.5, 1.0]}, {"IPO": 1.67}).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[0.1, 0.2], [0.5, 1.0], [1.67, 1.67]]

    for rewards, expected in (([1, 0, 0, 1], [1, -1, -1, 1]), ([1, 1, 1], [0, 0, 0])):
        given, advantages = figures.plot_group_advantages(rewards).axes
        assert [bar.get_height() for bar in given.patches] == rewards
        assert [bar.get_height() for bar in advantages.patches] == expected

    several = {beta: overoptimise(beta, seeds=2, steps=3) for beta in (0.0, 1.0)}
    assert len(figures.plot_frontier(several).axes[0].lines) >= len(several)
