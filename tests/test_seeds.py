"""The table over seeds: a folder and a line for each, mean and SD at the end."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd

from coursekit.common.profile import TINY_MODEL
from coursekit.common.statistics import Estimate
from coursekit.week import seeds
from coursekit.workspace import ThreeWay, Workspace


def result(seed):
    means = pd.DataFrame(
        {
            "severity": [0.1, 0.6, 0.8],
            "faithfulness": [0.2, 0.5, 0.9],
            "usefulness": [0.3, 0.7, 0.7],
            "overall": [0.3, 1.0, 1.0],
        },
        index=["base", "SFT", "SFT+DPO"],
    )
    wins = SimpleNamespace(estimate=Estimate(0.7 + 0.1 * seed, 0.6, 0.9))
    return ThreeWay(
        means, Estimate(0.1, 0.05, 0.15), wins, Estimate(1.5, 1.0, 2.0), copied=0.97, margin=0.4
    )


def test_a_line_a_seed_and_their_mean(profile, monkeypatch, capsys):
    asked = []

    def three_way(workspace):
        print("sft: finished before")
        asked.append((workspace.seed, workspace.folder))
        return result(workspace.seed)

    monkeypatch.setattr(seeds, "three_way", three_way)
    monkeypatch.setattr("coursekit.workspace.load_profile", lambda: profile)
    monkeypatch.setattr(sys, "argv", ["seeds", "--seeds", "3"])
    seeds.main()
    assert asked == [
        (seed, profile.artifacts / "triage" / "tiny" / f"seed{seed}") for seed in range(3)
    ]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()
    ]
    assert {len(line) for line in lines} == {10}
    head, _, first, _, third, mean = lines
    assert dict(zip(head, first, strict=True)) == {
        "seed": "0",
        "win rate, SFT+DPO against SFT": "70.0% (60.0% to 90.0%)",
        "overall, SFT+DPO over SFT": "+0.100 (+0.050 to +0.150)",
        "severity SFT, +DPO": "0.60, 0.80",
        "faithfulness SFT, +DPO": "0.50, 0.90",
        "KL, nats": "1.50",
        "margin": "0.40",
        "usefulness SFT, +DPO": "0.70, 0.70",
        "overall base, SFT": "0.30, 1.00",
        "facts copied": "97.0%",
    }
    assert third[1].startswith("90.0%")
    assert mean[:2] == ["mean ± SD", "80.0% ± 10.0%"]


def test_one_seed_has_no_mean(profile, monkeypatch, capsys):
    monkeypatch.setattr(seeds, "three_way", lambda workspace: result(workspace.seed))
    monkeypatch.setattr("coursekit.workspace.load_profile", lambda: profile)
    monkeypatch.setattr(sys, "argv", ["seeds", "--seeds", "1"])
    seeds.main()
    assert "mean" not in capsys.readouterr().out


def test_a_model_that_was_brought_is_that_of_every_seed(profile, monkeypatch, tmp_path, capsys):
    own = replace(profile, artifacts=tmp_path)
    seen = []

    def three_way(workspace):
        seen.append(workspace.sft() if workspace.brings_sft else "its own")
        return result(workspace.seed)

    monkeypatch.setattr(seeds, "three_way", three_way)
    monkeypatch.setattr(Workspace, "_trained", lambda self, n, name: self.folder / name)
    monkeypatch.setattr("coursekit.workspace.load_profile", lambda: own)
    monkeypatch.setattr(sys, "argv", ["seeds", "--seeds", "2"])
    Workspace().use_sft(TINY_MODEL)
    seeds.main()
    Workspace().use_sft(None)
    seeds.main()
    assert seen == [str(TINY_MODEL)] * 2 + ["its own"] * 2
