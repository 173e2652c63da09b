"""Exercises: a card, a stub, a check that can fail, a hint, a solution."""

from .exercise import Exercise, Mistake

__all__ = ["Exercise", "Mistake"]
