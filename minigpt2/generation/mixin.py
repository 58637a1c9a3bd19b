"""GenerationMixin: what a model with logits of the next id can do with them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from . import beams, contrastive, group_beams, loop, outputs, speculative
from .config import GenerationConfig
from .features import Strategy
from .job import Job
from .options import check_number
from .outputs import GenerateOutput
from .streamers import StreamedToken, Streamer, stream

if TYPE_CHECKING:
    from ..model.gpt2 import GPT2LMHeadModel
    from ..tokenizer import GPT2Tokenizer

STRATEGIES: dict[Strategy, Callable[[Job], GenerateOutput]] = {
    Strategy.LOOP: loop.generate,
    Strategy.SPECULATIVE: speculative.generate,
    Strategy.BEAMS: beams.generate,
    Strategy.GROUP_BEAMS: group_beams.generate,
    Strategy.CONTRASTIVE: contrastive.generate,
}

Method = TypeVar("Method", bound=Callable)


def reads_generation_config(method: Method) -> Method:
    """Let `generation_config` say what the caller of `method` does not say himself.

    A default in the signature is not said. So the signature shows the documented
    defaults, and top_k=0 beside a generation_config with top_k=50 still means 0.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(
        self: GenerationMixin,
        *args: Any,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        if generation_config is not None:
            said = signature.bind(self, *args, **kwargs).arguments
            for name, value in generation_config.changed().items():
                if name not in said:
                    kwargs.setdefault(name, value)
        return method(self, *args, **kwargs)

    return cast(Method, call)


class GenerationMixin:
    """generate, stream and compute_transition_scores, for GPT2LMHeadModel."""

    @reads_generation_config
    def generate(
        self,
        input_ids: npt.ArrayLike | None = None,
        max_length: int = 20,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        pad_token_id: int | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        *,
        attention_mask: npt.ArrayLike | None = None,
        generation_config: GenerationConfig | None = None,
        streamer: Streamer | None = None,
        **kwargs: Any,
    ) -> np.ndarray | GenerateOutput:
        """Continue prompts, one id after another. For eval mode.

        Args:
            input_ids: the prompts [B, T]; None is one row of bos_token_id.
            max_length, ..., eos_token_id, and all other options by keyword: see
                GenerationConfig.
            attention_mask: 0 or 1 [B, T]; 0 marks padding, on whichever side. A padded
                row gets what it gets alone: its positions are counted without the
                padding.
            generation_config: the options; those that are said beside it take the place
                of its own.
            streamer: an object with put(ids) and end(), told of the prompt and of each
                step.
            logits_processor: functions (input_ids [R, S], scores [R, V]) -> scores,
                after the options' own processors and before those of sampling.
            stopping_criteria: functions (input_ids, scores) -> which rows end [R].
            tokenizer: a GPT2Tokenizer, for stop_strings.
            past_key_values: what the model has read of input_ids already, from a result
                or a forward pass. input_ids and attention_mask still cover all of the
                sequence. It is not changed.
            prefix_cache: a PrefixCache, for a prompt of one row: what was read is taken
                from it and left there.
            assistant_model: a smaller GPT2LMHeadModel that drafts, or "int8", "int4" or
                "bfloat16" for this model in such a weight format; see speculative.py.
            negative_prompt_ids, negative_prompt_attention_mask: [B, any], what
                guidance_scale leads away from; by default the prompts' last ids.

        Returns:
            Ids [B * num_return_sequences, T + new] (int64), prompts and continuations;
            a row that has ended is filled with pad_token_id. With
            return_dict_in_generate, an output of generation/outputs.py.

        Raises:
            ValueError: impossible or unknown options, ids outside the vocabulary, an
                empty prompt, or more positions than n_positions; the message says which
                and why.
        """
        job = Job.of(
            cast("GPT2LMHeadModel", self),
            {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "streamer": streamer,
                "max_length": max_length,
                "do_sample": do_sample,
                "temperature": temperature,
                "top_k": top_k,
                "top_p": top_p,
                "repetition_penalty": repetition_penalty,
                "pad_token_id": pad_token_id,
                "eos_token_id": eos_token_id,
                **kwargs,
            },
        )
        result = STRATEGIES[job.strategy](job)
        return result if job.options.return_dict_in_generate else result.sequences

    @reads_generation_config
    def stream(
        self,
        input_ids: npt.ArrayLike | None = None,
        *,
        tokenizer: GPT2Tokenizer | None = None,
        logprobs: int | None = None,
        **kwargs: Any,
    ) -> Iterator[StreamedToken]:
        """Continue one prompt; yield a StreamedToken as each id is chosen.

        Ending the iteration early is fine: what is not asked for is not computed.

        Args:
            input_ids: [1, T]. The other arguments are as for `generate`, with greedy
                decoding or sampling. What is wrong with them is said at once.
            tokenizer: makes the tokens' text.
            logprobs: give each id's log-probability, and those of so many of the
                likeliest ids.
        """
        arguments = {"input_ids": input_ids, "tokenizer": tokenizer, **kwargs}
        job = Job.of(cast("GPT2LMHeadModel", self), arguments, "stream")
        if len(job.prompt) * job.options.num_return_sequences != 1:
            raise ValueError("stream continues one row; generate takes batches")
        if logprobs is not None:
            check_number("logprobs", logprobs, Integral, least=0)
        return stream(job, tokenizer, logprobs)

    def compute_transition_scores(
        self,
        sequences: np.ndarray,
        scores: Sequence[np.ndarray],
        beam_indices: np.ndarray | None = None,
        normalize_logits: bool = False,
    ) -> np.ndarray:
        """Return the score of each new id [R, new]: see outputs.transition_scores."""
        return outputs.transition_scores(
            sequences, scores, beam_indices, normalize_logits
        )
