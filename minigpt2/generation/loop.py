"""Greedy decoding and sampling: a prompt through the model, then one id after another."""

from dataclasses import dataclass

import numpy as np

from ..runtime.randomness import UniformGenerator
from . import sampling
from .chain import Chain
from .context import Context, GuidedContext
from .outputs import GenerateDecoderOnlyOutput, Record
from .prompt import Prompt


@dataclass
class Step:
    """One new id for every row, and what it was chosen from."""

    ids: np.ndarray  # [R] int64; pad_token_id in rows that have ended before
    scores: np.ndarray  # [R, V] after the processors
    logits: np.ndarray  # [R, V] the model's (or, guided, the mixture's)
    last: bool  # whether there are no more


def generate(job):
    """Run a job to its end; return GenerateDecoderOnlyOutput."""
    record = Record(job.options)
    loop = Loop(job, record)
    columns = []
    if job.streamer is not None:
        job.streamer.put(job.prompt.given)
    for step in loop:
        columns.append(step.ids)
        if job.streamer is not None:
            job.streamer.put(step.ids)
    if job.streamer is not None:
        job.streamer.end()
    prompts = np.repeat(job.prompt.given, job.options.num_return_sequences, axis=0)
    return GenerateDecoderOnlyOutput(
        sequences=np.concatenate([prompts, np.stack(columns, axis=1)], axis=1),
        past_key_values=loop.cache_of_columns(),
        **record.fields(),
    )


class Loop:
    """An iterator over the steps [R] of a job; R = B * num_return_sequences."""

    def __init__(self, job, record):
        o = self.options = job.options
        self.job, self.record = job, record
        self.chain = Chain(o, job.prompt.given.shape[1], job.logits_processor)
        results = o.num_return_sequences
        texts = np.repeat(job.prompt.text, results, axis=0)
        self.texts = Texts(texts, o.max_new_tokens)
        self.streams = None
        if o.do_sample:
            streams = o.streams_of(len(job.prompt))
            self.streams = [UniformGenerator(*stream) for stream in streams]
        # Rows that have ended leave, unless somebody looks at all rows of each step.
        watched = o.return_dict_in_generate or job.logits_processor
        self.leaving = not (watched or job.stopping_criteria)
        self.rows = np.arange(len(texts))  # the rows of the result that are under way
        self.ended = np.zeros(len(texts), bool)
        self.width = len(texts)
        self.window, self.prompt = None, job.prompt
        if o.sliding_window is not None:
            self.window = Window(job, texts)
            self.prompt = self.window.first()
        self.context = context_of(job, self.prompt, o.max_new_tokens)

    def __iter__(self):
        o, results = self.options, self.options.num_return_sequences
        logits, output = self.read(self.prompt.ids)
        self.context.repeat(results)
        logits = np.repeat(logits, results, axis=0)
        for step in range(o.max_new_tokens):
            scores = self.chain(self.texts.so_far, step, logits)
            ids = self.choose(scores, logits)
            if self.ended.any():
                ids = np.where(self.ended, o.pad_token_id, ids)
            self.record.add(scores, logits, output, results if step == 0 else 1)
            self.texts.add(ids)
            column = ids
            if len(self.rows) < self.width:
                column = np.full(self.width, o.pad_token_id, np.int64)
                column[self.rows] = ids
            self.ended = self.ended | self.job.stopping(self.texts.so_far, scores)
            last = bool(self.ended.all()) or step + 1 == o.max_new_tokens
            yield Step(column, scores, logits, last)
            if last:
                return
            if self.leaving and self.ended.any():
                ids = self.leave(ids)
            unread = self.job.readable(ids)[:, None]
            if self.window is not None and self.window.is_full(self.texts, self.rows):
                again = self.window.again(self.texts, self.rows)
                self.context = context_of(self.job, again, 0)
                unread = again.ids
            logits, output = self.read(unread)

    def cache_of_columns(self):
        """Return the cache, if its positions are the columns of the result."""
        apart = self.prompt.moved or self.window is not None
        return None if apart or self.width != len(self.rows) else self.context.cache

    def read(self, ids):
        """Return what follows the columns ids: scores [R, V] and the pass's output."""
        logits, output = self.context.read(ids, 1, **self.record.wanted())
        return logits[:, -1], output

    def choose(self, scores, logits):
        ids = sampling.greedy(scores)
        best = scores[np.arange(len(ids)), ids]
        check_choice(best[~self.ended], logits)
        return ids if self.streams is None else sampling.sample(scores, self.streams)

    def leave(self, ids):
        """Drop the rows that have ended; the last ones fill their places."""
        stay = np.flatnonzero(~self.ended)
        rows = np.arange(len(stay))
        holes = np.flatnonzero(self.ended[: len(stay)])
        rows[holes] = stay[len(stay) - len(holes) :]
        self.context.rearrange(rows)
        self.texts.take(rows)
        self.rows, self.ended = self.rows[rows], self.ended[rows]
        if self.streams is not None:
            self.streams = [self.streams[row] for row in rows]
        return ids[rows]


class Texts:
    """The texts of rows [R], with room to grow."""

    def __init__(self, texts, room):
        self.length = texts.shape[1]
        self.ids = np.empty((len(texts), self.length + room), np.int64)
        self.ids[:, : self.length] = texts

    @property
    def so_far(self):
        return self.ids[:, : self.length]  # [R, S]

    def add(self, ids):
        self.ids[:, self.length] = ids
        self.length += 1

    def take(self, rows):
        self.ids = self.ids[rows]


class Window:
    """The explicit way past n_positions: read the end of a text as a new text.

    Absolute positions are part of what is cached, so sliding on means reading again.
    Each row does so by its own length, in whatever batch it travels.
    """

    def __init__(self, job, texts):
        self.job = job
        self.width = job.options.sliding_window
        self.limit = job.model.config.n_positions
        self.start = (texts >= 0).argmax(axis=1)  # [R] where each row's window begins
        long = texts.shape[1] - self.start > self.limit
        self.start[long] = texts.shape[1] - self.width

    def first(self):
        """Return the prompts, cut to the window where they are too long."""
        each = slice(None, None, self.job.options.num_return_sequences)
        return self.cut(self.job.prompt.text, self.start[each])

    def is_full(self, texts, rows):
        return (texts.length - self.start[rows]).max() > self.limit

    def again(self, texts, rows):
        """Move the windows that are full; return what there is to read anew."""
        full = rows[texts.length - self.start[rows] > self.limit]
        self.start[full] = texts.length - self.width
        return self.cut(texts.so_far, self.start[rows])

    def cut(self, texts, starts):
        texts = texts[:, starts.min() :]
        visible = np.arange(texts.shape[1]) >= (starts - starts.min())[:, None]
        ids = np.where(visible, texts, 0)
        return Prompt(ids, ids, visible, texts, None)


def context_of(job, prompt, room):
    """Return the Context, or GuidedContext, that a job's options ask for."""
    o = job.options
    context = Context(job.model, prompt, room, o.use_cache)
    if o.guidance_scale is None or o.guidance_scale == 1:
        return context
    negative = job.negative_prompt
    if negative is None:  # like transformers: what follows the last id alone
        last = prompt.ids[:, -1:]
        negative = Prompt(last, last, np.ones(last.shape, bool), last, None)
    other = Context(job.model, negative, room, o.use_cache)
    width = prompt.ids.shape[1]
    return GuidedContext(context, other, o.guidance_scale, negative, width)


def check_choice(best, logits):
    """Raise ValueError where the best score [R] of a row is not finite."""
    if np.isfinite(best).all():
        return
    if not np.isfinite(logits.max(axis=-1)).all():
        raise ValueError("the model's scores are not finite: its weights may be broken")
    raise ValueError("the options leave no id to choose: they remove all of them")
