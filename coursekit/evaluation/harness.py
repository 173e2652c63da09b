"""The same question to the models through EleutherAI's harness, `lm-eval`, as for real models.

An optional extra (`pip install "lm-eval==0.4.13"`): `python -m coursekit.evaluation.harness FOLDER`
writes a local multiple-choice task and runs it, without a network; with `--tasks` it runs any of
the harness's own (`--tasks hellaswag`; those want their data from the hub).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.files import save_jsonl
from ..common.profile import Profile, load_profile
from ..tasks import Task, load_task

QUESTIONS = "course_questions"  # the local task's name for the harness

_TASK_FILE = """task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


def write_questions(task: Task, folder: str | Path, n: int = 200, seed: int = 0) -> Path:
    """Write the task's questions that have few answers, at most `n`, for the harness.

    Raises ValueError if the task has none.
    """
    folder = Path(folder).resolve()
    rows = [
        {
            "question": probe.prompt,
            "choices": list(probe.choices),
            "answer": probe.choices.index(probe.response),
        }
        for probe in task.probes(10 * n, seed)
        if probe.choices
    ][:n]
    if not rows:
        raise ValueError(
            f"the task {task.name!r} has no questions with choices: name the harness's own tasks "
            "(--tasks hellaswag)"
        )
    data = save_jsonl(rows, folder / f"{QUESTIONS}.jsonl")
    (folder / f"{QUESTIONS}.yaml").write_text(
        _TASK_FILE.format(task=QUESTIONS, data=json.dumps(str(data))), encoding="utf-8"
    )
    return folder


def run_harness(
    source: str | Path,
    profile: Profile,
    tasks: Sequence[str] = (QUESTIONS,),
    *,
    task_folder: str | Path | None = None,
    limit: int | None = None,
) -> dict[str, dict[str, Any]]:
    """The harness's results for the model in `source` (adapters included), by task.

    Args:
        task_folder: where local tasks are (`write_questions`), beside the harness's own.
        limit: questions a task, at most.

    Raises ModuleNotFoundError, with the command to run, where `lm-eval` is not installed.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'the harness is an optional extra: pip install "lm-eval==0.4.13"'
        ) from error
    from ..common.quiet import quiet
    from ..lm.loading import load_model, load_tokenizer

    with quiet():
        model = HFLM(
            pretrained=load_model(source, profile),
            tokenizer=load_tokenizer(source, profile),
            batch_size=profile.generation_batch,
        )
        found = simple_evaluate(
            model=model,
            tasks=list(tasks),
            task_manager=TaskManager(include_path=str(task_folder) if task_folder else None),
            apply_chat_template=True,
            limit=limit,
            bootstrap_iters=0,
            verbosity="ERROR",
        )
    return found["results"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a folder (adapter or whole), or a name on the hub")
    parser.add_argument("--tasks", nargs="+", default=[QUESTIONS])
    parser.add_argument("--limit", type=int, help="questions a task")
    options = parser.parse_args()
    profile = load_profile()
    folder = profile.artifacts / "harness"
    if QUESTIONS in options.tasks:
        write_questions(load_task(), folder)
    results = run_harness(
        options.model, profile, options.tasks, task_folder=folder, limit=options.limit
    )
    print(json.dumps(results, indent=2, default=str))


if __name__ == "__main__":
    main()
