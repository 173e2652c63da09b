"""The notebooks' cells: short, bookkeeping folded, imports where they are used."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache, cached_property

import jupytext
import nbformat
import pytest

from coursekit.week import desk, saved
from coursekit.week.sources import sources

FOLD = "hide-input"  # the tag of a cell that is bookkeeping: Jupyter Book's and nbconvert's
SHORT = 15  # statements of a cell, and lines of code but for imports
IMPORTS = 8  # in the first cell of a notebook


@dataclass(frozen=True)
class Cell:
    """A code cell: what it imports, uses and leaves to others; `need`: a task must have it."""

    metadata: dict
    source: str

    @cached_property
    def body(self) -> list[ast.stmt]:
        return ast.parse(self.code).body

    @property
    def need(self) -> str:
        first = self.source.partition("\n")[0]
        return first.removeprefix("%%needs ") if first.startswith("%%needs ") else ""

    @property
    def is_folded(self) -> bool:
        return FOLD in self.metadata.get("tags", [])

    @property
    def imports(self) -> list[ast.stmt]:
        return [node for node in self.body if isinstance(node, (ast.Import, ast.ImportFrom))]

    @property
    def imported(self) -> set[str]:
        return {
            alias.asname or alias.name.partition(".")[0]
            for node in self.imports
            for alias in node.names
        }

    @property
    def nodes(self) -> list[ast.AST]:
        return [node for part in self.body for node in ast.walk(part)]

    @property
    def names(self) -> list[ast.Name]:
        return [node for node in self.nodes if isinstance(node, ast.Name)]

    @property
    def calls(self) -> list[ast.Call]:
        return [node for node in self.nodes if isinstance(node, ast.Call)]

    @property
    def called(self) -> set[str]:
        """By name: `held`, `outcomes.beta_or_rate`."""
        return {ast.unparse(call.func) for call in self.calls}

    @property
    def used(self) -> set[str]:
        return {node.id for node in self.names if isinstance(node.ctx, ast.Load)}

    @property
    def left(self) -> set[str]:
        """Names that it binds for cells to come."""
        stored = {node.id for node in self.names if isinstance(node.ctx, ast.Store)}
        return stored | {part.name for part in self.body if isinstance(part, ast.FunctionDef)}

    @property
    def lines(self) -> int:
        """Of code; imports, remarks and blank lines are none."""
        rest = [node for node in self.body if node not in self.imports]
        text = "\n".join(ast.get_source_segment(self.code, node) or "" for node in rest)
        return sum(bool(line.strip()) for line in text.splitlines())

    @property
    def code(self) -> str:
        return re.sub(r"(?m)^%.*$", "", self.source)

    @property
    def statements(self) -> int:
        rest = [node for node in self.body if node not in self.imports]
        return sum(isinstance(node, ast.stmt) for part in rest for node in ast.walk(part))


@cache
def cells(source) -> list[Cell]:
    """The code cells of a notebook, without the first, which is Colab's."""
    found = [cell for cell in jupytext.read(source).cells if cell.cell_type == "code"]
    return [Cell(cell.metadata, cell.source) for cell in found][1:]


each_notebook = pytest.mark.parametrize("source", sources(), ids=lambda path: path.stem)


# Short.


@each_notebook
def test_a_cell_is_short(source):
    long = {
        cell.source: (cell.statements, cell.lines)
        for cell in cells(source)
        if cell.statements > SHORT or cell.lines > SHORT
    }
    assert not long


@each_notebook
def test_a_verdict_is_drawn_by_a_helper(source):
    """No cell chooses among a prediction's options, and no claim takes more than a few lines."""
    for call in (call for cell in cells(source) for call in cell.calls):
        name = ast.unparse(call.func)
        if name == "held":
            _, outcome = call.args
            assert isinstance(outcome, ast.Starred), ast.unparse(call)
            assert ast.unparse(outcome.value).startswith("outcomes."), ast.unparse(call)
        if name in ("claim", "claims"):
            assert call.end_lineno - call.lineno < 4, ast.unparse(call)


# Folded.


@each_notebook
def test_what_folds_a_cell_folds_it_everywhere(source):
    """One notion: JupyterLab, Colab and the tools that read tags fold the same cells."""
    for cell in jupytext.read(source).cells:
        in_lab = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        in_colab = cell.metadata.get("cellView") == "form"
        is_tagged = FOLD in cell.metadata.get("tags", [])
        assert in_lab == in_colab == is_tagged, cell.source
        if is_tagged:  # what stands there instead of the code
            first = re.sub(r"^%%needs.*\n", "", cell.source).partition("\n")[0]
            assert re.match(r"# @title \w", first), cell.source


# What a folded cell may call: it draws and shows verdicts, and asks and computes nothing.
BOOKKEEPING = re.compile(r"held|claims?|print|outcomes\.\w+|len|\w+\.items")


@each_notebook
def test_folded_is_bookkeeping_and_no_lesson(source):
    """Nothing that a later cell needs, no exercise, no question: nobody has to unfold it."""
    found = cells(source)
    for place, cell in enumerate(found):
        if cell.is_folded:
            needed = {name for later in found[place + 1 :] for name in later.used}
            assert not cell.left - {"letter", "run"} & needed, cell.source
            assert not cell.imported and all(map(BOOKKEEPING.fullmatch, cell.called)), cell.source


@each_notebook
def test_bookkeeping_is_folded(source):
    for cell in cells(source):
        if all(map(BOOKKEEPING.fullmatch, cell.called)) and "held" in cell.called:
            assert cell.is_folded, cell.source


# What each folded cell shows, in the notebooks' order.
FOLDED = {
    "A_paper_math": """\
sft_taught_the_task without_fault
sft_invents_causes
kl_term_holds_back proxy_climbed
full_dpo_of_7b
sides_of_beta
where_half_is_unseen who_is_nearer""",
    "B_preferences_and_training": """\
sft_learnt
sft_keeps_the_format
cooler_won
chosen_reward margin_has_grown
mystery
rules_hold
beta_or_rate what_a_sweep_shows
asked_in_both_orders
remaining_gain robust_against_plain what_wrong_labels_cost
where_long_training_ends
more_labels""",
    "C_three_way_eval": """\
with_more_prompts
truer_than_sft
what_else_explains
thirty_are_enough
at_equal_length
better_ranker
what_wide_gaps_mean
gap_misleads
sft_has_cost still_follows
healthy_run with_a_good_margin worse_than_none
real_model_wins
without_their_lesson
second_round_tells_when
second_round_helps""",
    "frontier": """\
dpo_against_rlhf the_frontier
closest_control what_explains
from_the_base kept_with_wrong_labels who_beats_dpo
fresh_answers three_rounds
paid_more rubric_follows
where_it_saturates which_pairs""",
}


@each_notebook
def test_these_cells_are_folded(source):
    shown = [
        " ".join(sorted(name[9:] for name in cell.called if name.startswith("outcomes.")))
        for cell in cells(source)
        if cell.is_folded
    ]
    assert shown == FOLDED.get(source.stem, "").splitlines()


@each_notebook
def test_copies_and_saved_notebooks_stay_folded(source):
    def folded(notebook):
        return [cell.source for cell in notebook.cells if FOLD in cell.metadata.get("tags", [])]

    whole = jupytext.read(source)
    expected = folded(whole)
    saved.settle(whole)
    copy = desk.as_copy(source, desk.Form(nbgrader=True))
    for notebook in (whole, copy):
        assert folded(notebook) == expected
        for cell in notebook.cells:
            hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
            assert hidden == (cell.source in expected)
    nbformat.validate(copy)


# Imports.


@each_notebook
def test_a_notebook_begins_with_few_imports(source):
    first, *others = cells(source)
    assert 0 < len(first.imports) <= IMPORTS
    assert first.imported <= {name for cell in (first, *others) for name in cell.used}


@each_notebook
def test_an_import_stands_where_it_is_used_first(source):
    """And is there for all who use it: a cell that needs something may be left out."""
    first, *others = cells(source)
    there = {"": first.imported}
    everywhere = first.imported | {name for cell in others for name in cell.imported}
    for cell in others:
        known = there[""] | there.get(cell.need, set())
        assert cell.imported <= cell.used, cell.source
        assert not cell.imported & known, f"imported before\n{cell.source}"
        assert cell.used & everywhere <= known | cell.imported, cell.source
        there.setdefault(cell.need, set()).update(cell.imported)


def test_the_rules_see_what_they_forbid():
    """Else the tests above would hold whatever the cells are."""
    cell = Cell({"tags": [FOLD]}, "%%needs own\nimport a.b\nx = f(y)\n\n# a remark\nprint(x)")
    assert cell.need == "own" and cell.is_folded and cell.imported == {"a"}
    assert cell.used == {"f", "y", "print", "x"} and cell.left == {"x"}
    assert (cell.statements, cell.lines) == (2, 2)
    assert cell.called == {"f", "print"} and not all(map(BOOKKEEPING.fullmatch, cell.called))
