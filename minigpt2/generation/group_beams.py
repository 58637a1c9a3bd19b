"""Diverse beam search: groups of beams that are kept from saying the same.

The num_beams beams of a prompt are num_beam_groups groups, each of which searches by
itself. At each step the groups choose one after another, and an id that beams of the
groups before chose at this step loses `diversity_penalty` for each of them.

Follows transformers 4 (5 has it no longer), whose beam search differs from the one in
beams.py in details: a text that ended by an end id counts without it, gets
eos_token_id's first one, and other criteria end all groups at once.
Source: Vijayakumar et al. 2016.
"""

import numpy as np

from .. import ops
from . import processors
from .beams import NEVER, Beams, Best, best_of, output_of, parting
from .loop import check_choice


class Group:
    """One group of beams: what has ended, and whether that is enough."""

    def __init__(self, options, size):
        self.ended = Best(options, size)
        self.done = False


def generate(job):
    """Run a job to its end; return GenerateBeamDecoderOnlyOutput."""
    search = GroupBeamSearch(job)
    search.run()
    return search.output()


class GroupBeamSearch(Beams):
    """The groups of all prompts."""

    def __init__(self, job):
        super().__init__(job)
        o = job.options
        self.size = o.num_beams // o.num_beam_groups
        self.ends = o.end_ids()
        self.groups = [
            [Group(o, self.size) for _ in range(o.num_beam_groups)]
            for _ in job.prompt.ids
        ]
        # Only the first beam of a group counts at first: the others say the same.
        self.scores = np.full(len(self.texts.ids), NEVER, job.model.dtype)
        self.scores[:: self.size] = 0.0

    def run(self):
        o = self.options
        logits, output = self.read_prompts()
        for step in range(o.max_new_tokens):
            rows, ids, processed = self.step(logits, step)
            self.record.add(processed, logits, output, o.num_beams if step == 0 else 1)
            since = parting(self.texts.so_far, rows, self.context.length)
            self.move(rows, ids, step)
            groups = [group for groups in self.groups for group in groups]
            stopped = self.job.stopping(self.texts.so_far, processed[rows])
            if all(group.done for group in groups) or stopped.all():
                break
            if step + 1 < o.max_new_tokens:
                self.context.rearrange(rows, since)
                logits, output = self.read(self.job.readable(ids))
        self.set_aside_open(step + 1)

    def step(self, logits, step):
        """Let the groups choose: (old rows, new ids) [R], and the scores [R, V]."""
        o = self.options
        log_probs = ops.log_softmax(logits)
        processed = np.empty_like(log_probs)
        rows = np.arange(len(logits))
        ids = np.full(len(logits), o.pad_token_id, np.int64)
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
            scores = self.chain(self.texts.so_far[own], step, scores)
            check_choice(scores.max(axis=-1), logits[own])
            processed[own] = scores
            for i, start in enumerate(first):
                group, place = self.groups[i][number], slice(start, start + self.size)
                if group.done:
                    self.scores[place] = 0.0  # padding, which costs nothing
                    continue
                rows[place], ids[place] = self.choose(group, scores, i, start, step)
        return rows, ids, processed

    def choose(self, group, scores, prompt, start, step):
        """Extend one group: set aside what ends; return the old rows and new ids."""
        size = self.size
        own = slice(start, start + size)
        total = scores[prompt * size : (prompt + 1) * size] + self.scores[own, None]
        total = total.reshape(-1)
        best = best_of(total, max(2, 1 + len(self.ends)) * size)
        rows, ids = start + best // scores.shape[1], best % scores.shape[1]
        ends = np.isin(ids, self.ends)
        for k in np.flatnonzero(ends[:size]):
            beams = [*self.beams[rows[k], :step].tolist(), int(rows[k])]
            text = self.texts.so_far[rows[k], self.start :].tolist()
            group.ended.add(total[best[k]], step + 1, text, beams)
        chosen = np.flatnonzero(~ends)[:size]
        self.scores[own] = total[best[chosen]]
        group.done = group.ended.suffice(total[best[0]], step + 1)
        return rows[chosen], ids[chosen]

    def set_aside_open(self, length):
        """At the end, what still goes on competes with what has ended."""
        row = 0
        for groups in self.groups:
            for group in groups:
                for beam in range(row, row + self.size):
                    if not group.done:
                        text = self.texts.so_far[beam, self.start :].tolist()
                        beams = self.beams[beam, :length].tolist()
                        group.ended.add(self.scores[beam], length, text, beams)
                row += self.size

    def output(self):
        o, best = self.options, []
        for groups in self.groups:
            ended = [text for group in groups for text in group.ended.texts]
            ended.sort(key=lambda text: -text.score)
            best += ended[: o.num_return_sequences]
        width = min(max(len(text.ids) for text in best) + 1, o.max_new_tokens)
        for text in best:
            text.ids = (text.ids + self.ends[:1])[:width]
        return output_of(self.job, self.record, best, width)
