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

from dataclasses import dataclass, field

import numpy as np

from .. import ops
from ..randomness import UniformStream
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


@dataclass
class Search:
    """The search for one prompt: its beams' scores, and what has ended."""

    options: object
    scores: np.ndarray  # [num_beams] of the beams that go on
    stream: UniformStream | None = None
    ended: list = field(default_factory=list)  # the best num_beams, best first
    done: bool = False

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

    def set_aside(self, score, length, ids, beams):
        """Keep an ended text if it is one of the best."""
        score = float(score) / length**self.options.length_penalty
        self.ended.append(Ended(score, ids, beams))
        self.ended.sort(key=lambda text: -text.score)
        del self.ended[self.options.num_beams :]

    def settle(self, length, all_end):
        """Decide, after `length` new ids, whether there is anything left to find."""
        o = self.options
        full = len(self.ended) == o.num_beams
        if all_end or (full and o.early_stopping is True):
            self.done = True
        elif full:
            if o.early_stopping == "never" and o.length_penalty > 0:
                length = o.max_new_tokens
            best_possible = float(self.scores[0]) / length**o.length_penalty
            self.done = best_possible <= self.ended[-1].score


def generate(job):
    """Run a job to its end; return GenerateBeamDecoderOnlyOutput."""
    search = BeamSearch(job)
    search.run()
    return search.output()


class BeamSearch:
    """The searches [B] of a batch of prompts, whose beams [R] are read together."""

    def __init__(self, job):
        o = self.options = job.options
        self.job, self.record = job, Record(o)
        self.context = context_of(job, job.prompt, o.max_new_tokens)
        self.chain = Chain(o, job.prompt.given.shape[1], job.logits_processor)
        batch = len(job.prompt)
        self.texts = Texts(np.repeat(job.prompt.text, o.num_beams, 0), o.max_new_tokens)
        self.start = self.texts.length
        self.beams = np.empty((len(self.texts.ids), o.max_new_tokens), np.int64)
        # Only the first beam counts at first: the others would say the same.
        scores = np.full(o.num_beams, NEVER, job.model.dtype)
        scores[0] = 0.0
        streams = [None] * batch
        if o.do_sample:
            one = o.updated(num_return_sequences=1)
            streams = [UniformStream(*stream) for stream in one.streams_of(batch)]
        self.searches = [Search(o, scores, stream) for stream in streams]
        self.running = list(self.searches)  # those whose beams are rows of the batch
        self.all_rows = bool(
            o.return_dict_in_generate or job.logits_processor or job.stopping_criteria
        )

    def run(self):
        o = self.options
        logits, output = self.context.read(
            self.job.prompt.ids, 1, **self.record.wanted()
        )
        self.context.repeat(o.num_beams)
        logits = np.repeat(logits[:, -1], o.num_beams, axis=0)
        for step in range(o.max_new_tokens):
            log_probs = self.chain(self.texts.so_far, step, ops.log_softmax(logits))
            check_choice(log_probs.max(axis=-1), logits)
            self.record.add(log_probs, logits, output, o.num_beams if step == 0 else 1)
            rows, ids = self.extend(log_probs, step)
            if all(search.done for search in self.searches):
                return
            self.context.rearrange(rows, since=self.parting(rows))
            self.move(rows, ids, step)
            logits, output = self.context.read(ids[:, None], 1, **self.record.wanted())
            logits = logits[:, -1]

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
                search.settle(step + 1, end.all())
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
        search.set_aside(score, step + 1, ids, beams)

    def parting(self, rows):
        """Return the first column of the cache where some row and its new one differ."""
        old, new = self.texts.so_far, self.texts.so_far[rows]
        differs = (old[: len(rows)] != new).any(axis=0)
        if len(rows) < len(old):  # rows of another prompt move up
            return 0
        hidden = self.context.length - old.shape[1]  # columns between that no text has
        where = int(differs.argmax()) if differs.any() else old.shape[1]
        return max(0, where + hidden) if where >= self.start else 0

    def move(self, rows, ids, step):
        self.texts.take(rows)
        self.texts.add(ids)
        self.beams = self.beams[rows]
        self.beams[:, step] = rows

    def output(self):
        o = self.options
        best = [text for s in self.searches for text in self.best(s)]
        width = max(len(text.ids) for text in best)
        new = np.full((len(best), width), o.pad_token_id, np.int64)
        beams = np.full((len(best), width), -1, np.int64)
        for row, text in enumerate(best):
            new[row, : len(text.ids)] = text.ids
            beams[row, : len(text.beams)] = text.beams
        prompts = np.repeat(self.job.prompt.given, o.num_return_sequences, axis=0)
        scores = np.array([text.score for text in best], self.job.model.dtype)
        return GenerateBeamDecoderOnlyOutput(
            sequences=np.concatenate([prompts, new], axis=1),
            sequences_scores=scores if o.output_scores else None,
            beam_indices=beams,
            **self.record.fields(),
        )

    def best(self, search):
        return search.ended[: self.options.num_return_sequences]


def best_of(scores, count):
    """Return the places of the `count` highest scores, best first; ties by place."""
    count = min(count, len(scores))
    border = np.partition(scores, -count)[-count]
    above = np.flatnonzero(scores >= border)  # all that tie with the last one, too
    return above[np.argsort(-scores[above], kind="stable")][:count]
