"""What is wrong with a task's folder: `python -m coursekit check my_task`."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.profile import Profile, load_profile
from ..lm.loading import adapter_config, load_tokenizer
from ..lm.logprobs import encode_pair, encode_prompt
from . import find_folder
from .contents import (
    DEMONSTRATIONS,
    FILES,
    PROMPTS,
    RUBRIC,
    Contents,
    Entry,
    head,
    read_contents,
)
from .folder import FolderTask, split_of
from .problems import Problem, TaskError, report
from .rubric import load_rubric
from .settings import FILE as SETTINGS
from .task import SPLITS, Metric

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Problem", "check_task", "main_check", "report"]

POINTS = 10  # a win rate that is known to within so many per cent is worth talking about
# What so few prompts of a split cost beside that; the least that is worth a try.
_LEAST = {"preferences": 50, "validation": 20, "evaluation": 96}
_COST = {
    "preferences": "the judge's preference between two responses",
    "validation": "the share of held-out triples that DPO gets right",
    "evaluation": "a win rate",
}
_SAMPLE = "This is one sentence that answers nothing."


def check_task(folder: str | Path, profile: Profile | None = None) -> list[Problem]:
    """All that is wrong with the task in `folder`, in the order in which one would mend it.

    What reading refuses; a rubric that judges cannot use; splits too small to show anything; lines
    that are used for nothing; metrics that fail on a prompt; and what does not fit the context of
    the profile's base model, if that is at hand.
    """
    path, profile = find_folder(folder), profile or load_profile()
    contents = read_contents(path)
    problems = list(contents.problems)
    if not contents.texts:
        return problems
    problems += _rubric(contents)
    problems += _unknown_files(path)
    if any(problem.severe for problem in contents.problems):
        return problems
    task = FolderTask(path)
    problems += _sizes(task)
    problems += _idle(task, contents)
    problems += _metrics(task)
    problems += _lengths(task, profile)
    return problems


def half_width(n: int) -> float:
    """Half the 95 % interval of a share near one half among `n`, in per cent: 98 / sqrt(n)."""
    return min(100.0, 98 / math.sqrt(n)) if n else 100.0


def _rubric(contents: Contents) -> Iterator[Problem]:
    if RUBRIC not in contents.texts or contents.wrong(RUBRIC):
        return
    path = contents.folder / RUBRIC
    try:
        load_rubric(path)
    except ValueError as error:
        said = re.fullmatch(rf"{re.escape(RUBRIC)}(?:, line (\d+):)? (.*?)(?:: (.*))?", str(error))
        line, what, remedy = said.groups() if said else (None, str(error), None)
        remedy = remedy or "write `# title`, what it is about, and clauses under `## name`"
        yield Problem(path, int(line or 1), what, remedy)


def _unknown_files(folder: Path) -> Iterator[Problem]:
    """Files whose names are nearly those that are read."""
    for path in sorted(folder.iterdir()):
        close = get_close_matches(path.name, FILES, n=1, cutoff=0.8)
        if close and path.is_file() and path.name not in FILES:
            yield Problem(path, None, "nothing reads this file", f"name it {close[0]}?", False)


def _sizes(task: FolderTask) -> Iterator[Problem]:
    """Splits that are empty, or too small to show anything."""
    prompts = task.folder / next(name for name in PROMPTS if (task.folder / name).is_file())
    for split, least in _LEAST.items():
        n, share = len(task.entries(split)), task.shares[split]
        if n >= least:
            continue
        wanted = math.ceil((least - n) / share * 100) if share else 0
        remedy = f"add about {wanted} prompts" if share else "give it a share of them"
        remedy += f", or change the shares under [splits] in {SETTINGS}"
        what = (
            f"{split}: {n} prompt{'' if n == 1 else 's'}; {_COST[split]} would be known to within "
            f"{half_width(n):.0f} points"
            if n
            else f"{split}: no prompt ({share:g} per cent of them should be its own)"
        )
        yield Problem(prompts, None, what, remedy, severe=n == 0)


def _idle(task: FolderTask, contents: Contents) -> Iterator[Problem]:
    """Lines that are used for nothing."""
    used = {entry.key for split in SPLITS for entry in task.entries(split)}
    unused = [entry for entry in contents.prompts if entry.key not in used]
    if unused:
        share = task.shares["demonstrations"]
        what = (
            f"{len(unused)} of {len(contents.prompts)} prompts are used for nothing, the first "
            f"{head(unused[0].prompt)}: {share:g} per cent are kept for demonstrations, and these "
            "have no response"
        )
        remedy = f"set demonstrations = 0 under [splits] in {SETTINGS}, or write responses"
        yield Problem(unused[0].file, unused[0].line, what, remedy, severe=False)
    known = used | {entry.key for entry in unused}
    for entry in contents.references:
        if entry.key not in known:
            what = f"a reference for a prompt that is not there ({head(entry.prompt)})"
            remedy = "write the prompt as it stands in the prompts' file, or take the line out"
            yield Problem(entry.file, entry.line, what, remedy, severe=False)


def _metrics(task: FolderTask) -> Iterator[Problem]:
    """The first failure of each metric, tried on every prompt with a few responses."""
    for metric in task.metrics:
        if error := _failure(task, metric):
            yield error.problem


def _failure(task: FolderTask, metric: Metric) -> TaskError | None:
    for split in SPLITS:
        for entry in task.entries(split):
            row = {"prompt": task.ask(entry.prompt)}
            given = (entry.rest.get("response"), task.reference(row))
            for response in ("", *(text for text in given if isinstance(text, str)), _SAMPLE):
                try:
                    metric.score(row, response)
                except TaskError as error:
                    return error
    return None


def _lengths(task: FolderTask, profile: Profile) -> Iterator[Problem]:
    """Prompts that leave no room for a response, and demonstrations that are too long to train."""
    try:
        context, tokenizer = _context(profile), load_tokenizer(profile.base_model, profile)
    except (OSError, ValueError) as error:
        what = f"lengths not checked: {profile.base_model} is not at hand ({type(error).__name__})"
        yield Problem(task.folder, None, what, "load the model once, then check again", False)
        return
    for split in SPLITS:
        for entry in task.entries(split):
            problem = _too_long(task, entry, profile, tokenizer, context or math.inf)
            if problem:
                yield problem


def _context(profile: Profile) -> int | None:
    """Tokens in the base model's context, if its configuration says so; the weights stay unread."""
    from transformers import AutoConfig

    source, adapter = profile.base_model, adapter_config(profile.base_model)
    if adapter:
        source = adapter["base_model_name_or_path"]
    revision = None if Path(source).is_dir() else profile.revision
    config = AutoConfig.from_pretrained(
        source, revision=revision, local_files_only=True, trust_remote_code=False
    )
    return getattr(config, "max_position_embeddings", None)


def _too_long(
    task: FolderTask,
    entry: Entry,
    profile: Profile,
    tokenizer: PreTrainedTokenizerBase,
    context: float,
) -> Problem | None:
    prompt = task.ask(entry.prompt)
    n, room = len(encode_prompt(tokenizer, prompt)), profile.max_new_tokens
    if n + room > context:
        what = (
            f"the prompt has {n} tokens, {'the instruction included, ' if task.instruction else ''}"
            f"and with {room} for a response more than the context of {context}"
        )
        return Problem(entry.file, entry.line, what, f"cut it to {max(context - room, 0)} tokens")
    response = _response(task, entry)
    if response is None:
        return None
    pair = encode_pair(tokenizer, prompt, response)
    whole, most = len(pair.prompt_ids + pair.response_ids), min(context, profile.sft.max_length)
    if whole > most:
        what = f"the prompt and its response have {whole} tokens, and SFT takes {most}"
        return Problem(entry.file, entry.line, what, "shorten them or take the line out")
    return None


def _response(task: FolderTask, entry: Entry) -> str | None:
    """What SFT would train on."""
    if entry.file.name == DEMONSTRATIONS:
        return entry.rest["response"]
    if split_of(entry.key, task.shares) == "demonstrations":
        return task.reference({"prompt": task.ask(entry.prompt)})
    return None


def main_check(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status, 1 if the task cannot be used so."""
    parser = argparse.ArgumentParser(prog="python -m coursekit check", description=__doc__)
    parser.add_argument(
        "folder",
        help="of a task, or a shipped task; a relative path counts from the course's folder",
    )
    options = parser.parse_args(argv)
    try:
        problems = check_task(options.folder)
    except ValueError as error:  # no such profile, say
        print(error, file=sys.stderr)
        return 1
    print(report(problems))
    return int(any(problem.severe for problem in problems))


if __name__ == "__main__":
    sys.exit(main_check())
