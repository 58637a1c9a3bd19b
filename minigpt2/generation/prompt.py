"""The prompts as the caller gave them -> what decoding starts from, checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..config import GPT2Config
from ..model import inputs
from ..model.cache import KVCache
from .config import GenerationConfig
from .features import Strategy
from .options import as_list, option_of

if TYPE_CHECKING:
    from ..model.gpt2 import GPT2LMHeadModel

DEFAULT_NEW = 20  # how many ids are added where no length is given


@dataclass
class Prompt:
    """Prompts [B]: as given, as read, and as continued.

    The past holds P columns, and W follow it. N are the ids of the longest row, 0 if there
    are embeds alone.
    """

    given: np.ndarray  # [B, T] int64: as the caller gave them, for the result
    ids: np.ndarray  # [B, W] int64: to be read, each row's ids at the right
    visible: np.ndarray  # [B, P + W] bool: False is padding
    sequences: np.ndarray  # [B, N] int64: each row's ids at the right; -1 is padding
    past: KVCache | None = None
    embeds: np.ndarray | None = None  # [B, W, C] to be read in place of `ids`
    types: np.ndarray | None = None  # [B, W] int64: token_type_ids
    moved: bool = False  # whether columns of `ids` are not those of `given`
    owns_past: bool = False  # whether nobody else holds the past

    @classmethod
    def unread(cls, sequences: np.ndarray) -> Prompt:
        """Return the prompts of sequences [B, N] of which nothing has been read yet.

        -1 at the left of a row is padding.
        """
        visible = sequences >= 0
        ids = np.where(visible, sequences, 0)
        return cls(ids, ids, visible, sequences)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def width(self) -> int:
        """The columns of the prompts, whether they were given as ids or as vectors."""
        return self.visible.shape[1]

    def row(self, row: int) -> Prompt:
        """Return the prompt of one row alone, without padding before what is to read."""
        read = 0 if self.past is None else self.past.length
        shown = self.visible[row, read:]
        ids, sequence = self.ids[row, shown], self.sequences[row]
        return Prompt(
            given=self.given[row, None],
            ids=ids[None],
            visible=np.concatenate([self.visible[row, :read], shown[shown]])[None],
            sequences=sequence[sequence >= 0][None],
            past=None if self.past is None else self.past.select([row]),
            owns_past=True,
        )


def prepare(
    model: GPT2LMHeadModel,
    input_ids: npt.ArrayLike | None,
    attention_mask: npt.ArrayLike | None,
    past: Any,
    options: GenerationConfig,
    inputs_embeds: npt.ArrayLike | None = None,
    token_type_ids: npt.ArrayLike | None = None,
) -> tuple[Prompt, GenerationConfig]:
    """Check the prompts against the model; return them and settled options.

    What the options leave open (end ids, padding, seed, the number of new ids) is
    settled in a copy of them. See GenerationMixin.generate for the arguments.
    """
    options = settled(model.config, options)
    config = model.config
    if inputs_embeds is not None:
        prompt = embedded(model, input_ids, inputs_embeds, attention_mask)
        prompt.types = types_of(token_type_ids, prompt.visible, config.vocab_size)
        return prompt, with_length(config, prompt, options)
    if input_ids is None:
        if options.bos_token_id is None:
            raise ValueError("this model has no bos_token_id to begin with: give ids")
        inputs.ids([options.bos_token_id], "bos_token_id", config.vocab_size)
        input_ids = [[options.bos_token_id]]
    ids = rows_of_ids(input_ids, config.vocab_size)
    mask = shown_by(attention_mask, *ids.shape)
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
        sequences=aligned(ids, mask, -1)[0],
        past=past,
        types=types_of(token_type_ids, mask, config.vocab_size, read),
        moved=bool((new_mask != mask[:, read:]).any()),
    )
    return prompt, with_length(config, prompt, options)


def rows_of_ids(input_ids: npt.ArrayLike, vocab_size: int) -> np.ndarray:
    """Return a caller's ids as [B, T] int64."""
    ids = inputs.ids(input_ids, "input_ids", vocab_size).astype(np.int64)
    if ids.ndim != 2:
        raise ValueError(f"input_ids has shape {ids.shape}; it must be (batch, length)")
    return ids


def shown_by(
    attention_mask: npt.ArrayLike | None, batch: int, width: int
) -> np.ndarray:
    """Return which columns are no padding [B, T] (bool)."""
    mask = inputs.key_mask(attention_mask, batch, width)
    if mask is None:
        mask = np.ones((batch, width), bool)
    if not mask.any(axis=1).all():
        raise ValueError(f"attention_mask hides all of row {mask.any(axis=1).argmin()}")
    return mask


def embedded(
    model: GPT2LMHeadModel,
    input_ids: npt.ArrayLike | None,
    inputs_embeds: npt.ArrayLike,
    attention_mask: npt.ArrayLike | None,
) -> Prompt:
    """Return the prompts that are given as vectors, with whatever ids they have."""
    embeds, _ = model.transformer.embed(None, inputs_embeds)  # [B, T, C]
    batch, width = embeds.shape[:2]
    mask = shown_by(attention_mask, batch, width)
    if not mask[:, -1].all():
        raise ValueError("inputs_embeds must have their padding at the left")
    given = sequences = np.empty((batch, 0), np.int64)
    if input_ids is not None:
        given = rows_of_ids(input_ids, model.config.vocab_size)
        if given.shape != mask.shape:
            raise ValueError(
                f"input_ids have the shape {given.shape} and inputs_embeds {mask.shape}"
            )
        sequences, _ = aligned(given, mask, -1)
    return Prompt(
        given=given,
        ids=np.zeros((batch, width), np.int64),
        visible=mask,
        sequences=sequences,
        embeds=embeds,
    )


def types_of(
    token_type_ids: npt.ArrayLike | None,
    mask: np.ndarray,
    vocab_size: int,
    read: int = 0,
) -> np.ndarray | None:
    """Return the types of the columns to read [B, W], in the order of the ids.

    Args:
        mask: which columns of the prompts are no padding [B, P + W].
        read: P, the columns that the past holds.
    """
    if token_type_ids is None:
        return None
    types = inputs.rows_of_ids(
        token_type_ids, "token_type_ids", vocab_size, *mask.shape
    )
    types = np.broadcast_to(types, mask.shape)[:, read:].astype(np.int64)
    return aligned(types, mask[:, read:], 0)[0]


def aligned(
    ids: np.ndarray, mask: np.ndarray, padding: int
) -> tuple[np.ndarray, np.ndarray]:
    """Move what the mask shows to the right; return ids and mask, both [B, T]."""
    if mask.all():
        return ids, mask
    width = ids.shape[1]
    out = np.full(ids.shape, padding, np.int64)
    counts = mask.sum(axis=1)
    for row, (sequence, shown, count) in enumerate(zip(ids, mask, counts)):
        out[row, width - count :] = sequence[shown]
    return out, np.arange(width) >= width - counts[:, None]


def settled(config: GPT2Config, options: GenerationConfig) -> GenerationConfig:
    """Fill in what the model's configuration or chance decides."""
    changes = {}
    if options.eos_token_id is None:
        changes["eos_token_id"] = config.eos_token_id
    if options.bos_token_id is None:
        changes["bos_token_id"] = config.bos_token_id
    if options.do_sample and options.seed is None:
        import secrets  # which imports much, and no greedy text needs

        changes["seed"] = secrets.randbits(32)
    options = options.updated(**changes)
    if options.pad_token_id is None:
        # A row may end without an end id, by a stop string say: then pad with any id.
        ends = [*options.end_ids(), *as_list(config.eos_token_id), 0]
        pad = getattr(config, "pad_token_id", None)
        options = options.updated(pad_token_id=ends[0] if pad is None else pad)
    check_ids(options, config.vocab_size)
    return options


def check_ids(options: GenerationConfig, vocab_size: int) -> None:
    """Refuse ids outside the vocabulary in options that change their scores."""
    for field in fields(options):
        name, value = field.name, getattr(options, field.name)
        ids_in = option_of(field).ids_in
        if ids_in is None or value is None:
            continue
        for ids in map(list, ids_in(value)):
            if not ids:
                raise ValueError(f"{name} has an empty sequence")
            inputs.ids(ids, name, vocab_size)
    if options.exponential_decay_length_penalty and (ends := options.end_ids()):
        name = (
            "exponential_decay_length_penalty raises the scores of eos_token_id, which"
        )
        inputs.ids(ends, name, vocab_size)


def with_length(
    config: GPT2Config, prompt: Prompt, options: GenerationConfig
) -> GenerationConfig:
    """Settle max_new_tokens and min_new_tokens; refuse what would outgrow n_positions."""
    width = prompt.width
    longest, limit = int(prompt.visible.sum(axis=1).max()), config.n_positions
    new = options.max_new_tokens
    if new is None and options.max_length is None:
        new = DEFAULT_NEW
        if options.sliding_window is None and longest < limit:
            new = min(new, limit - longest)
    elif new is None and options.max_length is not None:
        new = options.max_length - width
        if new <= 0:
            raise ValueError(
                f"the prompt has {width} ids and max_length={options.max_length} "
                "counts them: raise it, or say max_new_tokens instead"
            )
    least = options.min_new_tokens or max(options.min_length - width, 0)
    options = options.updated(max_new_tokens=new, min_new_tokens=least)
    assert new is not None
    # the last new id is read only by contrastive search, before it is chosen
    read = new if options.strategy() is Strategy.CONTRASTIVE else new - 1
    if options.sliding_window is not None:
        if options.sliding_window > limit:
            raise ValueError(
                f"sliding_window={options.sliding_window} is more than this model's "
                f"n_positions={limit}"
            )
    elif new and longest + read > limit:
        raise ValueError(
            f"a prompt of {longest} ids and {new} new ones are "
            f"more than this model's n_positions={limit}: shorten the prompt, ask for "
            "fewer, or let it forget its beginning with sliding_window"
        )
    return options


def checked_past(
    model: GPT2LMHeadModel, past: Any, batch: int, width: int
) -> KVCache | None:
    """Return the past as a KVCache that leaves at least the last column to read."""
    past = model.transformer.checked_past(past, batch)
    if past is None:
        return None
    if past.length > width:
        raise ValueError(
            f"past_key_values holds {past.length} positions and input_ids {width}: "
            "input_ids must be the whole sequence, what the past holds included"
        )
    return past.cropped(min(past.length, width - 1))
