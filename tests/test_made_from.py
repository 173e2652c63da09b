"""What results were made from: compared, kept, locked; journals that nobody has edited unseen."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

from coursekit.common.journal import Journal, read_journal
from coursekit.common.made_from import (
    code_version,
    differences,
    only_here,
    read_record,
    record_path,
    set_aside,
    write_record,
)


def test_what_differs_is_said_by_name_and_value(tmp_path):
    made = {"seed": 0, "settings": {"beta": 0.1, "targets": ("a", "b")}, "versions": {"trl": "1"}}
    record = write_record(tmp_path, made)
    assert record == read_record(tmp_path)
    assert differences(record, made) == []
    assert differences(record, {name: made[name] for name in ("seed", "settings")}) == []
    other = {"seed": 1, "settings": {"beta": 0.5, "targets": ("a", "b"), "epochs": 2}}
    assert differences(record, other) == [
        "seed was 0, now 1",
        "settings.beta was 0.1, now 0.5",
        "settings.epochs was null, now 2",
    ]
    assert differences(record, {"settings": {"beta": 0.1}}) == [
        'settings.targets was ["a", "b"], now null'
    ]
    assert differences(None, made) == ["nothing says what it was made from"]


@pytest.mark.parametrize("damage", ['{"seed": ', "[1]", ""])
def test_a_damaged_record_is_told(damage, tmp_path):
    record_path(tmp_path).write_text(damage, encoding="utf-8")
    with pytest.raises(ValueError, match=r"made_from.json is damaged .* move .* away"):
        read_record(tmp_path)
    assert read_record(tmp_path / "nothing") is None


def test_what_is_set_aside_is_never_written_over(tmp_path, capsys):
    path = tmp_path / "work.jsonl"
    for number in (1, 2):
        path.write_text(str(number), encoding="utf-8")
        write_record(path, {"number": number})
        aside = set_aside(path, "why", also=(record_path(path),))
        assert aside.name == f"work-old{number}.jsonl" and aside.read_text(encoding="utf-8") == str(
            number
        )
        assert read_record(aside) == {"number": number}
    assert "work.jsonl: why: kept as work-old2.jsonl" in capsys.readouterr().out
    assert not path.exists() and not record_path(path).exists()


def test_the_version_of_code_is_what_it_does(tmp_path):
    def version(text):
        path = tmp_path / "module.py"
        path.write_text(text, encoding="utf-8")
        return code_version(SimpleNamespace(__file__=str(path)))

    code = 'def f(x):\n    """Twice."""\n    return 2 * x\n'
    assert version(code) == version(code.replace("Twice", "Double") + "# a comment\n")
    assert version(code) != version(code.replace("2 *", "3 *"))
    assert version('def f(x):\n    """Nothing."""\n') == version('def f(x):\n    """None."""\n')


HOLD = """
import sys
from coursekit.common.made_from import only_here
with only_here(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_one_process_at_a_time_and_the_other_says_for_whom_it_waits(tmp_path):
    path = tmp_path / "betas.jsonl"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "held\n"
    said = []

    def say(text):
        said.append(text)
        other.stdin.write("go on\n")  # only now does the other end
        other.stdin.flush()

    with only_here(path, say):
        assert other.wait() == 0
    assert f"betas.jsonl: process {other.pid} on " in said[0] and "waiting" in said[0]
    with only_here(path, say):  # nobody has it now
        assert len(said) == 1


def test_a_process_that_is_killed_holds_nothing(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "sft")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "held\n"
    other.kill()
    other.wait()
    with only_here(tmp_path / "sft", lambda text: pytest.fail(text)):
        pass


# Journals.


@pytest.fixture()
def kept(tmp_path):
    """Two groups in a journal: its path, and what it was made from."""
    path, made_from = tmp_path / "work.jsonl", {"judge": "rubric", "seed": 0}
    with Journal(path, made_from) as journal:
        journal.append([{"text": "a", "points": {2: 0.1, 10: 1}}, {"text": "b"}])
        journal.append([{"text": "c"}])
    return path, made_from


def test_a_journal_is_read_back(kept):
    path, made_from = kept
    with Journal(path, made_from) as journal:
        assert [[row["text"] for row in group] for group in journal.done] == [["a", "b"], ["c"]]
    assert [row["text"] for row in read_journal(path)] == ["a", "b", "c"]
    path.write_bytes(path.read_bytes()[:-5])  # a kill: the last group is not there
    assert [row["text"] for row in read_journal(path)] == ["a", "b"]
    assert read_journal(path.with_name("none.jsonl")) == []


def test_another_run_is_set_aside_and_what_differs_is_said(kept, capsys):
    path, made_from = kept
    before = path.read_bytes()
    with Journal(path, made_from | {"judge": "length"}) as journal:
        assert journal.done == []
        journal.append([{"text": "d"}])
    assert 'judge was "rubric", now "length"' in capsys.readouterr().out
    assert path.with_name("work-old1.jsonl").read_bytes() == before
    assert [row["text"] for row in read_journal(path)] == ["d"]


def test_a_file_that_was_put_in_the_place_of_another_is_not_read(kept):
    path, made_from = kept
    with Journal(path.with_name("other.jsonl"), made_from | {"seed": 1}) as journal:
        journal.append([{"text": "d"}])
    path.with_name("other.jsonl").replace(path)
    with pytest.raises(ValueError, match=r"not of the run that work\.made_from\.json tells of"):
        read_journal(path)


EDITS = {
    "a text changed": lambda lines: [lines[0].replace('"a"', '"z"'), *lines[1:]],
    "a line taken out": lambda lines: [lines[0], lines[2]],
    "a group taken out": lambda lines: lines[2:],
    "lines swapped": lambda lines: [lines[1], lines[0], lines[2]],
    "a column added": lambda lines: [*lines[:2], json.dumps(json.loads(lines[2]) | {"x": 1})],
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_journal_is_not_used(edit, kept, capsys):
    path, made_from = kept
    text = "\n".join(EDITS[edit](path.read_text(encoding="utf-8").splitlines())) + "\n"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"line [123] was edited or moved, or one before it"):
        read_journal(path)
    with Journal(path, made_from) as journal:
        assert journal.done == []
    assert "was edited or moved" in capsys.readouterr().out
    assert path.with_name("work-old1.jsonl").read_text(encoding="utf-8") == text
