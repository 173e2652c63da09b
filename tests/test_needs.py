"""Cells that need something: they run where it is there, and say why not where it is not."""

from dataclasses import replace
from types import SimpleNamespace

import jupytext
import pytest

from coursekit.tasks import load_task
from coursekit.tasks.new import make_task
from coursekit.week import needs
from coursekit.week.sources import sources
from coursekit.workspace import Workspace


@pytest.fixture()
def shell(monkeypatch):
    shell = SimpleNamespace(input_transformers_cleanup=[lambda lines: lines])
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    return shell


def run(shell, lines):
    for transform in shell.input_transformers_cleanup:
        lines = transform(lines)
    return lines


def cell(need):
    return [f"%%needs {need}\n", "x = 1\n", "x"]


def of(name, profile, tmp_path):
    return Workspace(replace(profile, artifacts=tmp_path), load_task(name))


def test_where_it_is_there_the_cell_runs_with_its_line_numbers(shell, profile, tmp_path):
    needs.heed_needs(of("triage", profile, tmp_path))
    for need in needs.NEEDS:
        assert run(shell, cell(need)) == ["\n", "x = 1\n", "x"]
    assert run(shell, ["x = 1\n"]) == ["x = 1\n"] and run(shell, []) == []


def test_where_it_is_not_the_reason_is_all_that_runs(shell, profile, tmp_path, capsys):
    folder = make_task(tmp_path / "mine")
    needs.heed_needs(of(folder, profile, tmp_path))
    for need, (_, why) in needs.NEEDS.items():
        (line,) = run(shell, cell(need))
        exec(line)
        assert capsys.readouterr().out == f"Left out: {why}.\n"


def test_each_need_is_told_apart(shell, profile, tmp_path):
    """The second task has a truth, references and demonstrations, and nothing else."""
    needs.heed_needs(of("claims", profile, tmp_path))
    there = {need for need in needs.NEEDS if run(shell, cell(need))[-1] == "x"}
    assert there == {"truth", "references", "demonstrations"}


def test_called_again_the_last_workspace_counts(shell, profile, tmp_path):
    needs.heed_needs(of("claims", profile, tmp_path))
    needs.heed_needs(of("triage", profile, tmp_path))
    assert len(shell.input_transformers_cleanup) == 2
    assert run(shell, cell("own"))[-1] == "x"


def test_an_unknown_need_is_told(shell, profile, tmp_path):
    needs.heed_needs(of("triage", profile, tmp_path))
    with pytest.raises(ValueError, match="'%%needs luck': needs is one of own, truth"):
        run(shell, cell("luck"))


def test_the_notebooks_need_what_there_is():
    asked = {
        line.removeprefix("%%needs ").strip()
        for path in sources()
        for one in jupytext.read(path).cells
        for line in one.source.splitlines()
        if line.startswith("%%needs ")
    }
    assert asked == set(needs.NEEDS)
