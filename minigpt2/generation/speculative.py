"""Speculative decoding: several ids a pass, and not one of them changed.

Reading k ids at once costs little more than reading one, so a cheap *drafter* proposes
what comes next, and the model reads the proposal in one pass and keeps as much as it
would have said itself:

- prompt lookup (`prompt_lookup_num_tokens`) proposes what followed when the last few
  ids last occurred in the text. Source: Saxena 2023.
- an assistant (`assistant_model`), a smaller model of the same vocabulary, proposes
  what it would say. Source: Leviathan et al. 2022; Chen et al. 2023.
- the model's own copy with smaller weights (`assistant_model="int8"`, "int4" or
  "bfloat16") does. It reads on in the model's own cache, and so need not read the
  prompt, nor what has been kept; what it writes there, the model writes over.

What is kept. Greedy: proposals are kept as long as they are the likeliest ids, so the
result is that of plain decoding, token for token. Sampling after a lookup: the model
draws as it always does, and proposals are kept as long as they are what it drew, so the
result for a seed is again that of plain decoding. (The Numba backend gives each
position the same bits however many are read with it. In the NumPy backend, whose BLAS
does not, two ids may change places where their scores are equal but for rounding.)
Sampling with an assistant, which drew
x from its own distribution q where the model's is p: x is kept with probability
min(1, p(x) / q(x)), and the first that is not is replaced by a draw from max(p - q, 0).
Then the result has plain sampling's distribution, though not its numbers.

Rows go one after another: each has a drafter of its own.
"""

import weakref

import numpy as np

from .. import ops
from ..runtime.randomness import UniformGenerator
from . import sampling
from .chain import Chain
from .context import Context
from .loop import Texts, check_choice, context_of
from .outputs import GenerateDecoderOnlyOutput, Record


def generate(job):
    """Run a job to its end; return GenerateDecoderOnlyOutput, without a cache."""
    o = job.options
    streams = [[None]] * len(job.prompt)
    if o.do_sample:
        streams = [
            UniformGenerator(*stream) for stream in o.streams_of(len(job.prompt))
        ]
        streams = np.reshape(streams, (len(job.prompt), -1)).tolist()
    rows = [
        Row(job, job.prompt.row(row), stream)
        for row, row_streams in enumerate(streams)
        for stream in row_streams
    ]
    if job.streamer is not None:
        job.streamer.put(job.prompt.given)
    for row in rows:
        row.run()
    if job.streamer is not None:
        job.streamer.end()
    width = max(len(row.new) for row in rows)
    new = np.full((len(rows), width), o.pad_token_id, np.int64)
    for ids, row in zip(new, rows):
        ids[: len(row.new)] = row.new
    prompts = np.repeat(job.prompt.given, o.num_return_sequences, axis=0)
    return GenerateDecoderOnlyOutput(
        sequences=np.concatenate([prompts, new], axis=1),
        **side_by_side([row.record.fields() for row in rows], width),
    )


def side_by_side(fields, width):
    """Join the rows' scores and logits: [R, V] a step, 0 after a row's end."""
    joined = {}
    for name in ("scores", "logits"):
        steps = [row[name] for row in fields]
        if steps[0] is not None:
            nothing = np.zeros_like(steps[0][0])
            joined[name] = tuple(
                np.concatenate([row[i] if i < len(row) else nothing for row in steps])
                for i in range(width)
            )
    return joined


class Row:
    """One row: draft, read, keep, until it ends."""

    def __init__(self, job, prompt, stream):
        o = self.options = job.options
        self.job, self.prompt, self.stream = job, prompt, stream
        self.record = Record(o)
        self.context = context_of(job, prompt, o.max_new_tokens)
        self.chain = Chain(o, job.prompt.given.shape[1], job.logits_processor)
        self.texts = Texts(prompt.text, o.max_new_tokens)
        self.new = []
        if job.assistant_model is None:
            self.drafter = Lookup(o)
        elif isinstance(job.assistant_model, str):
            small = small_copy(job.model, job.assistant_model)
            self.drafter = SmallCopy(small, self.context, o, self.chain, stream)
        else:
            self.drafter = Assistant(job, prompt, self.chain, stream)

    def run(self):
        """Find the row's new ids."""
        unread = self.prompt.ids
        while True:
            room = self.options.max_new_tokens - len(self.new) - 1
            draft, q = self.drafter.propose(self.texts.so_far, len(self.new), room)
            ids = np.concatenate([unread, draft[None]], axis=1)
            logits, _ = self.context.read(ids, len(draft) + 1)
            base = self.context.length - len(draft)
            before = len(self.new)
            if self.keep(draft, q, logits[0]):
                return
            kept = len(self.new) - before - 1  # of the draft; then came one of its own
            self.context.crop(base + kept)
            unread = self.texts.so_far[:, -1:]

    def keep(self, draft, q, logits):
        """Add the ids that are certain after a pass; return whether the row has ended.

        logits [K + 1, V]: after the last certain id and after each of the draft's K.
        """
        for place, row in enumerate(logits):
            scores = self.chain(self.texts.so_far, len(self.new), row[None])
            check_choice(scores.max(axis=-1), row[None])
            proposed = int(draft[place]) if place < len(draft) else None
            id = self.choose(scores[0], proposed, None if q is None else q[place:])
            self.record.add(scores, row[None])
            self.texts.add(np.array([id]))
            self.new.append(id)
            if self.job.streamer is not None:
                self.job.streamer.put(np.array([id]))
            full = len(self.new) == self.options.max_new_tokens
            if full or self.job.stopping(self.texts.so_far, scores)[0]:
                return True
            if id != proposed:
                return False
        return False

    def choose(self, scores, proposed, q):
        """Return the next id, given the scores [V] and what was proposed from q[0]."""
        if self.stream is None:
            return int(scores.argmax())
        if proposed is None or q is None:
            return int(sampling.draw(scores, self.stream.next()))
        p = ops.softmax(scores.astype(np.float64))
        if self.stream.next() * q[0][proposed] < p[proposed]:
            return proposed
        rest = np.maximum(p - q[0], 0.0)
        return int(sampling.pick(rest if rest.any() else p, self.stream.next()))


class Lookup:
    """Proposes what followed the last time that the text's end occurred in it."""

    def __init__(self, options):
        self.longest = options.max_matching_ngram_size
        self.count = options.prompt_lookup_num_tokens

    def propose(self, texts, step, room):
        """Return (up to `room` ids [K], None: they were not drawn from a distribution)."""
        ids = texts[0]
        count = min(self.count, room)
        for size in range(min(self.longest, len(ids) - 1), 0, -1):
            windows = np.lib.stride_tricks.sliding_window_view(ids[:-1], size)
            found = np.flatnonzero((windows == ids[-size:]).all(axis=1))
            if found.size and count:
                # beyond the text's end the draft continues itself: repetitions go on
                return np.resize(ids[found[-1] + size :], count), None
        return ids[:0], None


class Assistant:
    """Proposes what a smaller model would say next."""

    def __init__(self, job, prompt, chain, stream):
        self.options, self.chain, self.stream = job.options, chain, stream
        self.context = Context(
            job.assistant_model,
            prompt.from_the_beginning(),
            job.options.max_new_tokens,
        )
        self.read = np.empty(0, np.int64)  # the ids that the context has read

    def propose(self, texts, step, room):
        """Return (up to `room` ids [K], the distributions [V] that they are from)."""
        # what it read of drafts that were not kept is forgotten
        self.context.crop(self.agreed(texts))
        count = min(self.options.num_assistant_tokens, room)
        unread = texts[:, self.context.length :]
        draft, q = self.say(self.context, unread, texts, step, count)
        self.read = np.concatenate([texts[0], draft])[: self.context.length]
        return draft, q

    def say(self, context, unread, texts, step, count):
        """Read what is unread of texts; go on to `count` ids [K], and distributions."""
        draft, q = [], []
        for _ in range(count):
            logits, _ = context.read(unread)
            scores = self.chain(texts, step + len(draft), logits[:, -1])[0]
            if self.stream is None:
                id = int(scores.argmax())
            else:
                id = int(sampling.draw(scores, self.stream.next()))
                q.append(ops.softmax(scores.astype(np.float64)))
            draft.append(id)
            unread = np.array([[id]])
            texts = np.concatenate([texts, unread], axis=1)
        return np.array(draft, np.int64), None if self.stream is None else q

    def agreed(self, texts):
        """Return how far what was read agrees with the text."""
        length = min(len(self.read), texts.shape[1] - 1)
        differs = self.read[:length] != texts[0, :length]
        return int(differs.argmax()) if differs.any() else length


class SmallCopy(Assistant):
    """Proposes what the model would say with smaller weights, reading in its cache."""

    def __init__(self, model, context, options, chain, stream):
        self.model, self.context, self.options = model, context, options
        self.chain, self.stream = chain, stream

    def propose(self, texts, step, room):
        """As Assistant.propose; nothing before the model itself has read the prompt."""
        length = self.context.length
        count = min(self.options.num_assistant_tokens, room) if step else 0
        lent = self.context.lent(self.model)
        draft, q = self.say(lent, texts[:, -1:], texts, step, count)
        lent.crop(length)
        return draft, q


_small_copies = weakref.WeakKeyDictionary()  # {model: {weights: (config, the copy)}}


def small_copy(model, weights):
    """Return model.with_weights(weights), which is made when it is first asked for.

    It is made anew if the model has changed its shape since, which gives it another
    configuration, or its dtype. Should it be given other parameters, the copy's drafts
    become worse and are kept less often; what is generated stays right.
    """
    copies = _small_copies.setdefault(model, {})
    config, copy = copies.get(weights, (None, None))
    if config is not model.config or copy.dtype != model.dtype:
        copy = model.with_weights(weights)
        copies[weights] = model.config, copy
    return copy
