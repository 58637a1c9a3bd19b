"""Stopping: functions (input_ids [R, S]) -> bool [R], which rows have ended now.

Each looks at what a row says after the step's id. -1 in input_ids is padding.
"""

import time

import numpy as np


class Stopping:
    """All that ends rows: end ids, stop strings, the clock, and the caller's criteria.

    own: the caller's criteria, called with (input_ids, scores) as transformers calls
    its StoppingCriteria: input_ids [R, S] with pad_token_id where there is padding, and
    the scores [R, V] from which the last ids were chosen. They return a bool, or one
    for each row.
    """

    def __init__(self, options, tokenizer=None, own=()):
        self.ends = np.array(options.end_ids(), np.int64)
        self.deadline = None
        if options.max_time is not None:
            self.deadline = time.perf_counter() + options.max_time
        self.strings = None
        if options.stop_strings:
            if tokenizer is None:
                raise ValueError(
                    "stop_strings need the model's tokenizer: tokenizer=..."
                )
            self.strings = StopStrings(options.stop_strings, tokenizer)
        self.own = list(own)
        self.pad = options.pad_token_id

    def __call__(self, input_ids, scores):
        """Return which rows [R] have ended with their last id."""
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

    def __init__(self, strings, tokenizer):
        strings = [strings] if isinstance(strings, str) else list(strings)
        if not all(isinstance(s, str) and s for s in strings):
            raise ValueError(f"stop_strings must be texts, not empty: {strings!r}")
        self.strings = [s.encode() for s in strings]
        self.before = max(map(len, self.strings)) - 1
        self.bytes_of = tokenizer.bpe.decode  # a list of ids -> bytes

    def __call__(self, input_ids):
        return np.array([self.completes(ids[ids >= 0]) for ids in input_ids], bool)

    def completes(self, ids):
        last = self.bytes_of([int(ids[-1])])
        tail, place = b"", len(ids) - 1
        while len(tail) < self.before and place:
            place -= 1
            tail = self.bytes_of([int(ids[place])]) + tail
        text = tail[len(tail) - min(self.before, len(tail)) :] + last
        # a match must end within the last token, so its beginning is bounded
        return any(
            text.find(s, max(0, len(text) - len(last) - len(s) + 1)) >= 0
            for s in self.strings
        )
