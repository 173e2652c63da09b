"""The sweep over wrong labels: what it trains on, resumed, in one process and in two."""

from dataclasses import replace

import pytest
from conftest import NATS

from coursekit.evaluation.judges import ProgramJudge
from coursekit.tasks.triage import TRIAGE
from coursekit.week.label_noise import label_noise_sweep, noise_table


@pytest.fixture(scope="module")
def setting(quick, triples, sft_folder):
    """A faultless and a faulty report as candidates for each of sixteen prompts."""
    candidates = [
        {
            "prompt": row["prompt"],
            "facts": row["facts"],
            "prompt_id": index,
            "candidates": [
                {"response": row[side], "source": side, "temperature": 1.0}
                for side in ("chosen", "rejected")
            ],
        }
        for index, row in enumerate(triples)
    ]
    profile = replace(quick, threads=1, max_new_tokens=16, dpo=replace(quick.dpo, epochs=1))
    return sft_folder, candidates, TRIAGE.rows("validation", 4, profile), profile


def test_each_run_once_resumed_and_the_same_side_by_side(setting, tmp_path, capsys):
    options = {"rates": (0.0, 0.4), "seeds": (0,), "triples": 16}
    path = tmp_path / "noise.jsonl"
    sft, candidates, rows, profile = setting
    frame = label_noise_sweep(
        sft, candidates, rows, profile, ProgramJudge(TRIAGE), path=path, **options
    )
    assert frame[["rate", "loss"]].to_numpy().tolist() == [
        [0.0, "DPO"],
        [0.4, "DPO"],
        [0.4, "robust DPO"],
        [0.0, "robust DPO"],  # no run of its own: without wrong labels it is DPO
    ]
    assert frame["wrong"].tolist()[0] == 0 and 0.1 < frame["wrong"].tolist()[1] < 0.8
    assert frame["wrong"][1] == frame["wrong"][2]  # the same labels for both losses
    assert frame["margin"][3] == frame["margin"][0] > frame["margin"][1]
    assert frame["margin"][1] != pytest.approx(frame["margin"][2], rel=0.01)
    assert frame["win_rate"].tolist() == [sum(points) / 4 for points in frame["points"]]

    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    path.write_bytes(b"".join(lines[:2]))
    two = replace(profile, threads=2)  # the last run is missing: made in a process of its own
    again = label_noise_sweep(
        sft, candidates, rows, two, ProgramJudge(TRIAGE), path=path, **options
    )
    assert path.read_bytes().splitlines(keepends=True)[:2] == lines[:2]  # not made anew
    assert again["points"][2] == frame["points"][2]
    assert again["margin"][2] == pytest.approx(frame["margin"][2], abs=NATS)


def test_the_table(setting):
    import pandas as pd

    runs = [
        {"rate": 0.1, "loss": "DPO", "seed": seed, "wrong": 0.1, "points": won, "win_rate": 0.0}
        for seed, won in enumerate(([1.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.5, 1.0]))
    ]
    (row,) = noise_table(pd.DataFrame(runs)).to_dict("records")
    assert row["win_rate"] == pytest.approx(5.5 / 8) and row["low"] < 5.5 / 8 < row["high"]
    assert row["seeds"] == [0.0, 0.0]
