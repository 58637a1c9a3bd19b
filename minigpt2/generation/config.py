"""The options of generation: names, defaults, what makes sense, and their file."""

import json
import math
import os
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from ..runtime.files import read_json, write_whole

GENERATION_CONFIG_NAME = "generation_config.json"
# What other programs write into the file that is no option.
REMARKS = ("transformers_version", "_from_model_config", "generation_kwargs")
OUTPUTS = (
    "output_scores",
    "output_logits",
    "output_attentions",
    "output_hidden_states",
)
TOP_P_RULES = ("huggingface", "huggingface-3", "openai")


@dataclass
class GenerationConfig:
    """The options of `generate`, by transformers' names.

    How long:
    - max_length (int, 20): longest result, the prompt and its padding included.
    - max_new_tokens (int or None): how many ids to add; if given, it decides.
    - min_length (int, 0), min_new_tokens (int, 0: not given): no end id before that;
      if min_new_tokens is given, it decides.
    - eos_token_id (int, list of ints, or None for the model's): ids that end a row.
    - pad_token_id (int or None): fills a row after its end; None takes the model's, or
      the first eos_token_id.
    - bos_token_id (int or None for the model's): the prompt, if none is given.
    - stop_strings (str or list of str): end a row whose text holds one of them at its
      end, wherever tokens begin and end; `generate` then needs its `tokenizer`.
    - max_time (float, seconds): stop after the first step that ends later than that.

    How the next id is chosen:
    - do_sample (bool, False): draw ids at random rather than take the likeliest.
    - seed (int, a list with one for each row, or None): where the random numbers come
      from. Result j of row i draws from stream (seed, i, j), or with a list from
      (seed[i], 0, j), so that a row gets the same numbers in whatever batch it travels,
      on every platform. None takes an unpredictable seed.
    - num_return_sequences (int, 1): results for each prompt.
    - num_beams (int, 1): beam search if above 1, with do_sample beam sampling;
      length_penalty (float, 1.0), early_stopping (False, True or "never"): see `beams`.
    - num_beam_groups (int, 1), diversity_penalty (float, 0.0): see `group_beams`.
    - penalty_alpha (float in [0, 1], 0.0), with top_k: see `contrastive`.
    - prompt_lookup_num_tokens (int or None), max_matching_ngram_size (int, 2),
      num_assistant_tokens (int, 5): see `speculative`.

    How scores change, always (see `processors`): repetition_penalty (float > 0, 1.0),
    no_repeat_ngram_size (int, 0), bad_words_ids (list of lists of ids), sequence_bias
    ({tuple of ids: float}, or [[ids, float], ...]), suppress_tokens and
    begin_suppress_tokens (lists of ids), forced_bos_token_id (int),
    forced_eos_token_id (int or list), exponential_decay_length_penalty ((start,
    factor)), guidance_scale (float), remove_invalid_values (bool, False),
    renormalize_logits (bool, False).

    When sampling only: temperature (float > 0, 1.0), top_k (int, 0: off; transformers'
    default is 50), top_p (0 < p <= 1, 1.0: off), top_p_rule ("huggingface",
    "huggingface-3" or "openai"), min_p, typical_p, epsilon_cutoff, eta_cutoff (in
    [0, 1]).

    What comes back: return_dict_in_generate, output_scores, output_logits,
    output_attentions, output_hidden_states (bool, False): see `outputs`.

    How it is computed: use_cache (bool, True; False reads the whole text again at each
    step), sliding_window (int or None): when a row's text has filled all n_positions,
    read its last `sliding_window` ids as a new text and go on; by default a text that
    could grow too long is refused.

    ValueError for an impossible value, or for options that exclude one another.
    """

    max_length: int = 20
    max_new_tokens: int | None = None
    min_length: int = 0
    min_new_tokens: int = 0
    eos_token_id: int | list | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    stop_strings: str | list | None = None
    max_time: float | None = None

    do_sample: bool = False
    seed: int | list | None = None
    num_return_sequences: int = 1
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    penalty_alpha: float = 0.0
    prompt_lookup_num_tokens: int | None = None
    max_matching_ngram_size: int = 2
    num_assistant_tokens: int = 5

    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    bad_words_ids: list | None = None
    sequence_bias: dict | list | None = None
    suppress_tokens: list | None = None
    begin_suppress_tokens: list | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | list | None = None
    exponential_decay_length_penalty: tuple | None = None
    guidance_scale: float | None = None
    remove_invalid_values: bool = False
    renormalize_logits: bool = False

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    top_p_rule: str = "huggingface"
    min_p: float = 0.0
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0

    return_dict_in_generate: bool = False
    output_scores: bool = False
    output_logits: bool = False
    output_attentions: bool = False
    output_hidden_states: bool = False

    use_cache: bool = True
    sliding_window: int | None = None

    @classmethod
    def of(cls, options):
        """Make one from a dict; ValueError for an unknown name, with the nearest."""
        check_names(options)
        return cls(**options)

    @classmethod
    def from_pretrained(cls, folder, **options):
        """Read generation_config.json of a model's folder (or the file itself).

        Keywords override. Nulls stand for defaults; ValueError for other options than
        the ones above, since passing over one would change what is generated.
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

    def save_pretrained(self, folder):
        """Write generation_config.json into the folder, which is made if need be."""
        os.makedirs(folder, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"
        write_whole(Path(folder) / GENERATION_CONFIG_NAME, text.encode())

    def changed(self):
        """Return {name: value} of the options that are not their defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }

    def to_dict(self):
        """Return the options that are not their defaults, ready for JSON."""
        changed = self.changed()
        if isinstance(self.sequence_bias, dict):
            changed["sequence_bias"] = [
                [list(ids), bias] for ids, bias in self.sequence_bias.items()
            ]
        return changed

    def updated(self, **options):
        """Return a copy with some options changed, and checked."""
        check_names(options)
        return replace(self, **options)

    def __post_init__(self):
        for name, least in LEAST.items():
            optional = getattr(GenerationConfig, name) is None
            check_number(name, getattr(self, name), Integral, least, optional=optional)
        for name, most in RANGES.items():
            optional = getattr(GenerationConfig, name) is None
            check_number(name, getattr(self, name), Real, 0, most, optional)
        for name in ("pad_token_id", "bos_token_id", "forced_bos_token_id"):
            check_number(name, getattr(self, name), Integral, -math.inf, optional=True)
        for name in ("seed", "eos_token_id", "forced_eos_token_id"):
            for value in as_list(getattr(self, name), name):
                least = 0 if name == "seed" else -math.inf
                check_number(name, value, Integral, least)
        for name in ("length_penalty", "guidance_scale"):
            optional = name == "guidance_scale"
            check_number(name, getattr(self, name), Real, -math.inf, optional=optional)
        for name in ("temperature", "repetition_penalty"):
            if not getattr(self, name) > 0:
                hint = "; for the likeliest id at each step use do_sample=False"
                raise ValueError(
                    f"{name} must be above 0, not {getattr(self, name)!r}"
                    + (hint if name == "temperature" else "")
                )
        for name in ("top_p", "typical_p"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} must be above 0 and at most 1, not {getattr(self, name)!r}"
                )
        if self.top_p_rule not in TOP_P_RULES:
            raise ValueError(
                f"top_p_rule must be one of {', '.join(TOP_P_RULES)}, not "
                f"{self.top_p_rule!r}"
            )
        if self.early_stopping not in (False, True, "never"):
            raise ValueError(
                f"early_stopping must be False, True or 'never', not "
                f"{self.early_stopping!r}"
            )
        self._check_together()

    def _check_together(self):
        """Refuse options that exclude one another."""
        for name in OUTPUTS:
            if getattr(self, name) and not self.return_dict_in_generate:
                raise ValueError(f"{name} needs return_dict_in_generate=True")
        results, beams = self.num_return_sequences, self.num_beams
        if beams == 1 and results > 1 and not self.do_sample:
            raise ValueError(
                "num_return_sequences > 1 needs do_sample=True or num_beams > 1: "
                "otherwise all results would be the same"
            )
        if 1 < beams < results:
            raise ValueError(
                f"num_return_sequences={results} is more than num_beams={beams}"
            )
        if beams % self.num_beam_groups:
            raise ValueError(
                f"num_beams={beams} is not divisible by "
                f"num_beam_groups={self.num_beam_groups}"
            )
        if self.diversity_penalty and self.num_beam_groups == 1:
            raise ValueError("diversity_penalty needs num_beam_groups above 1")
        if self.num_beam_groups > 1 and self.do_sample:
            raise ValueError("num_beam_groups > 1 excludes do_sample=True")
        if self.penalty_alpha and self.top_k < 2:
            raise ValueError(
                "contrastive search needs both penalty_alpha above 0 and top_k above 1"
            )
        if self.penalty_alpha and (self.do_sample or beams > 1):
            raise ValueError("penalty_alpha excludes do_sample=True and num_beams > 1")
        plain = self.strategy() == "loop" and self.guidance_scale is None
        if self.sliding_window is not None and not plain:
            raise ValueError(
                "sliding_window works with greedy decoding and sampling only, and "
                "without guidance_scale"
            )
        if self.prompt_lookup_num_tokens and (beams > 1 or self.penalty_alpha):
            raise ValueError(
                "prompt_lookup_num_tokens works with greedy decoding and sampling only"
            )

    def strategy(self):
        """Name the way to choose ids: the module of this package that knows it."""
        if self.num_beam_groups > 1:
            return "group_beams"
        if self.num_beams > 1:
            return "beams"
        if self.penalty_alpha:
            return "contrastive"
        return "speculative" if self.prompt_lookup_num_tokens else "loop"

    def end_ids(self):
        """Return the ids that end a row, as a list."""
        return as_list(self.eos_token_id)

    def streams_of(self, rows):
        """Return [(seed, row, result)] of the stream of each of the rows' results."""
        results = range(self.num_return_sequences)
        if isinstance(self.seed, Integral):
            return [(self.seed, row, j) for row in range(rows) for j in results]
        seeds = list(self.seed)
        if len(seeds) != rows:
            raise ValueError(f"{len(seeds)} seeds for {rows} rows; give one for each")
        return [(seed, 0, j) for seed in seeds for j in results]


# Whole numbers and the least that each may be; None stands for "not given".
LEAST = {
    "max_length": 1,
    "max_new_tokens": 1,
    "min_length": 0,
    "min_new_tokens": 0,
    "num_return_sequences": 1,
    "num_beams": 1,
    "num_beam_groups": 1,
    "prompt_lookup_num_tokens": 1,
    "max_matching_ngram_size": 1,
    "num_assistant_tokens": 1,
    "no_repeat_ngram_size": 0,
    "top_k": 0,
    "sliding_window": 1,
}
# Real numbers from 0 to this.
RANGES = {
    "max_time": math.inf,
    "penalty_alpha": 1,
    "diversity_penalty": math.inf,
    "min_p": 1,
    "epsilon_cutoff": 1,
    "eta_cutoff": 1,
}


def check_number(name, value, kind, least, most=math.inf, optional=False):
    """Raise ValueError unless value is of that kind and within the limits, or None."""
    if value is None and optional:
        return
    number = isinstance(value, kind) and not isinstance(value, bool)
    if not (number and least <= value <= most):
        what = "a whole number" if kind is Integral else "a number"
        limits = f" of at least {least}" if least != -math.inf else ""
        limits += f" and at most {most}" if most != math.inf else ""
        raise ValueError(f"{name} must be {what}{limits}, not {value!r}")


def check_names(options):
    """Raise ValueError for an option that does not exist, naming the nearest."""
    known = [field.name for field in fields(GenerationConfig)]
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"generate() has no option {name!r}{hint}")


def as_list(ids, name="ids"):
    """Return None, an id or a sequence of ids as a list of ids."""
    if ids is None:
        return []
    if isinstance(ids, Integral):
        return [ids]
    if not isinstance(ids, (list, tuple, np.ndarray)):
        raise ValueError(
            f"{name} must be a whole number or a list of them, not {ids!r}"
        )
    return list(ids)
