"""The options of generation, their defaults, and which values make sense."""

from dataclasses import dataclass, fields
from difflib import get_close_matches
from numbers import Integral


@dataclass
class GenerationConfig:
    """The options of `generate`, by transformers' names.

    - max_length (int, 20): longest result, the prompt included.
    - max_new_tokens (int or None): how many ids to add; if given, it decides.
    - do_sample (bool, False): draw ids at random rather than take the likeliest.
    - temperature (float > 0, 1.0), top_k (int, 0: off), top_p (0 < p <= 1, 1.0: off):
      how sampling changes the scores; see `processors`.
    - repetition_penalty (float > 0, 1.0: off): also without sampling.
    - num_return_sequences (int, 1): results for each prompt, with sampling.
    - eos_token_id (int, a list of ints, or None): ids that end a row.
    - pad_token_id (int or None): fills a row after its end; None takes the (first)
      eos_token_id.
    - seed (int, a list with one for each row, or None): where the random numbers come
      from. Result j of row i draws from stream (seed, i, j), or with a list from
      (seed[i], 0, j), so that a row gets the same numbers in whatever batch it travels,
      on every platform. None takes an unpredictable seed.

    ValueError for an unknown option or an impossible value.
    """

    max_length: int = 20
    max_new_tokens: int | None = None
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    num_return_sequences: int = 1
    pad_token_id: int | None = None
    eos_token_id: int | list | None = None
    seed: int | list | None = None

    @classmethod
    def of(cls, options):
        """Make one from a dict, naming the nearest known option for an unknown one."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"generate() has no option {name!r}{hint}")
        return cls(**options)

    def __post_init__(self):
        for name, least in (
            ("max_length", 1),
            ("max_new_tokens", 1),
            ("top_k", 0),
            ("num_return_sequences", 1),
        ):
            value = getattr(self, name)
            if name == "max_new_tokens" and value is None:
                continue
            if not isinstance(value, Integral) or value < least:
                raise ValueError(
                    f"{name} must be a whole number of at least {least}, not {value!r}"
                )
        if self.do_sample and not self.temperature > 0:
            raise ValueError(
                f"temperature must be above 0, not {self.temperature!r}; for the "
                "likeliest id at each step use do_sample=False"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p!r}")
        if not self.repetition_penalty > 0:
            raise ValueError(
                f"repetition_penalty must be above 0, not {self.repetition_penalty!r}"
            )
        if self.num_return_sequences > 1 and not self.do_sample:
            raise ValueError(
                "num_return_sequences > 1 needs do_sample=True: without sampling all "
                "results would be the same"
            )

    def end_ids(self):
        """Return the ids that end a row, as a list."""
        if self.eos_token_id is None:
            return []
        if isinstance(self.eos_token_id, Integral):
            return [self.eos_token_id]
        return list(self.eos_token_id)

    def streams_of(self, rows):
        """Return [(seed, row, result)] of the stream of each of the rows' results."""
        results = range(self.num_return_sequences)
        if isinstance(self.seed, Integral):
            return [(self.seed, row, j) for row in range(rows) for j in results]
        seeds = list(self.seed)
        if len(seeds) != rows:
            raise ValueError(f"{len(seeds)} seeds for {rows} rows; give one for each")
        return [(seed, 0, j) for seed in seeds for j in results]
