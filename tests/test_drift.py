"""The drift report: silent on an unchanged rerun, and each planted change is found and named."""

import re
import shutil
from io import BytesIO

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from coursekit.week import cell_bench, cell_times, regenerate
from coursekit.week.drift import __main__ as drift
from coursekit.week.drift.compare import compare, slower
from coursekit.week.drift.numbers import Move, numbers_in, pattern_of
from coursekit.week.drift.pictures import share_that_differs
from coursekit.week.drift.said import lines_of_html, lines_of_markdown
from coursekit.week.saved import cell_ids, settle
from coursekit.week.sources import sources

# A small session: measured means with intervals, claims, a figure, a table, what differs each time.
HELPERS = """
import time
import numpy as np

SEED, SHIFT, PAUSE = 0, 0.0, 0.0

def means():
    draws = np.random.default_rng(SEED).normal(1.0 + SHIFT, 1.0, size=(8, 100))
    return [(row.mean(), row.std() / 10) for row in draws]

def claim(holds, sentence):
    if not holds:
        raise AssertionError(f"This run does not show it: {sentence}")
    print(f"✓ {sentence}")

def curve():
    return np.linspace(0, 1, 50) ** 2

def pause():
    time.sleep(PAUSE)

def last():
    return "the end"
"""
SESSION = """\
# %% [markdown]
# # A session

# %%
import sys, time
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from helpers import claim, curve, last, means, pause
from coursekit.common.progress import progress

# %% [markdown]
# ## 1 · Means

# %%
with progress("sampling", 3, "rows") as advance:
    for _ in range(3):
        advance()
for mean, se in means():
    print(f"a mean of {mean:.3f} [{mean - 1.96 * se:.3f}, {mean + 1.96 * se:.3f}]")
    sys.stdout.flush()
    time.sleep(0.01)

# %%
claim(means()[0][0] > 0.5, "the first mean is above one half")

# %%
pause()
print(f"waiting took {time.monotonic():.1f} s")

# %% [markdown]
# ## 2 · What is shown

# %%
figure, axes = plt.subplots(figsize=(4, 2))
axes.plot(curve())
plt.show()

# %%
pd.DataFrame({"a": [1.5, 2.5]}).style

# %%
pd.DataFrame({"a": [1.5, 2.5]}).style.format("{:.1f}")

# %%
print(object())

# %%
print(last())
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Executes the small session with something changed in it or in its helpers."""

    def execute(changes=()):
        folder, executed = tmp_path_factory.mktemp("session"), tmp_path_factory.mktemp("executed")
        texts = {"helpers.py": HELPERS, "A_small.py": SESSION}
        for before, after in changes:
            assert any(before in text for text in texts.values())
            texts = {name: text.replace(before, after) for name, text in texts.items()}
        (folder / "helpers").mkdir()
        (folder / "helpers" / "__init__.py").write_text(texts["helpers.py"], encoding="utf-8")
        (folder / "A_small.py").write_text(texts["A_small.py"], encoding="utf-8")
        regenerate.rerun(executed, keep_going=True, notebooks=folder)
        shutil.copy(folder / "A_small.py", executed)
        return executed

    return execute


@pytest.fixture(scope="module")
def shipped(run):
    return run()


@pytest.fixture(scope="module")
def again(run):
    return run()


def changes(shipped, executed):
    """Drift by kind."""
    (comparison,) = drift.compare_folders(shipped, executed)
    return {
        kind: [found for found in comparison.drift if found.kind == kind]
        for kind in {found.kind for found in comparison.drift}
    }


# What is saved.


def test_two_runs_give_the_same_file(shipped, again):
    """Progress, seconds, addresses, drawn names, messages: none of them is in it."""
    name = "A_small.ipynb"
    assert (again / name).read_bytes() == (shipped / name).read_bytes()
    text = (shipped / name).read_text(encoding="utf-8")
    assert "sampling: 3 rows in … s" in text and "waiting took … s" in text
    assert "<object object>" in text and "T_00000_row0" in text and "T_00001_row0" in text
    cells = nbformat.read(shipped / name, as_version=4).cells
    assert sum(output.output_type == "stream" for output in cells[3].outputs) == 1
    assert not [cell for cell in cells if "execution" in cell.metadata]


def test_an_unchanged_run_is_silent(shipped, again, tmp_path, monkeypatch, capsys):
    shutil.copy(shipped / cell_times.FILE, again)  # this machine's moods are not the question
    page = tmp_path / "report.html"
    arguments = ["drift", "--exact", "--executed", str(again), "--out", str(page)]
    monkeypatch.setattr("sys.argv", arguments)
    assert drift.main(shipped) == 0
    said = capsys.readouterr().out.splitlines()
    compared = r"A_small: as shipped; compared: 9 cells, 1 claim, [234]\d numbers, 1 figure"
    assert re.fullmatch(compared, said[0]), said
    assert "As shipped." in page.read_text(encoding="utf-8")


def test_ids_follow_from_the_cells():
    """An edit changes one, an insertion none but its own; equal cells have different ones."""
    cells = [new_code_cell("a = 1"), new_markdown_cell("a = 1"), new_code_cell("a = 1")]
    before = cell_ids(cells)
    assert len(set(before)) == 3
    assert cell_ids([new_code_cell("b"), *cells])[1:] == before
    cells[1].source = "edited"
    after = cell_ids(cells)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


@pytest.mark.parametrize("source", sources(), ids=lambda p: p.stem)
def test_the_notebooks_are_saved_by_the_command(source):
    """`python -m coursekit notebooks` saved them: by another way they would change each time."""
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    settled = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    settle(settled)
    same = notebook == settled
    assert same, "saved by another way: run `python -m coursekit notebooks`"
    assert source.stem in cell_times.latest(ROOT / "notebooks")


def test_a_result_in_seconds_is_kept():
    cell = new_code_cell("x")
    cell.outputs = [new_output("stream", text="it fired in 3.2 s of 9\nlatency 4.1 s\n")]
    settle(new_notebook(cells=[cell]))
    assert cell.outputs[0].text == "it fired in 3.2 s of 9\nlatency 4.1 s\n"


def test_the_folder_of_artifacts_is_not_named(tmp_path):
    cell = new_code_cell("x")
    cell.outputs = [new_output("stream", text=f"kept in {tmp_path}/notes\n")]
    settle(new_notebook(cells=[cell]), artifacts=tmp_path)
    assert cell.outputs[0].text == "kept in artifacts/notes\n"


# Planted in the session.


def test_another_seed_is_found(shipped, run):
    """Each number may have moved by chance; together they have been drawn anew."""
    found = changes(shipped, run([("SEED, SHIFT, PAUSE = 0", "SEED, SHIFT, PAUSE = 1")]))
    together = [each for each in found["number"] if each.where == "all together"]
    assert len(together) == 1
    assert re.match(r"8 numbers moved, by [12]\.\d standard errors", together[0].note)


@pytest.fixture(scope="module")
def broken(run):
    """Everything else at once, in cells of its own."""
    return run(
        [
            ("SEED, SHIFT, PAUSE = 0, 0.0, 0.0", "SEED, SHIFT, PAUSE = 0, -0.7, 2.6"),
            ("50) ** 2", "50) ** 3"),
            ('return "the end"', "return undefined"),
            ("# %%\nprint(object())", '# %%\nprint("new")'),
            ("\n# %%\npause()", "\n# %%\nadded = 1\n\n# %%\npause()"),
            ('# %%\npd.DataFrame({"a": [1.5, 2.5]}).style\n\n', ""),
        ]
    )


def test_a_broken_helper_is_found(shipped, broken):
    found = changes(shipped, broken)
    (claim,) = found["claim"]
    assert claim.where == "[3] 1 · Means"
    assert claim.before == "✓ the first mean is above one half"
    assert claim.after == "✗ This run does not show it: the first mean is above one half"
    numbers = [each for each in found["number"] if each.where == "[2] 1 · Means"]
    assert len(numbers) == 8  # the ends of their intervals are not told again
    assert re.search(r"\(-[678]\.\d standard errors\)", numbers[0].note)  # 0.7, with n = 100


def test_a_new_error_is_found(shipped, broken):
    (error,) = changes(shipped, broken)["error"]
    assert (error.before, error.after) == ("", "NameError: name 'undefined' is not defined")


def test_another_figure_is_found_and_shown(shipped, broken, tmp_path, monkeypatch, capsys):
    (figure,) = changes(shipped, broken)["figure"]
    assert figure.where == "[5] 2 · What is shown" and all(figure.pictures)
    page = tmp_path / "made" / "report.html"
    arguments = ["drift", "--executed", str(broken), "--out", str(page)]
    monkeypatch.setattr("sys.argv", arguments)
    assert drift.main(shipped) == 1
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 2 and "http" not in text
    said = capsys.readouterr().out
    for title in ("errors: 1", "claims that changed: 1", "numbers that moved: 8", "slowed: "):
        assert title in said


def test_added_removed_and_edited_cells_are_found(shipped, broken):
    cells = changes(shipped, broken)["cell"]
    assert [(each.note, (each.before or each.after).split("\n")[0]) for each in cells] == [
        ("added", "added = 1"),
        ("removed", 'pd.DataFrame({"a": [1.5, 2.5]}).style'),
        ("edited", "print(object())"),
    ]


def test_a_slower_cell_is_found(shipped, broken):
    slow = [each for each in changes(shipped, broken)["time"] if "pause()" in each.where]
    assert len(slow) == 1 and slow[0].before == "0.0 s"


# Each part.


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("a share of 0.300 [0.183, 0.417] is", [(0.3, 0.0597), (0.183, 0.0597), (0.417, 0.0597)]),
        ("won: 66% of 401 (60% to 71%)", [(66, 2.806), (401, None), (60, 2.806), (71, 2.806)]),
        ("0.75 ± 0.04 (k1)", [(0.75, 0.04), (0.04, None)]),
        (
            "is +0.223 above (95 % interval +0.174 to +0.275)",
            [(0.223, 0.02577), (95, None), (0.174, 0.02577), (0.275, 0.02577)],
        ),
        ("overall 0.24 to 0.83", [(0.24, None), (0.83, None)]),  # no interval
        ("k3 and sev1 of v0.1", []),
        ("1,000 and 8e-16, 2, nan", [(1000, None), (8e-16, None), (2, None), ("nan", None)]),
        ("-22.8% (-27.7% to -18.2%)", [(-22.8, 2.4235), (-27.7, 2.4235), (-18.2, 2.4235)]),
    ],
)
def test_numbers_and_their_errors_are_read(line, numbers):
    found = [
        (each.value if each.value == each.value else "nan", each.se) for each in numbers_in(line)
    ]
    assert [value for value, _ in found] == [value for value, _ in numbers]
    for (_, se), (_, expected) in zip(found, numbers, strict=True):
        assert se == (pytest.approx(expected, rel=1e-3) if expected else None)


def test_a_pattern_is_what_stays():
    assert pattern_of("won  12 of 30 (40%)") == pattern_of("won 9 of  30 (30%)") == "won # of # (#)"


@pytest.mark.parametrize(
    ("before", "after", "is_drift"),
    [
        ("0.50 [0.40, 0.60]", "0.55 [0.45, 0.65]", False),  # one standard error
        ("0.50 [0.40, 0.60]", "0.66 [0.56, 0.76]", True),  # more than three
        ("0.50 [0.40, 0.60]", "0.50 [0.20, 0.80]", True),  # the interval alone
        ("loss 1.00", "loss 1.05", False),
        ("loss 1.00", "loss 1.20", True),
        ("share 0.04", "share 0.05", False),  # one in the last digit
        ("difference 2e-16", "difference 9e-15", False),  # both are zero
        ("difference 2e-16", "difference 0.1", True),
        ("mean 0.5", "mean nan", True),
        ("mean nan", "mean nan", False),
    ],
)
def test_what_moves_and_what_is_noise(before, after, is_drift):
    result = compare("A", notebook(before), notebook(after))
    assert bool(result.drift) == is_drift
    assert {each.kind for each in result.drift} <= {"number"}


def test_a_move_says_how_far():
    move = Move(*(numbers_in(text)[0] for text in ("0.5 [0.4, 0.6]", "0.6 [0.5, 0.7]")))
    assert str(move) == "0.5 → 0.6 (+2.0 standard errors)"
    assert str(Move(*numbers_in("100 and 80"))) == "100 → 80 (20% of the larger)"


def notebook(*printed, html=""):
    cells = [new_code_cell(f"cell {number}") for number in range(len(printed))]
    for cell, text in zip(cells, printed, strict=True):
        cell.outputs = [new_output("stream", text=f"{text}\n")]
    if html:
        cells.append(new_code_cell("page"))
        cells[-1].outputs = [new_output("display_data", data={"text/html": html})]
    return new_notebook(cells=cells)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("✓ it wins 70 %", "✗ This run does not show it: it wins 40 %"),
        ("✓ it wins", "it says nothing"),
        ("nothing", "✓ it wins"),
        ("→ about half: 48%", "→ nearly all: 92%"),
    ],
)
def test_claims_that_change_are_found(before, after):
    result = compare("A", notebook(before), notebook(after))
    assert "claim" in {each.kind for each in result.drift}


def test_what_is_printed_counts_and_what_a_model_answers_is_noted():
    printed = compare("A", notebook("one\ntwo"), notebook("one\nthree"))
    assert [(each.kind, each.before, each.after) for each in printed.drift] == [
        ("text", "two", "three")
    ]
    one, other = notebook("x", html="<p>an answer</p>"), notebook("x", html="<p>another</p>")
    shown = compare("A", one, other)
    assert not shown.drift and [each.kind for each in shown.findings] == ["text"]


def test_a_table_of_numbers_counts():
    """The verdict in a row of numbers, a mark in a checklist, a row that is gone."""
    row = "<tr><td>{}</td><td>{}</td><td>0.84</td></tr>"
    one = f"<table>{row.format('severity', '1.00')}{row.format('✓', 'lengths')}</table>"
    for old, new, kind in (
        ("severity", "usefulness", "text"),
        ("✓", "✗", "claim"),
        (row.format("severity", "1.00"), "", "text"),
    ):
        assert old in one
        other = one.replace(old, new)
        result = compare("A", notebook(html=one), notebook(html=other))
        assert [each.kind for each in result.drift] == [kind]


def test_what_an_error_cut_off_is_told_once():
    fresh = notebook("one")
    fresh.cells[0].outputs.append(
        new_output("error", ename="ValueError", evalue="bad", traceback=[])
    )
    result = compare("A", notebook("one\ntwo\n✓ three"), fresh)
    assert [(each.kind, each.after) for each in result.findings] == [("error", "ValueError: bad")]


def test_tables_are_read_row_by_row():
    html = """<style>td {}</style><table><caption>30 prompts</caption>
    <tr><th></th><th>win rate</th><th>low</th><th>high</th><th>k1</th><th>k1_se</th></tr>
    <tr><th>SFT</th><td>72.5%</td><td>69.7%</td><td>75.3%</td><td>0.75</td><td>0.04</td></tr>
    </table><p>after<br>it</p>"""
    assert lines_of_html(html) == [
        "30 prompts",
        " | win rate | low | high | k1 | k1_se",
        "SFT | 72.5% | [69.7%, 75.3%] | 0.75 ± 0.04",
        "after",
        "it",
    ]
    text = "| metric | difference | 95 % interval |\n|---|---:|---|\n| a | +0.10 | +0.07 to +0.14 |"
    assert lines_of_markdown(text)[1] == "a | +0.10 | [+0.07 to +0.14]"
    assert numbers_in(lines_of_markdown(text)[1])[0].se == pytest.approx(0.07 / 3.92)


def png(x=0.0, point=True, size=(4, 2)):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    axes = figure.subplots()
    axes.set_xlim(0, 100), axes.set_ylim(0, 1)
    axes.plot([20 + x, 80 + x], [0, 1])
    if point:
        axes.plot([50], [0.2], "o")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def test_figures_that_look_alike_are_alike():
    from coursekit.week.drift.compare import PICTURE

    assert share_that_differs(png(), png()) == 0
    assert share_that_differs(png(), png(x=0.2)) <= PICTURE  # a line half a pixel further
    assert share_that_differs(png(), png(point=False)) > PICTURE
    assert share_that_differs(png(point=False), png()) > PICTURE
    assert share_that_differs(png(), png(x=5)) > PICTURE
    assert share_that_differs(png(), png(size=(5, 2))) == 1


def test_a_figure_within_a_page_is_compared():
    import base64

    one, other = (
        notebook(html=f'<img src="data:image/png;base64,{base64.b64encode(each).decode()}">')
        for each in (png(), png(point=False))
    )
    assert [each.kind for each in compare("A", one, other).drift] == ["figure"]
    (gone,) = compare("A", one, notebook(html="<p></p>")).drift
    assert gone.note == "the figure is gone" and gone.pictures[1] is None


# Times.


def test_a_slower_machine_is_no_drift_and_a_slower_cell_is():
    before = {"a1 sample": 4.0, "b2 train": 30.0, "c3 plot": 1.0, "d4 quick": 0.1}
    assert not slower(before, {cell: 3 * seconds for cell, seconds in before.items()})
    assert not slower(before, before | {"d4 quick": 1.9})  # less than two seconds more
    tripled = {cell: 3 * seconds for cell, seconds in before.items()}
    assert not slower(before, tripled | {"d4 quick": 5.0})  # less than six, there
    assert not slower(before, before | {"b2 train": 40.0})  # less than half as long again
    (found,) = slower(before, {cell: 3 * s for cell, s in before.items()} | {"a1 sample": 30.0})
    assert found.where == "[1] sample" and (found.before, found.after) == ("4.0 s", "30.0 s")
    assert found.note == "expected 12.0 s on this machine (3.00 times the time shipped)"
    assert not slower(before, before | {"e5 new": 50.0})


def test_on_a_busy_machine_cells_vary_and_the_slow_one_is_found():
    """Ratios of two runs of session A beside eight other jobs, unchanged."""
    ratios = (0.64, 0.70, 0.72, 0.77, 0.78, 0.78, 0.80, 0.81, 0.81, 0.84, 0.86, 0.97, 0.98)
    ratios += (1.02, 1.04, 1.05, 1.06, 1.12, 1.45, 1.54, 1.90, 2.19, 2.31, 2.31, 2.36, 2.63)
    before = {f"c{n} cell {n}": 5.0 for n in range(len(ratios))}
    after = {cell: 5 * ratio for cell, ratio in zip(before, ratios, strict=True)}
    assert not slower(before, after)
    (found,) = slower(before, after | {"c3 cell 3": 25.0})
    assert found.where == "[4] cell 3"
    steady = dict.fromkeys(before, 5.0)
    assert slower(before, steady | {"c3 cell 3": 9.0})  # on a quiet one, less is enough


def test_times_of_this_version_and_the_last_are_kept(tmp_path):
    assert cell_times.latest(tmp_path) == {}
    for version in ("0.1", "0.2", "0.3"):
        cell_times.write(tmp_path, {"A": {"a1 x": 1.0}}, version)
    cell_times.write(tmp_path, {"B": {"b1 y": 2.0}}, "0.3")
    assert list(cell_times.read(tmp_path)) == ["0.2", "0.3"]
    assert cell_times.latest(tmp_path) == {"A": {"a1 x": 1.0}, "B": {"b1 y": 2.0}}


def test_the_bench_says_where_the_time_goes(tmp_path, monkeypatch):
    from coursekit import __version__

    assert "python -m coursekit notebooks" in cell_bench.table(tmp_path)
    last = {"a1 import x": 1.0, "b2 train(": 20.0, "c3 plot()": 0.0}
    now = {"a1 import x": 1.0, "ff train(": 30.0, "c3 plot()": 0.0, "d4 a | b": 9.0}
    cell_times.write(tmp_path, {"B": last}, "0.0.1")
    cell_times.write(tmp_path, {"B": now}, __version__)
    assert cell_bench.table(tmp_path).splitlines() == [
        "| session, its slowest cells | time | share | 0.0.1 |",
        "|---|---|---|---|",
        "| **B** | 40 s | | 21.0 s, 1.90 times |",
        "| [2] `train(` | 30.0 s | 75% | 20.0 s, 1.50 times |",
        "| [4] `a \\| b` | 9.0 s | 22% | not there |",
        "| [1] `import x` | 1.0 s | 2% | 1.0 s, 1.00 times |",
        "| [3] `plot()` | 0.0 s | 0% | 0.0 s |",
    ]
    fresh = cell_bench.table(tmp_path, {"B": last})
    assert "| [2] `train(` | 20.0 s | 95% | 20.0 s, 1.00 times |" in fresh


# The commands.


def test_a_notebook_that_is_not_there_is_told(capsys):
    with pytest.raises(SystemExit) as stopped:
        regenerate.chosen("Z")
    assert stopped.value.code == 2
    assert "begins with 'Z': there are A_paper_math, B_pref" in capsys.readouterr().err


def test_sessions_before_run_too_and_what_fails_saves_nothing(tmp_path, monkeypatch, capsys):
    """The second finds what the first has left in the artifacts, which are not this shell's."""
    monkeypatch.setenv("COURSE_ARTIFACTS", str(tmp_path / "mine"))
    monkeypatch.setenv("COURSE_TASK", "of_this_shell")
    session = (
        "# %%\nimport os\nfrom pathlib import Path\nfolder = Path(os.environ['COURSE_ARTIFACTS'])\n"
    )
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "A.py").write_text(f"{session}(folder / 'left').touch()\n", encoding="utf-8")
    text = f"{session}print([path.name for path in folder.iterdir()], 'COURSE_TASK' in os.environ)"
    (folder / "B.py").write_text(f"{text}\nBAD = 0\n", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["notebooks", "--only", "B"])
    assert regenerate.main(folder) == 0
    saved = sorted(path.name for path in folder.iterdir())
    assert saved == ["A.py", "B.ipynb", "B.py", "times.json"]
    before = (folder / "B.ipynb").read_text(encoding="utf-8")
    assert "['left'] False" in before
    (folder / "B.py").write_text(f"{text}\n1 / 0\n", encoding="utf-8")
    assert regenerate.main(folder) == 1
    assert (folder / "B.ipynb").read_text(encoding="utf-8") == before
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert "ZeroDivisionError" in (tmp_path / "mine/regenerated/B.ipynb").read_text(
        encoding="utf-8"
    )


def test_a_lab_runs_where_it_lies_and_after_the_sessions(tmp_path, monkeypatch, capsys):
    """It alone is saved, with its times beside the sessions', and compared when it is asked for."""
    monkeypatch.setenv("COURSE_ARTIFACTS", str(tmp_path / "mine"))
    folder = tmp_path / "notebooks"
    (folder / "labs").mkdir(parents=True)
    left = "# %%\nimport os\nfrom pathlib import Path\n"
    left += "left = Path(os.environ['COURSE_ARTIFACTS'], 'left')\n"
    (folder / "A.py").write_text(f"{left}left.touch()\n", encoding="utf-8")
    text = f"{left}print(left.is_file(), Path.cwd().name)\n"
    (folder / "labs" / "try.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["notebooks", "--only", "try"])
    assert regenerate.main(folder) == 0
    saved = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert saved == ["A.py", "labs/try.ipynb", "labs/try.py", "times.json"]
    assert "True labs" in (folder / "labs" / "try.ipynb").read_text(encoding="utf-8")
    assert list(cell_times.latest(folder)) == ["try"]
    executed = tmp_path / "mine" / "regenerated"
    (comparison,) = drift.compare_folders(folder, executed, "try")
    assert comparison.session == "try" and not comparison.drift
    capsys.readouterr()
