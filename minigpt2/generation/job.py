"""A call of `generate`, checked: what the strategies work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .chain import AllowedIds, Chain, OwnProcessor
from .config import GenerationConfig
from .features import Strategy, check_features
from .prompt import Prompt, prepare
from .state import DecodingState, GuidedState
from .stopping import Stopping, StoppingCriterion

if TYPE_CHECKING:
    from ..model.gpt2 import GPT2LMHeadModel
    from ..tokenizer import GPT2Tokenizer
    from .prefix_cache import PrefixCache
    from .streamers import Streamer


@dataclass
class Call:
    """The arguments of `generate` that are no options; GenerationMixin explains them."""

    input_ids: npt.ArrayLike | None = None
    inputs: npt.ArrayLike | None = None
    inputs_embeds: npt.ArrayLike | None = None
    token_type_ids: npt.ArrayLike | None = None
    attention_mask: npt.ArrayLike | None = None
    streamer: Streamer | None = None
    logits_processor: Sequence[OwnProcessor] | None = None
    stopping_criteria: Sequence[StoppingCriterion] | None = None
    prefix_allowed_tokens_fn: AllowedIds | None = None
    tokenizer: GPT2Tokenizer | None = None
    past_key_values: Any = None
    prefix_cache: PrefixCache | None = None
    assistant_model: GPT2LMHeadModel | str | None = None
    negative_prompt_ids: npt.ArrayLike | None = None
    negative_prompt_attention_mask: npt.ArrayLike | None = None
    logits_to_keep: int | None = None  # says nothing: the last logits are what is used

    def __post_init__(self) -> None:
        if self.inputs is not None:
            if self.input_ids is not None:
                raise ValueError("inputs and input_ids are two names of one argument")
            self.input_ids = self.inputs
        for name in ("logits_processor", "stopping_criteria"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, (list, tuple)):
                raise ValueError(f"{name} must be a list of functions, not {value!r}")

    @property
    def watches_rows(self) -> bool:
        """Whether the caller's functions are to see all rows at every step."""
        return bool(
            self.logits_processor
            or self.stopping_criteria
            or self.prefix_allowed_tokens_fn
        )

    def features(self) -> set[str]:
        """Return the features that the call asks for, by the names of features.py."""
        names = [field.name for field in fields(self)]
        given = {name for name in names if getattr(self, name) is not None}
        return given | ({Strategy.SPECULATIVE} if self.assistant_model else set())


@dataclass
class Job:
    """A call, what it starts from, and what ends it. The options leave nothing open."""

    model: GPT2LMHeadModel
    call: Call
    options: GenerationConfig
    prompt: Prompt
    negative_prompt: Prompt | None
    stopping: Stopping

    @classmethod
    def of(
        cls, model: GPT2LMHeadModel, arguments: dict[str, Any], *features: str
    ) -> Job:
        """Check the arguments of a call: those of Call, and options.

        Args:
            features: what the call asks for besides, by the names of features.py.
        """
        names = {field.name for field in fields(Call)}
        call = Call(**{n: value for n, value in arguments.items() if n in names})
        options = GenerationConfig.of(
            {n: value for n, value in arguments.items() if n not in names}
        )
        check_features({*options.features(), *call.features(), *features})
        if options.stop_strings and call.tokenizer is None:
            raise ValueError("stop_strings need the model's tokenizer: tokenizer=...")
        mask, past = call.attention_mask, call.past_key_values
        if call.prefix_cache is not None:
            past = call.prefix_cache.past_of(model, call.input_ids, mask)
        prompt, options = prepare(
            model,
            call.input_ids,
            mask,
            past,
            options,
            call.inputs_embeds,
            call.token_type_ids,
        )
        return cls(
            model=model,
            call=call,
            options=options,
            prompt=prompt,
            negative_prompt=negative_prompt_of(model, call, prompt, options),
            stopping=Stopping(options, call.tokenizer, call.stopping_criteria),
        )

    @property
    def strategy(self) -> Strategy:
        if self.call.assistant_model is not None:
            return Strategy.SPECULATIVE
        return self.options.strategy()

    @property
    def max_new(self) -> int:
        """How many ids to add to a row, at most."""
        assert self.options.max_new_tokens is not None  # prompt.prepare has settled it
        return self.options.max_new_tokens

    @property
    def pad_id(self) -> int:
        """What fills a row after its end."""
        assert self.options.pad_token_id is not None  # likewise
        return self.options.pad_token_id

    def chain(self, rows: int = 1, first: int = 0) -> Chain:
        """Return the processors of the scores.

        Args:
            rows: how many rows in a row prefix_allowed_tokens_fn knows by one number.
            first: that number for the first row.
        """
        return Chain(
            self.options,
            self.prompt.given.shape[1],
            self.call.logits_processor,
            self.call.prefix_allowed_tokens_fn,
            rows,
            first,
        )

    def new_state(self, prompt: Prompt, max_new: int) -> DecodingState | GuidedState:
        """Return the state before a prompt has been read, guided if options say so."""
        o = self.options
        state = DecodingState(self.model, prompt, max_new, o.use_cache)
        if o.guidance_scale is None or o.guidance_scale == 1:
            return state
        negative = self.negative_prompt
        if negative is None:  # as in transformers: what follows the last id alone
            negative = Prompt.unread(prompt.ids[:, -1:])
        other = DecodingState(self.model, negative, max_new, o.use_cache)
        width = prompt.ids.shape[1]
        return GuidedState(state, other, o.guidance_scale, negative, width)

    def readable(self, ids: np.ndarray) -> np.ndarray:
        """Return ids with 0 for those outside the vocabulary, as padding may be."""
        inside = (ids >= 0) & (ids < self.model.config.vocab_size)
        return np.where(inside, ids, 0)


def negative_prompt_of(
    model: GPT2LMHeadModel, call: Call, prompt: Prompt, options: GenerationConfig
) -> Prompt | None:
    """Return what guidance leads away from, if the caller says so."""
    if call.negative_prompt_ids is None:
        return None
    if options.guidance_scale is None:
        raise ValueError("negative_prompt_ids needs guidance_scale")
    ids, mask = call.negative_prompt_ids, call.negative_prompt_attention_mask
    negative, _ = prepare(model, ids, mask, None, options)
    if len(negative) != len(prompt):
        raise ValueError("negative_prompt_ids must have a row for each prompt")
    return negative
