"""Context: the rows under way, and the cache of what the model has read of them."""

import copy

import numpy as np

from ..model.cache import KVCache
from . import processors


class Context:
    """Rows [R] that the model reads on, column by column.

    - room (int): how many columns will follow the prompt; more cost a copy.
    - use_cache=False reads everything again each time: slow, and the test of the cache.
    """

    def __init__(self, model, prompt, room, use_cache=True):
        self.model = model
        self.room = room
        past = prompt.past
        self.length = 0 if past is None else past.length  # columns read
        self.visible = None  # [R, columns] bool, if there is padding
        self.position = prompt.visible[:, : self.length].sum(axis=1)  # [R] next ones
        if not prompt.visible.all():
            rest = np.ones((len(prompt), room), bool)
            self.visible = np.concatenate([prompt.visible, rest], axis=1)
        self.cache = past
        self.owned = prompt.owns_past  # whether nobody else holds the cache
        self.read_again = None if use_cache else prompt.ids[:, :0]

    def read(self, ids, keep=1, **wanted):
        """Read columns of ids [R, T]; return (scores [R, keep, V], the pass's output).

        keep: after how many of the last columns scores are wanted. wanted: arguments of
        the model's forward, such as output_attentions.
        """
        start, end = self.length, self.length + ids.shape[1]
        if self.read_again is not None:
            self.read_again = ids = np.concatenate([self.read_again, ids], axis=1)
            start = 0
            self.position = np.zeros_like(self.position)
        elif self.cache is None:
            shapes = self.model.transformer.cache_shapes(len(ids))
            self.cache = KVCache.empty(shapes, end + self.room, self.model.dtype)
            self.owned = True
        mask = positions = None
        if self.visible is not None:
            self.widen(end)
            mask = self.visible[:, :end]
            ahead = mask[:, start:].cumsum(axis=1)
            positions = np.maximum(self.position[:, None] + ahead - 1, 0)
            self.position = self.position + ahead[:, -1]
        else:
            self.position = self.position + ids.shape[1]
        output = self.model.forward(
            ids,
            past=self.cache,
            attention_mask=mask,
            position_ids=positions,
            use_cache=self.read_again is None,
            logits_to_keep=keep,
            return_dict=True,
            **wanted,
        )
        self.cache, self.length = output.past_key_values, end
        return output.logits, output

    def widen(self, end):
        """Make the mask reach column `end`: what follows the prompt is text."""
        missing = end - self.visible.shape[1]
        if missing > 0:
            more = np.ones((len(self.visible), missing), bool)
            self.visible = np.concatenate([self.visible, more], axis=1)

    def crop(self, length):
        """Forget the columns from `length` on."""
        dropped = self.length - length
        if dropped == 0:
            return
        if self.cache is not None:
            if self.owned:
                self.cache.truncate(length)
            else:
                self.cache = self.cache.cropped(length)
        else:
            self.read_again = self.read_again[:, :length]
        self.position = self.position - dropped  # what follows a prompt has no padding
        self.length = length

    def lent(self, model):
        """Return a context that reads on from here with another model.

        It writes into the same cache, behind what this one has read: so `crop` it back
        before this one reads on.
        """
        other = copy.copy(self)
        other.model = model
        return other

    def repeat(self, times):
        """Make each row `times` rows."""
        rows = np.repeat(np.arange(len(self.position)), times)
        if times > 1:
            self._take(rows, lambda: self.cache.select(rows, room=self.room))
            self.owned = True

    def rearrange(self, rows, since=0):
        """Make row i what row rows[i] is now; columns before `since` are alike.

        In place: rows that stay where they are, and columns that are alike, are not
        copied. Fewer rows than before are fine.
        """
        if not self.owned and self.cache is not None:
            self._take(rows, lambda: self.cache.select(rows, room=self.room))
            self.owned = True
        else:
            if self.cache is not None:
                self.cache.reorder(rows, since)
            self._take(rows, lambda: self.cache)

    def _take(self, rows, take_cache):
        if self.cache is not None:
            self.cache = take_cache()
        else:
            self.read_again = self.read_again[rows]
        self.position = self.position[rows]
        if self.visible is not None:
            self.visible = self.visible[rows]


class GuidedContext:
    """Two contexts side by side: with the prompt, and without it or with another.

    What `read` returns as scores is processors.guidance of the two.
    """

    def __init__(self, conditional, unconditional, scale, prompt, width):
        self.both = (conditional, unconditional)
        self.scale = scale
        self.unread = prompt.ids  # what `unconditional` reads in place of the prompt
        self.width = width

    @property
    def cache(self):
        return self.both[0].cache

    @property
    def length(self):
        return self.both[0].length

    def read(self, ids, keep=1, **wanted):
        conditional, unconditional = self.both
        scores, output = conditional.read(ids, keep, **wanted)
        if self.unread is not None:
            ids = np.concatenate([self.unread, ids[:, self.width :]], axis=1)
            self.unread = None
        others, _ = unconditional.read(ids, keep)
        return processors.guidance(scores, others, self.scale), output

    def crop(self, length):
        dropped = self.length - length
        for context in self.both:
            context.crop(context.length - dropped)

    def lent(self, model):
        other = copy.copy(self)
        other.both = tuple(context.lent(model) for context in self.both)
        return other

    def repeat(self, times):
        for context in self.both:
            context.repeat(times)

    def rearrange(self, rows, since=0):
        # `since` counts the columns of the prompt, which the other one does not have
        self.both[0].rearrange(rows, since)
        self.both[1].rearrange(rows)
