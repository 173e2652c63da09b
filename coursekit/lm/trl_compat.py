"""All that the course knows of the insides of TRL, peft, transformers' trainer and bitsandbytes.

Whatever may change without notice stands here and nowhere else, each with the version it was seen
in: with a new version, read this file beside its change log. No other module imports from these
libraries' submodules, or asks their objects for a name with an underscore (a test holds that).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel
    from trl import DPOTrainer

# TRL 1.16, `DPOTrainer.__init__`: of an adapter to train on, it keeps a frozen copy of this name.
REFERENCE_ADAPTER = "ref"


def bare_model(trainer: Any) -> PreTrainedModel:
    """The model that a trainer trains, out of whatever accelerate has put around it.

    transformers 5.23: `trainer.model` is the bare model on one device, and wrapped on several;
    `trainer.accelerator` is no documented attribute.
    """
    return trainer.accelerator.unwrap_model(trainer.model)


def is_sharded(trainer: Any) -> bool:
    """Whether no process has the whole model.

    transformers 5.23: set by the trainer from what the launcher says; no documented attributes.
    """
    return trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled


def is_adapted(model: PreTrainedModel) -> bool:
    """Whether adapters lie on the model.

    peft 0.21: only a `PeftModel` has `peft_config`; asking so needs no import of peft.
    """
    return hasattr(model, "peft_config")


def continues_adapter(model: PreTrainedModel) -> bool:
    """Whether a trainer's model goes on from an adapter, of which TRL keeps a frozen copy."""
    return is_adapted(model) and REFERENCE_ADAPTER in model.peft_config


def as_reference(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Within the context the adapted `model` is TRL's reference: the frozen copy, or no adapter.

    TRL 1.16: `trl.trainer.utils.use_adapter` is what `DPOTrainer` itself switches with; it is not
    exported.
    """
    from trl.trainer.utils import use_adapter

    name = REFERENCE_ADAPTER if continues_adapter(model) else None
    return use_adapter(model, adapter_name=name)


def first_batch(trainer: DPOTrainer) -> dict[str, Tensor]:
    """The first batch as the trainer's loss takes it, on its device.

    transformers 5.23: `Trainer._prepare_inputs` is private, and the trainer's loop runs each batch
    through it; `compute_loss` alone does not.
    """
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def log_with_step(trainer: DPOTrainer, name: str, value: float) -> None:
    """Let `value` join the trainer's next log entry, and so its trackers and its history.

    TRL 1.16: the trainer logs the mean of each list in `_metrics["train"]` and empties them.
    `Trainer.log` would write an entry of its own, which trackers file under another step.
    """
    trainer._metrics["train"][name].append(value)


def score_labels_alone() -> None:
    """Let TRL's trainers score, on a CPU too, those tokens alone that have a label.

    TRL 1.16: `add_fused_lm_head` drops prompts and padding before it multiplies by the vocabulary
    only where Triton runs (elsewhere shapes that change would be compiled anew; nothing is compiled
    here). It asks `_use_triton`, by a name of its own that nothing else in that module uses. With a
    vocabulary of 262,144 and prompts three times as long as responses a step of DPO takes 2.5 times
    as long without this.
    """
    import trl.trainer.utils

    trl.trainer.utils._use_triton = lambda device: True


def online_classes(algorithm: str) -> tuple[type, type]:
    """Trainer and configuration of an online algorithm: `RLOO`, `GRPO` or `OnlineDPO`.

    TRL 1.16: online DPO is experimental, and lies in a submodule of its own.
    """
    import trl

    place = trl
    if algorithm == "OnlineDPO":
        import trl.experimental.online_dpo as place
    return getattr(place, f"{algorithm}Trainer"), getattr(place, f"{algorithm}Config")


def train_in_float32(model: PreTrainedModel) -> None:
    """Undo TRL's cast of adapters on 4-bit weights.

    TRL 1.16 casts them to bf16 (`DPOTrainer.__init__`, after QLoRA), where small updates are
    rounded away and whose gradients fp16's loss scaler cannot take.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def last_checkpoint(folder: Path) -> Path | None:
    """The trainer's last checkpoint in `folder`, whole or not.

    transformers 5.23: the name's pattern is the trainer's; its reader is not exported.
    """
    from transformers.trainer_utils import get_last_checkpoint

    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return last and Path(last)


def is_whole_checkpoint(checkpoint: Path) -> bool:
    """Whether nothing has killed the trainer while it wrote `checkpoint`.

    transformers 5.23: `trainer_state.json` is what it writes last.
    """
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    return True


def is_four_bit(model: PreTrainedModel) -> bool:
    """Whether the model's weights are quantised to 4 bits.

    transformers 5.23: `is_loaded_in_4bit` is set by its bitsandbytes quantiser alone, and is not
    documented. A `PeftModel` passes the question on to the model in it.
    """
    return getattr(model, "is_loaded_in_4bit", False)


def keep_gradients(model: PreTrainedModel) -> None:
    """Keep 4-bit weights trainable after a pass in evaluation mode.

    bitsandbytes 0.50: with AVX-512 BF16, `Linear4bit.forward` repacks weights at the first such
    pass, for a kernel without gradients: training after an evaluation would silently lose most.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def scales(weight: Tensor) -> Iterator[Tensor]:
    """The numbers beside a 4-bit weight that it is scaled by; none for any other weight.

    bitsandbytes 0.50: in `quant_state`; those of the blocks are quantised in turn.
    """
    if state := getattr(weight, "quant_state", None):
        yield from (state.offset, state.state2.absmax)


def adapter_on_hub(name: str, revision: str | None) -> str | None:
    """Where the hub model `name` has an adapter's file, if it has one.

    transformers 5.23: in `transformers.utils`, without a page in its documentation.
    """
    from transformers.utils import find_adapter_config_file

    return find_adapter_config_file(name, revision=revision)
