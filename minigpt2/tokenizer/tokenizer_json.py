"""tokenizer.json: a whole tokenizer in one file, as Hugging Face's tokenizers write it.

    text -> normalizer -> pre_tokenizer -> model -> post_processor -> ids -> decoder -> text

What GPT-2's byte-level BPE can say in each section is applied, and all else is refused by
name. Options that change offsets alone (trim_offsets) are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bpe import bytes_to_unicode
from ..runtime.declared import (
    ID,
    TEXT,
    Kind,
    check_fields,
    is_id,
    is_text,
    list_of,
    optional,
)
from .added_tokens import AddedToken, is_token
from .templates import NOTHING, Refusal, section_of, template_of

if TYPE_CHECKING:
    from .pretrained import PreTrainedTokenizer

ADDED_TOKEN = Kind(
    "an object with an id, a whole number from 0 on, and a content",
    lambda value: (
        isinstance(value, dict) and is_token(value) and is_id(value.get("id"))
    ),
)
WHOLE: dict[str, Kind] = {"added_tokens": optional(list_of(ADDED_TOKEN))}
DIRECTION = Kind("'Right' or 'Left'", lambda value: value in ("Right", "Left"))
PADDING: dict[str, Kind] = {
    "direction": DIRECTION,
    "pad_token": TEXT,
    "pad_id": ID,
    "pad_type_id": Kind("0", lambda value: type(value) is int and value == 0),
}
TRUNCATION: dict[str, Kind] = {"direction": DIRECTION}
MODEL: dict[str, Kind] = {
    "vocab": Kind(
        "an object of texts and their ids, whole numbers from 0 on",
        lambda value: (
            isinstance(value, dict)
            and all(map(is_text, value))
            and all(map(is_id, value.values()))
        ),
    ),
    "merges": list_of(
        Kind(
            "a text of two tokens, or a list of them",
            lambda value: (
                is_text(value)
                or (
                    isinstance(value, list)
                    and len(value) == 2
                    and all(map(is_text, value))
                )
            ),
        )
    ),
}

# What the model of GPT-2's byte-level BPE says; what is not there is None.
BYTE_LEVEL_BPE: dict[str, list[Any]] = {
    "type": ["BPE", None],
    "dropout": [None, 0],
    "continuing_subword_prefix": ["", None],
    "end_of_word_suffix": ["", None],
    "byte_fallback": [False, None],
    "ignore_merges": [False, None],
}
# Where a section has several steps, they are in a Sequence, under these names.
STEPS = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
    "decoder": "decoders",
}


def read_whole(
    whole: dict[str, Any], path: Path, config: Mapping[str, Any]
) -> tuple[dict[str, int], list[str], dict[str, Any]]:
    """Return what tokenizer.json says: (vocab, merges, settings).

    Args:
        whole: the file's content.
        path: its path, for messages.
        config: what tokenizer_config.json says.

    Raises:
        ValueError: it does anything but GPT-2's byte-level BPE.
    """

    def refuse(what: str) -> ValueError:
        return ValueError(f"{path} is not GPT-2's byte-level BPE: its {what}")

    model = whole.get("model")
    known = model if isinstance(model, dict) else {}
    for name, expected in BYTE_LEVEL_BPE.items():
        if known.get(name) not in expected:
            raise refuse(f"model.{name} is {known[name]!r:.100}, not {expected[0]!r}")
    steps = {name: _steps(whole, name, refuse) for name in STEPS}
    if steps["normalizer"]:
        raise refuse(f"normalizer is {steps['normalizer'][0]!r:.100}, not None")
    settings = _prefix_space(steps["pre_tokenizer"], refuse)
    if [_type_of(step) for step in steps["decoder"]] not in ([], ["ByteLevel"]):
        kinds = " and ".join(repr(_type_of(step)) for step in steps["decoder"])
        raise refuse(f"decoder.type is {kinds:.100}, not 'ByteLevel'")
    template = template_of(steps["post_processor"], refuse)
    if template is not None:
        settings["post_processor"] = template
    if not MODEL.keys() <= known.keys():
        raise ValueError(f"{path} has no model with a vocab and merges")
    check_fields(f"{path}: model", known, MODEL)
    if template is not None:
        for id in template.special_ids() - set(_all_ids(whole).values()):
            raise refuse(f"post_processor puts the id {id}, which no token has")
    settings |= _truncation(whole, path)
    settings |= _padding(whole, path, config.get("pad_token") is not None)
    settings |= _unknown(whole, config, refuse)
    merges = [m if isinstance(m, str) else " ".join(m) for m in known["merges"]]
    return known["vocab"], merges, settings


def _steps(whole: dict[str, Any], name: str, refuse: Refusal) -> list[Any]:
    """Return the steps of a section: those of its Sequence, or itself alone."""
    steps: list[Any] = []
    waiting: list[Any] = [whole.get(name)]
    while waiting:
        step = waiting.pop()
        if _type_of(step) == "Sequence":
            inner = step.get(STEPS[name])
            if not isinstance(inner, list):
                raise refuse(f"{name}.{STEPS[name]} is no list")
            waiting += reversed(inner)
        elif step is not None:
            steps.append(step)
    return steps


def _type_of(step: Any) -> Any:
    return step.get("type") if isinstance(step, dict) else step


def _prefix_space(steps: list[Any], refuse: Refusal) -> dict[str, Any]:
    """Return the setting that a pre_tokenizer stands for, which is to be ByteLevel's."""
    kinds = [_type_of(step) for step in steps]
    if kinds != ["ByteLevel"]:
        shown = " and ".join(map(repr, kinds)) or None
        raise refuse(f"pre_tokenizer.type is {shown!s:.100}, not 'ByteLevel'")
    for name in ("use_regex", "add_prefix_space"):
        value = steps[0].get(name)
        if value not in (True, None) and (name == "use_regex" or value is not False):
            raise refuse(f"pre_tokenizer.{name} is {value!r:.100}, not True")
    return {"add_prefix_space": bool(steps[0].get("add_prefix_space"))}


def _truncation(whole: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the settings that the section on truncation stands for."""
    section = _section(whole, "truncation", TRUNCATION, path)
    side = section.get("direction")
    return {} if side is None else {"truncation_side": side.lower()}


def _padding(whole: dict[str, Any], path: Path, token_is_known: bool) -> dict[str, Any]:
    """Return the settings that the section on padding stands for."""
    section = _section(whole, "padding", PADDING, path)
    side, token = section.get("direction"), section.get("pad_token")
    settings = {} if side is None else {"padding_side": side.lower()}
    if token_is_known or token is None:
        return settings
    ids = _all_ids(whole)
    if ids.get(token) != section.get("pad_id", 0):
        raise ValueError(
            f"{path}: padding.pad_token is {token!r:.100}, which has the id "
            f"{ids.get(token)}, and padding.pad_id is {section.get('pad_id', 0)}; a "
            "pad_token in tokenizer_config.json would settle it"
        )
    return settings | {"pad_token": token}


def _section(
    whole: dict[str, Any], name: str, declared: Mapping[str, Kind], path: Path
) -> dict[str, Any]:
    """Return a section of tokenizer.json, its fields checked; {} if it is null."""
    section = {} if whole.get(name) is None else whole[name]
    if not isinstance(section, dict):
        raise ValueError(f"{path}: {name} is {section!r:.100}, and must be an object")
    check_fields(f"{path}: {name}", section, declared)
    return section


def _unknown(
    whole: dict[str, Any], config: Mapping[str, Any], refuse: Refusal
) -> dict[str, Any]:
    """Return the setting of unk_token, which matters if the vocabulary lacks a byte."""
    model, ids = whole["model"], _all_ids(whole)
    if set(bytes_to_unicode().values()) <= ids.keys():
        return {}
    token, other = model.get("unk_token"), config.get("unk_token")
    if token is None and "unk_token" in config and other is None:
        return {}  # an unknown byte is an error
    if not isinstance(token, str) or token not in ids:
        raise refuse(f"model.unk_token is {token!r:.100}, and its vocab lacks a byte")
    if model.get("fuse_unk"):
        raise refuse("model.fuse_unk is True, and its vocab lacks a byte")
    if other and AddedToken.of(other).content != token:
        raise refuse(
            f"model.unk_token is {token!r:.100}, and in tokenizer_config.json unk_token "
            f"is {other!r:.100}"
        )
    return {"unk_token": token}


def _all_ids(whole: dict[str, Any]) -> dict[str, int]:
    """Return {token: id} of the vocabulary and of the added tokens."""
    added = whole.get("added_tokens") or ()
    return whole["model"]["vocab"] | {token["content"]: token["id"] for token in added}


def whole_of(tokenizer: PreTrainedTokenizer) -> dict[str, Any]:
    """Return what tokenizer.json says of a tokenizer, as `read_whole` reads it."""
    added, ids = tokenizer.added_tokens_decoder, tokenizer.bpe.ids
    has_all_bytes = set(bytes_to_unicode().values()) <= ids.keys()
    template, post_processor = tokenizer.template(), None
    if template is not NOTHING:
        post_processor = section_of(template, tokenizer.convert_ids_to_tokens)
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, **asdict(token)} for id, token in added.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level
        | {"add_prefix_space": bool(tokenizer.add_prefix_space)},
        "post_processor": post_processor,
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None if has_all_bytes else tokenizer.unk_token,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": ids,
            "merges": tokenizer.bpe.written_merges(),
        },
    }
