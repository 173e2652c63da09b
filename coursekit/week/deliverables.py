"""What the learner makes and keeps: notes and a reflection from templates, and a list of it all."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.markup import as_link, as_markdown
from ..common.profile import Profile
from ..evaluation.record import ThreeWayRecord, load_three_way
from ..workspace import Workspace
from .diary import Diary
from .sources import labs

if TYPE_CHECKING:
    import pandas as pd

TEMPLATES = {
    "dpo": """# Notes on DPO

Rafailov et al. 2023, "Direct Preference Optimization", arXiv:2305.18290. About 600 words in all.
Write below each question; delete nothing above it.

## What problem does it solve, and what did one do before? (about 100 words)

## The derivation in five sentences: objective, closed form, reward, Bradley-Terry, loss (150)

## Why does the partition function cancel, and where would it not? (60)

## What does the gradient weigh? What does beta do, from both sides? (100)

## Which claims of the paper did you see hold in a cell, and which only under conditions? (100)

## What would you ask the authors? (90)
""",
    "instructgpt": """# Notes on InstructGPT

Ouyang et al. 2022, "Training language models to follow instructions with human feedback",
arXiv:2203.02155. About 300 words in all. Write below each question; delete nothing above it.

## The three stages, and which data each needs (about 80 words)

## How was the reward model trained: which loss, on what comparisons? (60)

## What keeps the policy near the SFT model, and what happens without it? (60)

## What got worse ("alignment tax"), and what did they do about it? (50)

## What does DPO do away with, and what does it keep? (50)
""",
}


# There a link opens the rendered page, in which nobody can write.
TO_WRITE = " (in JupyterLab, right-click the page that opens: <i>Show Markdown Editor</i>)"
REFLECTED = "reflection.md"
REFLECTION = """# Did it help? A reflection

About 300 words in all. Write below each question; delete nothing above it. The table is that of
your own run.

{table}

{pairwise}

## What can you conclude, and from which number? (about 80 words)

## What did it cost, elsewhere and in distance from the SFT model? (60)

## Where did a number mislead you, or nearly? (60)

## Which of your decisions mattered most: data, judge, settings? How do you know? (60)

## What would you do with another week? (40)
"""


@dataclass(frozen=True, repr=False)
class Notes:
    """A learner's notes: the file, and how many words the learner has written in it.

    A notebook shows them with a link to the file.
    """

    path: Path
    words: int

    def __str__(self) -> str:
        return f"{self.path.name}: {self.words} words so far"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"{as_link(self.path)}: {self.words} words so far{'' if self.words else TO_WRITE}"


def notes(kind: str, profile: Profile) -> Notes:
    """The notes of that kind; the template is written if there is no file yet, never over one.

    Raises ValueError for an unknown kind.
    """
    if kind not in TEMPLATES:
        raise ValueError(f"unknown notes {kind!r}: choose one of {', '.join(TEMPLATES)}")
    return _from_template(profile.artifacts / "notes" / f"{kind}.md", TEMPLATES[kind])


def reflection(record: ThreeWayRecord, folder: Path) -> Notes:
    """The reflection on a run, in the folder of its workspace; the template carries its table.

    An existing one is never touched; if it carries another run's table, that is said.
    """
    template = _reflection_template(record)
    made = _from_template(folder / REFLECTED, template)
    if as_markdown(record.pairwise) not in made.path.read_text(encoding="utf-8"):
        print(
            f"{made.path.name} carries the table of an earlier run. It is yours, and stays as it "
            "is; the new table is in three_way.md"
        )
    return made


def _reflection_template(record: ThreeWayRecord) -> str:
    return REFLECTION.format(table=record.markdown, pairwise=as_markdown(record.pairwise))


def _from_template(path: Path, template: str) -> Notes:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template)
    except FileExistsError:
        pass
    return Notes(path, count_words(path.read_text(encoding="utf-8"), template))


def count_words(text: str, template: str) -> int:
    """Words of `text` outside the lines that `template` has, and outside tables."""
    given = set(template.splitlines())
    own = "\n".join(
        line for line in text.splitlines() if line not in given and not line.startswith("|")
    )
    return len(re.findall(r"\w[\w'’-]*", own))


# What there is at the end of the week.


# What is said of a piece: its state (`sound`, `unfinished`, `missing`), and what was found.
State = tuple[str, str]


def portfolio(workspace: Workspace) -> pd.DataFrame:
    """What of the week's output exists and is sound: a line a piece.

    Columns: `state` (`sound`, `unfinished`, `missing`), `found`, and `where` to make or mend it.
    Nothing is written or trained. What is called sound was looked at: the triples are audited, the
    adapter is loaded and asked, weights are read to the end.
    """
    import pandas as pd

    runs, profile = workspace.folder, workspace.profile
    checks: dict[str, tuple[str, Callable[[], State]]] = {
        "exercises": ("session A, B and C", lambda: _exercises(Diary(runs))),
        "predictions": ("session A, B and C", lambda: _predictions(Diary(runs))),
        "notes on DPO": ("session A, section 9", lambda: _notes(profile, "dpo", 500)),
        "notes on InstructGPT": (
            "session A, section 9",
            lambda: _notes(profile, "instructgpt", 200),
        ),
        "preference triples": ("session B, section 3", lambda: _triples(runs)),
        "data card": ("session B, section 4", lambda: _data_card(runs)),
        "runs": ("session B, sections 2, 6, 8 and 9", lambda: _runs(runs)),
        "DPO adapter": ("session B, section 6", lambda: _adapter(workspace)),
        "three-way evaluation": ("session C", lambda: _evaluation(workspace)),
        "reflection": ("session C, section 11", lambda: _reflection(runs)),
        "release": ("session C, section 11", lambda: _release(runs)),
    }
    lines = []
    for name, (where, check) in checks.items():
        try:
            state, found = check()
        except (OSError, ValueError) as error:  # damaged: the message says which file, and how
            state, found = "unfinished", str(error)
        lines.append({"piece": name, "state": state, "found": found, "where": where})
    return pd.DataFrame(lines).set_index("piece").rename_axis(None)


def _exercises(diary: Diary) -> State:
    """Solved ones, by whom: the course's own function stands in for those that are not."""
    from .solved import EXERCISES, REQUIRED, counted, is_the_courses

    attempts = {name: each for name, each in diary.attempts().items() if name in EXERCISES}
    if not attempts:
        return "missing", f"none of {len(REQUIRED)} answered"
    solved = {name: each for name, each in attempts.items() if each.state == "correct"}
    copied = sum(is_the_courses(name, each.code) for name, each in solved.items())
    unsolved = REQUIRED.keys() - solved.keys()
    return "unfinished" if unsolved else "sound", (
        counted(solved, "solved by you")
        + f", {copied} of them as the course prints it" * bool(copied)
        + f"; {len(unsolved)} by the course's own function"
    )


def _predictions(diary: Diary) -> State:
    """Those that were asked; those of the labs, which are optional, are counted apart."""
    from .solved import and_of_the_lab

    every, optional = diary.predictions().values(), _asked_in_labs()
    asked = [each for each in every if each.question not in optional]
    made = [each for each in asked if each.choice is not None]
    in_labs = [each.choice for each in every if each.question in optional]
    if not made:
        return "missing", f"none made, {len(asked)} asked so far"
    came_out = [each for each in made if each.truth is not None]
    held = sum(each.choice == each.truth for each in came_out)
    late = sum(each.late for each in made)
    return "sound" if len(made) == len(asked) else "unfinished", (
        f"{len(made)} of {len(asked)} made"
        + and_of_the_lab(len(in_labs) - in_labs.count(None), len(in_labs))
        + f", {held} held of {len(came_out)} that came out"
        + f"; {late} made when the result had been shown" * bool(late)
    )


def _asked_in_labs() -> set[str]:
    """The questions of the labs' predictions."""
    nodes = [
        node
        for source in labs()
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "predict"
    ]
    return {ast.literal_eval(node.args[0]) for node in nodes}


def _runs(runs: Path) -> State:
    from ..common.journal import read_journal
    from ..training.run import is_finished

    models = sorted(
        path.name
        for path in runs.glob("*")
        if path.is_dir() and is_finished(path) and "-old" not in path.name
    )
    trials = sum(len(read_journal(runs / f"{name}.jsonl")) for name in ("betas", "label_noise"))
    if not models:
        return "missing", "no finished training run"
    return "sound", f"{', '.join(models)}, and {trials} short runs to compare settings and labels"


def _notes(profile: Profile, kind: str, wanted: int) -> State:
    path = profile.artifacts / "notes" / f"{kind}.md"
    if not path.is_file():
        return "missing", f"no {path.name}"
    return _written(count_words(path.read_text(encoding="utf-8"), TEMPLATES[kind]), wanted)


def _written(words: int, wanted: int) -> State:
    return "sound" if words >= wanted else "unfinished", f"{words} words, at least {wanted} wanted"


def _triples(runs: Path) -> State:
    from ..preferences import audit, load_triples, split_by_prompt

    path = runs / "triples.jsonl"
    if not path.is_file():
        return "missing", f"no {path.name}"
    rows = load_triples(path)
    train, validation = split_by_prompt(rows)
    faults = [
        item for item in audit(train, validation=validation).findings if item.outcome == "fault"
    ]
    named = ", ".join(f"{item.check} ({len(item.rows)} rows)" for item in faults)
    found = f"{len(rows)} triples; the audit finds {named or 'no faulty row'}"
    # A guess at a few rows is no reason to make them anew; a twentieth of the data is.
    faulty = len({row for item in faults for row in item.rows})
    return "sound" if len(rows) >= 500 and faulty <= len(rows) / 20 else "unfinished", found


def _data_card(runs: Path) -> State:
    path = runs / "triples" / "README.md"
    if not path.is_file():
        return "missing", "no README.md beside the triples"
    return "sound", f"{len(path.read_text(encoding='utf-8').split())} words"


def _adapter(workspace: Workspace) -> State:
    from ..lm.generation import generate
    from ..lm.loading import load_tokenizer
    from ..training.release import assert_whole
    from ..training.run import is_finished

    folder, profile = workspace.folder / "dpo", workspace.profile
    if not is_finished(folder):
        return "missing", "no finished run"
    assert_whole(folder)
    if why := workspace.outdated():
        return "unfinished", f"made from something else ({'; '.join(why)}): run the section again"
    (row,) = workspace.rows("evaluation", 1)
    (text,) = generate(
        workspace.load(folder),
        load_tokenizer(folder, profile),
        [row["prompt"]],
        max_new_tokens=profile.max_new_tokens,
        label=None,
    )
    return "sound", f"loads and answers ({len(text)} characters)"


def _evaluation(workspace: Workspace) -> State:
    record, why = workspace.evaluation()
    if record is None:
        return "missing", "no three_way.json"
    return ("unfinished", f"{why}: run it again") if why else ("sound", record.pairwise)


def _reflection(runs: Path) -> State:
    path = runs / REFLECTED
    record = load_three_way(runs)
    if not path.is_file() or record is None:
        return "missing", "no reflection.md"
    template = _reflection_template(record)
    return _written(count_words(path.read_text(encoding="utf-8"), template), 250)


def _release(runs: Path) -> State:
    from ..common.secret_scan import assert_no_secrets
    from ..training.release import assert_whole, find_releases

    found = find_releases(runs / "releases")
    if not found:
        return "missing", "no release folder"
    assert_whole(found[-1])
    assert_no_secrets(found[-1])
    return "sound", f"{found[-1].name}, ready to push"
