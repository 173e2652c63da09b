"""SFT and DPO through TRL: the reference is the SFT model, in every path, and stays it.

The traps are each set up as people fall into them, to see that the checks catch them.
"""

import copy
import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import NATS, ROOT, frozen_copy

from coursekit.common.profile import load_profile
from coursekit.lm.loading import load_model, merge_adapter
from coursekit.lm.logprobs import encode_pair, sequence_logps
from coursekit.lm.losses import dpo_loss
from coursekit.lm.trl_compat import first_batch
from coursekit.preferences import to_trl
from coursekit.tasks.triage import TRIAGE
from coursekit.training import ReferenceError, load_run, train_dpo, train_sft
from coursekit.training.arguments import lora_config
from coursekit.training.one_batch import one_batch_trainer
from coursekit.training.reference import assert_reference


def options(folder, **more):
    """Arguments of a bare `DPOConfig` on a CPU."""
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "num_train_epochs": 1,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        **more,
    }


def bare_trainer(model, tokenizer, triples, folder, *, ref_model=None, peft_config=None, **more):
    from trl import DPOConfig, DPOTrainer

    return DPOTrainer(
        model=model,
        ref_model=ref_model,
        peft_config=peft_config,
        args=DPOConfig(**options(folder, **more)),
        processing_class=tokenizer,
        train_dataset=to_trl(triples, chat=True),
    )


def pair_logps(model, tokenizer, triples):
    prompts = [row["prompt"] for row in triples]
    return tuple(
        sequence_logps(model, tokenizer, prompts, [row[side] for row in triples]).tolist()
        for side in ("chosen", "rejected")
    )


def first_loss(trainer):
    trainer.train()
    return next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)


# The helpers, in every path.


def test_sft_lowers_the_loss_and_saves_safetensors(quick, sft_folder):
    losses = [entry["loss"] for entry in load_run(sft_folder).history]
    assert losses[-1] < losses[0]
    assert (sft_folder / "adapter_model.safetensors").is_file()
    assert not list(sft_folder.glob("*.bin"))


def test_a_finished_sft_run_says_so_and_is_not_trained_again(
    quick, sft_folder, tmp_path, monkeypatch, capsys
):
    from coursekit.training import run as runs
    from coursekit.training import sft

    def trained(*_):
        raise AssertionError("it is trained again")

    monkeypatch.setattr(sft, "run_training", trained)
    monkeypatch.setattr(runs, "_known", set())  # as in another process
    rows = TRIAGE.rows("demonstrations", 64, quick)
    again = train_sft(quick.base_model, rows, sft_folder, quick)
    assert again.history == load_run(sft_folder).history
    assert capsys.readouterr().out == "sft: finished before, from the same; not made anew\n"
    other = shutil.copytree(sft_folder, tmp_path / "other")
    with pytest.raises(AssertionError, match="it is trained again"):
        train_sft(quick.base_model, rows, other, quick, seed=1)


def test_an_adapters_folder_is_the_same_from_any_process(quick, sft_folder):
    """By its contents a model is known; a set's order is another in each process."""
    text = (sft_folder / "adapter_config.json").read_text(encoding="utf-8")
    config = json.loads(text)
    assert config["target_modules"] == sorted(quick.sft.lora_targets)
    assert text == json.dumps(config, indent=2, sort_keys=True)


PATHS = {
    "a new adapter on the merged SFT model": {},
    "reference not precomputed": {"precompute_reference": False},
    "all weights trained": {"lora_rank": 0},
    "all weights trained, reference not precomputed": {
        "lora_rank": 0,
        "precompute_reference": False,
    },
    "the SFT adapter trained on, 4-bit": {"four_bit": True, "precompute_reference": False},
}


@pytest.mark.parametrize("path", PATHS)
def test_reference_is_the_sft_model(path, quick, sft_folder, triples, tokenizer, tmp_path):
    chosen = dict(PATHS[path])
    profile = replace(quick, four_bit=chosen.pop("four_bit", False))
    if profile.four_bit:
        sft_folder = train_sft(
            profile.base_model, _demonstrations(32), tmp_path / "sft4", profile
        ).folder
    rank = chosen.pop("lora_rank", profile.dpo.lora_rank)
    settings = replace(profile.dpo, lora_rank=rank)
    run = train_dpo(sft_folder, triples, tmp_path / "dpo", profile, settings=settings, **chosen)
    assert run.history[0]["loss"] == pytest.approx(math.log(2), abs=NATS)
    assert run.history[0]["rewards/margins"] == pytest.approx(0, abs=NATS)
    assert run.history[-1]["rewards/margins"] > 0.05
    # What was saved is the policy: it prefers the chosen responses more than the SFT model does.
    before = pair_logps(load_model(sft_folder, profile), tokenizer, triples)
    after = pair_logps(load_model(run.folder, profile), tokenizer, triples)
    gain = sum(a - b for a, b in zip(*after, strict=True)) - sum(
        a - b for a, b in zip(*before, strict=True)
    )
    assert gain / len(triples) > 0.5
    assert not (run.folder / "ref").exists()


def _without_template(tokenizer):
    plain = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    plain.chat_template = None
    return plain


def test_without_a_template_trainers_read_what_generation_sees(model, tokenizer, triples, tmp_path):
    """In SFT and DPO the whole prompt, in the tokens it has alone, and then the response's."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from coursekit.lm.logprobs import encode_pair, encode_prompt
    from coursekit.preferences.triples import sft_row

    plain = _without_template(tokenizer)
    dpo = one_batch_trainer(
        plain, triples[:6], str(tmp_path), {}, model=model, ref_model=frozen_copy(model)
    )
    rows = [{"prompt": row["prompt"], "response": row["chosen"]} for row in triples[:6]]
    sft = SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none"),
        train_dataset=Dataset.from_list([sft_row(row, chat=False) for row in rows]),
        processing_class=plain,
    )
    for row, read, shown in zip(triples, dpo.train_dataset, sft.train_dataset, strict=False):
        prompt_ids = encode_prompt(plain, row["prompt"])
        pair = encode_pair(plain, row["prompt"], row["chosen"])
        assert read["prompt_ids"] == prompt_ids == pair.prompt_ids
        assert read["chosen_ids"] == pair.response_ids
        assert shown["input_ids"] == pair.prompt_ids + pair.response_ids
        assert shown["labels"] == [-100] * len(prompt_ids) + pair.response_ids


def test_too_long_rows_are_refused_wherever_they_stand(quick, sft_folder, triples, tmp_path):
    long = "wait " * 600
    rows = [{"prompt": row["prompt"], "response": row["chosen"]} for row in triples]
    rows[11]["response"] = long
    with pytest.raises(ValueError, match=r"row 12, column 'response': .* max_length is 512"):
        train_sft(quick.base_model, rows, tmp_path, quick)
    train = [*triples[:11], {**triples[11], "rejected": long}]
    with pytest.raises(ValueError, match=r"row 12, column 'rejected': .*1 of 24 responses"):
        train_dpo(sft_folder, train, tmp_path, quick)
    roomy = replace(quick, dpo=replace(quick.dpo, max_length=4000))
    with pytest.raises(ValueError, match=r"context 1024"):
        train_dpo(
            sft_folder,
            triples[:4],
            tmp_path,
            roomy,
            validation=[{**triples[4], "chosen": long * 2}],
        )


def test_demonstrations_are_asked_as_everything_is(quick):
    """With `full_instruction` too: one instruction in demonstrations, preferences, evaluation."""
    from coursekit.tasks.triage import INSTRUCTION, INSTRUCTION_IN_FULL, sample_demonstrations

    for full, instruction in ((False, INSTRUCTION), (True, INSTRUCTION_IN_FULL)):
        profile = replace(quick, full_instruction=full)
        for rows in (
            sample_demonstrations(3, profile),
            TRIAGE.rows("preferences", 3, profile),
            TRIAGE.rows("evaluation", 3, profile),
        ):
            assert all(row["prompt"].startswith(instruction + "\n") for row in rows)


def _demonstrations(n):
    from coursekit.tasks.triage import sample_demonstrations

    return sample_demonstrations(n, load_profile("tiny"))


def test_reference_stays_while_the_policy_moves(quick, sft_folder, triples, tokenizer, tmp_path):
    """Change the policy by hand: the reference's log-probabilities must not follow."""
    sft = load_model(sft_folder, quick)
    expected = pair_logps(sft, tokenizer, triples)
    from peft import LoraConfig

    merged = merge_adapter(load_model(sft_folder, quick))
    lora = LoraConfig(target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    trainer = bare_trainer(merged, tokenizer, triples, tmp_path, peft_config=lora)
    assert_reference(trainer, tokenizer, triples, expected, "before")
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3)
    assert pair_logps(trainer.model, tokenizer, triples)[0] != pytest.approx(expected[0], abs=1)
    assert_reference(trainer, tokenizer, triples, expected, "after")


def test_trl_logs_our_log_probabilities(quick, sft_folder, triples, tokenizer, tmp_path):
    run = train_dpo(
        sft_folder, triples[:8], tmp_path, replace(quick, dpo=replace(quick.dpo, epochs=1))
    )
    chosen, rejected = pair_logps(load_model(sft_folder, quick), tokenizer, triples[:8])
    assert run.history[0]["logps/chosen"] == pytest.approx(sum(chosen) / 8, abs=NATS)
    assert run.history[0]["logps/rejected"] == pytest.approx(sum(rejected) / 8, abs=NATS)


def test_trl_loss_is_the_papers(model, tokenizer, triples, tmp_path):
    """TRL's loss on a batch with a policy that differs from its reference, against five lines."""
    reference = frozen_copy(model)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.2)
    policy = [torch.tensor(x) for x in pair_logps(model, tokenizer, triples[:8])]
    anchor = [torch.tensor(x) for x in pair_logps(reference, tokenizer, triples[:8])]
    expected = dpo_loss(*policy, *anchor, beta=0.3)[0].mean().item()
    trainer = bare_trainer(
        model, tokenizer, triples[:8], tmp_path, ref_model=reference, beta=0.3, learning_rate=0.0
    )
    assert first_loss(trainer) == pytest.approx(expected, abs=NATS)


def test_padding_side_of_the_tokenizer_does_not_matter_to_dpo(model, tokenizer, triples, tmp_path):
    """ "Set padding_side='left' or DPO silently learns nothing": it makes no difference at all."""
    histories = []
    for side in ("left", "right"):
        other = copy.deepcopy(tokenizer)
        other.padding_side = side
        policy, reference = frozen_copy(model).requires_grad_(True), frozen_copy(model)
        trainer = bare_trainer(policy, other, triples, tmp_path / side, ref_model=reference)
        trainer.train()
        histories.append([e["loss"] for e in trainer.state.log_history if "loss" in e])
    assert histories[0] == histories[1]
    assert histories[0][0] != histories[0][-1]


def test_only_tokens_with_a_label_are_scored(quick, sft_folder, triples, tokenizer, tmp_path):
    """TRL's head on a CPU: the same loss and gradients from a third of the positions."""
    from trl.trainer import utils

    def step(name):
        asked = []
        head = utils._ChunkedLogProbFunction

        class Counting(head):
            @staticmethod
            def forward(ctx, hidden, *arguments):
                asked.append(len(hidden))
                return head.forward(ctx, hidden, *arguments)

        adapter = lora_config(quick.dpo)
        model = merge_adapter(load_model(sft_folder, quick))
        torch.manual_seed(0)
        trainer = one_batch_trainer(
            tokenizer, triples[:4], tmp_path / name, {"beta": 0.1}, model=model, peft_config=adapter
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(utils, "_ChunkedLogProbFunction", Counting)
            if name == "all":
                patch.setattr(utils, "_use_triton", lambda device: False)
            loss = trainer.compute_loss(trainer.model, first_batch(trainer))
        loss.backward()
        return asked[0], loss, [p.grad for p in trainer.model.parameters() if p.requires_grad]

    (every, loss, gradients), (few, same, alike) = step("all"), step("labels")
    pairs = [
        encode_pair(tokenizer, row["prompt"], row[side])
        for row in triples[:4]
        for side in ("chosen", "rejected")
    ]
    assert few == sum(len(pair.response_ids) for pair in pairs) < every / 2
    torch.testing.assert_close(loss, same)
    torch.testing.assert_close(gradients, alike)
    assert any(gradient.abs().max() > 0 for gradient in gradients)


# The traps.


def test_trap_four_bit_weights_lose_their_gradients_after_an_evaluation(
    quick, sft_folder, triples, tokenizer
):
    """Gradients through 4-bit weights are the same before and after a pass in evaluation mode."""
    from coursekit.lm.logprobs import pad_right, token_logps

    policy = load_model(sft_folder, replace(quick, four_bit=True), trainable=True)
    input_ids, attention_mask, _ = pad_right(
        [encode_pair(tokenizer, row["prompt"], row["chosen"]) for row in triples[:4]], 0
    )
    norms = []
    for _ in range(2):
        policy.train().zero_grad()
        logits = policy(input_ids=input_ids, attention_mask=attention_mask).logits
        token_logps(logits, input_ids).sum().backward()
        trained = [p for p in policy.parameters() if p.requires_grad]
        assert all(p.grad is not None for p in trained)
        norms.append(torch.stack([p.grad.norm() for p in trained]))
        pair_logps(policy, tokenizer, triples[:2])  # an evaluation
    torch.testing.assert_close(norms[0], norms[1])


def test_trap_no_reference_reloads_the_model_from_disk(
    quick, sft_folder, triples, tokenizer, tmp_path
):
    """Weights changed in memory, no adapter, no ref_model: TRL's reference is the *base*."""
    expected = pair_logps(load_model(sft_folder, quick), tokenizer, triples)
    merged = merge_adapter(load_model(sft_folder, quick)).requires_grad_(True)
    trainer = bare_trainer(merged, tokenizer, triples, tmp_path)
    with pytest.raises(ReferenceError, match="before training the reference gives"):
        assert_reference(trainer, tokenizer, triples, expected, "before training")
    assert abs(first_loss(trainer) - math.log(2)) > 0.01


def test_trap_copies_of_a_trained_model_follow_the_policy(
    quick, model, triples, tokenizer, tmp_path
):
    """After a trainer, a deep copy and TRL's helper give a reference that runs the policy."""
    from trl.experimental.utils import create_reference_model

    bare_trainer(model, tokenizer, triples, tmp_path, ref_model=frozen_copy(model)).train()
    expected = pair_logps(model, tokenizer, triples)
    copies = {
        "deepcopy": copy.deepcopy(model),
        "create_reference_model": create_reference_model(model),
        "frozen_copy": frozen_copy(model),
    }
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)  # the policy moves on
    moved = {
        name: abs(pair_logps(reference, tokenizer, triples)[0][0] - expected[0][0]) > 0.1
        for name, reference in copies.items()
    }
    assert moved == {"deepcopy": True, "create_reference_model": True, "frozen_copy": False}


def test_trap_ln2_holds_for_the_same_wrong_model(quick, sft_folder, triples, tokenizer, tmp_path):
    """Policy and reference both the base model: ln 2, and the reference is still wrong."""
    expected = pair_logps(load_model(sft_folder, quick), tokenizer, triples)
    wrong = load_model(quick.base_model, quick)
    trainer = bare_trainer(wrong, tokenizer, triples, tmp_path, ref_model=frozen_copy(wrong))
    with pytest.raises(ReferenceError, match="Start from the folder"):
        assert_reference(trainer, tokenizer, triples, expected, "before training")
    assert first_loss(trainer) == pytest.approx(math.log(2), abs=NATS)


def test_trap_adapter_passed_in_keeps_its_reference(
    quick, sft_folder, triples, tokenizer, tmp_path
):
    """A `PeftModel` without `peft_config`: the reference is the SFT adapter, not the base."""
    expected = pair_logps(load_model(sft_folder, quick), tokenizer, triples)
    adapter = load_model(sft_folder, quick, trainable=True)
    trainer = bare_trainer(adapter, tokenizer, triples, tmp_path)
    assert_reference(trainer, tokenizer, triples, expected, "before training")
    assert first_loss(trainer) == pytest.approx(math.log(2), abs=NATS)
    assert_reference(trainer, tokenizer, triples, expected, "after training")


def test_train_dpo_refuses_another_model_in_the_sft_models_place(
    quick, sft_folder, triples, tmp_path, monkeypatch
):
    """Policy and reference alike, so that the first loss would be ln 2: the base model's."""
    from coursekit.training import dpo

    make = dpo.policy_and_reference
    of_the_base = lambda *_: make(quick.base_model, quick.dpo, quick)  # noqa: E731
    monkeypatch.setattr(dpo, "policy_and_reference", of_the_base)
    with pytest.raises(ReferenceError, match="before training the reference gives"):
        train_dpo(sft_folder, triples, tmp_path / "dpo", quick)
    assert not (tmp_path / "dpo" / "adapter_config.json").exists()


@pytest.mark.parametrize("rank", [0, 4])
def test_train_dpo_notices_a_reference_that_has_moved(
    rank, quick, sft_folder, triples, tmp_path, monkeypatch
):
    """Weights that the reference uses change while it trains: nothing is saved."""
    from coursekit.training import dpo
    from coursekit.training.reference import reference_of

    def moving(trainer, *_):
        with reference_of(trainer) as reference, torch.no_grad():
            next(p for name, p in reference.named_parameters() if "embed" in name).mul_(1.5)

    monkeypatch.setattr(dpo, "run_training", moving)
    settings = replace(quick.dpo, lora_rank=rank)
    with pytest.raises(ReferenceError, match="after training the reference gives"):
        train_dpo(sft_folder, triples, tmp_path / "dpo", quick, settings=settings)
    assert not (tmp_path / "dpo" / "history.jsonl").exists()


# How often a model is loaded.


def test_a_model_is_loaded_once_a_call(quick, sft_folder, triples, tmp_path, monkeypatch):
    """Twice where all weights are trained: the reference is a second one from the same folder."""
    from coursekit.lm import loading
    from coursekit.training import preflight
    from coursekit.training.reward_model import train_reward_model

    loads, load = [], loading._load_plain
    counted = lambda source, profile: loads.append(source) or load(source, profile)  # noqa: E731
    monkeypatch.setattr(loading, "_load_plain", counted)
    few = replace(quick, dpo=replace(quick.dpo, epochs=1))
    whole = replace(few.dpo, lora_rank=0)
    dpo = lambda: train_dpo(sft_folder, triples[:8], tmp_path / "dpo", few)  # noqa: E731
    calls = {
        "SFT": lambda: train_sft(few.base_model, _demonstrations(16), tmp_path / "sft", few),
        "DPO": dpo,
        "finished DPO": dpo,
        "DPO of all weights": lambda: train_dpo(
            sft_folder, triples[:8], tmp_path / "whole", few, settings=whole
        ),
        "reward model": lambda: train_reward_model(
            sft_folder, triples[:8], tmp_path / "reward", few
        ),
        "preflight": lambda: preflight(sft_folder, triples[:8], few),
        "preflight of all weights": lambda: preflight(sft_folder, triples[:8], few, settings=whole),
    }
    counts = {}
    for name, call in calls.items():
        loads.clear()
        call()
        counts[name] = len(loads)
    assert counts == dict.fromkeys(calls, 1) | {
        "finished DPO": 0,
        "DPO of all weights": 2,
        "preflight of all weights": 2,
    }


# Saving, reloading, overwriting.


def test_saved_adapter_gives_the_same_in_a_fresh_process(
    quick, sft_folder, triples, tokenizer, tmp_path
):
    run = train_dpo(sft_folder, triples, tmp_path / "dpo", quick)
    here = pair_logps(load_model(run.folder, quick), tokenizer, triples[:4])[0]
    code = """
import json, sys
from coursekit.lm.loading import load_model, load_tokenizer
from coursekit.lm.logprobs import encode_pair, sequence_logps
rows = json.load(sys.stdin)
model, tokenizer = load_model(sys.argv[1]), load_tokenizer(sys.argv[1])
values = sequence_logps(model, tokenizer, [r["prompt"] for r in rows], [r["chosen"] for r in rows])
print(json.dumps(values.tolist()))
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(run.folder)],
        input=json.dumps(triples[:4]),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == pytest.approx(here, abs=NATS)


def test_training_twice_gives_the_same(quick, sft_folder, triples, tmp_path):
    runs = [train_dpo(sft_folder, triples, tmp_path / str(i), quick, seed=7) for i in range(2)]
    losses = [[entry["loss"] for entry in run.history] for run in runs]
    assert losses[0] == losses[1]


def test_validation_is_logged(quick, sft_folder, triples, tmp_path):
    run = train_dpo(sft_folder, triples[:8], tmp_path, quick, validation=triples[8:])
    assert sum("eval_rewards/margins" in entry for entry in run.history) == quick.dpo.epochs


def test_bad_input_is_told(quick, sft_folder, triples, tmp_path):
    with pytest.raises(ValueError, match="no demonstrations"):
        train_sft(quick.base_model, [], tmp_path, quick)
    broken = [*triples[:2], {"prompt": "a", "chosen": "b"}]
    with pytest.raises(ValueError, match="row 3 has no column 'rejected'"):
        train_dpo(sft_folder, broken, tmp_path, quick)
    with pytest.raises(FileNotFoundError, match="no finished run"):
        load_run(tmp_path / "nothing")


def test_real_preference_data(quick, sft_folder, tmp_path):
    """1,100 pairs of English written with a real LLM: only the mechanics count for this model."""
    path = ROOT.parent / "shared" / "data" / "instruction-preferences.json"
    if not path.is_file():
        pytest.skip("the real preference file is not here")
    from coursekit.preferences import load_triples, split_by_prompt

    rows = load_triples(path)
    assert len(rows) == 1100
    train, validation = split_by_prompt(rows)
    train = [row for row in train if row["chosen"] != row["rejected"]][:128]
    run = train_dpo(
        sft_folder,
        train,
        tmp_path,
        replace(quick, dpo=replace(quick.dpo, max_length=1024)),
        validation=validation[:32],
    )
    assert run.history[0]["loss"] == pytest.approx(math.log(2), abs=0.01)
    assert run.history[-1]["eval_rewards/accuracies"] > 0.5
