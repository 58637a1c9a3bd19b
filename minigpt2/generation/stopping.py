"""Stopping: which rows have ended with the id of this step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .config import GenerationConfig

if TYPE_CHECKING:
    from ..tokenizer import GPT2Tokenizer

# What a caller may give: (input_ids [R, S], scores [R, V]) -> bool, or one for each row
StoppingCriterion = Callable[[np.ndarray, np.ndarray], Any]


class StoppingCriteria:
    """The base of a caller's criteria, for those who like classes: any function does."""

    def __call__(self, input_ids: np.ndarray, scores: np.ndarray) -> Any:
        """Return which rows [R] of ids [R, S] have ended, or one answer for all."""
        raise NotImplementedError(
            f"{type(self).__name__} must define __call__(input_ids, scores)"
        )


class StoppingCriteriaList(list):
    """Criteria of which any ends a row."""

    def __call__(
        self, input_ids: np.ndarray, scores: np.ndarray, **more: Any
    ) -> np.ndarray:
        ended = np.zeros(len(input_ids), bool)
        for criterion in self:
            ended |= np.asarray(criterion(input_ids, scores, **more), bool)
        return ended


class Stopping:
    """All that ends rows: end ids, stop strings, the clock, and the caller's criteria.

    Args:
        tokenizer: for the stop strings of the options.
        own: the caller's criteria, called as transformers calls its StoppingCriteria:
            with input_ids [R, S], pad_token_id where there is padding, and the scores
            [R, V] from which the last ids were chosen.
    """

    def __init__(
        self,
        options: GenerationConfig,
        tokenizer: GPT2Tokenizer | None = None,
        own: Sequence[StoppingCriterion] | None = None,
    ):
        self.ends = np.array(options.end_ids(), np.int64)
        self.deadline = None
        if options.max_time is not None:
            self.deadline = time.perf_counter() + options.max_time
        self.strings = None
        if options.stop_strings and tokenizer is not None:
            self.strings = StopStrings(options.stop_strings, tokenizer)
        self.own = own or ()
        assert options.pad_token_id is not None  # prompt.prepare has settled it
        self.pad = options.pad_token_id

    def __call__(self, input_ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return which rows [R] have ended with their last id.

        Args:
            input_ids: [R, S], that id included; -1 is padding.
            scores: [R, V], from which that id was chosen.
        """
        ended = (input_ids[:, -1, None] == self.ends).any(axis=1)
        if self.strings is not None:
            ended |= self.strings(input_ids)
        if self.deadline is not None and time.perf_counter() > self.deadline:
            ended[:] = True
        if self.own:
            shown = np.where(input_ids < 0, self.pad, input_ids)
            for criterion in self.own:
                ended |= np.asarray(criterion(shown, scores), bool)
        return ended


class StopStrings:
    """Whether a row's last token completes one of the strings.

    Works on bytes, so it does not matter where tokens, or characters, begin and end:
    the bytes before the last token that could be part of a match are put before it.
    What follows the match within the last token is no obstacle.
    """

    def __init__(self, strings: str | Sequence[str], tokenizer: GPT2Tokenizer):
        strings = [strings] if isinstance(strings, str) else list(strings)
        if not all(isinstance(s, str) and s for s in strings):
            raise ValueError(f"stop_strings must be texts, not empty: {strings!r}")
        self.strings = [s.encode() for s in strings]
        self.before = max(map(len, self.strings)) - 1
        self.decode = tokenizer.bpe.decode

    def bytes_of(self, id: int) -> bytes:
        """Return a token's bytes: none, for an id that the tokenizer lacks."""
        try:
            return self.decode([id])
        except (ValueError, LookupError):
            return b""

    def __call__(self, input_ids: np.ndarray) -> np.ndarray:
        """Return for which rows [R] of ids [R, S] it is so; -1 is padding."""
        return np.array([self.completes(ids[ids >= 0]) for ids in input_ids], bool)

    def completes(self, ids: np.ndarray) -> bool:
        """Say whether the last of the ids [S] completes a string."""
        last = self.bytes_of(int(ids[-1]))
        tail, place = b"", len(ids) - 1
        while len(tail) < self.before and place:
            place -= 1
            tail = self.bytes_of(int(ids[place])) + tail
        end = tail[len(tail) - min(self.before, len(tail)) :] + last
        # a match must end within the last token, so its beginning is bounded
        return any(
            end.find(s, max(0, len(end) - len(last) - len(s) + 1)) >= 0
            for s in self.strings
        )
