"""The files of a tokenizer, in the layouts that folders have them.

    OpenAI's                 encoder.json, vocab.bpe
    Hugging Face's           vocab.json, merges.txt
    Hugging Face's later     tokenizer.json, which has both and the added tokens

The file of ids may be missing where the merges are there: the ids follow from them.
Beside these, Hugging Face's folders have the settings in tokenizer_config.json and, if
from before 2023, in special_tokens_map.json and added_tokens.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..runtime.declared import (
    FLAG,
    ID,
    LENGTH,
    TEXT,
    Kind,
    check_fields,
    is_id,
    is_text,
    list_of,
    one_of,
    optional,
)
from ..runtime.files import read_json, write_whole
from .added_tokens import AddedToken
from .vocabulary import ROLES

IDS = ("vocab.json", "encoder.json")
MERGES = ("merges.txt", "vocab.bpe")
# What tokenizer_config.json may call GPT-2's tokenizer.
CLASSES = ("GPT2Tokenizer", "PreTrainedTokenizer", "TokenizersBackend")
# What it may say beside settings: about the folder and the program that wrote it.
PASSING = (
    "auto_map backend device_map init_inputs is_local local_files_only merges_file "
    "name_or_path special_tokens_map_file tokenizer_class tokenizer_file vocab_file"
).split()


# --- What the files may hold ---


def _is_token(value: Any) -> bool:
    """Say whether a value stands for a token: its text, or an object that describes it."""
    if not isinstance(value, dict):
        return is_text(value) and value != ""
    flags = [value.get(name) for name in ("single_word", "lstrip", "rstrip", "special")]
    flags = [flag for flag in [*flags, value.get("normalized")] if flag is not None]
    return _is_token(value.get("content", "")) and all(
        isinstance(flag, bool) for flag in flags
    )


def _decodes(errors: Any) -> bool:
    """Say whether this is the name of a way to decode bytes that are no UTF-8."""
    try:
        b"\xff".decode("utf-8", errors)
    except UnicodeDecodeError:  # "strict", say
        return True
    except (LookupError, TypeError, ValueError):
        return False
    return True


TOKEN = Kind("a token, which is a text or an object with its content", _is_token)
TOKENS = Kind(
    "a list of tokens, or an object of them",
    lambda value: (
        isinstance(value, list | dict)
        and all(map(_is_token, value.values() if isinstance(value, dict) else value))
    ),
)
# (A role may be "": it is taken by no token.)
ROLE = Kind(f"{TOKEN.words}, or null", lambda v: v in (None, "") or _is_token(v))
SIDE = one_of("right", "left")
SETTINGS: dict[str, Kind] = {
    "tokenizer_class": optional(TEXT),
    "errors": Kind("a name of what to do with bytes that are no UTF-8", _decodes),
    **dict.fromkeys(ROLES, ROLE),
    **dict.fromkeys(
        ("additional_special_tokens", "extra_special_tokens"), optional(TOKENS)
    ),
    **dict.fromkeys(
        ("add_prefix_space", "add_bos_token", "split_special_tokens"), optional(FLAG)
    ),
    "clean_up_tokenization_spaces": optional(FLAG),
    **dict.fromkeys(("model_max_length", "max_len"), optional(LENGTH)),
    **dict.fromkeys(("padding_side", "truncation_side"), SIDE),
    "added_tokens_decoder": Kind(
        "an object of ids, whole numbers from 0 on, and their tokens",
        lambda value: (
            isinstance(value, dict)
            and all(
                id.isascii() and id.isdigit() and is_id(int(id[:20])) for id in value
            )
            and all(
                isinstance(token, dict) and _is_token(token) for token in value.values()
            )
        ),
    ),
    **dict.fromkeys(("bpe", "self"), Kind("left out", lambda value: False)),
}
ADDED_TOKEN = Kind(
    "an object with an id, a whole number from 0 on, and a content",
    lambda value: (
        isinstance(value, dict) and _is_token(value) and is_id(value.get("id"))
    ),
)
WHOLE: dict[str, Kind] = {"added_tokens": optional(list_of(ADDED_TOKEN))}
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


def read_folder(folder: str | os.PathLike) -> tuple[Any, Any, dict[str, Any]]:
    """Return what a folder says of its tokenizer: (vocab, merges, settings).

    The first two are what GPT2Tokenizer takes as vocab_file and merges_file. The third is
    its keywords.
    """
    folder = Path(folder)
    config = _read(folder / "tokenizer_config.json", SETTINGS)
    kind = config.get("tokenizer_class") or CLASSES[0]
    if kind.removesuffix("Fast") not in CLASSES:
        raise ValueError(
            f"{folder / 'tokenizer_config.json'} is of a {kind}, and only GPT-2's "
            "tokenizer can be read"
        )
    vocab: Any = _first(folder, IDS)
    merges: Any = _first(folder, MERGES)
    whole: dict[str, Any] = {}
    if merges is None or "added_tokens_decoder" not in config:
        whole = _read(folder / "tokenizer.json", WHOLE)
    if whole:
        check_byte_level_bpe(whole, folder / "tokenizer.json")
    elif merges is None:
        raise FileNotFoundError(
            f"{folder} has no merges.txt, vocab.bpe or tokenizer.json, so no tokenizer "
            'can be made from it; GPT-2\'s own is GPT2Tokenizer.from_pretrained("gpt2")'
        )
    if merges is None:
        vocab, merges = whole["model"]["vocab"], whole["model"]["merges"]
        merges = [m if isinstance(m, str) else " ".join(m) for m in merges]
    return vocab, merges, _settings(folder, config, whole)


def _settings(folder: Path, config: dict, whole: dict) -> dict[str, Any]:
    """Return the keywords that the files beside the vocabulary stand for."""
    if "added_tokens_decoder" not in config:
        config |= _read(folder / "special_tokens_map.json", SETTINGS)
        tokens = [config.get(role) for role in ROLES]
        tokens += config.get("additional_special_tokens") or ()
        special = {AddedToken.of(token).content for token in tokens if token}
        config["added_tokens_decoder"] = {
            id: AddedToken(content, special=content in special)
            for content, id in _added_ids(folder / "added_tokens.json").items()
        } | {token["id"]: token for token in whole.get("added_tokens") or ()}
    # The name of the additional ones in transformers 5.
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    if "model_max_length" not in config:
        model = _read(folder / "config.json") or _read(folder / "hparams.json")
        config["model_max_length"] = model.get("n_positions", model.get("n_ctx"))
    return {name: value for name, value in config.items() if name not in PASSING}


# What GPT-2's byte-level BPE says in tokenizer.json; what is not there is None.
BYTE_LEVEL_BPE: dict[tuple[str, ...], list[Any]] = {
    ("normalizer",): [None],
    ("pre_tokenizer", "type"): ["ByteLevel"],
    ("pre_tokenizer", "use_regex"): [True, None],
    ("model", "type"): ["BPE", None],
    ("model", "dropout"): [None],
    ("model", "continuing_subword_prefix"): ["", None],
    ("model", "end_of_word_suffix"): ["", None],
    ("model", "byte_fallback"): [False, None],
    ("model", "ignore_merges"): [False, None],
}


def check_byte_level_bpe(whole: dict[str, Any], path: Path) -> None:
    """Refuse a tokenizer.json that does anything but GPT-2's byte-level BPE."""
    for keys, expected in BYTE_LEVEL_BPE.items():
        found: Any = whole
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if found not in expected:
            raise ValueError(
                f"{path} is not GPT-2's byte-level BPE: its {'.'.join(keys)} is "
                f"{found!r}, not {expected[0]!r}"
            )
    model = whole.get("model")
    if not isinstance(model, dict) or not MODEL.keys() <= model.keys():
        raise ValueError(f"{path} has no model with a vocab and merges")
    check_fields(f"{path}: model", model, MODEL)


def path_in(folder: str | os.PathLike, name: str, prefix: str | None = None) -> Path:
    """Return the path of a file to write in a folder, which is made if it isn't there."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder, f"{prefix}-{name}" if prefix else name)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_whole(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _read(path: Path, declared: Mapping[str, Kind] | None = None) -> dict[str, Any]:
    """Return the JSON object in a file, its fields checked; {} without the file."""
    content = read_json(path) if path.is_file() else {}
    check_fields(path, content, declared or {})
    return content


def _added_ids(path: Path) -> dict[str, int]:
    """Return {text: id} of added_tokens.json, {} without the file."""
    ids = _read(path)
    check_fields(path, ids, dict.fromkeys(ids, ID))
    for text in ids:
        if not _is_token(text):
            raise ValueError(f"{path}: {text!r:.100} is no text of a token")
    return ids


def _first(folder: Path, names: Iterable[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)
