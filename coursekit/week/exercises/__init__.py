"""Exercises: a card, a stub, a check that can fail, a hint, a solution, the mistakes it knows."""

from .diagnosis import Mistake
from .exercise import Exercise, exercise

__all__ = ["Exercise", "Mistake", "exercise"]
