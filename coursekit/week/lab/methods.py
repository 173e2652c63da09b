"""The methods by name: each a function from a start and its settings to checkpoints.

`method(start, folder, times, **settings)` trains in `folder` and gives about `times` checkpoints,
evenly spaced. All start from the SFT model and lay an adapter of the same size on it; a step is an
update on 16 pairs (on 32 responses of thumbs or of the policy's own, on 16 to imitate), at the same
schedule of the learning rate.
"""

from __future__ import annotations

from functools import partial

from .offline import dpo, fine_tune, kto, without_reference
from .online import online
from .rounds import iterate
from .untrained import best_of_n, cooler, optimum

METHODS = {
    "DPO": dpo,
    "preferred-FT": fine_tune,
    "unlikelihood": partial(without_reference, loss="unlikelihood"),
    "RLOO, learned reward": partial(online, algorithm="RLOO", reward="learned"),
    "RLOO, true reward": partial(online, algorithm="RLOO", reward="true"),
    "GRPO, true reward": partial(online, algorithm="GRPO", reward="true"),
    "online DPO": partial(online, algorithm="OnlineDPO", reward="true", prompts=16, group=2),
    "KTO": kto,
    "ORPO": partial(without_reference, loss="ORPO"),
    "SimPO": partial(without_reference, loss="SimPO"),
    "iterative DPO": iterate,
    "SFT, cooler": cooler,
    "best of n": best_of_n,
    "optimum": optimum,
}
