"""Beam search: follow the num_beams likeliest texts at once, and return the best ended.

A text's score is the sum of its new ids' log-probabilities (after the processors); an
ended text's is divided by (number of new ids) ** length_penalty, so above 0 favours long
texts. At each step the beams' best continuations are found; of them, those that end are
set aside if they are among the num_beams best, and the num_beams best others go on.

When a prompt is done:
- early_stopping=True: as soon as num_beams texts have ended.
- False: when no beam, had it ended now, would be better than the worst of num_beams
  ended ones. (With length_penalty > 0 a longer text might still be.)
- "never": when none could be better at any length up to the last.

With do_sample the continuations are drawn from the softmax of their scores rather than
taken in order. Follows transformers 5's algorithm, for each prompt by itself: what it
gets does not depend on the others in the batch. Source of the method: Lowerre 1976; of
the length penalty: Wu et al. 2016, simplified.
"""

from dataclasses import dataclass

import numpy as np

from .. import ops
from ..runtime.randomness import UniformGenerator
from . import sampling
from .chain import Chain
from .loop import Texts, check_choice, context_of
from .outputs import GenerateBeamDecoderOnlyOutput, Record

NEVER = -1e9  # stands for minus infinity where differences must stay finite


@dataclass
class Ended:
    """A text that has ended."""

    score: float
    ids: list  # its new ids
    beams: list  # the row of a step's arrays from which each came


class Best:
    """The best `size` ended texts, best first; of equals, the earlier ones."""

    def __init__(self, options, size):
        self.options, self.size = options, size
        self.texts = []

    def add(self, score, length, ids, beams):
        """Take a text whose log-probabilities sum up to `score` over `length` ids."""
        score = float(score) / length**self.options.length_penalty
        self.texts.append(Ended(score, ids, beams))
        self.texts.sort(key=lambda text: -text.score)
        del self.texts[self.size :]

    def suffice(self, score, length):
        """Say whether to stop, when the best text that goes on has `score` so far."""
        o = self.options
        if len(self.texts) < self.size:
            return False
        if o.early_stopping == "never" and o.length_penalty > 0:
            length = o.max_new_tokens
        possible = float(score) / length**o.length_penalty
        return o.early_stopping is True or possible <= self.texts[-1].score


class Search:
    """The search for one prompt: its beams' scores, and what has ended."""

    def __init__(self, options, dtype, stream):
        self.options, self.stream = options, stream
        # Only the first beam counts at first: the others would say the same.
        self.scores = np.full(options.num_beams, NEVER, dtype)
        self.scores[0] = 0.0
        self.ended = Best(options, options.num_beams)
        self.done = False

    def candidates(self, log_probs):
        """Return the best continuations of beams: (scores, beam numbers, ids) [K].

        log_probs [num_beams, V]. K is enough that num_beams remain if every end id is
        among them.
        """
        o = self.options
        count = max(2, 1 + len(o.end_ids())) * o.num_beams
        total = (log_probs + self.scores[:, None].astype(log_probs.dtype)).reshape(-1)
        if self.stream is None:
            best = best_of(total, count)
        else:
            best = sampling.draw_without_replacement(total, count, self.stream)
        vocabulary = log_probs.shape[1]
        return total[best], best // vocabulary, best % vocabulary

    def advance(self, scores, ends):
        """Take candidates' scores [K] and which of them end; return those that go on.

        Sets `scores` and `done`; returns (candidates to set aside, candidates [num_beams]
        that go on).
        """
        beams = self.options.num_beams
        going = scores + np.where(ends, NEVER, 0.0).astype(scores.dtype)
        chosen = best_of(going, beams)
        self.scores = going[chosen]
        return np.flatnonzero(ends[:beams]), chosen


def generate(job):
    """Run a job to its end; return GenerateBeamDecoderOnlyOutput."""
    search = BeamSearch(job)
    search.run()
    return search.output()


class Beams:
    """The beams [R] of a batch of prompts: beam b of prompt i is row i * num_beams + b.

    What the searches share: the beams' texts, and from which row each of their new ids
    came.
    """

    def __init__(self, job):
        o = self.options = job.options
        self.job, self.record = job, Record(o)
        self.context = context_of(job, job.prompt, o.max_new_tokens)
        self.chain = Chain(o, job.prompt.given.shape[1], job.logits_processor)
        self.texts = Texts(np.repeat(job.prompt.text, o.num_beams, 0), o.max_new_tokens)
        self.start = self.texts.length
        self.beams = np.empty((len(self.texts.ids), o.max_new_tokens), np.int64)

    def read_prompts(self):
        """Return the logits [R, V] after each beam's prompt, and the pass's output."""
        count = self.options.num_beams
        logits, output = self.context.read(
            self.job.prompt.ids, 1, **self.record.wanted()
        )
        self.context.repeat(count)
        return np.repeat(logits[:, -1], count, axis=0), output

    def read(self, ids):
        """Return the logits [R, V] after one more id [R] for each, and the output."""
        logits, output = self.context.read(ids[:, None], 1, **self.record.wanted())
        return logits[:, -1], output

    def move(self, rows, ids, step):
        """Have each beam go on from one of the rows with one of the ids."""
        self.texts.take(rows)
        self.texts.add(ids)
        self.beams = self.beams[rows]
        self.beams[:, step] = rows


class BeamSearch(Beams):
    """The searches [B] of a batch of prompts, which go on together."""

    def __init__(self, job):
        super().__init__(job)
        o, batch = job.options, len(job.prompt)
        streams = [None] * batch
        if o.do_sample:
            one = o.updated(num_return_sequences=1)
            streams = [UniformGenerator(*stream) for stream in one.streams_of(batch)]
        dtype = job.model.dtype
        self.searches = [Search(o, dtype, stream) for stream in streams]
        self.running = list(self.searches)  # those whose beams are rows of the batch
        self.all_rows = bool(
            o.return_dict_in_generate or job.logits_processor or job.stopping_criteria
        )

    def run(self):
        o = self.options
        logits, output = self.read_prompts()
        for step in range(o.max_new_tokens):
            log_probs = self.chain(self.texts.so_far, step, ops.log_softmax(logits))
            check_choice(log_probs.max(axis=-1), logits)
            self.record.add(log_probs, logits, output, o.num_beams if step == 0 else 1)
            rows, ids = self.extend(log_probs, step)
            if all(search.done for search in self.searches):
                return
            since = parting(self.texts.so_far, rows, self.context.length)
            self.context.rearrange(rows, since)
            self.move(rows, ids, step)
            logits, output = self.read(ids)

    def extend(self, log_probs, step):
        """Let each search choose: the rows [R] that go on, and their new ids [R]."""
        o, beams = self.options, self.options.num_beams
        last = step + 1 == o.max_new_tokens
        found = []
        for place, search in enumerate(self.running):
            own = slice(place * beams, (place + 1) * beams)
            scores, sources, ids = search.candidates(log_probs[own])
            found.append((search, scores, sources + place * beams, ids))
        ends = self.endings(found, log_probs, last)
        rows, chosen_ids = [], []
        for (search, scores, sources, ids), end in zip(found, ends):
            aside, chosen = search.advance(scores, end)
            if not search.done:
                for k in aside:
                    self.set_aside(search, scores[k], sources[k], ids[k], step)
                enough = search.ended.suffice(search.scores[0], step + 1)
                search.done = enough or end.all()
            if self.all_rows or not search.done:
                rows.append(sources[chosen])
                chosen_ids.append(ids[chosen])
        if not self.all_rows:
            self.running = [search for search in self.running if not search.done]
        if not rows:
            return None, None
        return np.concatenate(rows), np.concatenate(chosen_ids)

    def endings(self, found, log_probs, last):
        """Return for each search which of its candidates end [K] (bool)."""
        sources = np.concatenate([rows for _, _, rows, _ in found])
        ids = np.concatenate([ids for _, _, _, ids in found])
        texts = np.concatenate([self.texts.so_far[sources], ids[:, None]], axis=1)
        ends = self.job.stopping(texts, log_probs[sources])
        if last:
            ends[:] = True
        return ends.reshape(len(found), -1)

    def set_aside(self, search, score, row, id, step):
        ids = [*self.texts.so_far[row, self.start :].tolist(), int(id)]
        beams = [*self.beams[row, :step].tolist(), int(row)]
        search.ended.add(score, step + 1, ids, beams)

    def output(self):
        each = self.options.num_return_sequences
        best = [text for s in self.searches for text in s.ended.texts[:each]]
        width = max(len(text.ids) for text in best)
        return output_of(self.job, self.record, best, width)


def output_of(job, record, best, width):
    """Put the best texts of all prompts side by side, each `width` ids wide."""
    o = job.options
    new = np.full((len(best), width), o.pad_token_id, np.int64)
    beams = np.full((len(best), width), -1, np.int64)
    for row, text in enumerate(best):
        new[row, : len(text.ids)] = text.ids
        beams[row, : len(text.beams)] = text.beams
    prompts = np.repeat(job.prompt.given, o.num_return_sequences, axis=0)
    scores = np.array([text.score for text in best], job.model.dtype)
    return GenerateBeamDecoderOnlyOutput(
        sequences=np.concatenate([prompts, new], axis=1),
        sequences_scores=scores if o.output_scores else None,
        beam_indices=beams,
        **record.fields(),
    )


def parting(texts, rows, length):
    """Return the first of `length` columns where some row and its new one differ.

    texts [R, N] are those of the last columns that were read. Up to where two beams of
    a prompt part, their caches are alike and need not be copied.
    """
    if len(rows) < len(texts):
        return 0  # beams of another prompt move up
    differs = (texts != texts[rows]).any(axis=0)
    first = int(differs.argmax()) if differs.any() else texts.shape[1]
    return max(0, first + length - texts.shape[1])


def best_of(scores, count):
    """Return the places of the `count` highest scores, best first; ties by place."""
    count = min(count, len(scores))
    border = np.partition(scores, -count)[-count]
    above = np.flatnonzero(scores >= border)  # all that tie with the last one, too
    return above[np.argsort(-scores[above], kind="stable")][:count]
