"""How fast is it here? `python -m coursekit bench` measures side by side and prints a table.

Each comparison alternates its two sides in one run and compares medians: on a noisy machine the
ratio means more than either number. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..common.profile import Profile, load_profile
from ..tasks import load_task
from ..workspace import Workspace
from .bench_rows import print_table
from .cell_bench import print_cells

if TYPE_CHECKING:
    from peft import PeftModel

Rows = Sequence[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--model", help="base model to measure in place of the profile's (a folder)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="repetitions (default 5)")
    parser.add_argument(
        "--rows", type=int, help="measure reading, audit and split of so many rows instead"
    )
    parser.add_argument("--short", action="store_true", help="with --rows: rows of one line")
    parser.add_argument("--cells", action="store_true", help="only the cells' times, no measuring")
    parser.add_argument("--fresh", action="store_true", help="execute the notebooks for them")
    options = parser.parse_args()
    if options.rows:
        print_table(options.rows, options.short)
        return
    print_cells(options.fresh)
    if options.cells:
        return
    profile = load_profile()
    if options.model:
        profile = replace(profile, base_model=options.model)
    with tempfile.TemporaryDirectory() as folder:
        profile = replace(profile, artifacts=Path(folder))
        print(f"{machine(profile)}\n\n| what | median | beside it | ratio |\n|---|---|---|---|")
        print(import_time(options.rounds), flush=True)
        print(generation(profile, options.rounds), flush=True)
        print(whole_session(profile), flush=True)
        print(dpo_step(profile, options.rounds), flush=True)
        print(monitoring(profile, options.rounds), flush=True)


def machine(profile: Profile) -> str:
    """What the numbers were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return (
        f"Profile {profile.name}, {os.cpu_count()} cores, {profile.threads} threads, {device}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def alternate(rounds: int, *sides: Callable[[], None]) -> list[float]:
    """The median seconds of each side, taken in turns after one round to warm up."""
    times: list[list[float]] = [[] for _ in sides]
    for round_ in range(rounds + 1):
        for side, measured in zip(sides, times, strict=True):
            start = time.perf_counter()
            side()
            if round_:
                measured.append(time.perf_counter() - start)
    return [statistics.median(measured) for measured in times]


def import_time(rounds: int) -> str:
    """`import coursekit` in a fresh process, less the start of Python itself."""

    def start(code: str) -> Callable[[], None]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    ours, bare = alternate(rounds, start("import coursekit"), start("pass"))
    return f"| `import coursekit` | {max(0, ours - bare) * 1e3:.0f} ms | | |"


def generation(profile: Profile, rounds: int) -> str:
    """A batch of sampled responses against the loop that people write: one `generate` a prompt."""
    from ..lm.generation import generate
    from ..lm.loading import load_model, load_tokenizer
    from ..lm.logprobs import encode_prompt

    model = load_model(profile.base_model, profile)
    n, one_by_one, tokens = profile.generation_batch, 8, 64
    prompts = [row["prompt"] for row in load_task().rows("validation", n, profile)]
    # All responses equally long on both sides: this end token never comes.
    endless = load_tokenizer(profile.base_model, profile)
    endless.eos_token = "<|system|>"
    encoded = [torch.tensor([encode_prompt(endless, prompt)]) for prompt in prompts[:one_by_one]]

    def batch() -> None:
        generate(model, endless, prompts, max_new_tokens=tokens, temperature=0.7, batch_size=n)

    def loop() -> None:
        for input_ids in encoded:
            model.generate(
                input_ids=input_ids.to(model.device),
                attention_mask=torch.ones_like(input_ids).to(model.device),
                max_new_tokens=tokens,
                do_sample=True,
                temperature=0.7,
                eos_token_id=endless.eos_token_id,
                pad_token_id=endless.pad_token_id,
            )

    together, alone = (
        seconds / count
        for seconds, count in zip(alternate(rounds, batch, loop), (n, one_by_one), strict=True)
    )
    return (
        f"| a response of {tokens} tokens, in a batch of {n} | {together * 1e3:.1f} ms "
        f"| one prompt at a time: {alone * 1e3:.0f} ms | {alone / together:.0f} times faster |"
    )


def whole_session(profile: Profile) -> str:
    """SFT, preference sampling with judging, and DPO, once each."""

    workspace, times = Workspace(profile), []
    for step in (workspace.sft, workspace.triples, workspace.dpo):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return (
        f"| SFT + triples + DPO | {sum(times):.0f} s "
        f"| {times[0]:.0f} s + {times[1]:.0f} s + {times[2]:.0f} s | |"
    )


STEPS = 10  # of DPO, each time that a side is measured


def dpo_step(profile: Profile, rounds: int) -> str:
    """One DPO step through TRL with precomputed reference against the bare step in torch.

    Both train the same adapter on the same batch.
    """
    workspace = Workspace(profile)
    sft, rows = workspace.sft(), workspace.triples()[0][: profile.dpo.batch_size]
    sides = steps_through_trl(sft, rows, profile), steps_by_hand(sft, rows, profile)
    ours, hand = (seconds / STEPS for seconds in alternate(rounds, *sides))
    return (
        f"| a DPO step of {len(rows)} pairs through TRL | {ours * 1e3:.0f} ms "
        f"| bare torch: {hand * 1e3:.0f} ms | {ours / hand:.2f} times |"
    )


def steps_through_trl(sft: str | Path, rows: Rows, profile: Profile) -> Callable[[], None]:
    """Ten steps of the trainer, its reference's log-probabilities taken beforehand."""
    from transformers import PrinterCallback

    from ..common.quiet import quiet
    from ..lm.loading import load_tokenizer
    from ..preferences import to_trl
    from ..training.arguments import run_arguments
    from ..training.dpo import dpo_trainer, policy_and_reference

    settings, tokenizer = profile.dpo, load_tokenizer(sft, profile)
    with quiet():
        model, peft_config, reference = policy_and_reference(sft, settings, profile)
        # Activation checkpointing is off on a CPU, on a GPU it would be timed on one side only.
        trainer = dpo_trainer(
            model=model,
            ref_model=reference,
            peft_config=peft_config,
            processing_class=tokenizer,
            train_dataset=to_trl(rows, bool(tokenizer.chat_template)),
            options=run_arguments(settings, profile, profile.artifacts / "bench", 0)
            | {"precompute_ref_log_probs": True, "max_steps": STEPS, "beta": settings.beta}
            | {"activation_checkpointing": False},
        )
    trainer.remove_callback(PrinterCallback)

    def steps() -> None:
        with quiet():
            trainer.train()

    return steps


def steps_by_hand(sft: str | Path, rows: Rows, profile: Profile) -> Callable[[], None]:
    """Ten times forward, loss, backward and AdamW's step, on tensors that are ready."""
    from ..lm.losses import dpo_loss

    model, logps = _policy_by_hand(sft, rows, profile)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=profile.dpo.learning_rate, fused=True)
    with torch.no_grad():
        anchor = logps()

    def steps() -> None:
        for _ in range(STEPS):
            loss = dpo_loss(*logps(), *anchor, beta=profile.dpo.beta)[0].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return steps


def _policy_by_hand(
    sft: str | Path, rows: Rows, profile: Profile
) -> tuple[PeftModel, Callable[[], tuple[torch.Tensor, ...]]]:
    """SFT with a new adapter, and its log-probabilities of chosen and of rejected, (N,) each."""
    from peft import get_peft_model

    from ..common.quiet import quiet
    from ..lm.loading import load_model, load_tokenizer, merge_adapter
    from ..lm.logprobs import encode_pair, pad_right, sum_over_response, token_logps
    from ..training.arguments import lora_config

    tokenizer = load_tokenizer(sft, profile)
    with quiet():
        whole = merge_adapter(load_model(sft, profile))
        model = get_peft_model(whole, lora_config(profile.dpo)).train()
    pairs = [
        encode_pair(tokenizer, row["prompt"], row[side])
        for side in ("chosen", "rejected")
        for row in rows
    ]
    input_ids, attention_mask, response_mask = (
        tensor.to(model.device) for tensor in pad_right(pairs, tokenizer.pad_token_id)
    )

    def logps() -> tuple[torch.Tensor, ...]:
        logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
        return sum_over_response(token_logps(logits, input_ids), response_mask).chunk(2)

    return model, logps


def monitoring(profile: Profile, rounds: int) -> str:
    """DPO watched as in session B, figure and all, against the same training unwatched."""
    import io

    import matplotlib.pyplot as plt

    from ..training import Monitor, train_dpo
    from .figures.results import plot_monitor

    workspace = Workspace(profile)
    sft = workspace.sft()
    train, validation = workspace.triples()
    prompts = [row["prompt"] for row in workspace.task.rows("validation", 24, profile)]

    def draw(metrics: Any) -> None:
        figure = plot_monitor(metrics)
        figure.savefig(io.BytesIO(), format="png")
        plt.close(figure)

    def train_with(monitor: Monitor | None) -> None:
        with tempfile.TemporaryDirectory() as scratch:  # a finished run would not be made anew
            folder = Path(scratch) / "watched"
            train_dpo(sft, train, folder, profile, monitor=monitor, save_strategy="no")

    watched, alone = alternate(
        max(1, rounds // 2),
        lambda: train_with(Monitor(prompts, validation[:16], times=3, show=draw)),
        lambda: train_with(None),
    )
    return (
        f"| DPO on {len(train)} triples, watched | {watched:.1f} s "
        f"| unwatched: {alone:.1f} s | {watched / alone - 1:.0%} more |"
    )


if __name__ == "__main__":
    main()
