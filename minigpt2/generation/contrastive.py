"""Contrastive search: likely, but unlike what was said before.

Of the top_k likeliest next ids, the one is taken that maximizes

    (1 - penalty_alpha) p(id) - penalty_alpha max_j cos(h(id), h_j)

where h(id) is the last hidden state after that id, so all k are read to get it, and h_j
are those of the sequence before. Source: Su et al. 2022.
"""

from __future__ import annotations

import numpy as np

from .. import ops
from ..model.outputs import ModelOutput
from .job import Job
from .outputs import GenerateDecoderOnlyOutput, Record
from .sampling import best_of, check_choice
from .state import Sequences


def generate(job: Job) -> GenerateDecoderOnlyOutput:
    """Run a job to its end."""
    o, prompt, streamer = job.options, job.prompt, job.call.streamer
    k = min(o.top_k, job.model.config.vocab_size)
    record, chain = Record(o), job.chain()
    wanted = {**record.wanted(), "output_hidden_states": True}
    sequences = Sequences(prompt.sequences, job.max_new)
    state = job.new_state(prompt, job.max_new)
    logits, output = state.read(prompt.ids, 1, **wanted)
    logits = logits[:, -1]  # [B, V]
    before = unit(output.hidden_states[-1])  # [B, T, C]
    before[~prompt.visible[:, -before.shape[1] :]] = np.nan  # padding is like nothing
    state.repeat(k)
    rows, ended, columns = np.arange(len(prompt)), np.zeros(len(prompt), bool), []
    for step in range(job.max_new):
        scores = chain(sequences.ids, step, logits)
        check_choice(scores.max(axis=-1), logits)
        record.add(scores, logits, output)
        p = ops.softmax(scores)
        ids = np.stack([best_of(row, k) for row in p])  # [B, k]
        logits, output = state.read(ids.reshape(-1, 1), 1, **wanted)
        after = unit(output.hidden_states[-1][:, -1])  # [B * k, C]
        after = after.reshape(*ids.shape, -1)  # [B, k, C]
        likeness = np.nanmax(after @ before.swapaxes(1, 2), axis=-1)  # [B, k]
        value = (1.0 - o.penalty_alpha) * np.take_along_axis(p, ids, axis=1)
        chosen = (value - o.penalty_alpha * likeness).argmax(axis=1)  # [B]
        next_ids = np.where(ended, job.pad_id, ids[rows, chosen])
        columns.append(next_ids)
        sequences.add(next_ids)
        ended |= job.stopping(sequences.ids, scores)
        if streamer is not None:
            streamer.put(next_ids)
        if ended.all() or step + 1 == job.max_new:
            break
        winners = rows * k + chosen
        before = np.concatenate([before, after[rows, chosen][:, None]], axis=1)
        logits, output = logits[winners, -1], selected(output, winners)
        # the k rows of a prompt differ in nothing but their last column
        state.reorder(np.repeat(winners, k), since=state.length - 1)
    cache = None
    if o.return_dict_in_generate and not prompt.moved and state.cache is not None:
        # without the last column, which holds the candidates for the last id
        cache = state.cache.select(rows * k).cropped(state.length - 1)
    return GenerateDecoderOnlyOutput(
        sequences=np.concatenate([prompt.given, np.stack(columns, axis=1)], axis=1),
        past_key_values=cache,
        **record.fields(),
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """Divide each vector by its length, so that products are cosines."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def selected(output: ModelOutput, rows: np.ndarray) -> ModelOutput:
    """Return the rows of a pass's attentions and hidden states that were chosen."""
    for name in ("attentions", "hidden_states"):
        arrays = getattr(output, name)
        if arrays is not None:
            setattr(output, name, tuple(array[rows] for array in arrays))
    return output
