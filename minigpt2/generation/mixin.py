"""GenerationMixin: what a model with scores of the next id can do with them."""

import functools
import inspect
from dataclasses import dataclass, field
from importlib import import_module
from numbers import Integral
from typing import Any

import numpy as np

from . import outputs
from .config import GenerationConfig, check_number
from .prompt import Prompt, prepare
from .stopping import Stopping
from .streamers import stream


@dataclass
class Job:
    """One call of generate, checked: what the strategies work on."""

    model: Any
    prompt: Prompt
    options: GenerationConfig
    stopping: Stopping
    logits_processor: list = field(default_factory=list)
    stopping_criteria: list = field(default_factory=list)
    negative_prompt: Prompt | None = None
    assistant_model: Any = None
    prefix_cache: Any = None
    streamer: Any = None

    def readable(self, ids):
        """Return ids with 0 for those outside the vocabulary, as padding may be."""
        inside = (ids >= 0) & (ids < self.model.config.vocab_size)
        return np.where(inside, ids, 0)


def reads_generation_config(method):
    """Let `generation_config` say what the caller of `method` does not say itself.

    A default in the signature is not said: so the signature shows the documented
    defaults, and top_k=0 beside a generation_config with top_k=50 still means 0.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self, *args, generation_config=None, **kwargs):
        if generation_config is not None:
            said = signature.bind(self, *args, **kwargs).arguments
            for name, value in generation_config.changed().items():
                if name not in said:
                    kwargs.setdefault(name, value)
        return method(self, *args, **kwargs)

    return call


class GenerationMixin:
    """generate, stream and compute_transition_scores, for GPT2LMHeadModel."""

    @reads_generation_config
    def generate(
        self,
        input_ids=None,
        max_length=20,
        do_sample=False,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        repetition_penalty=1.0,
        pad_token_id=None,
        eos_token_id=None,
        *,
        attention_mask=None,
        generation_config=None,
        streamer=None,
        **kwargs,
    ):
        """Continue prompts, one id after another.

        - input_ids [B, T] (int): the prompts; None is one row of bos_token_id.
        - attention_mask [B, T] (0 or 1): 0 marks padding, on whichever side. A padded
          row gets what it gets alone: its positions are counted without the padding.
        - generation_config (GenerationConfig): the options; those that are said beside
          it take the place of its own.
        - max_length ... eos_token_id, and all other options by keyword: see
          generation.config.GenerationConfig.
        - streamer: an object with put(ids) and end(), told of the prompt and each step.
        - logits_processor: functions (input_ids [R, S], scores [R, V]) -> scores, after
          the options' own processors and before those of sampling.
        - stopping_criteria: functions (input_ids, scores) -> which rows end, bool [R].
        - tokenizer (GPT2Tokenizer): for stop_strings.
        - past_key_values: what the model has read of input_ids already: past_key_values
          of a result, or of a forward pass. input_ids, and attention_mask, are still
          the whole text's. It is not changed.
        - prefix_cache (generation.prefix_cache.PrefixCache): takes from it, for a
          prompt of one row, and leaves there what was read.
        - assistant_model: a smaller GPT2LMHeadModel that drafts, or "int8", "int4" or
          "bfloat16" for this model with such weights; see speculative.
        - negative_prompt_ids, negative_prompt_attention_mask [B, any]: what
          guidance_scale leads away from; by default the prompts' last ids.

        Returns [B * num_return_sequences, T + new] (int64): prompts and continuations;
        a row that has ended is filled with pad_token_id. With return_dict_in_generate,
        GenerateDecoderOnlyOutput or GenerateBeamDecoderOnlyOutput. For eval mode.
        Raises ValueError, saying which and why, for impossible or unknown options, ids
        outside the vocabulary, an empty prompt, and more positions than n_positions.
        """
        options = {
            "max_length": max_length,
            "do_sample": do_sample,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "repetition_penalty": repetition_penalty,
            "pad_token_id": pad_token_id,
            "eos_token_id": eos_token_id,
            **kwargs,
        }
        job = job_of(self, input_ids, attention_mask, streamer, options)
        strategy = "speculative" if job.assistant_model else job.options.strategy()
        result = import_module(f".{strategy}", __package__).generate(job)
        if job.prefix_cache is not None:
            job.prefix_cache.keep(result.sequences[0], result.past_key_values)
        return result if job.options.return_dict_in_generate else result.sequences

    @reads_generation_config
    def stream(self, input_ids=None, *, tokenizer=None, logprobs=None, **kwargs):
        """Continue one prompt; yield a streamers.StreamedToken as each id is chosen.

        - tokenizer (GPT2Tokenizer): makes the tokens' text.
        - logprobs (int): give each id's log-probability, and those of this many of the
          likeliest ids.
        - input_ids [1, T] and the other arguments: as for `generate`, with greedy
          decoding or sampling. What is wrong with them is said at once.

        Ending the iteration early is fine: what is not asked for is not computed.
        """
        mask = kwargs.pop("attention_mask", None)
        job = job_of(self, input_ids, mask, None, {"tokenizer": tokenizer, **kwargs})
        if job.assistant_model or job.options.strategy() != "loop":
            raise ValueError("stream works with greedy decoding and sampling only")
        if len(job.prompt) * job.options.num_return_sequences != 1:
            raise ValueError("stream continues one row; generate takes batches")
        check_number("logprobs", logprobs, Integral, least=0, optional=True)
        return stream(job, tokenizer, logprobs)

    def compute_transition_scores(
        self, sequences, scores, beam_indices=None, normalize_logits=False
    ):
        """Return the score of each new id [R, new]: see outputs.transition_scores."""
        return outputs.transition_scores(
            sequences, scores, beam_indices, normalize_logits
        )


SMALL_WEIGHTS = (
    "int8",
    "int4",
    "bfloat16",
)  # in which a model can be its own assistant

# Arguments of `generate` that are no options: they belong to one call.
OF_THE_CALL = (
    "logits_processor",
    "stopping_criteria",
    "tokenizer",
    "past_key_values",
    "prefix_cache",
    "assistant_model",
    "negative_prompt_ids",
    "negative_prompt_attention_mask",
)


def job_of(model, input_ids, attention_mask, streamer, options):
    """Check the arguments of a call against one another; return the Job."""
    call = {name: options.pop(name, None) for name in OF_THE_CALL}
    options = GenerationConfig.of(options)
    past, prefix_cache = call["past_key_values"], call["prefix_cache"]
    if prefix_cache is not None:
        if past is not None:
            raise ValueError("prefix_cache and past_key_values exclude one another")
        past = prefix_cache.past_of(model, input_ids, attention_mask)
    prompt, options = prepare(model, input_ids, attention_mask, past, options)
    stopping = Stopping(options, call["tokenizer"], call["stopping_criteria"] or ())
    job = Job(
        model=model,
        prompt=prompt,
        options=options,
        stopping=stopping,
        logits_processor=list(call["logits_processor"] or ()),
        stopping_criteria=list(call["stopping_criteria"] or ()),
        assistant_model=call["assistant_model"],
        prefix_cache=prefix_cache,
        streamer=streamer,
    )
    if call["negative_prompt_ids"] is not None:
        if options.guidance_scale is None:
            raise ValueError("negative_prompt_ids needs guidance_scale")
        job.negative_prompt, _ = prepare(
            model,
            call["negative_prompt_ids"],
            call["negative_prompt_attention_mask"],
            None,
            options,
        )
        if len(job.negative_prompt) != len(prompt):
            raise ValueError("negative_prompt_ids must have a row for each prompt")
    check_job(job)
    return job


def check_job(job):
    """Refuse what a strategy cannot do."""
    o, assistant = job.options, job.assistant_model
    strategy = o.strategy()
    speculative = assistant is not None or strategy == "speculative"
    if assistant is not None and strategy != "loop":
        raise ValueError("assistant_model works with greedy decoding and sampling")
    if isinstance(assistant, str) and assistant not in SMALL_WEIGHTS:
        known = ", ".join(map(repr, SMALL_WEIGHTS))
        raise ValueError(f"assistant_model is a model or one of {known}: {assistant!r}")
    if assistant is not None and not isinstance(assistant, str):
        needed = job.prompt.visible.sum(axis=1).max() + o.max_new_tokens
        if assistant.config.vocab_size != job.model.config.vocab_size:
            raise ValueError("assistant_model has another vocabulary than the model")
        if assistant.config.n_positions < needed:
            raise ValueError(
                f"assistant_model has n_positions={assistant.config.n_positions}; this "
                f"text needs {needed}"
            )
    if speculative and (o.output_attentions or o.output_hidden_states):
        raise ValueError(
            "output_attentions and output_hidden_states don't go with speculative "
            "decoding, which reads several ids in one pass"
        )
    if speculative and o.sliding_window is not None:
        raise ValueError("sliding_window doesn't go with speculative decoding")
    if job.streamer is not None and (o.num_beams > 1):
        raise ValueError("a streamer can't be told of beams: they may yet lose")
    if job.prompt.past is not None:
        if strategy == "contrastive":
            raise ValueError(
                "contrastive search needs hidden states that past_key_values lacks"
            )
        if not o.use_cache:
            raise ValueError("past_key_values needs use_cache=True")
    if strategy == "contrastive" and not o.use_cache:
        raise ValueError("contrastive search needs use_cache=True")
    if job.prefix_cache is not None:
        if strategy != "loop" or speculative:
            raise ValueError("prefix_cache works with greedy decoding and sampling")
        if o.sliding_window is not None or not o.use_cache:
            raise ValueError("prefix_cache needs use_cache=True and no sliding_window")
        if o.num_return_sequences > 1:
            raise ValueError("prefix_cache serves one result at a time")
