"""The prompts as the caller gave them -> what the loops start from, checked."""

import secrets
from dataclasses import dataclass

import numpy as np

from ..model import inputs
from ..model.cache import KVCache


@dataclass
class Prompt:
    """Prompts [B], in three forms; W new columns after P that the past holds."""

    given: np.ndarray  # [B, T] int64: as the caller gave them, for the result
    ids: np.ndarray  # [B, W] int64: to be read, each row's text at the right
    visible: np.ndarray  # [B, P + W] bool: what is text and no padding
    text: np.ndarray  # [B, N] int64: the texts, at the right; -1 is padding
    past: KVCache | None
    moved: bool = False  # whether columns of `ids` are not those of `given`
    owns_past: bool = False  # whether nobody else holds the past

    def __len__(self):
        return len(self.ids)

    def row(self, row):
        """Return the prompt of one row alone, without padding before what is to read."""
        read = 0 if self.past is None else self.past.length
        shown = self.visible[row, read:]
        ids, text = self.ids[row, shown], self.text[row]
        return Prompt(
            given=self.given[row, None],
            ids=ids[None],
            visible=np.concatenate([self.visible[row, :read], shown[shown]])[None],
            text=text[text >= 0][None],
            past=None if self.past is None else self.past.select([row]),
            owns_past=True,
        )

    def from_the_beginning(self):
        """Return the same texts with nothing read yet; for rows without padding."""
        return Prompt(self.text, self.text, self.text >= 0, self.text, None)


def prepare(model, input_ids, attention_mask, past, options):
    """Check the prompts against the model; return Prompt and settled options.

    What the options leave open (end ids, padding, seed, the number of new ids) is
    settled in a copy of them. See GenerationMixin.generate for the arguments.
    """
    options = settled(model.config, options)
    config = model.config
    if input_ids is None:
        input_ids = [[options.bos_token_id]]
    ids = inputs.ids(input_ids, "input_ids", config.vocab_size).astype(np.int64)
    if ids.ndim != 2:
        raise ValueError(f"input_ids has shape {ids.shape}; it must be (batch, length)")
    mask = inputs.key_mask(attention_mask, *ids.shape)
    if mask is None:
        mask = np.ones(ids.shape, bool)
    if not mask.any(axis=1).all():
        raise ValueError(f"attention_mask hides all of row {mask.any(axis=1).argmin()}")
    past = checked_past(model, past, *ids.shape)
    read = 0 if past is None else past.length
    new, new_mask = aligned(ids[:, read:], mask[:, read:], 0)
    if not new_mask[:, -1].all():
        raise ValueError(
            f"row {new_mask[:, -1].argmin()} has nothing to read after the past: the "
            "last of its ids must not be in past_key_values yet"
        )
    prompt = Prompt(
        given=ids,
        ids=new,
        visible=np.concatenate([mask[:, :read], new_mask], axis=1),
        text=aligned(ids, mask, -1)[0],
        past=past,
        moved=bool((new_mask != mask[:, read:]).any()),
    )
    return prompt, with_length(config, prompt, options)


def aligned(ids, mask, padding):
    """Move what the mask shows to the right; -> ids and mask, both [B, T]."""
    if mask.all():
        return ids, mask
    width = ids.shape[1]
    out = np.full(ids.shape, padding, np.int64)
    counts = mask.sum(axis=1)
    for row, (text, shown, count) in enumerate(zip(ids, mask, counts)):
        out[row, width - count :] = text[shown]
    return out, np.arange(width) >= width - counts[:, None]


def settled(config, options):
    """Fill in what the model's configuration or chance decides."""
    changes = {}
    if options.eos_token_id is None:
        changes["eos_token_id"] = config.eos_token_id
    if options.bos_token_id is None:
        changes["bos_token_id"] = config.bos_token_id
    if options.do_sample and options.seed is None:
        changes["seed"] = secrets.randbits(32)
    options = options.updated(**changes)
    if options.pad_token_id is None:
        # a row may end without an end id, by a stop string say: then pad with any id
        ends = [*options.end_ids(), config.eos_token_id, 0]
        pad = getattr(config, "pad_token_id", None)
        options = options.updated(pad_token_id=ends[0] if pad is None else pad)
    check_ids(options, config.vocab_size)
    return options


def check_ids(options, vocab_size):
    """Refuse ids outside the vocabulary in options that write to the scores' columns."""
    biases = options.sequence_bias or {}
    biased = biases if isinstance(biases, dict) else [ids for ids, _ in biases]
    named = {
        "suppress_tokens": options.suppress_tokens,
        "begin_suppress_tokens": options.begin_suppress_tokens,
        "forced_bos_token_id": options.forced_bos_token_id,
        "forced_eos_token_id": options.forced_eos_token_id,
    }
    lists = [(name, as_ids(name, ids)) for name, ids in named.items()]
    lists += [("bad_words_ids", list(word)) for word in options.bad_words_ids or ()]
    lists += [("sequence_bias", list(ids)) for ids in biased]
    for name, ids in lists:
        if name in ("bad_words_ids", "sequence_bias") and not ids:
            raise ValueError(f"{name} has an empty sequence")
        if ids:
            inputs.ids(ids, name, vocab_size)


def as_ids(name, ids):
    return [] if ids is None else np.atleast_1d(ids).tolist()


def with_length(config, prompt, options):
    """Settle max_new_tokens; refuse what would outgrow n_positions."""
    width = prompt.given.shape[1]
    if options.max_new_tokens is None:
        if options.max_length <= width:
            raise ValueError(
                f"the prompt has {width} ids and max_length={options.max_length} "
                "counts them: raise it, or say max_new_tokens instead"
            )
        options = options.updated(max_new_tokens=options.max_length - width)
    longest, limit = prompt.visible.sum(axis=1).max(), config.n_positions
    if options.sliding_window is not None:
        if options.sliding_window > limit:
            raise ValueError(
                f"sliding_window={options.sliding_window} is more than this model's "
                f"n_positions={limit}"
            )
        if prompt.past is not None:
            raise ValueError("sliding_window excludes past_key_values")
    elif longest + options.max_new_tokens > limit:
        raise ValueError(
            f"a prompt of {longest} ids and {options.max_new_tokens} new ones are "
            f"more than this model's n_positions={limit}: shorten the prompt, ask for "
            "fewer, or let it forget its beginning with sliding_window"
        )
    return options


def checked_past(model, past, batch, width):
    """Return the past as a KVCache that leaves at least the last column to read."""
    if past is None:
        return None
    past = KVCache.of(past, model.dtype)
    inputs.past_shapes(past, model.transformer.cache_shapes(batch))
    if past.length > width:
        raise ValueError(
            f"past_key_values holds {past.length} positions and input_ids {width}: "
            "input_ids must be the whole text, what the past holds included"
        )
    return past.cropped(min(past.length, width - 1))
