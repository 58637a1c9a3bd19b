"""Speculative decoding: several ids a pass, and not one of them changed.

Reading k ids at once costs little more than reading one. So a cheap *drafter* proposes
what comes next, and the model reads the proposal in one pass and keeps as much of it as
it would have said itself:

- Prompt lookup (`prompt_lookup_num_tokens`) proposes what followed when the last few
  ids occurred before. Source: Saxena 2023.
- An assistant (`assistant_model`), a smaller model of the same vocabulary, proposes
  what it would say. Source: Leviathan et al. 2022; Chen et al. 2023.
- A quantized copy of the model itself (`assistant_model="int8"`, "int4" or "bfloat16")
  proposes likewise. It reads on in the model's own cache, and so need not read the
  prompt, nor what has been kept; what it writes there, the model writes over.

What is kept:

- Greedy: proposals are kept as long as they are the likeliest ids, so the result is
  that of plain decoding, token for token.
- Sampling after a lookup: the model draws as it always does, and proposals are kept as
  long as they are what it drew, so the result for a seed is again that of plain
  decoding.
- Sampling with an assistant, which drew x from its own distribution q where the model's
  is p: x is kept with probability min(1, p(x) / q(x)), and the first x that is not is
  replaced by a draw from max(p - q, 0). Then the result has plain sampling's
  distribution, though not its numbers.

"Token for token" holds on the Numba backend, which gives each position the same bits
however many are read with it. In the NumPy backend, whose BLAS does not, two ids may
change places where their scores are equal but for rounding.

Rows go one after another: each has a drafter of its own.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .. import ops
from ..config import GPT2Config
from ..runtime.randomness import UniformGenerator
from . import sampling
from .chain import Chain
from .config import GenerationConfig
from .job import Job
from .outputs import GenerateDecoderOnlyOutput, Record
from .prompt import Prompt
from .state import DecodingState, GuidedState, Sequences

if TYPE_CHECKING:
    from ..model.gpt2 import GPT2LMHeadModel

# The weight formats in which a copy of the model can be its assistant.
DRAFT_FORMATS = ("int8", "int4", "bfloat16")

# Ids [K], and the distributions [V] that they were drawn from, or None if they weren't.
Draft = tuple[np.ndarray, list[np.ndarray] | None]


def generate(job: Job) -> GenerateDecoderOnlyOutput:
    """Run a job to its end. The output has no cache."""
    check_assistant(job)
    o, streamer, results = (
        job.options,
        job.call.streamer,
        job.options.num_return_sequences,
    )
    generators: list[UniformGenerator | None] = [None] * (len(job.prompt) * results)
    if o.do_sample:
        generators = [*sampling.generators_of(o, len(job.prompt), results)]
    rows = [
        Row(job, place, job.prompt.row(place // results), generator)
        for place, generator in enumerate(generators)
    ]
    if streamer is not None:
        streamer.put(job.prompt.given)
    for row in rows:
        row.run()
    if streamer is not None:
        streamer.end()
    width = max(len(row.new) for row in rows)
    new = np.full((len(rows), width), job.pad_id, np.int64)
    for ids, row in zip(new, rows):
        ids[: len(row.new)] = row.new
    prompts = np.repeat(job.prompt.given, results, axis=0)
    return GenerateDecoderOnlyOutput(
        sequences=np.concatenate([prompts, new], axis=1),
        **side_by_side([row.record.fields() for row in rows], width),
    )


def check_assistant(job: Job) -> None:
    """Raise ValueError for an assistant that can't draft for this model."""
    assistant = job.call.assistant_model
    if assistant is None:
        return
    if isinstance(assistant, str):
        if assistant not in DRAFT_FORMATS:
            known = ", ".join(map(repr, DRAFT_FORMATS))
            raise ValueError(
                f"assistant_model is a model or one of {known}: {assistant!r}"
            )
        return
    if not hasattr(assistant, "config"):
        raise ValueError(f"assistant_model must be a model, not {assistant!r:.100}")
    if assistant.config.vocab_size != job.model.config.vocab_size:
        raise ValueError("assistant_model has another vocabulary than the model")
    # the last new id is never read
    needed = job.prompt.visible.sum(axis=1).max() + job.max_new - 1
    if assistant.config.n_positions < needed:
        raise ValueError(
            f"assistant_model has n_positions={assistant.config.n_positions}; these "
            f"sequences need {needed}"
        )


def side_by_side(fields: list[dict[str, Any]], width: int) -> dict[str, Any]:
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
    """One row of the result: draft, read, keep, until it ends."""

    def __init__(
        self,
        job: Job,
        place: int,
        prompt: Prompt,
        generator: UniformGenerator | None,
    ):
        o = job.options
        self.job, self.prompt, self.generator = job, prompt, generator
        self.record = Record(o)
        self.state = job.new_state(prompt, job.max_new)
        self.chain = job.chain(first=place)
        self.sequences = Sequences(prompt.sequences, job.max_new)  # of one row
        self.new: list[int] = []
        assistant = job.call.assistant_model
        self.drafter: Drafter
        if assistant is None:
            self.drafter = Lookup(o)
        elif isinstance(assistant, str):
            copy = quantized_copy(job.model, assistant)
            self.drafter = OwnCopy(copy, self.state, o, self.chain, generator)
        else:
            unread = Prompt.unread(prompt.sequences)
            state = DecodingState(assistant, unread, job.max_new)
            self.drafter = Assistant(state, o, self.chain, generator)

    def run(self) -> None:
        """Find the row's new ids."""
        unread = self.prompt.ids
        while True:
            remaining = self.job.max_new - len(self.new) - 1
            before = len(self.new)
            draft, q = self.drafter.propose(self.sequences.ids, before, remaining)
            ids = np.concatenate([unread, draft[None]], axis=1)
            logits, _ = self.state.read(ids, len(draft) + 1)
            certain = self.state.length - len(draft)  # columns
            if self.keep(draft, q, logits[0]):
                return
            kept = len(self.new) - before - 1  # of the draft; then came one of its own
            self.state.truncate(certain + kept)
            unread = self.sequences.ids[:, -1:]

    def keep(
        self, draft: np.ndarray, q: list[np.ndarray] | None, logits: np.ndarray
    ) -> bool:
        """Add the ids that are certain after a pass; return whether the row has ended.

        Args:
            draft, q: what was proposed, as `Drafter.propose` returns it.
            logits: [K + 1, V], after the last certain id and after each of the draft's.
        """
        streamer = self.job.call.streamer
        for place, row in enumerate(logits):
            scores = self.chain(self.sequences.ids, len(self.new), row[None])
            sampling.check_choice(scores.max(axis=-1), row[None])
            proposed = int(draft[place]) if place < len(draft) else None
            drawn_from = None if q is None or proposed is None else q[place]
            id = self.choose(scores[0], proposed, drawn_from)
            self.record.add(scores, row[None])
            self.sequences.add(np.array([id]))
            self.new.append(id)
            if streamer is not None:
                streamer.put(np.array([id]))
            full = len(self.new) == self.job.max_new
            if full or self.job.stopping(self.sequences.ids, scores)[0]:
                return True
            if id != proposed:
                return False
        return False

    def choose(
        self, scores: np.ndarray, proposed: int | None, q: np.ndarray | None
    ) -> int:
        """Return the next id, given the scores [V] and what was proposed, from q [V]."""
        if self.generator is None:
            return int(scores.argmax())
        if proposed is None or q is None:
            return sampling.draw(scores, self.generator.next())
        p = ops.softmax(scores.astype(np.float64))
        if self.generator.next() * q[proposed] < p[proposed]:
            return proposed
        rest = np.maximum(p - q, 0.0)
        return sampling.pick(rest if rest.any() else p, self.generator.next())


class Drafter(Protocol):
    """What proposes the ids that a row may go on with."""

    def propose(self, ids: np.ndarray, step: int, remaining: int) -> Draft:
        """Propose up to `remaining` ids.

        Args:
            ids: [1, S], all so far.
            step: how many of them are new.
        """


class Lookup:
    """Proposes what followed the last time that the sequence's end occurred in it."""

    def __init__(self, options: GenerationConfig):
        self.longest = options.max_matching_ngram_size
        self.count = options.prompt_lookup_num_tokens

    def propose(self, ids: np.ndarray, step: int, remaining: int) -> Draft:
        """See Drafter."""
        assert self.count is not None
        row, count = ids[0], min(self.count, remaining)
        for size in range(min(self.longest, len(row) - 1), 0, -1):
            windows = np.lib.stride_tricks.sliding_window_view(row[:-1], size)
            found = np.flatnonzero((windows == row[-size:]).all(axis=1))
            if found.size and count:
                # beyond the end the draft continues itself: repetitions go on
                return np.resize(row[found[-1] + size :], count), None
        return row[:0], None


class Assistant:
    """Proposes what a smaller model would say next.

    Args:
        state: the smaller model's.
        chain: what happens to its logits: the same as to the model's.
    """

    def __init__(
        self,
        state: DecodingState | GuidedState,
        options: GenerationConfig,
        chain: Chain,
        generator: UniformGenerator | None,
    ):
        self.state, self.chain, self.generator = state, chain, generator
        self.count = options.num_assistant_tokens
        self.read = np.empty(0, np.int64)  # the ids that the state has read

    def propose(self, ids: np.ndarray, step: int, remaining: int) -> Draft:
        """See Drafter."""
        # what it read of drafts that were not kept is forgotten
        self.state.truncate(self.agreed(ids))
        count = min(self.count, remaining)
        unread = ids[:, self.state.length :]
        draft, q = self.say(self.state, unread, ids, step, count)
        self.read = np.concatenate([ids[0], draft])[: self.state.length]
        return draft, q

    def say(
        self,
        state: DecodingState | GuidedState,
        unread: np.ndarray,
        ids: np.ndarray,
        step: int,
        count: int,
    ) -> Draft:
        """Read the last ids, which are unread; go on with `count` more."""
        draft: list[int] = []
        q = []
        for _ in range(count):
            logits, _ = state.read(unread)
            scores = self.chain(ids, step + len(draft), logits[:, -1])[0]
            if self.generator is None:
                draft.append(int(scores.argmax()))
            else:
                draft.append(sampling.draw(scores, self.generator.next()))
                q.append(ops.softmax(scores.astype(np.float64)))
            unread = np.array([draft[-1:]])
            ids = np.concatenate([ids, unread], axis=1)
        return np.array(draft, np.int64), None if self.generator is None else q

    def agreed(self, ids: np.ndarray) -> int:
        """Return how far what was read agrees with the ids [1, S], but for the last."""
        length = min(len(self.read), ids.shape[1] - 1)
        differs = self.read[:length] != ids[0, :length]
        return int(differs.argmax()) if differs.any() else length


class OwnCopy(Assistant):
    """Proposes what a quantized copy of the model would say, reading in its cache."""

    def __init__(
        self,
        model: GPT2LMHeadModel,
        state: DecodingState | GuidedState,
        options: GenerationConfig,
        chain: Chain,
        generator: UniformGenerator | None,
    ):
        super().__init__(state, options, chain, generator)
        self.model = model

    def propose(self, ids: np.ndarray, step: int, remaining: int) -> Draft:
        """See Drafter. It proposes nothing before the model has read the prompt."""
        count = min(self.count, remaining) if step else 0
        lent = self.state.lent(self.model)
        draft, q = self.say(lent, ids[:, -1:], ids, step, count)
        lent.truncate(self.state.length)
        return draft, q


# {model: {weight format: (the model's config, the copy)}}
_copies: weakref.WeakKeyDictionary[
    GPT2LMHeadModel, dict[str, tuple[GPT2Config, GPT2LMHeadModel]]
] = weakref.WeakKeyDictionary()


def quantized_copy(model: GPT2LMHeadModel, weights: str) -> GPT2LMHeadModel:
    """Return model.with_weights(weights), which is made when it is first asked for.

    It is made anew if the model has changed its shape since, which gives it another
    configuration, or its dtype. Should it be given other parameters, the copy's drafts
    become worse and are kept less often; what is generated stays right.
    """
    copies = _copies.setdefault(model, {})
    config, copy = copies.get(weights, (None, None))
    if copy is None or config is not model.config or copy.dtype != model.dtype:
        copy = model.with_weights(weights)
        copies[weights] = model.config, copy
    return copy
