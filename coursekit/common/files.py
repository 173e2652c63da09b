"""Text and JSON that people bring: read as it is, or told in words what is wrong with it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

_DEEPEST = 50  # levels of lists and objects in a row: what anybody writes has fewer than ten


class _Doubled(dict):
    """An object in which a key stood twice: `key`."""

    key: str


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises FileNotFoundError, or ValueError for a folder or another encoding.
    """
    path = _text_file(path)
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not text in UTF-8 (byte {error.start}): save it as UTF-8; of spreadsheets "
            'choose "CSV UTF-8"'
        ) from error


def lines_of(path: str | Path, newline: str = "\n") -> Iterator[str]:
    """The lines of a file in UTF-8, one at a time, with their ends; raises as `read_text` does.

    newline: what ends a line, see `open`; "" for all that do in a table.
    """
    path = _text_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield from file
    except UnicodeDecodeError:
        read_text(path)  # says where in the file
        raise


def _text_file(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the file in it")
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: correct the path")
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            raise ValueError(f"{path} is compressed (gzip): unpack it first (gunzip)")
    return path


def rows_of(path: str | Path) -> Iterator[Any]:
    """As `json_rows` of the file's text; of JSON Lines a row at a time is in memory."""
    first = next((line for line in lines_of(path) if line.strip()), "")
    if first.lstrip().startswith("[") or str(path).lower().endswith(".json"):
        yield from json_rows(read_text(path), path)
    else:
        yield from _json_lines((line.removesuffix("\n") for line in lines_of(path)), path)


def json_rows(text: str, path: str | Path) -> list[Any]:
    """The rows of `text`, one JSON list of them or JSON Lines; a lone object is one row.

    In place of a row that cannot be read stands the ValueError that says why, so that the caller
    may raise it or leave the row out. `path` begins each message.

    Raises ValueError for a list that is no JSON.
    """
    if not text.strip():
        return []
    if text.lstrip().startswith("[") or str(path).lower().endswith(".json"):
        try:
            rows = _parse(text)
        except json.JSONDecodeError as error:
            if error.msg == "Extra data" and text.lstrip().startswith("{"):
                return json_lines(text, path)  # JSON Lines by another name
            raise ValueError(
                f"{path}, row {_whole_rows(text) + 1}, is not JSON ({error.msg} at line "
                f"{error.lineno}, column {error.colno}): double quotes, no trailing comma, the "
                "list closed by ]"
            ) from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        rows = rows if isinstance(rows, list) else [rows]
        return [_sound(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]
    return json_lines(text, path)


def json_lines(text: str, path: str | Path) -> list[Any]:
    """The rows of JSON Lines; blank lines are none, and see `json_rows` for unreadable ones.

    A line ends at a line feed and nowhere else: other ends of lines may stand inside strings.
    """
    return list(_json_lines(text.split("\n"), path))


def _json_lines(lines: Iterable[str], path: str | Path) -> Iterator[Any]:
    fix = "one JSON object a line, double quotes, no trailing comma"
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield json_value(line, f"{path}, line {number}", fix)


def json_value(text: str, where: str, fix: str) -> Any:
    """What `text` says, or the ValueError that says why it cannot be read, and the `fix`."""
    try:
        return _sound(_parse(text), where)
    except json.JSONDecodeError as error:
        return ValueError(f"{where} is not JSON ({error.msg} at column {error.colno}): {fix}")
    except ValueError as error:
        return ValueError(f"{where}: {error}")


def _whole_rows(text: str) -> int:
    """How many rows of a JSON list can be read before the first that cannot."""
    decoder, rows, at = json.JSONDecoder(), 0, text.find("[") + 1
    try:
        while True:
            at = re.compile(r"[\s,]*").match(text, at).end()
            at = decoder.raw_decode(text, at)[1]
            rows += 1
    except (ValueError, RecursionError):
        return rows


def _parse(text: str) -> Any:
    if text.startswith("\ufeff"):  # invisible: of two files of which one was put after the other
        raise json.JSONDecodeError("a byte order mark, which begins a file", text, 0)
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error


_TOO_DEEP = f"more than {_DEEPEST} levels of lists and objects: write flat rows"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Rows have the same few keys: one text for each, not one a row.
    found = {sys.intern(name): value for name, value in pairs}
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        found = _Doubled(found)
        found.key = next(name for name in names if names.count(name) > 1)
    return found


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:  # Python's limit on digits, which guards against endless work
        raise ValueError(f"a number of {len(text):,} digits: write a shorter one") from error


# One for all texts: `json.loads` would make one each.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def _sound(row: Any, where: str) -> Any:
    """`row`, or the ValueError that says why it is none."""
    stack = [([row], 0)]
    while stack:
        values, depth = stack.pop()
        if depth > _DEEPEST:
            return ValueError(f"{where} has {_TOO_DEEP}")
        for value in values:
            if isinstance(value, str):
                if not _encodable(value):
                    return ValueError(
                        f"{where} has half a character (a lone surrogate, \\ud800 to \\udfff): "
                        "write both halves, or the character itself"
                    )
            elif isinstance(value, _Doubled):
                return ValueError(
                    f"{where} has an object with the key {shorten(value.key, 60)!r} twice, and "
                    "only one of them can be meant: take the other out"
                )
            elif isinstance(value, dict):
                stack.append((chain(value, value.values()), depth + 1))
            elif isinstance(value, list):
                stack.append((value, depth + 1))
    return row


def _encodable(text: str) -> bool:
    try:
        text.isascii() or text.encode()  # the former costs nothing
    except UnicodeEncodeError:
        return False
    return True


def shorten(text: str, most: int) -> str:
    """At most so many characters of `text`, for an error message."""
    return text if len(text) <= most else text[: most - 1] + "…"


class Counted:
    """Items that come one by one, `n` so far; `broken` if a ValueError keeps the rest back."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items, self.n, self.broken = iter(items), 0, False

    def __iter__(self) -> Iterator[Any]:
        try:
            for item in self._items:
                self.n += 1
                yield item
        except ValueError:
            self.broken = True
            raise

    def count_all(self) -> int:
        """How many there are: the rest is passed over."""
        for _ in self:
            pass
        return self.n


def save_jsonl(rows: Iterable[Mapping[str, Any]], path: str | Path) -> Path:
    """Write one JSON object a line; the file appears whole or not at all.

    What said how many rows a file has that this one replaces goes with it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".part")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    count_path(path).unlink(missing_ok=True)
    partial.replace(path)
    return path


def count_path(path: Path) -> Path:
    """Where the number of rows of the file `path` stands."""
    return path.with_name(f"{path.name}.count")
