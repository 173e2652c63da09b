"""Would the tests notice? Change one operator, number or name at a time, and run them.

`python tests/mutation.py [--sample N] [part of a module's name]`, in the course's environment, on
Linux or macOS; no test itself. Prints each change that no test notices and that is not listed as
equivalent, and how many are noticed. A changed module exists in a forked process alone: no file is
touched.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import os
import random
import shlex
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Target:
    """A module, the tests that are to notice its changes, and the changes that nothing can notice.

    tests: files in this folder, and other arguments of pytest. parts: the module's functions and
    classes to change, all if empty. equivalent: changes as they are printed, each with the reason.
    """

    module: str
    tests: str
    parts: tuple[str, ...] = ()
    equivalent: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return ROOT / "coursekit" / f"{self.module.replace('.', '/')}.py"


TARGETS = (
    Target(
        "lm.losses",
        "test_losses.py",
        equivalent={
            "_log1mexp: x > -0.6931 -> x >= -0.6931": "both forms are exact there",
            "_log1mexp: 0.6931 -> 1.6931": "both forms are exact to a few roundings there",
            "_log1mexp: -1.0 -> +1.0": "fills a branch that is not taken; its gradient is 0",
            "_log1mexp: 1.0 -> 2.0": "fills a branch that is not taken; its gradient is 0",
        },
    ),
    Target(
        "lm.logprobs",
        "test_logprobs.py",
        parts=(
            *("common_prefix_length", "pad_right", "token_logps", "sum_over_response"),
            *("score_tokens", "check_lengths"),
        ),
        equivalent={
            "sum_over_response: -1 -> +1": "the last of two dimensions",
        },
    ),
    Target("common.chance", "test_chance.py"),
    Target("common.statistics", "test_intervals.py"),
    Target("evaluation.win_rates", "test_pairwise.py"),
    Target(
        "evaluation.judges.questions",
        "test_questions.py",
        parts=("parse_answer", "_one_object", "_once", "_winner", "_points", "_order"),
    ),
    Target("preferences.auditing", "test_audit.py"),
    Target(
        "training.red_flags",
        "test_red_flag_thresholds.py",
        equivalent={
            f"_length_growth: {growth} > {limit} -> {growth} >= {limit}": (
                "a quotient less 1 is a multiple of 2^-53, which no such limit is"
            )
            for growth, limit in (
                ("growth.iloc[-3:].mean()", "LENGTH_GROWTH"),
                ("growth.iloc[-1]", "LENGTH_GROWTH / 2"),
                ("growth", "LENGTH_GROWTH / 2"),
            )
        },
    ),
)
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.Pow: ast.Mult, ast.FloorDiv: ast.Div, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.USub: ast.UAdd},
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "mean": "sum", "sum": "mean"}
LIMIT = 300  # seconds; a change that makes a loop endless is noticed then
QUICK = ("-x", "-q", "--tb=no", "--assert=plain", "--capture=no", "-p", "no:cacheprovider")


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


def mutants(tree: ast.Module, parts: tuple[str, ...]) -> Iterator[tuple[int, str, ast.Module]]:
    """Line, change and changed module, for each alternative in the functions and classes."""
    for index, top in enumerate(tree.body):
        named = isinstance(top, (ast.FunctionDef, ast.ClassDef))
        if not named or (parts and top.name not in parts):
            continue
        decorators = {
            node
            for owner in ast.walk(top)
            for decorator in getattr(owner, "decorator_list", ())
            for node in ast.walk(decorator)
        }
        for place, node in enumerate(ast.walk(top)):
            if node in decorators:
                continue
            for attribute, value in alternatives(node):
                changed = copy.deepcopy(tree)
                there = next(islice(ast.walk(changed.body[index]), place, None))
                setattr(there, attribute, copy.deepcopy(value))
                ast.fix_missing_locations(changed)
                old, new = ast.unparse(node), ast.unparse(there)
                if isinstance(node, ast.If):  # without what is in it
                    old, new = old.splitlines()[0], new.splitlines()[0]
                yield node.lineno, f"{top.name}: {old} -> {new}", changed


def put_in_place(target: Target, tree: ast.Module) -> None:
    """Run the changed module, and give what it defines to all who imported it."""
    module = vars(sys.modules[f"coursekit.{target.module}"])
    before = dict(module)
    exec(compile(tree, target.path, "exec"), module)
    for name, other in list(sys.modules.items()):
        if name.startswith("coursekit"):
            for key in before.keys() & vars(other).keys():
                if vars(other)[key] is before[key]:
                    setattr(other, key, module[key])


def tests_pass(target: Target, tree: ast.Module) -> bool:
    """Whether the tests pass, in a process of their own, with `tree` in the module's place."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0

    signal.alarm(LIMIT)
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.suppress(BaseException):
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        put_in_place(target, tree)
        os.chdir(ROOT / "tests")
        os._exit(pytest.main([*QUICK, *shlex.split(target.tests)]))
    os._exit(9)


def examine(target: Target, sample: int | None) -> None:
    """Run the tests on each change, or on some, and print what they let pass."""
    importlib.import_module(f"coursekit.{target.module}")  # once for all processes
    tree = ast.parse(target.path.read_text(encoding="utf-8"))
    if not tests_pass(target, tree):
        sys.exit(f"{target.tests}: fails on the module as it is")
    changes = list(mutants(tree, target.parts))
    if unknown := set(target.equivalent) - {change for _, change, _ in changes}:
        sys.exit(f"{target.module}: listed as equivalent, but no change here: {sorted(unknown)}")
    if sample and sample < len(changes):
        changes = random.Random(0).sample(changes, sample)
    noticed = equivalent = 0
    for number, (line, change, changed) in enumerate(changes, start=1):
        print(f"{number} of {len(changes)}", end="\r", file=sys.stderr, flush=True)
        if not tests_pass(target, changed):
            noticed += 1
        elif change in target.equivalent:
            equivalent += 1
        else:
            print(f"{target.path.relative_to(ROOT)}:{line}: {change}", flush=True)
    share = noticed / max(1, len(changes) - equivalent)
    print(
        f"{target.module}: killed {noticed} of {len(changes)}, {equivalent} equivalent "
        f"({share:.0%} of the others)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", default=[""], help="of a module's name; all if none")
    parser.add_argument("--sample", type=int, metavar="N", help="at most N changes a module")
    asked = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    from hypothesis import Phase, settings

    # The first example that fails is enough.
    settings.register_profile("mutation", phases=(Phase.explicit, Phase.generate))
    settings.load_profile("mutation")
    for target in TARGETS:
        if any(part in target.module for part in asked.part):
            examine(target, asked.sample)


if __name__ == "__main__":
    main()
