"""Models that are only read: loaded once, and the same for all who ask while one is in use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from ..common.profile import Profile, load_profile
from . import loading
from .identity import model_identity

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# By identity. Whoever holds a model keeps it in memory; what nobody holds is freed as ever.
_in_use: WeakValueDictionary[str, PreTrainedModel] = WeakValueDictionary()
_as_loaded: WeakKeyDictionary[PreTrainedModel, tuple[Any, ...]] = WeakKeyDictionary()


def load_shared(source: str | Path, profile: Profile | None = None) -> PreTrainedModel:
    """As `loading.load_model`, but to be read alone: in evaluation mode, without gradients.

    Who asks for a model of the same contents while somebody holds one gets that very object. If it
    was trained, merged or moved in the meantime it is no longer what its folder says, and is loaded
    anew. Trainers load their own.
    """
    profile = profile or load_profile()
    model = _in_use.get(model_identity(source, profile))
    if model is not None and _as_loaded[model] == _state(model):
        return model
    model = loading.load_model(source, profile).requires_grad_(False)
    _as_loaded[model] = _state(model)
    _in_use[model_identity(source, profile)] = model  # that of a hub model is known only now
    return model


def _state(model: PreTrainedModel) -> tuple[Any, ...]:
    """What differs after any change: of each parameter its place, and how often it was written."""
    return (
        model.training,
        *(
            (name, parameter.data_ptr(), parameter._version, parameter.requires_grad)
            for name, parameter in model.named_parameters()
        ),
    )
