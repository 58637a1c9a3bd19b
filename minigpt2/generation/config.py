"""The options of generation: names, defaults, what makes sense, and their file.

Each option is declared once, as a field of GenerationConfig; options.py says what a
field carries. A new option is a field here and what reads it: for most, a processor and
its place in chain.py. Which options exclude which ways to choose ids is in features.py.
"""

import json
import os
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

from ..config import GPT2Config
from ..runtime.files import read_json, write_whole
from .features import Strategy, check_features
from .options import (
    IdSequences,
    as_list,
    check_needs,
    check_number,
    check_value,
    documented,
    is_in_use,
    option,
    option_of,
)

GENERATION_CONFIG_NAME = "generation_config.json"
# What other programs write into the file that is no option.
REMARKS = (
    "transformers_version",
    "_from_model_config",
    "_commit_hash",
    "generation_kwargs",
)
# Options of transformers that are not here, and the values with which they do nothing,
# which are passed over; all of them where the option can't change an id.
LACKED: dict[str, tuple | None] = {
    "assistant_early_exit": (),
    "cache_implementation": ("dynamic", "static"),
    "constraints": (),
    "decoder_start_token_id": (),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "force_words_ids": (),
    "forced_decoder_ids": (),
    "token_healing": (False,),
    "top_h": (),
    "use_mtp": (False,),
    "watermarking_config": (),
    "assistant_confidence_threshold": None,
    "assistant_lookbehind": None,
    "cache_config": None,
    "compile_config": None,
    "disable_compile": None,
    "is_assistant": None,
    "low_memory": None,
    "max_cache_len": None,
    "num_assistant_tokens_schedule": None,
    "prefill_chunk_size": None,
    "return_legacy_cache": None,
    "synced_gpus": None,
    "target_lookbehind": None,
    "use_model_defaults": None,
}
MODEL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
TOP_P_RULES = ("huggingface", "huggingface-3", "openai")

Biases = dict[tuple[int, ...], float] | list[list[Any]]


def one_sequence(ids: Any) -> IdSequences:
    """Return an id or a list of ids as the sequences that it holds: one, or none."""
    ids = as_list(ids)
    return [ids] if ids else []


def bias_pairs(biases: Biases) -> list[tuple[tuple[int, ...], float]]:
    """Return [(ids, bias), ...] of a sequence_bias in either form."""
    pairs = biases.items() if isinstance(biases, dict) else biases
    return [(tuple(ids), bias) for ids, bias in pairs]


def biased_sequences(biases: Biases) -> IdSequences:
    """Return the sequences of ids of a sequence_bias."""
    return [ids for ids, _ in bias_pairs(biases)]


# ruff: noqa: RUF009 (what `option` returns is a field)
# No `from __future__ import annotations` here: the checks read the fields' types.
@documented
@dataclass
class GenerationConfig:
    """The options of `generate`, by transformers' names.

    A value that is impossible, and options that exclude one another, raise ValueError.
    """

    max_length: int | None = option(
        None,
        "the longest result, the prompt and its padding included; if neither this nor "
        "max_new_tokens is given, 20 ids are added, or as many as n_positions lets",
        heading="How long a continuation is",
        least=1,
    )
    max_new_tokens: int | None = option(
        None,
        "how many ids to add; if given, max_length does not count; 0: the prompt alone",
        least=0,
        metavar="N",
    )
    min_length: int = option(
        0,
        "no end id before the result, prompt and padding included, has this length",
        least=0,
    )
    min_new_tokens: int = option(
        0,
        "no end id before so many new ids; if above 0, min_length does not count",
        least=0,
        metavar="N",
    )
    eos_token_id: int | list[int] | None = option(
        None, "ids that end a row; None takes the model's"
    )
    pad_token_id: int | None = option(
        None,
        "fills a row after its end; None takes the model's, or the first eos_token_id",
    )
    bos_token_id: int | None = option(
        None, "the prompt where none is given; None takes the model's"
    )
    stop_strings: str | list[str] | None = option(
        None,
        "end a row when its last token completes one of these strings, wherever tokens "
        "begin and end; `generate` then needs its `tokenizer`",
    )
    max_time: float | None = option(
        None,
        "stop after the first step that ends more than so many seconds after the start",
        least=0,
        metavar="SECONDS",
    )

    do_sample: bool = option(
        False,
        "draw ids at random, and do not take the likeliest",
        heading="How the next id is chosen",
    )
    seed: int | list[int] | None = option(
        None,
        "where random numbers come from, the same on every platform: one for all rows, "
        "or a list of one for each, with which a row draws the same in any batch; None "
        "takes an unpredictable one",
        least=0,
        metavar="S",
    )
    num_return_sequences: int = option(
        1,
        "results for each prompt",
        least=1,
        needs=("do_sample", "num_beams"),
        metavar="N",
    )
    num_beams: int = option(
        1,
        "the beams of beam search, with do_sample of beam sampling; 1: off",
        least=1,
        metavar="N",
    )
    length_penalty: float = option(
        1.0,
        "beam search divides the score of a finished sequence by its number of new ids "
        "to this power: above 0 favors long ones",
        metavar="L",
    )
    early_stopping: bool | str = option(
        False,
        "when beam search ends (generation/beams.py)",
        choices=(False, True, "never"),
    )
    num_beam_groups: int = option(
        1,
        "the groups of beams of diverse beam search (generation/group_beams.py); 1: off",
        least=1,
    )
    diversity_penalty: float = option(
        0.0,
        "what an id loses for each beam of the groups before that chose it",
        least=0,
        needs=("num_beam_groups",),
    )
    penalty_alpha: float = option(
        0.0,
        "above 0, contrastive search among the top_k likeliest ids "
        "(generation/contrastive.py)",
        least=0,
        most=1,
    )
    prompt_lookup_num_tokens: int | None = option(
        None,
        "draft so many ids at a time from the sequence itself: the same result, faster "
        "where it repeats itself",
        least=1,
        metavar="N",
    )
    max_matching_ngram_size: int = option(
        2, "how many last ids a draft from the sequence looks up, at most", least=1
    )
    num_assistant_tokens: int = option(
        5, "how many ids an assistant_model drafts at a time", least=1
    )

    repetition_penalty: float = option(
        1.0,
        "above 1 makes ids that occurred less likely, below 1 likelier",
        heading="How scores change (the formulas are in generation/processors.py)",
        above=0,
        metavar="R",
    )
    no_repeat_ngram_size: int = option(
        0, "no sequence of so many ids occurs twice; 0: off", least=0, metavar="N"
    )
    bad_words_ids: list[list[int]] | None = option(
        None, "sequences of ids that must not occur", ids_in=list
    )
    sequence_bias: Biases | None = option(
        None,
        "what is added to the score of an id that completes a sequence of ids: {tuple "
        "of ids: bias}, or [[ids, bias], ...]",
        ids_in=biased_sequences,
    )
    suppress_tokens: list[int] | None = option(None, "ids that are never chosen")
    begin_suppress_tokens: list[int] | None = option(
        None, "ids that are not chosen first"
    )
    forced_bos_token_id: int | None = option(
        None, "the id that comes after a prompt of one id", ids_in=one_sequence
    )
    forced_eos_token_id: int | list[int] | None = option(
        None, "the id, or the only ids, to choose last", ids_in=one_sequence
    )
    exponential_decay_length_penalty: tuple[int, float] | None = option(
        None,
        "(start, factor): raise the scores of end ids after `start` new ids, more at "
        "each step",
    )
    guidance_scale: float | None = option(
        None,
        "lead away from what the model says without the prompt, or after another one: "
        "classifier-free guidance",
    )
    remove_invalid_values: bool = option(
        False, "replace NaN and infinities in the scores by finite numbers"
    )
    renormalize_logits: bool = option(
        False, "make the scores log-probabilities again at the end"
    )

    temperature: float = option(
        1.0,
        "divides the scores: below 1 sharpens the distribution, above 1 flattens it",
        heading="What sampling draws from",
        above=0,
        hint="; for the likeliest id at each step use do_sample=False",
        read_by=("do_sample",),
        metavar="T",
    )
    top_k: int = option(
        0,
        "only the k likeliest ids; 0: off",
        least=0,
        read_by=("do_sample", "penalty_alpha"),
        metavar="K",
    )
    top_p: float = option(
        1.0,
        "only the likeliest ids that reach this probability together; 1: off",
        above=0,
        most=1,
        read_by=("do_sample",),
        metavar="P",
    )
    top_p_rule: str = option(
        "huggingface", "what top_p does at its border", choices=TOP_P_RULES
    )
    min_p: float = option(
        0.0,
        "only ids at least so many times as likely as the likeliest; 0: off",
        least=0,
        most=1,
        read_by=("do_sample",),
        metavar="P",
    )
    typical_p: float = option(
        1.0,
        "only the ids nearest to the expected information that reach this probability "
        "together; 1: off",
        above=0,
        most=1,
        read_by=("do_sample",),
        metavar="P",
    )
    epsilon_cutoff: float = option(
        0.0,
        "only ids of at least this probability; 0: off",
        least=0,
        most=1,
        read_by=("do_sample",),
    )
    eta_cutoff: float = option(
        0.0,
        "as epsilon_cutoff, but lower where the entropy is high; 0: off",
        least=0,
        most=1,
        read_by=("do_sample",),
    )

    return_dict_in_generate: bool = option(
        False,
        "return an output of generation/outputs.py rather than the ids alone",
        heading="What is returned",
    )
    output_scores: bool = option(
        False, "the scores of each step", needs=("return_dict_in_generate",)
    )
    output_logits: bool = option(
        False, "the logits of each step", needs=("return_dict_in_generate",)
    )
    output_attentions: bool = option(
        False, "the attention weights of each step", needs=("return_dict_in_generate",)
    )
    output_hidden_states: bool = option(
        False, "the residual stream of each step", needs=("return_dict_in_generate",)
    )

    use_cache: bool = option(
        True,
        "False reads the whole sequence again at each step",
        heading="How it is computed",
    )
    sliding_window: int | None = option(
        None,
        "when a row has filled all n_positions, read its last W ids as a new sequence "
        "and go on; otherwise a sequence that could grow too long is refused",
        least=1,
        metavar="W",
    )

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Make one from a dict, of which None stands for a default.

        Options of transformers that are not here (LACKED) may have the values with
        which they do nothing.

        Raises:
            ValueError: an unknown name, with the nearest, or an impossible value.
        """
        return cls(**known_options(options))

    @classmethod
    def taken(cls, given: Any) -> Self:
        """Return what a caller gives as options: one of these, or a copy as one.

        Args:
            given: a GenerationConfig, transformers' GenerationConfig or a dict.
        """
        if isinstance(given, cls):
            given.validate()
            return given
        options = given
        if hasattr(given, "to_dict"):
            options = {n: v for n, v in given.to_dict().items() if v is not None}
            usual = getattr(type(given)(), "max_length", None)
            if options.get("max_length") == usual:  # in transformers 4: not given
                options.pop("max_length", None)
        if not isinstance(options, Mapping):
            raise ValueError(
                "generation_config must be a GenerationConfig or a dict, not "
                f"{type(given).__name__}"
            )
        return cls.of({n: v for n, v in options.items() if n not in REMARKS})

    @classmethod
    def from_model_config(cls, model_config: Any) -> Self:
        """Return the options that a model's configuration has: its ids, for the most.

        Old files of configurations have options of generation among their keys.
        """
        fields_of_it = (
            model_config
            if isinstance(model_config, Mapping)
            else model_config.to_dict()
        )
        own = {one.name for one in fields(GPT2Config)} - set(MODEL_IDS)
        known = {one.name for one in fields(cls)} - own
        found = {n: v for n, v in fields_of_it.items() if n in known}
        return cls.of(found)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, **options: Any) -> Self:
        """Read generation_config.json of a model's folder (or the file itself).

        Nulls stand for defaults.

        Args:
            options: take the place of what the file says.

        Raises:
            ValueError: an option that is not one of these, since passing over one would
                change what is generated.
        """
        path = Path(folder)
        if path.is_dir():
            path = path / GENERATION_CONFIG_NAME
        found = options_in_file(path)
        try:
            return cls.of({**found, **options})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write generation_config.json into the folder, which is made if need be.

        Raises:
            ValueError: the options have been changed to what can't be.
        """
        self.validate()
        os.makedirs(folder, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"
        write_whole(Path(folder) / GENERATION_CONFIG_NAME, text.encode())

    def changed(self) -> dict[str, Any]:
        """Return {name: value} of the options that are not their defaults."""
        return {
            field.name: value
            for field in fields(self)
            if is_in_use(field, value := getattr(self, field.name))
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the options that are not their defaults, ready for JSON."""
        changed = self.changed()
        if isinstance(self.sequence_bias, dict):
            changed["sequence_bias"] = [
                [list(ids), bias] for ids, bias in self.sequence_bias.items()
            ]
        return {name: plain(value) for name, value in changed.items()}

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what `to_dict` returns, which has no defaults either."""
        return self.to_dict()

    def update(self, **options: Any) -> dict[str, Any]:
        """Change the options that are named; return the keywords that name none."""
        known = {one.name for one in fields(self)}
        changes = {name: options.pop(name) for name in list(options) if name in known}
        checked = replace(self, **changes)  # or nothing is changed
        for name in changes:
            setattr(self, name, getattr(checked, name))
        return options

    def updated(self, **options: Any) -> Self:
        """Return a copy with some options changed, and checked."""
        check_names(options)
        return replace(self, **options)

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Raise ValueError for what can't be; None becomes the option's default."""
        check_names(vars(self))
        declared = fields(self)
        for field in declared:
            if getattr(self, field.name) is None:
                setattr(self, field.name, field.default)
        idle = self.idle()
        for field in declared:
            value = getattr(self, field.name)
            check_value(field, value, field.name in idle)
            if field.type is float and isinstance(value, Integral):
                setattr(self, field.name, float(value))  # 10**300 times an array fails
        check_lists(self)
        changed = self.changed()
        check_needs(declared, changed)
        if 1 < self.num_beams < self.num_return_sequences:
            raise ValueError(
                f"num_return_sequences={self.num_return_sequences} is more than "
                f"num_beams={self.num_beams}"
            )
        if self.num_beams % self.num_beam_groups:
            raise ValueError(
                f"num_beams={self.num_beams} is not divisible by "
                f"num_beam_groups={self.num_beam_groups}"
            )
        if self.penalty_alpha and self.top_k < 2:
            raise ValueError(
                "contrastive search needs both penalty_alpha above 0 and top_k above 1"
            )
        check_features({self.strategy(), *changed})

    def idle(self) -> set[str]:
        """Return the options that are not read: those whose reader is not in use."""
        return {
            one.name
            for one in fields(self)
            if (readers := option_of(one).read_by)
            and not any(getattr(self, reader) for reader in readers)
        }

    def warn_of_idle(self) -> None:
        """Warn once of values that can't be, but are not read."""
        idle, wrong = self.idle(), []
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in idle:
                try:
                    check_value(one, value)
                except ValueError:
                    wrong.append(f"{one.name}={value}")
        if wrong:
            warnings.warn(
                f"{', '.join(wrong)}: not read without do_sample=True, and impossible "
                "with it",
                stacklevel=4,  # the caller of generate, or of stream
            )

    def strategy(self) -> Strategy:
        """Return the way to choose ids that the options ask for."""
        if self.num_beam_groups > 1:
            return Strategy.GROUP_BEAMS
        if self.num_beams > 1:
            return Strategy.BEAMS
        if self.penalty_alpha:
            return Strategy.CONTRASTIVE
        if self.prompt_lookup_num_tokens:
            return Strategy.SPECULATIVE
        return Strategy.LOOP

    def get_generation_mode(self, assistant_model: Any = None) -> str:
        """Return transformers' name of the way to choose ids."""
        if assistant_model is not None:
            return "assisted_generation"
        drawn = self.do_sample
        return {
            Strategy.LOOP: "sample" if drawn else "greedy_search",
            Strategy.SPECULATIVE: "assisted_generation",
            Strategy.BEAMS: "beam_sample" if drawn else "beam_search",
            Strategy.GROUP_BEAMS: "group_beam_search",
            Strategy.CONTRASTIVE: "contrastive_search",
        }[self.strategy()]

    def features(self) -> set[str]:
        """Return the features that the options ask for, by the names of features.py."""
        return {self.strategy(), *self.changed()}

    def end_ids(self) -> list[int]:
        """Return the ids that end a row."""
        return as_list(self.eos_token_id)


def known_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without those that do nothing: None, and neutral LACKED ones."""
    check_names(options)
    known: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name not in LACKED:
            known[name] = value
            continue
        neutral = LACKED[name]
        if neutral is not None and value not in neutral:
            only = "; only None" if not neutral else f"; only {neutral[0]!r}"
            raise ValueError(
                f"the option {name} is not supported{only} is taken, not {value!r}"
            )
    return known


def check_names(options: Collection[str]) -> None:
    """Raise ValueError for an option that does not exist, naming the nearest."""
    known = [field.name for field in fields(GenerationConfig)]
    for name in options:
        if name not in known and name not in LACKED:
            near = get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"generate() has no option {name!r}{hint}")


def options_in_file(path: Path) -> dict[str, Any]:
    """Return what a generation_config.json says, without nulls and remarks."""
    said = read_json(path)
    return {n: v for n, v in said.items() if v is not None and n not in REMARKS}


def plain(value: Any) -> Any:
    """Return an array or a number of NumPy's as JSON has it."""
    return value.tolist() if hasattr(value, "tolist") else value


def check_lists(o: GenerationConfig) -> None:
    """Raise ValueError for lists that are not of the form their options need."""
    strings = o.stop_strings
    if strings is not None:
        listed = [strings] if isinstance(strings, str) else strings
        if not isinstance(listed, (list, tuple)) or not all(
            isinstance(one, str) and one for one in listed
        ):
            raise ValueError(f"stop_strings must be texts, not empty: {strings!r}")
    decay = o.exponential_decay_length_penalty
    if decay is not None:
        if not (isinstance(decay, (list, tuple)) and len(decay) == 2):
            raise ValueError(
                "exponential_decay_length_penalty must be (start, factor), not "
                f"{decay!r}"
            )
        start, factor = decay
        name = "exponential_decay_length_penalty"
        check_number(f"the start of {name}", start, Integral)
        check_number(f"the factor of {name}", factor, Real, above=0)
    for name in ("bad_words_ids", "sequence_bias"):
        words: Any = getattr(o, name)
        if words is None:
            continue
        if name == "bad_words_ids":
            pairs = [[ids, 0.0] for ids in as_list(words, name)]
        elif isinstance(words, dict):
            pairs = [list(pair) for pair in words.items()]
        else:
            pairs = as_list(words, name)
        for pair in pairs:
            if not (isinstance(pair, (list, tuple)) and len(pair) == 2):
                raise ValueError(f"{name} must hold [ids, bias] pairs, not {pair!r}")
            ids, bias = pair
            if ids is None or isinstance(ids, Integral):
                raise ValueError(f"{name} must hold lists of ids, not {ids!r}")
            for id in as_list(list(ids) if isinstance(ids, tuple) else ids, name):
                check_number(f"an id of {name}", id, Integral)
            # -inf forbids
            check_number(f"a bias of {name}", bias, Real)
