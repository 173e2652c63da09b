"""Our losses against TRL's on the same batch of real responses, where TRL has them."""

from types import SimpleNamespace

import pytest
import torch
from conftest import NATS, frozen_copy

from coursekit.lm.logprobs import sequence_logps
from coursekit.lm.losses import (
    cdpo_loss,
    dpo_loss,
    ipo_loss,
    kto_loss,
    orpo_loss,
    robust_dpo_loss,
    simpo_loss,
)
from coursekit.training import trl_loss


@pytest.fixture()
def policy(model):
    """A policy that differs from its reference, so that no log-ratio is 0."""
    other = frozen_copy(model)
    with torch.no_grad():
        other.lm_head.weight.mul_(1.2)
    return other


@pytest.fixture()
def logps(model, policy, tokenizer, triples):
    """Per-token log-probabilities of policy and reference, chosen and rejected: four lists."""
    prompts = [row["prompt"] for row in triples]
    return [
        sequence_logps(one, tokenizer, prompts, [row[side] for row in triples], per_token=True)
        for one in (policy, model)
        for side in ("chosen", "rejected")
    ]


def sums(rows):
    return torch.stack([row.sum() for row in rows])


def means(rows):
    return torch.stack([row.mean() for row in rows])


@pytest.mark.parametrize(
    ("options", "ours"),
    [
        ({"loss_type": "sigmoid"}, lambda *a: dpo_loss(*a, beta=0.3)),
        (
            {"loss_type": "robust", "label_smoothing": 0.2},
            lambda *a: robust_dpo_loss(*a, beta=0.3, label_smoothing=0.2),
        ),
    ],
)
def test_losses_on_sums(options, ours, model, policy, tokenizer, triples, logps):
    expected = ours(*map(sums, logps))[0].mean().item()
    found = trl_loss(policy, model, tokenizer, triples, beta=0.3, **options)
    assert found == pytest.approx(expected, abs=NATS)


def test_label_smoothing_does_nothing_to_trls_sigmoid_loss(
    model, policy, tokenizer, triples, logps
):
    """People expect cDPO from it; the loss is plain DPO's."""
    found = trl_loss(policy, model, tokenizer, triples, beta=0.3, label_smoothing=0.2)
    plain = dpo_loss(*map(sums, logps), beta=0.3)[0].mean().item()
    smoothed = cdpo_loss(*map(sums, logps), beta=0.3, label_smoothing=0.2)[0].mean().item()
    assert found == pytest.approx(plain, abs=NATS)
    assert abs(found - smoothed) > 1e-2


def test_ipo_is_per_token_in_trl(model, policy, tokenizer, triples, logps):
    found = trl_loss(policy, model, tokenizer, triples, beta=0.3, loss_type="ipo")
    per_token = ipo_loss(*map(means, logps), beta=0.3)[0].mean().item()
    as_in_the_paper = ipo_loss(*map(sums, logps), beta=0.3)[0].mean().item()
    assert found == pytest.approx(per_token, rel=1e-4)
    assert abs(found - as_in_the_paper) > 0.1


def test_kto(model, policy, tokenizer, triples, tmp_path):
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    rows = triples[:8]
    prompts = [row["prompt"] for row in rows]
    texts = [row["chosen" if index % 2 else "rejected"] for index, row in enumerate(rows)]
    labels = [bool(index % 2) for index in range(8)]
    dataset = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": prompt}],
                "completion": [{"role": "assistant", "content": text}],
                "label": label,
            }
            for prompt, text, label in zip(prompts, texts, labels, strict=True)
        ]
    )
    trainer = KTOTrainer(
        model=policy,
        ref_model=model,
        args=KTOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=8,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            beta=0.3,
            report_to="none",
        ),
        processing_class=tokenizer,
        train_dataset=dataset,
    )
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    with torch.no_grad():
        found = trainer.compute_loss(trainer.model, inputs).item()
    mismatched = [texts[-1], *texts[:-1]]

    def log_ratio(responses):
        one, other = (sequence_logps(m, tokenizer, prompts, responses) for m in (policy, model))
        return one, other

    one, other = log_ratio(mismatched)
    expected = kto_loss(*log_ratio(texts), torch.tensor(labels), (one - other).mean(), beta=0.3)[0]
    assert found == pytest.approx(expected.mean().item(), abs=NATS)


def test_orpo(logps):
    from trl.experimental.orpo import ORPOTrainer

    settings = SimpleNamespace(beta=0.25, accelerator=SimpleNamespace(device="cpu"))
    chosen, rejected = (means(rows) for rows in logps[:2])
    ours, ratio = orpo_loss(chosen, rejected, weight=0.25)
    theirs, *_, log_odds = ORPOTrainer.odds_ratio_loss(settings, chosen, rejected)
    torch.testing.assert_close(ours, -chosen - theirs, rtol=1e-5, atol=1e-5)
    assert ratio.mean().item() == pytest.approx(log_odds.item(), abs=1e-5)


def test_simpo(logps):
    from trl.experimental.cpo import CPOTrainer

    settings = SimpleNamespace(
        beta=2.0,
        simpo_gamma=0.5,
        alpha=0.0,
        label_smoothing=0.0,
        loss_type="simpo",
        accelerator=SimpleNamespace(device="cpu"),
    )
    chosen, rejected = (means(rows) for rows in logps[:2])
    ours = simpo_loss(chosen, rejected, beta=2.0, gamma=0.5)[0]
    theirs = CPOTrainer.cpo_loss(settings, chosen, rejected)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
