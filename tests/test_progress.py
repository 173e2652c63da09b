"""The progress line: in place on a terminal, silent in a log, honest when stopped."""

import sys

import pytest

from coursekit.common import progress as module


def test_silent_in_a_log(capsys):
    with module.progress("x", 2, "rows") as advance:
        advance(2)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_terminal_line(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(module, "_EVERY", 0)
    with module.progress("sampling", 4, "rows") as advance:
        advance(2, "(loss 0.5)")
        advance(2)
    lines = capsys.readouterr().err
    assert "sampling: 2 of 4 rows" in lines and "(loss 0.5)" in lines
    assert lines.rstrip().split("\x1b[K")[-1].startswith("sampling: 4 rows in")


def test_a_stop_is_told(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with pytest.raises(KeyboardInterrupt), module.progress("sampling", 4, "rows") as advance:
        advance(1)
        raise KeyboardInterrupt
    assert "1 of 4, stopped rows in" in capsys.readouterr().err


def test_without_a_label_nothing_is_shown(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with module.progress(None, 2, "steps") as advance:
        advance(2)
    assert capsys.readouterr() == ("", "")
