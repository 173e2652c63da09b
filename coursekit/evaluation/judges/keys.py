"""API keys: from the environment, Colab's secrets or a hidden prompt; never shown, never stored."""

from __future__ import annotations

import os
import sys
from getpass import getpass


class Key:
    """A key that does not show itself: `repr` is stars. `reveal` is for the SDK alone."""

    def __init__(self, value: str, name: str) -> None:
        self._value, self.name = value, name

    def reveal(self) -> str:
        return self._value

    def scrub(self, text: str) -> str:
        """`text` without the key, and without its beginning or end as servers quote them."""
        for piece in (self._value, self._value[:12], self._value[-8:]):
            if len(piece) >= 8:
                text = text.replace(piece, "***")
        return text

    def __repr__(self) -> str:
        return f"Key({self.name}: ***)"

    def __reduce__(self):
        raise TypeError(f"{self.name} is not to be saved")


def find_key(name: str, ask: bool = True) -> Key:
    """The key called `name` (`ANTHROPIC_API_KEY`): environment, Colab's secrets, or typed hidden.

    Raises ValueError where there is none and nobody to ask.
    """
    value = os.environ.get(name) or _from_colab(name)
    if not value and ask and (sys.stdin.isatty() or "ipykernel" in sys.modules):
        value = getpass(f"{name} (is not shown, not saved): ")
    if not value or not value.strip():
        raise ValueError(
            f"no {name}: set it in the environment before you start (or in Colab's secrets), or "
            "choose the judge `program`, which needs none"
        )
    return Key(value.strip(), name)


def _from_colab(name: str) -> str | None:
    if "google.colab" not in sys.modules:
        return None
    from google.colab import userdata

    try:
        return userdata.get(name)
    except Exception:  # not there, or no access granted: the same to us
        return None
