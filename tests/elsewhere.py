"""A second device that is not there: finds code that mixes devices, on a machine that has one.

Inside `Elsewhere()`, tensors may be marked as lying on a GPU; numbers are computed as ever. Where
an operation meets tensors of both places it raises, as torch would on a machine with a GPU. What is
allowed there passes here: single numbers anywhere, copies from one place to the other, and indices
on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)
_INTO = {torch.Tensor.copy_, torch.Tensor.__setitem__}  # copies into where the first lies


class Elsewhere(TorchFunctionMode):
    """While it is on, `move(model)` and `.to(model.device)` mark tensors; mixing them raises."""

    @staticmethod
    def move(model: torch.nn.Module) -> torch.nn.Module:
        """`model`, whose weights now lie elsewhere."""
        for weight in (*model.parameters(), *model.buffers()):
            weight.elsewhere = True
        return model

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.device:  # a name for a place, no tensor
            return func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = any(_is_elsewhere(tensor) for tensor in tensors)
        if there and func == torch.Tensor.device.__get__:
            return GPU
        if func is torch.Tensor.cpu:
            return func(*args, **kwargs).clone()  # unmarked
        if func is torch.device:
            return func(*args, **kwargs)
        asked, args, kwargs = _without_gpu(args, kwargs)
        if asked:
            there = asked.type == "cuda"
        elif func in _INTO:
            there = _is_elsewhere(args[0])
        elif not (func is torch.Tensor.__getitem__ and _is_elsewhere(args[0])):
            _refuse_mixed(func, tensors, there)
        result = func(*args, **kwargs)
        if asked and tensors and isinstance(result, torch.Tensor):
            result = result.clone()  # torch gives the same tensor back, which stays where it is
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and there:
                tensor.elsewhere = True
        return result


def _is_elsewhere(tensor: torch.Tensor) -> bool:
    return getattr(tensor, "elsewhere", False)


def _refuse_mixed(func: Any, tensors: list[torch.Tensor], there: bool) -> None:
    here = [tensor for tensor in tensors if tensor.ndim > 0 and not _is_elsewhere(tensor)]
    if there and here:
        raise RuntimeError(
            f"{getattr(func, '__name__', func)}: expected all tensors to be on the same device, "
            "but found at least two devices, cuda:0 and cpu"
        )


def _without_gpu(args: Any, kwargs: Any) -> tuple[torch.device | None, Any, Any]:
    """The device that is asked for, and the arguments with the CPU in its place."""
    asked = None

    def swapped(value: Any) -> Any:
        nonlocal asked
        named = isinstance(value, str) and value in ("cuda", "cpu")
        if not named and not isinstance(value, torch.device):
            return value
        asked = torch.device(value)
        return torch.device("cpu") if asked.type == "cuda" else value

    args = tuple(swapped(value) for value in args)
    kwargs = {key: swapped(value) for key, value in kwargs.items()}
    return asked, args, kwargs
