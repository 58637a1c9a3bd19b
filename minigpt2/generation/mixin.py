"""GenerationMixin: what a model with logits of the next id can do with them."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ..config import GPT2Config
from . import beams, contrastive, group_beams, loop, outputs, speculative
from .config import (
    GENERATION_CONFIG_NAME,
    MODEL_IDS,
    GenerationConfig,
    known_options,
    options_in_file,
)
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
    """Let the configurations say what the caller of `method` does not say himself.

    What the caller writes counts first, then the call's `generation_config`, then the
    model's. A default that the signature shows is not written, nor is None. So the
    documented defaults are seen, and top_k=0 beside a generation_config with top_k=50
    still means 0.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(
        self: GenerationMixin,
        *args: Any,
        generation_config: Any = None,
        **kwargs: Any,
    ) -> Any:
        bound = signature.bind(self, *args, **kwargs).arguments
        bound.pop("self")
        bound |= bound.pop("kwargs", {})
        said = {name: value for name, value in bound.items() if value is not None}
        for config in (generation_config, self._options_of_model()):
            if config is not None:
                for name, value in GenerationConfig.taken(config).changed().items():
                    said.setdefault(name, value)
        said.setdefault("max_length", None)  # the documented 20 only if it is said
        return method(self, **said)

    return cast(Method, call)


class GenerationMixin:
    """generate, stream and compute_transition_scores, for GPT2LMHeadModel."""

    _generation_config: GenerationConfig | None = None  # as loaded, set or asked for

    @property
    def generation_config(self) -> GenerationConfig:
        """What `generate` goes by where neither its caller nor his configuration speaks.

        A folder's generation_config.json, or what the model's configuration says. It may
        be changed, and set to a GenerationConfig, one of transformers, or a dict.
        """
        if self._generation_config is None:
            self._generation_config = self._options_of_model()
        return self._generation_config

    @generation_config.setter
    def generation_config(self, given: Any) -> None:
        self._generation_config = GenerationConfig.taken(given)

    def _options_of_model(self) -> GenerationConfig:
        """Return the options of `generation_config`.

        As long as nobody has asked for them they follow changes of the configuration.
        """
        if self._generation_config is not None:
            return self._generation_config
        return GenerationConfig.from_model_config(cast("GPT2LMHeadModel", self).config)

    @classmethod
    def can_generate(cls) -> bool:
        """Say that models of this class have `generate`."""
        return True

    @classmethod
    def _options_of_generation(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Take the options of `generate` out of the keywords of from_pretrained.

        Those that are fields of the model's configuration too stay among them.
        """
        options = {field.name for field in fields(GenerationConfig)}
        options.add("generation_config")
        both = {field.name for field in fields(GPT2Config)}
        found = {n: kwargs[n] for n in kwargs if n in options - both}
        for name in found:
            del kwargs[name]
        return found | {n: kwargs[n] for n in MODEL_IDS if n in kwargs}

    def _load_generation_config(
        self, folder: Path | None, options: dict[str, Any]
    ) -> None:
        """Take the options of a folder's generation_config.json, if it has one.

        Options of the file that do not exist here are passed over with a warning: the
        model is good for everything else.

        Args:
            folder: the model's, or None.
            options: what the caller of from_pretrained says instead. A generation_config
                among them takes the place of the file.

        Raises:
            ValueError: an impossible value; the message names the file.
        """
        given = options.pop("generation_config", None)
        if given is not None:
            self.generation_config = given
        path = None if folder is None else folder / GENERATION_CONFIG_NAME
        if given is not None or path is None or not path.is_file():
            if options:
                self.generation_config.update(**options)
            return
        found, foreign = options_in_file(path), []
        for name in list(found):
            try:
                known_options({name: found[name]})
            except ValueError:
                foreign.append(f"{name}={found.pop(name)!r}")
        if foreign:
            warnings.warn(
                f"{path} has options that are not supported, and generate goes on "
                f"without: {', '.join(foreign)}",
                stacklevel=3,
            )
        try:
            self._generation_config = GenerationConfig.of({**found, **options})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    # (The documented positional options have their defaults here for `help` and editors;
    # GenerationConfig declares them like all others, and a test compares the two. A new
    # option needs no line here: it comes in kwargs.)
    @reads_generation_config
    def generate(
        self,
        input_ids: npt.ArrayLike | None = None,
        max_length: int | None = 20,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        pad_token_id: int | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        *,
        attention_mask: npt.ArrayLike | None = None,
        generation_config: Any = None,
        streamer: Streamer | None = None,
        **kwargs: Any,
    ) -> np.ndarray | GenerateOutput:
        """Continue prompts, one id after another. For eval mode.

        Args:
            input_ids: the prompts [B, T]; None is one row of bos_token_id. Also by the
                name `inputs`.
            max_length, ..., eos_token_id, and all other options by keyword: see
                GenerationConfig. None is not given. If neither max_length nor
                max_new_tokens is given, 20 ids are added.
            attention_mask: 0 or 1 [B, T]; 0 marks padding, on whichever side. A padded
                row gets what it gets alone: its positions are counted without the
                padding.
            generation_config: the options, as a GenerationConfig, one of transformers,
                or a dict; those that are said beside it take the place of its own, and
                model.generation_config says the rest. (A value that is the option's
                default counts as not said in it.)
            streamer: an object with put(ids) and end(), told of the prompt and of each
                step.
            logits_processor: functions (input_ids [R, S], scores [R, V]) -> scores,
                after the options' own processors and before those of sampling.
                transformers' objects will do if they only compute with arrays.
            stopping_criteria: functions (input_ids, scores) -> which rows end [R].
            prefix_allowed_tokens_fn: a function (number of the row, its ids so far
                [S]) -> a list of the ids that may follow. With beams it is the number
                of the prompt.
            inputs_embeds: [B, T, C], read in place of the prompts' ids. Without
                input_ids the result has the new ids alone.
            token_type_ids: ids [B, T] whose embeddings are added; new ids have the last
                one of their row.
            logits_to_keep: taken for its name's sake; only the last logits are needed.
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
        job.options.warn_of_idle()
        strategy = STRATEGIES[job.strategy] if job.max_new else outputs.prompts_alone
        result = strategy(job)
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
        job.options.warn_of_idle()
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
