"""What a function answers on one test input, and in what two answers differ."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from IPython.utils.capture import CapturedIO


@dataclass(frozen=True)
class Answer:
    """What a function gave for one input.

    value: as it was returned; numbers: the same in float64, None where it is not numbers;
    gradients: by argument, zero where none arrives; error: what was raised instead; line: the text
    of the line that raised it; printed: what the function printed or displayed.
    """

    value: Any = None
    numbers: Tensor | None = None
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    error: Exception | None = None
    line: str = ""
    printed: CapturedIO | None = None


def answer_of(
    function: Callable[..., Any], arguments: Mapping[str, Any], gradients: Sequence[str] = ()
) -> Answer:
    """What `function` gives for copies of `arguments`, passed in their order.

    gradients: the arguments, float tensors, with respect to which its sum is differentiated; each
    element has a weight of its own in that sum, so that two of them cannot change places unseen.
    Whatever the function raises or prints is kept in the answer.
    """
    from IPython.utils.capture import capture_output

    copies = copy.deepcopy(dict(arguments))
    leaves = {name: copies[name].requires_grad_() for name in gradients}
    copies |= {name: leaf.clone() for name, leaf in leaves.items()}  # may be changed in place
    with capture_output(stderr=False) as printed:
        try:
            value = function(*copies.values())
            found = _gradients(value, leaves)
        except Exception as error:  # whatever a learner's code may raise
            return Answer(error=error, line=_line_of(error, function), printed=printed)
    return Answer(value, _as_numbers(value), found, printed=printed)


def _gradients(value: Any, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = [None] * len(leaves)
    if leaves and isinstance(value, Tensor) and value.requires_grad:
        weights = torch.arange(1, value.numel() + 1, dtype=value.dtype).reshape(value.shape)
        found = torch.autograd.grad(
            (weights * value).sum(), list(leaves.values()), allow_unused=True
        )
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient.double()
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


def _as_numbers(value: Any) -> Tensor | None:
    try:
        return torch.as_tensor(value, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError):
        return None


def _line_of(error: Exception, function: Callable[..., Any]) -> str:
    """The text of the last line of `function`'s own file that led to `error`, if there is one."""
    code = getattr(function, "__code__", None)
    lines = [
        frame.line or ""
        for frame in traceback.extract_tb(error.__traceback__)
        if code is not None and frame.filename == code.co_filename
    ]
    return lines[-1] if lines else ""


def close(one: Tensor, other: Tensor, rtol: float = 1e-5, equal_nan: bool = True) -> bool:
    """Whether two tensors have one shape and, but for rounding, the same values."""
    return one.shape == other.shape and torch.allclose(
        one.double(), other.double(), rtol=rtol, atol=1e-7, equal_nan=equal_nan
    )


def same_values(one: Answer, other: Answer) -> bool:
    """Whether both gave the same numbers, or raised the same error."""
    if one.error is not None or other.error is not None:
        return repr(one.error) == repr(other.error)
    if one.numbers is None or other.numbers is None:
        return False
    return close(one.numbers, other.numbers)


def same_gradients(one: Answer, other: Answer) -> bool:
    """Whether both have the same gradients."""
    return all(close(other.gradients[name], ours) for name, ours in one.gradients.items())


def difference(given: Answer, wanted: Answer) -> str:
    """What is wrong with `given`, or an empty text."""
    if given.error is not None:
        at = f", at `{given.line}`" if given.line else ""
        return f"it raises {type(given.error).__name__}: {given.error}{at}"
    if given.value is None:
        return "it returns None: is the `return` missing?"
    kind = type(given.value).__name__
    if given.numbers is None:
        return f"it returns {kind}, not numbers."
    if given.numbers.shape != wanted.numbers.shape:
        shapes = (tuple(answer.numbers.shape) for answer in (given, wanted))
        return "it returns shape {}, expected {}.".format(*shapes)
    if not close(given.numbers, wanted.numbers):
        return _first_difference(given.numbers, wanted.numbers)
    if (
        isinstance(wanted.value, Tensor)
        and wanted.value.dim()
        and not isinstance(given.value, Tensor)
    ):
        return f"the numbers are right, but in a {kind}; the cells below need a torch.Tensor."
    return _gradient_difference(given, wanted)


def _first_difference(given: Tensor, wanted: Tensor) -> str:
    unlike = ~torch.isclose(given, wanted, rtol=1e-5, atol=1e-7, equal_nan=True)
    place = tuple(unlike.nonzero()[0].tolist())
    where = f" (the first that differs, at {list(place)})" if place else ""
    return f"got {given[place].item():.6g}, expected {wanted[place].item():.6g}{where}."


def _gradient_difference(given: Answer, wanted: Answer) -> str:
    wrong = [
        name for name, right in wanted.gradients.items() if not close(given.gradients[name], right)
    ]
    if not wrong:
        return ""
    cut = [n for n in wrong if not given.gradients[n].any() and wanted.gradients[n].any()]
    if cut:
        return (
            f"the value is right, but no gradient reaches {listed(cut)}: nothing would be learnt "
            "from it. Is it detached, under no_grad, clamped, or no tensor on the way?"
        )
    if leaked := [name for name in wrong if not wanted.gradients[name].any()]:
        return f"the value is right, but a gradient flows through {listed(leaked)}: none should."
    first = _first_difference(given.gradients[wrong[0]], wanted.gradients[wrong[0]])
    return f"the value is right, its gradient with respect to `{wrong[0]}` is not: {first}"


def listed(names: Sequence[str]) -> str:
    """`a`, `b` and `c`."""
    quoted = [f"`{name}`" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if quoted[1:] else quoted)


def shown(value: Any) -> str:
    """An argument in a line: numbers to six digits, long ones by their shape."""
    if isinstance(value, Tensor):
        if value.numel() > 24:
            return f"a tensor of shape {tuple(value.shape)}"
        in_full = value.dtype == torch.float64 or not value.is_floating_point()
        return shown(value.tolist()) + ("" if in_full else f" ({value.dtype})")
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
