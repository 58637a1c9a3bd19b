"""Beam search: follow the num_beams likeliest sequences, and return the best finished.

A sequence's score is the sum of its new ids' log-probabilities (after the processors);
a finished one's is divided by (number of new ids) ** length_penalty, so above 0 favors
long ones. At each step the beams' best continuations are found. Of them, those that end
are finished if they are among the num_beams best, and the num_beams best others go on.

When a prompt is done:

- early_stopping=True: as soon as num_beams sequences are finished.
- False: when no beam, had it ended now, would be better than the worst of num_beams
  finished ones. (With length_penalty > 0 a longer one might still be.)
- "never": when none could be better at any length up to the last.

With do_sample the continuations are drawn from the softmax of their scores rather than
taken in order. Follows transformers 5's algorithm, for each prompt by itself: what it
gets does not depend on the others in the batch. Source of the method: Lowerre 1976; of
the length penalty: Wu et al. 2016, simplified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import ops
from ..model.cache import KVCache
from ..model.outputs import ModelOutput
from ..runtime.randomness import UniformGenerator
from . import sampling
from .chain import Chain
from .config import GenerationConfig
from .job import Job
from .outputs import GenerateBeamDecoderOnlyOutput, Record
from .sampling import best_of, check_choice
from .state import Sequences

NEVER = -1e9  # stands for minus infinity where differences must stay finite


@dataclass
class Hypothesis:
    """A finished sequence."""

    score: float
    ids: list[int]  # its new ids
    beam_indices: list[int]  # the row of a step's arrays from which each came


class Finished:
    """The best `size` hypotheses, best first; of equals, the earlier ones."""

    def __init__(self, options: GenerationConfig, max_new: int, size: int):
        self.options, self.max_new, self.size = options, max_new, size
        self.hypotheses: list[Hypothesis] = []

    def add(self, total: float, ids: list[int], beam_indices: list[int]) -> None:
        """Take a sequence whose log-probabilities sum up to `total`.

        Its length is that of beam_indices, since an end id need not be among its ids.
        """
        score = penalized(total, len(beam_indices), self.options.length_penalty)
        self.hypotheses.append(Hypothesis(score, ids, beam_indices))
        self.hypotheses.sort(key=lambda hypothesis: -hypothesis.score)
        del self.hypotheses[self.size :]

    def suffice(self, total: float, length: int) -> bool:
        """Say whether to stop, when the best beam has this total at this length."""
        o = self.options
        if len(self.hypotheses) < self.size:
            return False
        if o.early_stopping == "never" and o.length_penalty > 0:
            length = self.max_new
        possible = penalized(total, length, o.length_penalty)
        return o.early_stopping is True or possible <= self.hypotheses[-1].score


def penalized(total: float, length: int, length_penalty: float) -> float:
    """Return total / length ** length_penalty, whatever the penalty: infinite, too."""
    with np.errstate(all="ignore"):
        return float(np.float64(total) / np.float64(length) ** length_penalty)


class Candidates(NamedTuple):
    """Continuations [K] of the beams of one prompt, best first."""

    totals: np.ndarray  # sums of log-probabilities, the new id's included
    beams: np.ndarray  # which of the prompt's beams they continue
    ids: np.ndarray


class Search:
    """The search for one prompt: its beams' totals, and what is finished.

    Args:
        generator: draws the continuations; None takes the best.
    """

    def __init__(
        self,
        options: GenerationConfig,
        max_new: int,
        dtype: np.dtype,
        generator: UniformGenerator | None,
    ):
        self.options, self.generator = options, generator
        # Only the first beam counts at first: the others would say the same.
        self.totals = np.full(options.num_beams, NEVER, dtype)
        self.totals[0] = 0.0
        self.finished = Finished(options, max_new, options.num_beams)
        self.done = False

    def candidates(self, log_probs: np.ndarray) -> Candidates:
        """Return the best continuations, given the log-probabilities [num_beams, V].

        They are so many that num_beams remain if every end id is among them.
        """
        o = self.options
        count = max(2, 1 + len(o.end_ids())) * o.num_beams
        totals = (log_probs + self.totals[:, None].astype(log_probs.dtype)).reshape(-1)
        if self.generator is None:
            best = best_of(totals, count)
        else:
            best = sampling.draw_without_replacement(totals, count, self.generator)
        vocabulary = log_probs.shape[1]
        return Candidates(totals[best], best // vocabulary, best % vocabulary)

    def advance(
        self, totals: np.ndarray, ends: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose among candidates [K], of which some end; set the beams' totals.

        Returns:
            The places of the candidates that are finished, and of the num_beams that
            go on.
        """
        beams = self.options.num_beams
        going = totals + np.where(ends, NEVER, 0.0).astype(totals.dtype)
        chosen = best_of(going, beams)
        self.totals = going[chosen]
        return np.flatnonzero(ends[:beams]), chosen


def generate(job: Job) -> GenerateBeamDecoderOnlyOutput:
    """Run a job to its end."""
    search = BeamSearch(job)
    search.run()
    return search.output()


class Beams:
    """The beams [R] of a batch of prompts: beam b of prompt i is row i * num_beams + b.

    This is what both searches share: the beams' sequences, and from which row each of
    their new ids came.

    Args:
        chain: the processors, where a chain is not for num_beams rows of each prompt.
    """

    def __init__(self, job: Job, chain: Chain | None = None):
        o = self.options = job.options
        self.job, self.record = job, Record(o)
        self.state = job.new_state(job.prompt, job.max_new)
        self.chain = job.chain(o.num_beams) if chain is None else chain
        sequences = np.repeat(job.prompt.sequences, o.num_beams, axis=0)
        self.sequences = Sequences(sequences, job.max_new)
        self.start = self.sequences.length  # where new ids begin
        self.beam_indices = np.empty((len(sequences), job.max_new), np.int64)

    def read_prompts(self) -> tuple[np.ndarray, ModelOutput]:
        """Return the logits [R, V] after each beam's prompt, and the pass's output."""
        count = self.options.num_beams
        logits, output = self.state.read(self.job.prompt.ids, 1, **self.record.wanted())
        self.state.repeat(count)
        return np.repeat(logits[:, -1], count, axis=0), output

    def read(self, ids: np.ndarray) -> tuple[np.ndarray, ModelOutput]:
        """Return the logits [R, V] after one more id [R] for each, and the output."""
        logits, output = self.state.read(ids[:, None], 1, **self.record.wanted())
        return logits[:, -1], output

    def move(self, rows: np.ndarray, ids: np.ndarray, step: int) -> None:
        """Have each beam go on from one of the rows with one of the ids."""
        self.sequences.reorder(rows)
        self.sequences.add(ids)
        self.beam_indices = self.beam_indices[rows]
        self.beam_indices[:, step] = rows

    def cache_of_beams(self) -> KVCache | None:
        """Return the cache [R], if its positions are the columns of the result."""
        if not self.options.return_dict_in_generate or self.job.prompt.moved:
            return None
        return self.state.cache

    def new_ids(self, row: int) -> list[int]:
        """Return the ids that have been added to a row."""
        return self.sequences.ids[row, self.start :].tolist()


class BeamSearch(Beams):
    """The searches [B] of a batch of prompts, which go on together."""

    def __init__(self, job: Job):
        super().__init__(job)
        o, batch = job.options, len(job.prompt)
        generators: Sequence[UniformGenerator | None] = [None] * batch
        if o.do_sample:
            generators = sampling.generators_of(o, batch)
        self.searches = [
            Search(o, job.max_new, job.model.dtype, generator)
            for generator in generators
        ]
        self.running = list(self.searches)  # those whose beams are rows of the batch
        self.all_rows = bool(o.return_dict_in_generate or job.call.watches_rows)

    def run(self) -> None:
        """Search until all prompts are done."""
        beams = self.options.num_beams
        logits, output = self.read_prompts()
        for step in range(self.job.max_new):
            scores = self.chain(self.sequences.ids, step, ops.log_softmax(logits))
            check_choice(scores.max(axis=-1), logits)
            self.record.add(scores, logits, output, beams if step == 0 else 1)
            rows, ids = self.extend(scores, step)
            done = all(search.done for search in self.searches)
            if done and not self.all_rows:
                return
            since = parting(self.sequences.ids, rows, self.state.length)
            self.state.reorder(rows, since)
            if done:
                return
            self.move(rows, ids, step)
            logits, output = self.read(ids)

    def extend(self, log_probs: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Let each search choose.

        Returns:
            The rows [R] that go on, and their new ids [R].
        """
        beams = self.options.num_beams
        found = []
        for place, search in enumerate(self.running):
            own = slice(place * beams, (place + 1) * beams)
            candidates = search.candidates(log_probs[own])
            found.append((candidates, candidates.beams + own.start))
        ends = self.endings(found, log_probs, last=step + 1 == self.job.max_new)
        rows, ids = [], []
        for search, (candidates, sources), end in zip(self.running, found, ends):
            ended, chosen = search.advance(candidates.totals, end)
            if not search.done:
                for k in ended:
                    self.finish(search, candidates, sources, k, step)
                enough = search.finished.suffice(search.totals[0], step + 1)
                search.done = enough or bool(end.all())
            if self.all_rows or not search.done:
                rows.append(sources[chosen])
                ids.append(candidates.ids[chosen])
        if not self.all_rows:
            self.running = [search for search in self.running if not search.done]
        none = np.empty(0, np.int64)
        return np.concatenate([none, *rows]), np.concatenate([none, *ids])

    def endings(
        self,
        found: list[tuple[Candidates, np.ndarray]],
        log_probs: np.ndarray,
        last: bool,
    ) -> np.ndarray:
        """Return which candidates end [searches, K] (bool).

        Args:
            found: each search's candidates, and the rows [K] that they continue.
            last: all end, since this is the last step.
        """
        sources = np.concatenate([rows for _, rows in found])
        ids = np.concatenate([candidates.ids for candidates, _ in found])
        sequences = np.concatenate([self.sequences.ids[sources], ids[:, None]], axis=1)
        ends = self.job.stopping(sequences, log_probs[sources])
        if last:
            ends[:] = True
        return ends.reshape(len(found), -1)

    def finish(
        self,
        search: Search,
        candidates: Candidates,
        sources: np.ndarray,
        k: int,
        step: int,
    ) -> None:
        """Put candidate k, which continues row sources[k], among the finished."""
        row = sources[k]
        ids = [*self.new_ids(row), int(candidates.ids[k])]
        beam_indices = [*self.beam_indices[row, :step].tolist(), int(row)]
        search.finished.add(candidates.totals[k], ids, beam_indices)

    def output(self) -> GenerateBeamDecoderOnlyOutput:
        """Return the best hypotheses of each prompt."""
        each = self.options.num_return_sequences
        best = [h for s in self.searches for h in s.finished.hypotheses[:each]]
        width = max(len(hypothesis.ids) for hypothesis in best)
        cache = self.cache_of_beams()
        return output_of(self.job, self.record, best, width, cache)


def output_of(
    job: Job,
    record: Record,
    best: list[Hypothesis],
    width: int,
    cache: KVCache | None,
) -> GenerateBeamDecoderOnlyOutput:
    """Put the best hypotheses of all prompts side by side, each `width` ids wide."""
    o = job.options
    new = np.full((len(best), width), job.pad_id, np.int64)
    beam_indices = np.full((len(best), width), -1, np.int64)
    for row, hypothesis in enumerate(best):
        new[row, : len(hypothesis.ids)] = hypothesis.ids
        beam_indices[row, : len(hypothesis.beam_indices)] = hypothesis.beam_indices
    prompts = np.repeat(job.prompt.given, o.num_return_sequences, axis=0)
    scores = np.array([hypothesis.score for hypothesis in best], job.model.dtype)
    return GenerateBeamDecoderOnlyOutput(
        sequences=np.concatenate([prompts, new], axis=1),
        sequences_scores=scores if o.output_scores else None,
        beam_indices=beam_indices,
        past_key_values=cache,
        **record.fields(),
    )


def parting(sequences: np.ndarray, rows: np.ndarray, length: int) -> int:
    """Return the first of `length` columns where some row and its new one differ.

    Up to where two beams of a prompt part, their caches are alike and need not be
    copied.

    Args:
        sequences: [R, N], the ids of the last N columns that were read.
        rows: the row that each is to continue.
        length: how many columns were read.
    """
    if len(rows) < len(sequences):
        return 0  # beams of another prompt move up
    differs = (sequences != sequences[rows]).any(axis=0)
    first = int(differs.argmax()) if differs.any() else sequences.shape[1]
    return max(0, first + length - sequences.shape[1])
