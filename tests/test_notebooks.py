"""The notebooks as files: paired with their source, executed without a fault, able to fail."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import jupytext
import nbformat
import pytest
from conftest import ROOT

from coursekit.common.profile import load_profile
from coursekit.week.sources import labs, sources
from coursekit.workspace import Workspace

SOURCES = sources()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_is_its_source(source):
    """Same cells in the same order: who edits one and not the other hears of it here."""
    ours = [(c.cell_type, c.source.strip()) for c in jupytext.read(source).cells]
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert [(c.cell_type, c.source.strip()) for c in notebook.cells] == ours


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_ships_executed_and_clean(source):
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    text = re.sub(r"data:image/png;base64,[\w+/=]*", "", str(outputs))
    assert not re.search(r"/(home|root|Users|tmp|work)/|C:\\\\", text)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_each_figure_is_told_in_words(source):
    """For those who do not see it: it has a text of its own, and what it means is said below.

    That text begins "*The figure", and stands within the next four cells.
    """
    cells = nbformat.read(source.with_suffix(".ipynb"), as_version=4).cells
    found = 0
    for index, cell in enumerate(cells):
        data = [output.data for output in cell.get("outputs", []) if "data" in output]
        assert not any("image/png" in each for each in data)  # which nothing gives a text
        pages = [each.get("text/html", "") for each in data]
        if figures := [html for html in pages if html.startswith("<img")]:
            assert all(re.match(r'<img alt="[^"]{40}', html) for html in figures)
            after = [c.source for c in cells[index + 1 : index + 5] if c.cell_type == "markdown"]
            assert any("*The figure" in text for text in after), cell.source
            found += len(figures)
    assert found >= (1 if source in labs() else 4)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_saved_outputs_need_no_kernel(source):
    text = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert "application/vnd.jupyter.widget-view+json" not in text
    assert '"widgets"' not in text


def test_formulas_become_mathml():
    from coursekit.week.reading import with_mathml

    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("Let $\\pi^*$ and\n$$a_1 * b$$\ncost \\$5 and \\$6."),
            nbformat.v4.new_code_cell("price = '$a$'"),
        ]
    )
    before = notebook.cells[0].source
    text = with_mathml(notebook).cells[0].source
    assert text.count("<math") == 2 and 'display="block"' in text
    assert "$5" in text and "*" not in text and "_" not in text
    assert notebook.cells[0].source == before
    assert with_mathml(notebook).cells[1].source == "price = '$a$'"


@pytest.fixture(scope="module")
def own_sft(tmp_path_factory):
    """Artifacts in which lies the course's own SFT model, at full size: it is trained once."""
    profile = replace(load_profile("tiny"), artifacts=tmp_path_factory.mktemp("own"))
    Workspace(profile).sft()
    return profile.artifacts


def test_a_broken_helper_fails_a_notebook(own_sft, tmp_path):
    """Break the rubric in a copy of the package: session B must not pass on it."""
    shutil.copytree(
        ROOT / "coursekit", tmp_path / "coursekit", ignore=shutil.ignore_patterns("__pycache__")
    )
    rubric = tmp_path / "coursekit" / "tasks" / "triage" / "scoring.py"
    code = rubric.read_text(encoding="utf-8")
    broken = code.replace("format=float(report.conformant)", "format=float(not report.conformant)")
    assert broken != code
    rubric.write_text(broken, encoding="utf-8")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    # The first cells are enough: up to the measurement of the SFT model.
    notebook = nbformat.read(ROOT / "notebooks" / "B_preferences_and_training.ipynb", as_version=4)
    stop = next(index for index, cell in enumerate(notebook.cells) if "## 3" in cell.source)
    notebook.cells = notebook.cells[:stop]
    nbformat.write(notebook, folder / "B.ipynb")
    results = {}
    for name, path in (("whole", ROOT), ("broken", tmp_path)):
        shutil.copytree(own_sft, tmp_path / name)
        results[name] = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "--nbval-lax",
                "-x",
                "-q",
                "-p",
                "no:cacheprovider",
                str(folder),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(path), "COURSE_ARTIFACTS": str(tmp_path / name)},
        )
    assert results["whole"].returncode == 0, results["whole"].stdout[-3000:]
    assert results["broken"].returncode == 1
    assert "This run does not show it" in results["broken"].stdout
    assert not list(tmp_path.glob("*/triage/tiny/sft-old*"))  # what lay there was what they train


def test_sessions_run_with_an_llm_judge(own_sft, tmp_path, monkeypatch):
    """Session B's data and audit, and session C whole, judged through the network's protocol."""
    pytest.importorskip("openai")
    import sqlite3

    from nbclient import NotebookClient
    from test_llm_judge import Running

    shutil.copytree(own_sft, tmp_path, dirs_exist_ok=True)
    server = Running()
    monkeypatch.setenv("COURSE_JUDGE", "openai:local")
    monkeypatch.setenv("COURSE_JUDGE_URL", f"{server.url}/v1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("COURSE_ARTIFACTS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    said = ""
    try:
        for name, until in (("B_preferences_and_training", "## 5"), ("C_three_way_eval", None)):
            notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
            if until:
                stop = next(i for i, cell in enumerate(notebook.cells) if until in cell.source)
                notebook.cells = notebook.cells[:stop]
            NotebookClient(
                notebook,
                timeout=600,
                kernel_name="python3",
                resources={"metadata": {"path": str(ROOT / "notebooks")}},
            ).execute()
            said += str([cell.get("outputs") for cell in notebook.cells])
        assert server.state()["most"] > 1  # side by side
    finally:
        server.process.kill()
    assert "openai/local: at most" in said and "sft: finished before, from the same" in said
    assert "This run does not show it" not in said  # the server judges as the rubric does
    verdicts = sqlite3.connect(tmp_path / "verdicts.sqlite").execute(
        "SELECT COUNT(*), SUM(value = 'null') FROM verdicts"
    )
    asked, invalid = verdicts.fetchone()
    assert asked > 1500 and invalid == 0
    first = json.loads(
        (tmp_path / "triage" / "tiny" / "triples.jsonl").read_text(encoding="utf-8").splitlines()[0]
    )
    assert first["judge"] == "openai/local"
