"""`python -m coursekit export [RUN] FOLDER`: a DPO run for machines elsewhere.

Without a run, the workspace's DPO (which is made if it is not there). Of another run the SFT model
and the triples are looked for where the course puts them, beside it, or named. See
`training.export` for what is written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.profile import Profile, load_profile
from ..lm.identity import model_identity
from ..lm.loading import adapter_config
from ..preferences import load_triples, split_by_prompt
from ..training.export import export_dpo
from ..training.rows import Rows, rows_fingerprint
from ..training.run import TrainingRun, load_run
from ..workspace import Workspace


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    profile = load_profile()
    try:
        run, parts = _found(options, profile) if options.run else _of_workspace(Workspace(profile))
        more = {"name": options.name, "gpus": options.gpus, "machines": options.machines}
        folder = export_dpo(run, options.folder, profile, **parts, **more)
    except (OSError, ValueError) as error:
        print(f"Not exported: {error}", file=sys.stderr)
        return 1
    print(f"{folder}: begin with its README.md")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m coursekit export", description="Write what trains a DPO run elsewhere."
    )
    parser.add_argument("run", nargs="?", type=_place, help="its folder; else the workspace's DPO")
    parser.add_argument("folder", type=_place, help="where to write: new, or empty")
    parser.add_argument("--sft", help="the SFT model that the run started from")
    parser.add_argument("--triples", type=_place, help="a file with the triples it was trained on")
    parser.add_argument("--validation", type=_place, help="a file with those held out, if any were")
    parser.add_argument("--name", help="the SFT model's name on the hub: its weights stay here")
    parser.add_argument("--gpus", type=int, default=4, help="GPUs a machine (4)")
    parser.add_argument("--machines", type=int, default=2, help="machines, where several (2)")
    return parser.parse_args(arguments)


def _place(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _of_workspace(workspace: Workspace) -> tuple[Path, dict[str, Any]]:
    """The workspace's DPO and what it was made from."""
    run = workspace.dpo()
    train, validation = workspace.triples()
    return run, {"sft": workspace.sft(), "triples": train, "validation": validation}


def _found(options: argparse.Namespace, profile: Profile) -> tuple[Path, dict[str, Any]]:
    """The run that is named, and what it was made from, as named or as it lies beside the run."""
    run = load_run(options.run)
    train, validation = _rows(options, run)
    sft = options.sft or _sft_beside(run, profile)
    return run.folder, {"sft": sft, "triples": train, "validation": validation}


def _sft_beside(run: TrainingRun, profile: Profile) -> str | Path:
    """The model on which the run's adapter lies, or the folder `sft` beside it.

    Raises ValueError if neither is the model that the run started from.
    """
    link = adapter_config(run.folder)
    beside = run.folder.parent / "sft"
    places = [*([link["base_model_name_or_path"]] if link else []), *([beside] * beside.is_dir())]
    for place in places:
        if model_identity(place, profile) == run.made_from.get("sft"):
            return place
    raise ValueError(
        f"the SFT model that {run.folder} was trained from is not found (looked at: "
        f"{', '.join(map(str, places)) or 'nothing'}; with the profile {profile.name}): name it "
        "with --sft, and set COURSE_PROFILE and COURSE_MODEL as they were"
    )


def _rows(options: argparse.Namespace, run: TrainingRun) -> tuple[Rows, Rows]:
    """The triples and those held out: as named, or the two parts of the workspace's file.

    Raises ValueError for a file that is not there, or holds other rows.
    """
    if options.triples:
        held_out = load_triples(options.validation) if options.validation else []
        return load_triples(options.triples), held_out
    path = run.folder.parent / "triples.jsonl"
    if path.is_file():
        train, held_out = split_by_prompt(load_triples(path))
        if rows_fingerprint(train) == run.made_from.get("rows"):
            return train, held_out
    raise ValueError(
        f"the triples of {run.folder} are not those in {path}: name the files that hold them "
        "(--triples, --validation; preferences.write_triples writes such files)"
    )


if __name__ == "__main__":
    sys.exit(main())
