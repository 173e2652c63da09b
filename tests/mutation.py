"""Would the tests notice? Change one operator, number or name at a time, and run them.

`python tests/mutation.py [part of a module's name]`, in the course's environment, on Linux or
macOS; no test itself. Prints each change that no test notices, and the share that is noticed. A
changed module exists in a forked process alone: no file is touched.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import SourceFileLoader
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Module, its functions or classes (none: all), the tests that are to notice.
TARGETS = (
    ("losses", (), "test_losses.py"),
    ("logprobs", ("common_prefix_length", "pad_right", "token_logps", "sum_over_response",
                  "score_tokens", "check_lengths"), "test_logprobs.py"),
    ("evaluation.intervals", (), "test_intervals.py"),
    ("evaluation.pairwise", (), "test_intervals.py test_evaluation.py"),
    ("judging.questions", ("parse_answer", "_one_object", "_once", "_winner", "_points", "_order"),
     "test_questions.py"),
    ("preferences.auditing", (), "test_audit.py"),
    ("monitoring.red_flags", (), "test_red_flags.py"),
)  # fmt: skip
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.Pow: ast.Mult, ast.FloorDiv: ast.Div, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.USub: ast.UAdd},
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "mean": "sum", "sum": "mean"}
LIMIT = 300  # seconds; a change that makes a loop endless is noticed then


def alternatives(node: ast.AST) -> Iterator[tuple[str, object]]:
    """Attributes of `node`, each with another value: `x < 1` has `x <= 1`."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in SWAPS:
            yield "ops", [SWAPS[type(op)]()]
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.UnaryOp(op=op) if type(op) in SWAPS:
            yield "op", SWAPS[type(op)]()
        case ast.Constant(value=bool(value)):
            yield "value", not value
        case ast.Constant(value=int(value) | float(value)):
            yield "value", value + 1
        case ast.Attribute(attr=name) if name in NAMES:
            yield "attr", NAMES[name]
        case ast.Name(id=name) if name in ("min", "max", "any", "all"):
            yield "id", NAMES[name]
        case ast.If(test=test) | ast.IfExp(test=test):
            yield "test", ast.UnaryOp(ast.Not(), test)


def mutants(tree: ast.Module, wanted: tuple[str, ...]) -> Iterator[tuple[int, str, ast.Module]]:
    """Line, change and changed module, for each alternative in the functions and classes."""
    for index, top in enumerate(tree.body):
        named = isinstance(top, (ast.FunctionDef, ast.ClassDef))
        if not named or (wanted and top.name not in wanted):
            continue
        decorators = {node for d in top.decorator_list for node in ast.walk(d)}
        for place, node in enumerate(ast.walk(top)):
            if node in decorators:
                continue
            for attribute, value in alternatives(node):
                changed = copy.deepcopy(tree)
                there = next(islice(ast.walk(changed.body[index]), place, None))
                setattr(there, attribute, copy.deepcopy(value))
                ast.fix_missing_locations(changed)
                yield node.lineno, f"{ast.unparse(node)}  ->  {ast.unparse(there)}", changed


def tests_pass(module: str, path: Path, tree: ast.Module, tests: list[str]) -> bool:
    """Whether the tests pass, in a process of their own, with `tree` in the module's place."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0

    class Changed(SourceFileLoader):
        def get_code(self, fullname: str):
            return compile(tree, self.path, "exec")

    class Finder(MetaPathFinder):
        def find_spec(self, fullname, *_):
            if fullname == module:
                return importlib.util.spec_from_loader(module, Changed(module, str(path)))

    signal.alarm(LIMIT)
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.suppress(BaseException):
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        sys.meta_path.insert(0, Finder())
        import pytest

        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--capture=no", *tests]))
    os._exit(9)


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    # Once for all processes; nothing of the package itself, which each is to import anew.
    for library in ("hypothesis", "pandas", "peft", "scipy.stats", "torch", "transformers"):
        importlib.import_module(library)

    for name, wanted, files in TARGETS:
        if not any(part in name for part in sys.argv[1:] or [""]):
            continue
        path = ROOT / "coursekit" / f"{name.replace('.', '/')}.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tests = [str(ROOT / "tests" / file) for file in files.split()]
        if not tests_pass(f"coursekit.{name}", path, tree, tests):
            sys.exit(f"{files}: fails on the module as it is")
        noticed = made = 0
        for line, change, changed in mutants(tree, wanted):
            passed = tests_pass(f"coursekit.{name}", path, changed, tests)
            made, noticed = made + 1, noticed + (not passed)
            if passed:
                print(f"{path.relative_to(ROOT)}:{line}: {change}", flush=True)
        print(f"{name}: {noticed} of {made} changes noticed ({noticed / made:.0%})", flush=True)


if __name__ == "__main__":
    main()
