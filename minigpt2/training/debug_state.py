"""What llm.c's debug state has, computed here: a pass, its loss, and the way back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..checkpoints.names import PREFIX
from ..model.gpt2 import GPT2LMHeadModel
from ..tracing.llmc_state import State
from .gradients import loss_and_grads


def debug_state(model: GPT2LMHeadModel, ids: npt.ArrayLike) -> State:
    """Return llm.c's debug state of a model with tied embeddings; see llmc_state.py.

    llm.c gives targets of their own, one place on. Here labels are the ids themselves and
    the logits at t are judged by the label at t + 1: so the same loss takes T + 1 ids.

    Args:
        ids: [B, T + 1], at most n_positions: x is all but the last, y all but the first.

    Raises:
        ValueError: as loss_and_grads does, and for a model that llm.c has not.
    """
    if not model.config.tie_word_embeddings:
        raise ValueError("llm.c's GPT-2 has tied embeddings, and this model has not")
    ids = np.asarray(ids)
    if ids.ndim != 2 or ids.shape[1] < 2:
        raise ValueError(
            f"ids have shape {ids.shape}; they must be [B, T + 1], as the last ones are "
            "targets only: give two ids at least"
        )
    loss, gradients = loss_and_grads(model, ids, labels=ids)
    x, y = ids[:, :-1], ids[:, 1:]
    logits = model(x, use_cache=False).logits  # [B, T, V]
    by_name = {name.removeprefix(PREFIX): array for name, array in gradients.items()}
    return State(x, y, logits, np.asarray(loss), by_name)
