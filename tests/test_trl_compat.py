"""Private API of the training libraries is used in one file alone: `coursekit/lm/trl_compat.py`."""

import ast

import pytest
from conftest import ROOT

from coursekit.week.sources import sources

LIBRARIES = ("trl", "peft", "transformers", "bitsandbytes")
# What the libraries document as to be imported from a submodule; and, last, what session A shows of
# TRL's inside, to learners who compare it with their own.
PUBLIC = {
    "transformers.utils.logging",
    "peft.helpers.rescale_adapter_scale",
    "trl.data_utils.common_prefix_length",
}
TRAINERS = ("trainer", "sft_trainer", "dpo_trainer")
ALLOWED = ROOT / "coursekit" / "lm" / "trl_compat.py"
# Attributes without an underscore that nothing documents either.
UNDOCUMENTED = {"accelerator", "quant_state", "support_avx512bf16_for_cpu", "is_loaded_in_4bit"}


def private_uses(source):
    """What a module takes from inside the libraries, as `line: what`."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            library, *rest = name.split(".")
            inside = len(rest) > 1 or any(part.startswith("_") for part in rest)
            if library in LIBRARIES and inside and name not in PUBLIC:
                yield f"{node.lineno}: {name}"
        if isinstance(node, ast.Attribute) and _of_a_trainer(node.value):
            if node.attr.startswith("_") or node.attr in UNDOCUMENTED:
                yield f"{node.lineno}: trainer.{node.attr}"
        elif isinstance(node, ast.Constant) and node.value in UNDOCUMENTED:
            yield f"{node.lineno}: {node.value}"


def _of_a_trainer(node):
    """`trainer`, `self.trainer` and the like."""
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
    return name in TRAINERS


@pytest.mark.parametrize(
    "line",
    [
        "from trl.trainer.utils import use_adapter",
        "from trl.data_utils import pack_dataset",
        "import peft.tuners.lora",
        "from peft import _thing",
        "from transformers.trainer_utils import get_last_checkpoint",
        "self.trainer._metrics['train'] = {}",
        "model = trainer.accelerator.unwrap_model(trainer.model)",
        "hasattr(module, 'support_avx512bf16_for_cpu')",
    ],
)
def test_what_is_private_is_found(line):
    assert list(private_uses(line))


@pytest.mark.parametrize(
    "line",
    [
        "from trl import DPOTrainer",
        "from transformers.utils import logging",
        "from .trl_compat import scales",
        "trainer.train(); self._metrics = trainer.state",
        "import transformers",
    ],
)
def test_what_is_public_is_not(line):
    assert not list(private_uses(line))


def test_private_api_is_used_in_one_file():
    files = sorted({*(ROOT / "coursekit").rglob("*.py")} - {ALLOWED})
    files += sources()
    found = {
        path.relative_to(ROOT).as_posix(): uses
        for path in files
        if (uses := list(private_uses(path.read_text(encoding="utf-8"))))
    }
    assert len(files) > 50 and found == {}
    assert len(list(private_uses(ALLOWED.read_text(encoding="utf-8")))) >= 6
