"""The processors that the options ask for, in transformers' order."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import processors
from .config import GenerationConfig, bias_pairs
from .options import as_list

# What a caller may give: (input_ids [R, S], scores [R, V]) -> scores
OwnProcessor = Callable[[np.ndarray, np.ndarray], np.ndarray]
# (number of the row, with beams of the prompt, its ids so far [S]) -> the next ids
AllowedIds = Callable[[int, np.ndarray], Sequence[int]]
# A part of the chain: (input_ids, step, scores) -> scores; step counts the new ids
Part = Callable[[np.ndarray, int, np.ndarray], np.ndarray]


class LogitsProcessor:
    """The base of a caller's processors, for those who like classes: any function does."""

    def __call__(self, input_ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return new scores [R, V] of what may follow input_ids [R, S]."""
        raise NotImplementedError(
            f"{type(self).__name__} must define __call__(input_ids, scores)"
        )


class LogitsProcessorList(list):
    """Processors that are called one after another."""

    def __call__(
        self, input_ids: np.ndarray, scores: np.ndarray, **more: Any
    ) -> np.ndarray:
        for processor in self:
            scores = processor(input_ids, scores, **more)
        return scores


class Chain:
    """What happens to the scores of each step before an id is chosen.

    Called with input_ids [R, S] (-1: padding), the number of new ids, and scores
    [R, V]; returns new scores.

    Args:
        width: the number of columns of the prompt.
        own: the caller's processors, called with (input_ids, scores) as transformers
            calls its LogitsProcessors. They see pad_token_id where there is padding.
        allowed: the caller's prefix_allowed_tokens_fn.
        rows: how many rows in a row `allowed` knows by one number: a prompt's beams.
        first: that number for the first row.
    """

    def __init__(
        self,
        options: GenerationConfig,
        width: int,
        own: Sequence[OwnProcessor] | None = None,
        allowed: AllowedIds | None = None,
        rows: int = 1,
        first: int = 0,
    ):
        self.parts = [
            *sequence_processors(options),
            *end_processors(options),
            *(() if allowed is None else [prefix_part(allowed, options, rows, first)]),
            *place_processors(options, width),
            *(own_processor(processor, options) for processor in own or ()),
            *(sampling_processors(options) if options.do_sample else ()),
        ]
        if options.renormalize_logits:
            self.parts.append(lambda ids, step, s: processors.renormalize(s))

    def __call__(
        self, input_ids: np.ndarray, step: int, scores: np.ndarray
    ) -> np.ndarray:
        for part in self.parts:
            scores = part(input_ids, step, scores)
        return scores


def sequence_processors(o: GenerationConfig) -> Iterator[Part]:
    """What depends on the ids so far: biases, repetitions."""
    if o.sequence_bias:
        biases = dict(bias_pairs(o.sequence_bias))
        yield lambda ids, step, s: processors.sequence_bias(s, ids, biases)
    if o.repetition_penalty != 1.0:
        yield lambda ids, step, s: processors.repetition_penalty(
            s, ids, o.repetition_penalty
        )
    if o.no_repeat_ngram_size:
        yield lambda ids, step, s: processors.no_repeat_ngram(
            s, ids, o.no_repeat_ngram_size
        )
    if o.bad_words_ids:
        ends = [[end] for end in o.end_ids()]  # an end is no bad word
        words = [list(word) for word in o.bad_words_ids if list(word) not in ends]
        yield lambda ids, step, s: processors.bad_words(s, ids, words)


def end_processors(o: GenerationConfig) -> Iterator[Part]:
    """What keeps a row from ending too early."""
    ends, least = o.end_ids(), o.min_new_tokens
    if ends and least:
        yield during(lambda step: step < least, processors.suppress, ends)


def prefix_part(
    allowed: AllowedIds, o: GenerationConfig, rows: int, first: int
) -> Part:
    """Return the part of a prefix_allowed_tokens_fn."""
    return lambda ids, step, s: processors.allow(
        s, shown(ids, o), allowed, [first + row // rows for row in range(len(ids))]
    )


def place_processors(o: GenerationConfig, width: int) -> Iterator[Part]:
    """What depends on how many ids there are."""
    ends = o.end_ids()
    most = o.max_new_tokens
    assert most is not None  # prompt.prepare has settled it
    forced_bos, forced_eos = o.forced_bos_token_id, as_list(o.forced_eos_token_id)
    if forced_bos is not None:
        yield during(lambda step: width + step == 1, processors.force, [forced_bos])
    if forced_eos:
        yield during(lambda step: step == most - 1, processors.force, forced_eos)
    if o.remove_invalid_values:
        yield lambda ids, step, s: processors.remove_invalid(s)
    if o.exponential_decay_length_penalty and ends:
        start, factor = o.exponential_decay_length_penalty
        yield (
            lambda ids, step, s: (
                processors.exponential_decay(s, ends, factor, step - start)
                if step > start
                else s
            )
        )
    if suppressed := as_list(o.suppress_tokens):
        yield during(lambda step: True, processors.suppress, suppressed)
    if begin := as_list(o.begin_suppress_tokens):
        # after a forced first id, the second is the beginning
        first = 1 if width <= 1 and forced_bos is not None else 0
        yield during(lambda step: step == first, processors.suppress, begin)


def during(
    applies: Callable[[int], bool],
    processor: Callable[[np.ndarray, Sequence[int]], np.ndarray],
    ids: Sequence[int],
) -> Part:
    """Return a part that runs `processor(scores, ids)` at the steps where it applies."""
    return lambda _, step, s: processor(s, ids) if applies(step) else s


def own_processor(processor: OwnProcessor, o: GenerationConfig) -> Part:
    """Return a caller's processor as a part."""

    def part(ids: np.ndarray, step: int, scores: np.ndarray) -> np.ndarray:
        # a copy, since others' processors may write to what they are given
        out = np.asarray(processor(shown(ids, o), scores.copy()))
        if out.shape != scores.shape:
            raise ValueError(
                f"a logits_processor returned an array {out.shape}; it must be "
                f"{scores.shape}, as the scores are"
            )
        return out

    return part


def shown(ids: np.ndarray, o: GenerationConfig) -> np.ndarray:
    """Return ids as a caller sees them: pad_token_id where there is padding."""
    assert o.pad_token_id is not None  # prompt.settled has filled it in
    return np.where(ids < 0, o.pad_token_id, ids)


def sampling_processors(o: GenerationConfig) -> Iterator[Part]:
    """What only sampling does. With beams, each cut leaves more ids than can end a beam."""
    least = 1 if o.num_beams == 1 else max(2, len(o.end_ids()) + 1)
    if o.temperature != 1.0:
        yield lambda ids, step, s: processors.temperature(s, o.temperature)
    if o.top_k:
        yield lambda ids, step, s: processors.top_k(s, o.top_k, least)
    if o.top_p < 1.0:
        yield lambda ids, step, s: processors.top_p(s, o.top_p, least, o.top_p_rule)
    if o.min_p:
        yield lambda ids, step, s: processors.min_p(s, o.min_p, least)
    if o.typical_p < 1.0:
        yield lambda ids, step, s: processors.typical_p(s, o.typical_p, least)
    if 0 < o.epsilon_cutoff < 1:
        yield lambda ids, step, s: processors.epsilon_cutoff(s, o.epsilon_cutoff, least)
    if 0 < o.eta_cutoff < 1:
        yield lambda ids, step, s: processors.eta_cutoff(s, o.eta_cutoff, least)
