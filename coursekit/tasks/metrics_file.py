"""`metrics.py` of a task's folder: plain functions `name(prompt, response) -> float`."""

from __future__ import annotations

import inspect
import math
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from ..common.files import shorten
from .problems import Problem, TaskError

_RETURN = "it must return a number for every prompt and response, an empty one included"


@dataclass(frozen=True)
class MetricFunction:
    """A function of the file: `call(prompt, response)`, and the line that it begins in."""

    name: str
    call: Callable[[str, str], Any]
    line: int


def read_functions(text: str, path: Path, problems: list[Problem]) -> list[MetricFunction]:
    """The public functions that the file defines, in its order; adds what is wrong to `problems`.

    What it imports is no metric, nor what begins with an underscore.
    """
    module = _run(text, path, problems)
    functions = []
    for name, value in vars(module).items() if module else ():
        ours = getattr(value, "__module__", None) == module.__name__
        if name.startswith("_") or not ours or not callable(value) or isinstance(value, type):
            continue
        code = getattr(inspect.unwrap(value), "__code__", None)
        function = MetricFunction(name, value, code.co_firstlineno if code else 1)
        wrong = _wrong(function)
        if wrong:
            problems.append(Problem(path, function.line, *wrong))
        else:
            functions.append(function)
    return functions


def _wrong(function: MetricFunction) -> tuple[str, str] | None:
    """What is wrong with a function as a metric, and the remedy."""
    if function.name == "overall":
        return "overall is the mean of the metrics that tell what is right", "rename the function"
    try:
        inspect.signature(function.call).bind("", "")
    except TypeError:
        what = f"{function.name}{inspect.signature(function.call)} is not called with two texts"
        remedy = f"write {function.name}(prompt, response); helpers begin with _"
        return what, remedy
    return None


def _run(text: str, path: Path, problems: list[Problem]) -> ModuleType | None:
    """The file as a module of its own, or None and a problem."""
    name = f"metrics_{sha256(f'{path}{text}'.encode()).hexdigest()[:16]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses look there for the module of a class
    try:
        exec(compile(text, str(path), "exec", dont_inherit=True), vars(module))
    except SyntaxError as error:
        problems.append(
            Problem(path, error.lineno, f"not Python ({error.msg})", "correct the line")
        )
    except (Exception, SystemExit) as error:
        what = f"cannot be run ({_said(error)})"
        problems.append(Problem(path, _line_in(path, error), what, "correct the line"))
    else:
        return module
    return None


def measured(
    function: MetricFunction,
    bounds: tuple[float, float] | None,
    path: Path,
    prompt: str,
    response: str,
    where: str,
) -> float:
    """The function's value for a prompt and a response, within `bounds`.

    where: which prompt that is, for the error. Raises TaskError that says file, line, prompt and
    remedy if the function raises or gives something else.
    """
    on = f"on {where}, for the response {shorten(response, 60)!r}"
    try:
        value = function.call(prompt, response)
    except Exception as error:
        line = _line_in(path, error) or function.line
        what = f"{function.name} raised {_said(error)} {on}"
        raise TaskError(Problem(path, line, what, f"mend it: {_RETURN}")) from error
    number = _number(value)
    if number is None:
        what = f"{function.name} gave {value!r:.60} {on}"
        raise TaskError(Problem(path, function.line, what, f"mend it: {_RETURN}"))
    if bounds and not bounds[0] <= number <= bounds[1]:
        what = f"{function.name} gave {number:g}, not within {bounds[0]:g} to {bounds[1]:g}, {on}"
        remedy = f"mend it, or give [metrics.{function.name}] in task.toml other bounds"
        raise TaskError(Problem(path, function.line, what, remedy))
    return number


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _said(error: BaseException) -> str:
    text = shorten(str(error), 100)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _line_in(path: Path, error: BaseException) -> int | None:
    """The last line of the file that the error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)
