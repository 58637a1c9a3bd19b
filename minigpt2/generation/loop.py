"""The loop: a prompt through the model, then one id after another.

`generate` checks what it is given and gathers what `steps` yields; `steps` is the loop.
"""

import secrets

import numpy as np

from .. import inputs
from ..cache import KVCache
from ..randomness import UniformStream
from . import processors, sampling


def generate(model, input_ids, attention_mask, streamer, options):
    """See GPT2LMHeadModel.generate."""
    ids, mask = checked_prompt(model, input_ids, attention_mask, options)
    if streamer is not None:
        streamer.put(ids)
    columns = []
    for next_ids in steps(model, ids, mask, options):
        columns.append(next_ids)
        if streamer is not None:
            streamer.put(next_ids)
    if streamer is not None:
        streamer.end()
    prompts = np.repeat(ids, options.num_return_sequences, axis=0)
    return np.concatenate([prompts, np.stack(columns, axis=1)], axis=1)


def steps(model, ids, mask, options):
    """Yield the next id of every row, [B * num_return_sequences] at a time.

    ids [B, T] and mask [B, T] (bool, True for what is text) as `checked_prompt` returns
    them. Ends when every row has ended or max_new_tokens are made.
    """
    batch, length = ids.shape
    results = options.num_return_sequences
    most = options.max_new_tokens
    # The prompt, in one pass over a cache that has room for all that follows.
    visible = np.ones((batch, length + most), bool)
    visible[:, :length] = mask
    padded = not mask.all()
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)  # padding is not counted
    last = length - 1 - mask[:, ::-1].argmax(axis=1)  # where each row's text ends
    kept, which = np.unique(last, return_inverse=True)
    out = model.forward(
        ids,
        past=KVCache.empty(
            model.transformer.cache_shapes(batch),
            length if results > 1 else length + most,
            model.dtype,
        ),
        attention_mask=mask if padded else None,
        position_ids=positions,
        use_cache=True,
        logits_to_keep=kept,
        return_dict=True,
    )
    scores, cache = out.logits[np.arange(batch), which], out.past_key_values  # [B, V]
    position = positions[np.arange(batch), last]

    seen = None
    if options.repetition_penalty != 1.0:
        seen = np.zeros(scores.shape, bool)
        rows, columns = np.nonzero(mask)
        seen[rows, ids[rows, columns]] = True
    if results > 1:
        rows = np.repeat(np.arange(batch), results)
        cache = cache.select(rows, room=most)
        scores, position, visible = scores[rows], position[rows], visible[rows]
        seen = None if seen is None else seen[rows]
    streams = None
    if options.do_sample:
        streams = [UniformStream(*stream) for stream in options.streams_of(batch)]

    ends = options.end_ids()
    finished = np.zeros(len(scores), bool)
    for step in range(most):
        next_ids = choose(scores, seen, streams, options)
        if finished.any():
            next_ids = np.where(finished, options.pad_token_id, next_ids)
        yield next_ids
        finished |= np.isin(next_ids, ends)
        if finished.all() or step + 1 == most:
            return
        if seen is not None:
            seen[np.arange(len(seen)), next_ids] = True
        position = position + 1
        out = model.forward(
            next_ids[:, None],
            past=cache,
            attention_mask=visible[:, : length + step + 1] if padded else None,
            position_ids=position[:, None],
            use_cache=True,
            return_dict=True,
        )
        scores, cache = out.logits[:, -1], out.past_key_values


def choose(scores, seen, streams, options):
    """Return the next id of each row, by its scores [B, V] and the options."""
    if not np.isfinite(scores.max(axis=-1)).all():
        raise ValueError("the model's scores are not finite: its weights may be broken")
    if seen is not None:
        scores = processors.repetition_penalty(scores, seen, options.repetition_penalty)
    if not options.do_sample:
        return sampling.greedy(scores)
    if options.temperature != 1.0:
        scores = processors.temperature(scores, options.temperature)
    if options.top_k:
        scores = processors.top_k(scores, options.top_k)
    if options.top_p < 1.0:
        scores = processors.top_p(scores, options.top_p)
    return sampling.sample(scores, streams)


def checked_prompt(model, input_ids, attention_mask, options):
    """Return ids [B, T] and mask [B, T] (bool); settle what the options leave open."""
    config = model.config
    if options.eos_token_id is None:
        options.eos_token_id = config.eos_token_id
    if options.pad_token_id is None:
        ends = options.end_ids()
        options.pad_token_id = getattr(config, "pad_token_id", None)
        if options.pad_token_id is None and ends:
            options.pad_token_id = ends[0]
    if options.do_sample and options.seed is None:
        options.seed = secrets.randbits(32)
    if input_ids is None:
        input_ids = [[config.bos_token_id]]
    ids = inputs.ids(input_ids, "input_ids", config.vocab_size).astype(np.int64)
    if ids.ndim != 2:
        raise ValueError(f"input_ids has shape {ids.shape}; it must be (batch, length)")
    batch, length = ids.shape
    mask = inputs.key_mask(attention_mask, batch, length)
    if mask is None:
        mask = np.ones(ids.shape, bool)
    counts = mask.sum(axis=1)
    if counts.min() == 0:
        raise ValueError(f"attention_mask hides all of row {counts.argmin()}")
    if options.max_new_tokens is None:
        options.max_new_tokens = options.max_length - length
        if options.max_new_tokens < 1:
            raise ValueError(
                f"the prompt has {length} ids and max_length={options.max_length} "
                "counts them: raise it, or say max_new_tokens instead"
            )
    if counts.max() + options.max_new_tokens > config.n_positions:
        raise ValueError(
            f"a prompt of {counts.max()} ids and {options.max_new_tokens} new ones are "
            f"more than this model's n_positions={config.n_positions}: shorten the "
            "prompt or ask for fewer"
        )
    return ids, mask
