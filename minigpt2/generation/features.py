"""Which features of generation go together: the one table of what excludes what.

A feature is a strategy, an option that is not its default, an argument of the call that
is given (see job.Call), or "stream", the method. Two features go together unless the
table says otherwise.
What an option needs stands in its field, in config.py.
"""

from collections.abc import Collection
from enum import StrEnum


class Strategy(StrEnum):
    """The ways to choose ids, by the names that messages give them."""

    LOOP = "greedy decoding and sampling"
    SPECULATIVE = "speculative decoding"
    BEAMS = "beam search"
    GROUP_BEAMS = "diverse beam search"
    CONTRASTIVE = "contrastive search"


LOOP, SPECULATIVE, BEAMS, GROUP_BEAMS, CONTRASTIVE = Strategy
SEARCHES = (BEAMS, GROUP_BEAMS, CONTRASTIVE)
ONLY_LOOP = f"{{feature}} works with {LOOP} only, not with {{other}}"
APART = "{feature} and {other} exclude one another"

# (a feature, what it does not go with, how to say so)
EXCLUDES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("stream", (SPECULATIVE, *SEARCHES), ONLY_LOOP),
    ("sliding_window", (SPECULATIVE, *SEARCHES), ONLY_LOOP),
    ("sliding_window", ("guidance_scale", "past_key_values"), APART),
    ("prefix_cache", (SPECULATIVE, *SEARCHES), ONLY_LOOP),
    ("prefix_cache", ("past_key_values",), APART),
    (
        "prefix_cache",
        ("sliding_window", "use_cache"),
        "prefix_cache needs use_cache=True and no sliding_window",
    ),
    (
        "prefix_cache",
        ("num_return_sequences",),
        "prefix_cache serves one result at a time, not num_return_sequences > 1",
    ),
    (
        "inputs_embeds",
        (
            SPECULATIVE,
            "sliding_window",
            "prefix_cache",
            "past_key_values",
            "guidance_scale",
        ),
        APART,
    ),
    ("inputs_embeds", ("use_cache",), "{feature} needs use_cache=True"),
    ("token_type_ids", (SPECULATIVE, "sliding_window", "prefix_cache"), APART),
    ("past_key_values", ("use_cache",), "{feature} needs use_cache=True"),
    (
        "past_key_values",
        (CONTRASTIVE,),
        "{other} needs hidden states that past_key_values lacks",
    ),
    ("use_cache", (CONTRASTIVE,), "{other} needs use_cache=True"),
    (
        "streamer",
        (BEAMS, GROUP_BEAMS),
        "a streamer can't be told of the beams of {other}: they may yet lose",
    ),
    (
        "output_attentions",
        (SPECULATIVE,),
        "{feature} doesn't go with {other}, which reads several ids in one pass",
    ),
    (
        "output_hidden_states",
        (SPECULATIVE,),
        "{feature} doesn't go with {other}, which reads several ids in one pass",
    ),
    ("do_sample", (GROUP_BEAMS, CONTRASTIVE), "{other} excludes do_sample=True"),
    ("penalty_alpha", (BEAMS, GROUP_BEAMS), "{feature} excludes num_beams > 1"),
    ("prompt_lookup_num_tokens", SEARCHES, ONLY_LOOP),
    ("assistant_model", SEARCHES, ONLY_LOOP),
    ("assistant_model", ("prompt_lookup_num_tokens",), APART),
)


def check_features(features: Collection[str]) -> None:
    """Raise ValueError if one of the features excludes another of them."""
    for feature, others, message in EXCLUDES:
        for other in others:
            if feature in features and other in features:
                raise ValueError(message.format(feature=feature, other=other))
