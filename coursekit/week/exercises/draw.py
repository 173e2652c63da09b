"""Random test inputs: the same for the same seed."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor


def numbers(*values: float) -> Tensor:
    """A vector in float64, in which an exact answer and a nearly exact one can be told apart."""
    return torch.tensor(values, dtype=torch.float64)


class Draw(random.Random):
    """Python's random numbers, and tensors of them in float64."""

    def normals(self, *shape: int, mean: float = 0.0, sd: float = 1.0) -> Tensor:
        """A tensor of that shape from a normal distribution."""
        return numbers(*[self.gauss(mean, sd) for _ in range(math.prod(shape))]).reshape(shape)

    def uniforms(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """A tensor of that shape, uniform between `low` and `high`."""
        return numbers(*[self.uniform(low, high) for _ in range(math.prod(shape))]).reshape(shape)

    def integers(self, *shape: int, below: int) -> Tensor:
        """A tensor of that shape of whole numbers from 0 to `below` - 1."""
        values = [self.randrange(below) for _ in range(math.prod(shape))]
        return torch.tensor(values).reshape(shape)
