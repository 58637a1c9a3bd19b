"""The options of generation: names, defaults, what makes sense, and their file.

Each option is declared once, as a field of GenerationConfig; options.py says what a
field carries. A new option is a field here and what reads it: for most, a processor and
its place in chain.py. Which options exclude which ways to choose ids is in features.py.
"""

import json
import os
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

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
)

GENERATION_CONFIG_NAME = "generation_config.json"
# What other programs write into the file that is no option.
REMARKS = ("transformers_version", "_from_model_config", "generation_kwargs")
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

    max_length: int = option(
        20,
        "the longest result, the prompt and its padding included",
        heading="How long a continuation is",
        least=1,
    )
    max_new_tokens: int | None = option(
        None,
        "how many ids to add; if given, max_length does not count",
        least=1,
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
    suppress_tokens: list[int] | None = option(
        None, "ids that are never chosen", ids_in=one_sequence
    )
    begin_suppress_tokens: list[int] | None = option(
        None, "ids that are not chosen first", ids_in=one_sequence
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
        metavar="T",
    )
    top_k: int = option(
        0,
        "only the k likeliest ids; 0: off",
        least=0,
        metavar="K",
    )
    top_p: float = option(
        1.0,
        "only the likeliest ids that reach this probability together; 1: off",
        above=0,
        most=1,
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
        metavar="P",
    )
    typical_p: float = option(
        1.0,
        "only the ids nearest to the expected information that reach this probability "
        "together; 1: off",
        above=0,
        most=1,
        metavar="P",
    )
    epsilon_cutoff: float = option(
        0.0, "only ids of at least this probability; 0: off", least=0, most=1
    )
    eta_cutoff: float = option(
        0.0,
        "as epsilon_cutoff, but lower where the entropy is high; 0: off",
        least=0,
        most=1,
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
    def of(cls, options: dict[str, Any]) -> Self:
        """Make one from a dict; ValueError for an unknown name, with the nearest."""
        check_names(options)
        return cls(**options)

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
        found = {
            name: value
            for name, value in read_json(path).items()
            if value is not None and name not in REMARKS
        }
        try:
            return cls.of({**found, **options})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write generation_config.json into the folder, which is made if need be."""
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
        return changed

    def updated(self, **options: Any) -> Self:
        """Return a copy with some options changed, and checked."""
        check_names(options)
        return replace(self, **options)

    def __post_init__(self) -> None:
        declared = fields(self)
        for field in declared:
            value = getattr(self, field.name)
            check_value(field, value)
            if field.type is float and isinstance(value, Integral):
                setattr(self, field.name, float(value))  # 10**300 times an array fails
        self._check_forms()
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

    def _check_forms(self) -> None:
        """Refuse pairs and texts of another form than the options have."""
        if self.sequence_bias is not None:
            for _, bias in bias_pairs(self.sequence_bias):
                check_number("sequence_bias", bias, Real)
        if self.exponential_decay_length_penalty is not None:
            match self.exponential_decay_length_penalty:
                case [start, factor]:
                    name = "exponential_decay_length_penalty"
                    check_number(f"{name}'s start", start, Integral)
                    check_number(f"{name}'s factor", factor, Real)
                case other:
                    raise ValueError(
                        "exponential_decay_length_penalty must be (start, factor), not "
                        f"{other!r:.100}"
                    )
        texts = self.stop_strings
        for text in texts if isinstance(texts, list | tuple) else [texts]:
            if not isinstance(text, str) and texts is not None:
                raise ValueError(
                    f"stop_strings must be a text or a list of texts, not {texts!r:.100}"
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

    def features(self) -> set[str]:
        """Return the features that the options ask for, by the names of features.py."""
        return {self.strategy(), *self.changed()}

    def end_ids(self) -> list[int]:
        """Return the ids that end a row."""
        return as_list(self.eos_token_id)


def check_names(options: dict[str, Any]) -> None:
    """Raise ValueError for an option that does not exist, naming the nearest."""
    known = [field.name for field in fields(GenerationConfig)]
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"generate() has no option {name!r}{hint}")
