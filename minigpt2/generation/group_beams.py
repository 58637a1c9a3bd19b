"""Diverse beam search: groups of beams that are kept from saying the same.

The num_beams beams of a prompt are num_beam_groups groups, each of which searches by
itself. At each step the groups choose one after another, and an id that beams of the
groups before chose at this step loses `diversity_penalty` for each of them.

Follows transformers 4 (5 has it no longer), whose beam search differs from the one in
beams.py in details: a sequence that ended by an end id is kept without it, and gets
eos_token_id's first one in the result; other criteria end all groups at once.
Source: Vijayakumar et al. 2016.
"""

from __future__ import annotations

import numpy as np

from .. import ops
from . import processors
from .beams import NEVER, Beams, Finished, output_of, parting
from .job import Job
from .outputs import GenerateBeamDecoderOnlyOutput
from .sampling import best_of, check_choice


class Group:
    """One group of beams: what is finished, and whether that is enough."""

    def __init__(self, job: Job, size: int):
        self.finished = Finished(job.options, job.max_new, size)
        self.done = False


def generate(job: Job) -> GenerateBeamDecoderOnlyOutput:
    """Run a job to its end."""
    search = GroupBeamSearch(job)
    search.run()
    return search.output()


class GroupBeamSearch(Beams):
    """The groups of all prompts."""

    def __init__(self, job: Job):
        o = job.options
        self.size = o.num_beams // o.num_beam_groups
        super().__init__(job, job.chain(self.size))
        self.ends = o.end_ids()
        self.groups = [
            [Group(job, self.size) for _ in range(o.num_beam_groups)]
            for _ in range(len(job.prompt))
        ]
        # Only the first beam of a group counts at first: the others say the same.
        self.totals = np.full(len(self.sequences), NEVER, job.model.dtype)
        self.totals[:: self.size] = 0.0

    def run(self) -> None:
        """Search until all groups are done."""
        beams = self.options.num_beams
        logits, output = self.read_prompts()
        for step in range(self.job.max_new):
            rows, ids, processed = self.step(logits, step)
            self.record.add(processed, logits, output, beams if step == 0 else 1)
            since = parting(self.sequences.ids, rows, self.state.length)
            self.move(rows, ids, step)
            groups = [group for groups in self.groups for group in groups]
            stopped = self.job.stopping(self.sequences.ids, processed[rows])
            self.state.reorder(rows, since)
            if all(group.done for group in groups) or stopped.all():
                break
            if step + 1 < self.job.max_new:
                logits, output = self.read(self.job.readable(ids))
        self.finish_open(step + 1)

    def step(
        self, logits: np.ndarray, step: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Let the groups choose.

        Returns:
            The old rows [R], their new ids [R], and the scores [R, V].
        """
        o = self.options
        log_probs = ops.log_softmax(logits)
        processed = np.empty_like(log_probs)
        rows = np.arange(len(logits))
        ids = np.full(len(logits), self.job.pad_id, np.int64)
        for number in range(o.num_beam_groups):
            first = np.arange(0, len(logits), o.num_beams) + number * self.size
            own = (first[:, None] + np.arange(self.size)).reshape(-1)  # all prompts'
            scores = log_probs[own]
            if number:
                scores = np.concatenate([
                    processors.diversity(
                        scores[i * self.size : (i + 1) * self.size],
                        ids[start - number * self.size : start],
                        o.diversity_penalty,
                    )
                    for i, start in enumerate(first)
                ])  # fmt: skip
            scores = self.chain(self.sequences.ids[own], step, scores)
            check_choice(scores.max(axis=-1), logits[own])
            processed[own] = scores
            for i, start in enumerate(first):
                group, place = self.groups[i][number], slice(start, start + self.size)
                if group.done:
                    self.totals[place] = 0.0  # padding, which costs nothing
                    continue
                group_scores = scores[i * self.size : (i + 1) * self.size]
                rows[place], ids[place] = self.choose(
                    group, group_scores, int(start), step
                )
        return rows, ids, processed

    def choose(
        self, group: Group, scores: np.ndarray, start: int, step: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Extend the group whose rows begin at `start`, by scores [size, V].

        Returns:
            The old rows [size] and their new ids [size].
        """
        size = self.size
        own = slice(start, start + size)
        totals = (scores + self.totals[own, None]).reshape(-1)
        best = best_of(totals, max(2, 1 + len(self.ends)) * size)
        rows, ids = start + best // scores.shape[1], best % scores.shape[1]
        ends = np.isin(ids, self.ends)
        for k in np.flatnonzero(ends[:size]):
            beam_indices = [*self.beam_indices[rows[k], :step].tolist(), int(rows[k])]
            group.finished.add(totals[best[k]], self.new_ids(rows[k]), beam_indices)
        chosen = np.flatnonzero(~ends)[:size]
        self.totals[own] = totals[best[chosen]]
        group.done = group.finished.suffice(totals[best[0]], step + 1)
        return rows[chosen], ids[chosen]

    def finish_open(self, length: int) -> None:
        """At the end, have what still goes on compete with what is finished."""
        row = 0
        for groups in self.groups:
            for group in groups:
                for beam in range(row, row + self.size):
                    if not group.done:
                        beam_indices = self.beam_indices[beam, :length].tolist()
                        ids = self.new_ids(beam)
                        group.finished.add(self.totals[beam], ids, beam_indices)
                row += self.size

    def output(self) -> GenerateBeamDecoderOnlyOutput:
        """Return the best hypotheses of each prompt."""
        best = []
        for groups in self.groups:
            finished = [h for group in groups for h in group.finished.hypotheses]
            finished.sort(key=lambda hypothesis: -hypothesis.score)
            best += finished[: self.options.num_return_sequences]
        longest = max(len(hypothesis.ids) for hypothesis in best)
        width = min(longest + 1, self.job.max_new)
        for hypothesis in best:
            hypothesis.ids = (hypothesis.ids + self.ends[:1])[:width]
        return output_of(self.job, self.record, best, width, self.cache_of_beams())
