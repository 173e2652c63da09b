"""Keep the libraries' bars and their notes to one another out of a learner's notebook."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# bitsandbytes reports, whenever it is first imported, that an optional kernel is missing.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# The trainer reports where it cannot order checkpoints by time; it then does so by their number.
logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars but ours, no notes about renamed arguments; errors are as loud as ever."""
    import datasets
    from transformers.utils import logging as transformers_logging

    restore = []
    if not datasets.are_progress_bars_disabled():
        datasets.disable_progress_bars()
        restore.append(datasets.enable_progress_bars)
    if transformers_logging.is_progress_bar_enabled():
        transformers_logging.disable_progress_bar()
        restore.append(transformers_logging.enable_progress_bar)
    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            yield
    finally:
        for enable in restore:
            enable()
        if before is None:
            del os.environ["TQDM_DISABLE"]
        else:
            os.environ["TQDM_DISABLE"] = before
