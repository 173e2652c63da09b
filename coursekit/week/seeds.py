"""Does the result hold? SFT, DPO and the evaluation for several seeds: `python -m coursekit seeds`.

Prints a markdown table; what is finished is kept and reused, so a stopped run goes on. An SFT model
that was brought is that of every seed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import redirect_stdout

from ..workspace import Workspace, three_way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many (default 5)")
    options = parser.parse_args()
    try:
        workspace = Workspace()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))
    truths = [metric.name for metric in workspace.task.metrics if metric.kind == "truth"]
    head = (
        "seed",
        "win rate, SFT+DPO against SFT",
        "overall, SFT+DPO over SFT",
        *(f"{name} SFT, +DPO" for name in truths),
        "KL, nats",
        "margin",
        "overall base, SFT",
        "facts copied",
    )
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    found: list[tuple[float, ...]] = []
    for seed in range(options.seeds):
        with redirect_stdout(sys.stderr):  # what is told on the way is no part of the table
            result = three_way(_seeded(workspace, seed))
        mean, wins, overall = result.means, result.wins.estimate, result.overall
        cells = (
            str(seed),
            f"{wins.value:.1%} ({wins.low:.1%} to {wins.high:.1%})",
            f"{overall.value:+.3f} ({overall.low:+.3f} to {overall.high:+.3f})",
            *(f"{mean.loc['SFT', name]:.2f}, {mean.loc['SFT+DPO', name]:.2f}" for name in truths),
            f"{result.kl.value:.2f}",
            f"{result.margin:.2f}",
            f"{mean.loc['base', 'overall']:.2f}, {mean.loc['SFT', 'overall']:.2f}",
            f"{result.copied:.1%}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)
        found.append((wins.value, overall.value, result.kl.value, result.margin))
    if len(found) > 1:
        wins, overall, kl, margin = (
            (statistics.mean(column), statistics.stdev(column))
            for column in zip(*found, strict=True)
        )
        print(
            f"| mean ± SD | {wins[0]:.1%} ± {wins[1]:.1%} | {overall[0]:+.3f} ± {overall[1]:.3f} "
            f"{'| ' * len(truths)}| {kl[0]:.2f} ± {kl[1]:.2f} "
            f"| {margin[0]:.2f} ± {margin[1]:.2f} | | |"
        )


def _seeded(workspace: Workspace, seed: int) -> Workspace:
    """The workspace of a seed; its SFT model is the one that `workspace` was brought, if any."""
    folder = workspace.folder / f"seed{seed}"
    seeded = Workspace(workspace.profile, workspace.task, folder=folder, seed=seed)
    if workspace.brings_sft or seeded.brings_sft:
        seeded.use_sft(workspace.sft() if workspace.brings_sft else None)
    return seeded


if __name__ == "__main__":
    main()
