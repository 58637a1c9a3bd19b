"""Greedy decoding and sampling: a prompt through the model, then one id after another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..model.cache import KVCache
from ..model.outputs import ModelOutput
from . import sampling
from .job import Job
from .outputs import GenerateDecoderOnlyOutput, Record
from .prompt import Prompt
from .state import Sequences


@dataclass
class Step:
    """One new id for every row, and what it was chosen from."""

    ids: np.ndarray  # [all rows] int64; pad_token_id in those that have ended before
    scores: np.ndarray  # [R, V] after the processors, of the rows under way
    logits: np.ndarray  # [R, V] the model's (or, guided, the mixture's)
    last: bool  # whether there are no more


def generate(job: Job) -> GenerateDecoderOnlyOutput:
    """Run a job to its end."""
    record = Record(job.options)
    loop = Loop(job, record)
    columns = []
    streamer = job.call.streamer
    if streamer is not None:
        streamer.put(job.prompt.given)
    for step in loop:
        columns.append(step.ids)
        if streamer is not None:
            streamer.put(step.ids)
    if streamer is not None:
        streamer.end()
    prompts = np.repeat(job.prompt.given, job.options.num_return_sequences, axis=0)
    sequences = np.concatenate([prompts, np.stack(columns, axis=1)], axis=1)
    cache = loop.cache_of_columns()
    if job.call.prefix_cache is not None and cache is not None:
        job.call.prefix_cache.keep(sequences[0], cache)
    return GenerateDecoderOnlyOutput(
        sequences=sequences, past_key_values=cache, **record.fields()
    )


class Loop:
    """An iterator over the steps [R] of a job; R = B * num_return_sequences."""

    def __init__(self, job: Job, record: Record):
        o = self.options = job.options
        self.job, self.record = job, record
        self.chain = job.chain()
        results = o.num_return_sequences
        sequences = np.repeat(job.prompt.sequences, results, axis=0)
        self.sequences = Sequences(sequences, job.max_new)
        self.generators = None
        if o.do_sample:
            self.generators = sampling.generators_of(o, len(job.prompt), results)
        # Rows that have ended leave, unless somebody looks at all rows of each step.
        self.leaving = not (o.return_dict_in_generate or job.call.watches_rows)
        self.rows = np.arange(len(sequences))  # the result's rows that are under way
        self.ended = np.zeros(len(sequences), bool)
        self.all_rows = len(sequences)
        self.window, self.prompt = None, job.prompt
        if o.sliding_window is not None:
            self.window = Window(job, sequences, o.sliding_window)
            self.prompt = self.window.first()
        self.state = job.new_state(self.prompt, job.max_new)

    def __iter__(self) -> Iterator[Step]:
        job, results = self.job, self.options.num_return_sequences
        pad = job.pad_id
        logits, output = self.read(self.prompt.ids)
        self.state.repeat(results)
        logits = np.repeat(logits, results, axis=0)
        for step in range(job.max_new):
            scores = self.chain(self.sequences.ids, step, logits)
            ids = self.choose(scores, logits)
            if self.ended.any():
                ids = np.where(self.ended, pad, ids)
            self.record.add(scores, logits, output, results if step == 0 else 1)
            self.sequences.add(ids)
            column = ids
            if len(self.rows) < self.all_rows:
                column = np.full(self.all_rows, pad, np.int64)
                column[self.rows] = ids
            self.ended = self.ended | job.stopping(self.sequences.ids, scores)
            last = bool(self.ended.all()) or step + 1 == job.max_new
            yield Step(column, scores, logits, last)
            if last:
                return
            if self.leaving and self.ended.any():
                ids = self.leave(ids)
            unread = job.readable(ids)[:, None]
            if self.window is not None and self.window.is_full(
                self.sequences, self.rows
            ):
                again = self.window.again(self.sequences, self.rows)
                left = min(
                    job.max_new - step - 1, self.window.limit - again.ids.shape[1]
                )
                self.state = job.new_state(again, left)
                unread = again.ids
            logits, output = self.read(unread)

    def cache_of_columns(self) -> KVCache | None:
        """Return the cache, if its positions are the columns of the result."""
        apart = self.prompt.moved or self.window is not None
        return None if apart or self.all_rows != len(self.rows) else self.state.cache

    def read(self, ids: np.ndarray) -> tuple[np.ndarray, ModelOutput]:
        """Return what follows columns of ids: logits [R, V], and the pass's output."""
        logits, output = self.state.read(ids, 1, **self.record.wanted())
        return logits[:, -1], output

    def choose(self, scores: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return the next id [R] of each row."""
        ids = sampling.greedy(scores)
        best = scores[np.arange(len(ids)), ids]
        sampling.check_choice(best[~self.ended], logits)
        if self.generators is None:
            return ids
        return sampling.sample(scores, self.generators)

    def leave(self, ids: np.ndarray) -> np.ndarray:
        """Drop the rows that have ended; the last ones fill their places.

        Returns:
            The ids [R] of the rows that are left.
        """
        stay = np.flatnonzero(~self.ended)
        rows = np.arange(len(stay))
        holes = np.flatnonzero(self.ended[: len(stay)])
        rows[holes] = stay[len(stay) - len(holes) :]
        self.state.reorder(rows)
        self.sequences.reorder(rows)
        self.rows, self.ended = self.rows[rows], self.ended[rows]
        if self.generators is not None:
            self.generators = [self.generators[row] for row in rows]
        return ids[rows]


class Window:
    """The explicit way past n_positions: read the end of a sequence as a new one.

    Absolute positions are part of what is cached, so sliding on means reading again.
    Each row does so by its own length, in whatever batch it travels.
    """

    def __init__(self, job: Job, sequences: np.ndarray, width: int):
        self.job = job
        self.width = width
        self.limit = job.model.config.n_positions
        self.start = (sequences >= 0).argmax(axis=1)  # [R] where each row's begins
        long = sequences.shape[1] - self.start > self.limit
        self.start[long] = sequences.shape[1] - self.width

    def first(self) -> Prompt:
        """Return the prompts, cut to the window where they are too long."""
        each = slice(None, None, self.job.options.num_return_sequences)
        return self.cut(self.job.prompt.sequences, self.start[each])

    def is_full(self, sequences: Sequences, rows: np.ndarray) -> bool:
        """Say whether one of the rows has no position left in its window."""
        return bool((sequences.length - self.start[rows]).max() > self.limit)

    def again(self, sequences: Sequences, rows: np.ndarray) -> Prompt:
        """Move the windows that are full; return what there is to read anew."""
        full = rows[sequences.length - self.start[rows] > self.limit]
        self.start[full] = sequences.length - self.width
        return self.cut(sequences.ids, self.start[rows])

    def cut(self, sequences: np.ndarray, starts: np.ndarray) -> Prompt:
        """Return the sequences [R, S], each from its start [R] on, as prompts."""
        sequences = sequences[:, starts.min() :]
        inside = np.arange(sequences.shape[1]) >= (starts - starts.min())[:, None]
        return Prompt.unread(np.where(inside, sequences, -1))
