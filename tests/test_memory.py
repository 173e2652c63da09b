"""What a DPO step needs: predicted, measured by the course's own trainer, told in the README."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from coursekit.lm import memory_budget
from coursekit.lm.shapes import SHAPES, Shape, find_shape, shape_of
from coursekit.lm.step_memory import (
    FP32,
    METHODS,
    PARTS,
    SIXTEEN_BIT,
    Plan,
    kept,
    logits_at_once,
    predict,
)
from coursekit.training import memory as measured
from coursekit.week import memory as command
from coursekit.week import memory_tables as tables

PROMISED = 0.15  # how far a prediction may be off what is measured
FOUND = 0.05  # how far it is: at small shapes as at large ones

PUBLISHED = {  # parameters: Qwen2.5's and Llama 3.1's model cards, in full by their checkpoints
    "0.5B": 494_032_768,
    "1.5B": 1_543_714_304,
    "7B": 7_615_616_512,
    "8B": 8_030_261_248,
}

# Small, and each with another part that counts most.
DEEP = Shape("deep", 1200, 256, 700, 5, 8, 2, 48)
WIDE = Shape("wide", 1200, 96, 9000, 3, 4, 4, 24)
WORDS = Shape("words", 60_000, 256, 512, 2, 8, 2, 32, tied=True, biases=True, model_type="qwen2")
GEMMA = Shape("gemma", 1200, 192, 512, 4, 4, 1, 64, tied=True, model_type="gemma3_text")
QWEN_3 = Shape("qwen3", 1200, 192, 512, 4, 4, 2, 64, model_type="qwen3")


# Shapes.


def test_named_shapes_have_the_parameters_of_the_published_models():
    assert {name: shape.parameters for name, shape in SHAPES.items()} == PUBLISHED


@pytest.mark.parametrize(
    "shape", [DEEP, WIDE, WORDS, GEMMA, QWEN_3, SHAPES["0.5B"]], ids=lambda it: it.name
)
def test_parameters_are_those_of_a_model(shape):
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = shape.config()
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(each.numel() for each in model.parameters()) == shape.parameters
    assert shape_of(shape.name, config.to_dict()) == shape


def test_a_model_is_found_by_its_folder(profile, tmp_path):
    shape = find_shape(profile.base_model)
    assert (shape.layers, shape.hidden, shape.key_value_heads) == (3, 128, 2)
    with pytest.raises(FileNotFoundError, match=r"no config.json in .*one of 0.5B"):
        find_shape(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}', encoding="utf-8")
    with pytest.raises(ValueError, match="of the type 'mamba'; counted are llama"):
        find_shape(str(tmp_path))


def test_adapter_against_peft(model, quick):
    from peft import get_peft_model

    from coursekit.training.arguments import lora_config

    shape = find_shape(quick.base_model)
    adapted = get_peft_model(model, lora_config(quick.dpo))
    assert adapted.get_nb_trainable_parameters()[0] == shape.adapter(quick.dpo.lora_rank)


# Prediction.


def test_what_is_kept_is_the_budgets():
    """Both modules count the same: session A's table and the command's."""
    shape = SHAPES["7B"]
    budget = memory_budget.recipe_table(shape.parameters)
    for recipe in METHODS["full"]:
        found = kept(shape, Plan("full", recipe, precomputed=False))
        row = budget.loc[recipe] * memory_budget.GIB
        assert found["weights"] + found["reference"] == pytest.approx(row["weights"])
        assert found["optimiser"] == pytest.approx(row["optimiser"])
    adapter = memory_budget.adapter_training(shape.adapter(16))
    found = kept(shape, Plan("QLoRA"))
    assert found["adapters"] == pytest.approx(adapter["weights"] * memory_budget.GIB)
    plain = memory_budget.frozen_4_bit(shape.parameters, shape.unquantised)["weights"]
    scales = found["weights"] / memory_budget.GIB / plain - 1
    assert 0 < scales < 0.03


def test_full_training_ends_with_all_gradients_and_the_others_with_activations():
    shape, full = SHAPES["7B"], Plan("full", SIXTEEN_BIT, precomputed=False)
    parts = predict(shape, full)
    assert tuple(parts) == PARTS
    assert parts["gradients"] == 2 * shape.parameters
    assert sum(parts.values()) == 10 * shape.parameters  # bytes, as the budget says
    adapted = predict(shape, Plan("LoRA"))
    assert adapted["activations"] > adapted["gradients"] and adapted["reference"] == 0


def test_the_logits_are_not_held():
    plan = Plan("LoRA", batch=8, length=2048)
    shape = SHAPES["8B"]
    held, there = logits_at_once(shape, plan), predict(shape, replace(plan, checkpointing=False))
    assert held == 2 * 8 * 2 * 2048 * 128256 * 4
    assert there["logits"] < held / 50


@pytest.mark.parametrize("shape", SHAPES.values(), ids=lambda shape: shape.name)
def test_less_is_needed_with_less(shape):
    def need(**changes):
        return sum(predict(shape, replace(Plan(batch=4), **changes)).values())

    assert need(method="QLoRA") < need() < need(method="full") < need(method="full", recipe=FP32)
    assert need() < need(checkpointing=False) < need(checkpointing=False, batch=8)
    assert need(method="full") < need(method="full", precomputed=False)


# Measurement.


def test_the_peak_of_a_known_computation():
    outer = torch.zeros(1000, 1000)
    watch = measured._CpuPeak()
    there = measured.live_bytes()
    first = outer + 1  # 4 MB
    del first
    second = torch.cat([outer, outer])  # 8 MB
    peak = watch.end()
    assert second.numel() == 2e6 and 8e6 <= peak - there < 8.1e6


CASES = [
    (DEEP, Plan("full", FP32, True, False, 4, 64)),
    (DEEP, Plan("full", SIXTEEN_BIT, False, False, 2, 96)),
    (DEEP, Plan("LoRA", FP32, False, False, 4, 64, rank=8)),
    (DEEP, Plan("LoRA", SIXTEEN_BIT, False, True, 2, 96)),
    (DEEP, Plan("QLoRA", SIXTEEN_BIT, False, True, 2, 96)),
    (WIDE, Plan("full", FP32, True, True, 2, 64)),
    (WIDE, Plan("LoRA", SIXTEEN_BIT, True, False, 2, 96, rank=4)),
    (WIDE, Plan("QLoRA", SIXTEEN_BIT, True, False, 2, 96)),
    (WORDS, Plan("full", FP32, True, False, 1, 48)),
    (WORDS, Plan("LoRA", SIXTEEN_BIT, True, True, 1, 48)),
    (GEMMA, Plan("full", FP32, False, True, 4, 64)),
    (QWEN_3, Plan("LoRA", FP32, False, True, 4, 64)),
]


def named(case):
    if isinstance(case, Shape):
        return case.name
    flags = ("checkpointing" * case.checkpointing, "precomputed" * case.precomputed)
    return "-".join(filter(None, (case.method, case.recipe.split()[-1], *flags)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model's folder by shape and number format, made once."""
    folders = {}

    def folder(shape, recipe):
        dtype = "float32" if recipe == FP32 else measured.sixteen_bit()
        if (shape, dtype) not in folders:
            folders[shape, dtype] = tmp_path_factory.mktemp(shape.name)
            measured.make_model(shape, folders[shape, dtype], dtype)
        return folders[shape, dtype]

    return folder


@pytest.mark.skipif(torch.cuda.is_available(), reason="what is predicted here is for a CPU")
@pytest.mark.parametrize(("shape", "plan"), CASES, ids=named)
def test_prediction_against_measurement(shape, plan, made, profile):
    found = measured.measure_step(made(shape, plan.recipe), plan, steps=1, profile=profile)
    predicted = sum(predict(shape, plan, "cpu").values())
    assert predicted == pytest.approx(found.peak, rel=FOUND)
    assert found.pairs_per_second > 0
    # What the plan says matters: told otherwise, the prediction would be wrong.
    for wrong in (replace(plan, batch=4 * plan.batch), replace(plan, length=4 * plan.length)):
        assert sum(predict(shape, wrong, "cpu").values()) > (1 + PROMISED) * found.peak


def test_the_pairs_are_as_long_as_asked(tokenizer, profile):
    from coursekit.lm.logprobs import encode_pair

    for length in (24, 65):
        row, other = measured.pairs(tokenizer, length, 2)
        assert row == other
        chosen, rejected = (
            encode_pair(tokenizer, row["prompt"], row[side]) for side in ("chosen", "rejected")
        )
        assert len(chosen.prompt_ids) + len(chosen.response_ids) == length
        assert len(rejected.prompt_ids) + len(rejected.response_ids) == length - 1
        assert abs(len(chosen.prompt_ids) - length / 2) <= 4
    with pytest.raises(ValueError, match="no pair of 6 tokens"):
        measured.pairs(tokenizer, 6, 1)


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has 50 words, the tokenizer that measures it 1056"):
        measured.make_model(replace(DEEP, vocab=50), tmp_path, "float32")


def test_want_of_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**52)
    assert measured.is_out_of_memory(error.value)
    assert measured.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as error:
        torch.ones(2) @ torch.ones(3)
    assert not measured.is_out_of_memory(error.value)


# The command.


def run_command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["memory", *arguments])
    command.main()
    return capsys.readouterr().out


def test_predictions_say_what_fits(monkeypatch, capsys):
    out = run_command(
        monkeypatch,
        capsys,
        *"8B --batch 1 --length 1024 --gpu-memory 16 --checkpointing on".split(),
    )
    rows = [line for line in out.splitlines() if line.startswith(("| full", "| LoRA", "| QLoRA"))]
    assert len(rows) == 2 * sum(map(len, METHODS.values()))
    assert [row for row in rows if row.endswith("| yes |")] == [
        row for row in rows if "QLoRA" in row
    ]


def test_without_a_model_the_profiles_is_meant(monkeypatch, capsys, profile):
    out = run_command(monkeypatch, capsys)
    assert out.startswith("tiny: 869,248 parameters")
    assert f"{profile.dpo.batch_size} x 2 sequences of {profile.dpo.max_length} tokens" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere/at/all/model"], "nowhere/at/all/model"),
        (["/nowhere"], "no config.json in /nowhere"),
        (["7B", "--methods", "QLoRA", "--kept-in", "all fp32"], "leave no recipe"),
    ],
)
def test_what_cannot_be_meant_is_told(arguments, told, monkeypatch, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_command(monkeypatch, capsys, *arguments)
    assert told in str(exit_.value)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_count_is_a_count(text, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_command(monkeypatch, capsys, "7B", f"--batch={text}")
    assert f"'{text}' is no whole number from 1" in capsys.readouterr().err


def test_what_ships_can_be_printed(monkeypatch, capsys):
    out = run_command(monkeypatch, capsys, "--recorded")
    assert tables.t4_table() in out and tables.NOT_MEASURED in out


def test_measuring_goes_on_where_it_was(monkeypatch, capsys, tmp_path):
    """A fresh process for each recipe; what is in the file is not measured again."""
    asked = []

    def run(command_line, **_):
        asked.append(json.loads(command_line[-1])["plan"])
        fits = len(asked) != 2
        outcome = {"status": "measured", "peak": 10**9, "pairs_per_second": 2.0}
        return SimpleNamespace(
            returncode=0 if fits else -9,
            stdout=json.dumps(outcome),
        )

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(measured, "make_model", lambda shape, folder, dtype: folder.mkdir())
    monkeypatch.setattr(measured, "free_bytes", lambda: 2**40)
    save = tmp_path / "rows.jsonl"
    plans = [Plan("LoRA", FP32, length=64), Plan("full", FP32, length=64)]
    command.measure(DEEP, plans, 1, save)
    out = capsys.readouterr().out
    assert "| 0.93 (" in out and "| does not fit |" in out
    assert len(asked) == 2 and len(tables.recorded(save)) == 2
    command.measure(DEEP, [*plans, Plan("QLoRA", length=64)], 1, save)
    assert len(asked) == 3 and asked[-1]["method"] == "QLoRA"


def test_a_process_that_fails_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(measured, "make_model", lambda shape, folder, dtype: folder.mkdir())
    ended = SimpleNamespace(returncode=3, stdout="", stderr="KeyError: 'no such weight'")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(SystemExit, match=r"(?s)no such weight.*'LoRA'.* ended with 3; .* kept"):
        command.measure(DEEP, [Plan("LoRA", FP32, length=64)], 1, tmp_path / "rows.jsonl")


def test_what_cannot_fit_is_refused_beforehand(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(measured, "free_bytes", lambda: 2**30)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it was run"))
    plans = [Plan("full", FP32), Plan("full", METHODS["full"][1])]
    command.measure(SHAPES["7B"], plans, 1, tmp_path / "rows.jsonl")
    out = capsys.readouterr().out
    assert "not run: needs 113.5 GiB, 1.0 are free" in out
    assert "not run: on one device TRL keeps no master copy" in out
    assert tables.recorded(tmp_path / "rows.jsonl") == []


# What ships.


def test_the_shipped_rows_are_measured_and_predicted_well():
    rows = tables.recorded()
    assert {row["plan"]["method"] for row in rows} == set(METHODS)
    assert len(set(map(tables.key, rows))) == len(rows)
    for row in rows:
        plan = Plan(**row["plan"])
        shape = SHAPES[row["shape"]]
        assert row["predicted"] == round(sum(predict(shape, plan, row["device"]).values()))
        if row["status"] == tables.MEASURED:
            assert row["predicted"] == pytest.approx(row["peak"], rel=PROMISED)


def test_gpu_rows_wait_until_they_are_measured(monkeypatch):
    monkeypatch.setattr(tables, "recorded", lambda: [])
    waiting = tables.shipped()
    assert len(waiting) == len(tables.GPU_SHAPES) * len(tables.GPU_PLANS)
    assert {row["status"] for row in waiting} == {tables.NOT_MEASURED}
    assert tables.NOT_MEASURED in tables.measured_table(waiting)
    done = waiting[2] | {"machine": "a card", "status": tables.MEASURED}
    monkeypatch.setattr(tables, "recorded", lambda: [done])
    assert tables.shipped() == [done, *waiting[:2], *waiting[3:]]


def test_the_readme_has_the_tables_that_the_code_gives():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.t4_table() in text
    assert f"What fits: {tables.t4_answer()}." in text
    assert tables.measured_table(tables.shipped()) in text
