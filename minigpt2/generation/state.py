"""DecodingState: the rows under way, and the cache of what the model has read of them.

`Sequences` are their ids. All that changes a cache in place is called here.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from ..model.cache import KVCache
from ..model.outputs import ModelOutput
from . import processors
from .prompt import Prompt

if TYPE_CHECKING:
    from ..model.gpt2 import GPT2LMHeadModel


class Sequences:
    """The ids of rows [R], with a capacity for `max_new` more of each."""

    def __init__(self, sequences: np.ndarray, max_new: int):
        self.length = sequences.shape[1]
        self._buffer = np.empty((len(sequences), self.length + max_new), np.int64)
        self._buffer[:, : self.length] = sequences

    @property
    def ids(self) -> np.ndarray:
        """All ids so far [R, S], as a view; -1 is padding."""
        return self._buffer[:, : self.length]

    def __len__(self) -> int:
        return len(self._buffer)

    def add(self, ids: np.ndarray) -> None:
        """Append one id [R] to each row."""
        self._buffer[:, self.length] = ids
        self.length += 1

    def reorder(self, rows: np.ndarray) -> None:
        """Make row i what row rows[i] was."""
        self._buffer = self._buffer[rows]


class DecodingState:
    """Rows [R] that the model reads on, column by column.

    Args:
        max_new: how many columns will follow the prompt; more cost a copy.
        use_cache: False reads everything again each time: slow, and the test of the
            cache.
    """

    def __init__(
        self,
        model: GPT2LMHeadModel,
        prompt: Prompt,
        max_new: int,
        use_cache: bool = True,
    ):
        self.model = model
        self.max_new = max_new
        past = prompt.past
        self.length = 0 if past is None else past.length  # columns read
        self.visible: np.ndarray | None = None  # [R, columns], if there is padding
        self.position = prompt.visible[:, : self.length].sum(axis=1)  # [R] next ones
        if not prompt.visible.all():
            rest = np.ones((len(prompt), max_new), bool)
            self.visible = np.concatenate([prompt.visible, rest], axis=1)
        self.embeds = prompt.embeds  # until they have been read
        self.types = prompt.types  # [R, columns from `first_type` on]
        self.first_type = self.length
        self.cache = past
        self.owns_cache = prompt.owns_past  # whether nobody else holds it
        self.read_again = None if use_cache else prompt.ids[:, :0]  # [R, columns]

    def read(
        self, ids: np.ndarray, keep: int = 1, **wanted: Any
    ) -> tuple[np.ndarray, ModelOutput]:
        """Read columns of ids [R, T]; return (logits [R, keep, V], the pass's output).

        Args:
            keep: after how many of the last columns logits are wanted.
            wanted: arguments of the model's forward, such as output_attentions.
        """
        start, end = self.length, self.length + ids.shape[1]
        if self.read_again is not None:
            self.read_again = ids = np.concatenate([self.read_again, ids], axis=1)
            start = 0
            self.position = np.zeros_like(self.position)
        elif self.cache is None:
            shapes = self.model.transformer.cache_shapes(len(ids))
            self.cache = KVCache.empty(shapes, end + self.max_new, self.model.dtype)
            self.owns_cache = True
        embeds, self.embeds = self.embeds, None
        types = None
        if self.types is not None:  # new ids have the last one of their row
            columns = np.arange(start, end) - self.first_type
            types = self.types[:, np.minimum(columns, self.types.shape[1] - 1)]
        mask = positions = None
        if self.visible is not None:
            mask = self.visible_until(end)
            ahead = mask[:, start:].cumsum(axis=1)
            positions = np.maximum(self.position[:, None] + ahead - 1, 0)
            self.position = self.position + ahead[:, -1]
        else:
            self.position = self.position + ids.shape[1]
        output = self.model.forward(
            ids if embeds is None else None,
            past=self.cache,
            attention_mask=mask,
            position_ids=positions,
            token_type_ids=types,
            inputs_embeds=embeds,
            use_cache=self.read_again is None,
            logits_to_keep=keep,
            return_dict=True,
            **wanted,
        )
        assert isinstance(output, ModelOutput)
        self.cache, self.length = output.past_key_values, end
        return output.logits, output

    def visible_until(self, end: int) -> np.ndarray:
        """Return the mask [R, end]; what follows the prompt has no padding."""
        assert self.visible is not None
        missing = end - self.visible.shape[1]
        if missing > 0:
            more = np.ones((len(self.visible), missing), bool)
            self.visible = np.concatenate([self.visible, more], axis=1)
        return self.visible[:, :end]

    def truncate(self, length: int) -> None:
        """Forget the columns from `length` on, which follow the prompt."""
        dropped = self.length - length
        if dropped == 0:
            return
        if self.read_again is not None:
            self.read_again = self.read_again[:, :length]
        if self.cache is not None and self.owns_cache:
            self.cache.truncate(length)
        elif self.cache is not None:
            self.cache = self.cache.cropped(length)
        self.position = self.position - dropped
        self.length = length

    def lent(self, model: GPT2LMHeadModel) -> DecodingState:
        """Return a state that reads on from here with another model.

        It writes into the same cache, behind what this one has read: so `truncate` it
        to this one's length before this one reads on.
        """
        other = copy.copy(self)
        other.model = model
        return other

    def repeat(self, times: int) -> None:
        """Make each row `times` rows."""
        if times > 1:
            self._copy(np.repeat(np.arange(len(self.position)), times))

    def reorder(self, rows: np.ndarray, since: int = 0) -> None:
        """Make row i what row rows[i] was; columns before `since` are alike.

        A cache of our own is reordered in place: rows that stay where they are, and
        columns that are alike, are not copied. Fewer rows than before are fine.
        """
        if self.cache is not None and not self.owns_cache:
            self._copy(rows)
            return
        if self.cache is not None:
            self.cache.reorder(rows, since)
        self._take(rows)

    def _copy(self, rows: np.ndarray) -> None:
        """Take rows, which may repeat, with a copy of the cache."""
        if self.cache is not None:
            self.cache = self.cache.select(rows, spare=self.max_new)
            self.owns_cache = True
        self._take(rows)

    def _take(self, rows: np.ndarray) -> None:
        """Take the rows of all but the cache."""
        if self.read_again is not None:
            self.read_again = self.read_again[rows]
        self.position = self.position[rows]
        if self.types is not None:
            self.types = self.types[rows]
        if self.visible is not None:
            self.visible = self.visible[rows]


class GuidedState:
    """Two states side by side: with the prompt, and without it or with another.

    What `read` returns as logits is processors.guidance of the two.

    Args:
        negative: what `unconditional` reads in place of the prompt.
        width: the columns of the prompt that are to be read.
    """

    def __init__(
        self,
        conditional: DecodingState,
        unconditional: DecodingState,
        scale: float,
        negative: Prompt,
        width: int,
    ):
        self.both = (conditional, unconditional)
        self.scale = scale
        self.unread: np.ndarray | None = negative.ids
        self.width = width

    @property
    def cache(self) -> KVCache | None:
        return self.both[0].cache

    @property
    def length(self) -> int:
        return self.both[0].length

    def read(
        self, ids: np.ndarray, keep: int = 1, **wanted: Any
    ) -> tuple[np.ndarray, Any]:
        """As DecodingState.read; the output is that of the pass with the prompt."""
        conditional, unconditional = self.both
        logits, output = conditional.read(ids, keep, **wanted)
        if self.unread is not None:
            ids = np.concatenate([self.unread, ids[:, self.width :]], axis=1)
            self.unread = None
        others, _ = unconditional.read(ids, keep)
        return processors.guidance(logits, others, self.scale), output

    def truncate(self, length: int) -> None:
        dropped = self.length - length
        for state in self.both:
            state.truncate(state.length - dropped)

    def lent(self, model: GPT2LMHeadModel) -> GuidedState:
        other = copy.copy(self)
        other.both = (self.both[0].lent(model), self.both[1].lent(model))
        return other

    def repeat(self, times: int) -> None:
        for state in self.both:
            state.repeat(times)

    def reorder(self, rows: np.ndarray, since: int = 0) -> None:
        # `since` counts the columns of the prompt, which the other one does not have
        self.both[0].reorder(rows, since)
        self.both[1].reorder(rows)
