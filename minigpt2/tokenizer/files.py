"""The files of a tokenizer, in the layouts that folders have them.

    OpenAI's                 encoder.json, vocab.bpe
    Hugging Face's           vocab.json, merges.txt
    Hugging Face's later     tokenizer.json, which has both and the added tokens

The file of ids may be missing where the merges are there: the ids follow from them.
Beside these, Hugging Face's folders have the settings in tokenizer_config.json and, if
from before 2023, in special_tokens_map.json and added_tokens.json.

Where there is a tokenizer.json, it goes before the other files of vocabularies, and its
post_processor before add_bos_token and add_eos_token in tokenizer_config.json, as in
transformers 5. All in it that changes ids is applied or refused by name. Its padding and
truncation say how, and a call says when, as in transformers.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bpe import bytes_to_unicode
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
from .templates import NOTHING, Refusal, section_of, template_of
from .vocabulary import ROLES

if TYPE_CHECKING:
    from .pretrained import PreTrainedTokenizer

logger = logging.getLogger("minigpt2.tokenizer")

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
        ("add_prefix_space", "add_bos_token", "add_eos_token", "split_special_tokens"),
        optional(FLAG),
    ),
    "clean_up_tokenization_spaces": optional(FLAG),
    **dict.fromkeys(("model_max_length", "max_len"), optional(LENGTH)),
    **dict.fromkeys(("padding_side", "truncation_side"), SIDE),
    "model_specific_special_tokens": optional(
        Kind("an object of tokens", lambda v: isinstance(v, dict) and TOKENS.holds(v))
    ),
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
    **dict.fromkeys(
        ("bpe", "self", "post_processor", "vocab", "merges"),
        Kind("left out", lambda value: False),
    ),
}
ADDED_TOKEN = Kind(
    "an object with an id, a whole number from 0 on, and a content",
    lambda value: (
        isinstance(value, dict) and _is_token(value) and is_id(value.get("id"))
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
    path = folder / "tokenizer.json"
    whole: dict[str, Any] = {}
    if path.is_file():
        whole = _read(path, WHOLE)
        vocab, merges, said = read_whole(whole, path, config.get("pad_token"))
        _let_decide(config, said, path)
    elif merges is None:
        raise FileNotFoundError(
            f"{folder} has no merges.txt, vocab.bpe or tokenizer.json, so no tokenizer "
            'can be made from it; GPT-2\'s own is GPT2Tokenizer.from_pretrained("gpt2")'
        )
    return vocab, merges, _settings(folder, config, whole)


def _let_decide(config: dict[str, Any], said: dict[str, Any], path: Path) -> None:
    """Complete tokenizer_config.json by what tokenizer.json says."""
    for flag in ("add_bos_token", "add_eos_token"):
        if config.pop(flag, None) and "post_processor" not in said:
            logger.warning(
                "%s has no post_processor that adds tokens, so %s in "
                "tokenizer_config.json has no effect; from_pretrained(..., %s=True) "
                "has one",
                *(path, flag, flag),
            )
    theirs, ours = said.get("unk_token"), config.get("unk_token")
    if theirs and ours and AddedToken.of(ours).content != theirs:
        raise ValueError(
            f"{path}: model.unk_token is {theirs!r:.100}, and in tokenizer_config.json "
            f"unk_token is {ours!r:.100}"
        )
    for name, value in said.items():
        if config.get(name) is None:
            config[name] = value


def _settings(folder: Path, config: dict, whole: dict) -> dict[str, Any]:
    """Return the keywords that the files beside the vocabulary stand for."""
    added = {token["id"]: token for token in whole.get("added_tokens") or ()}
    if "added_tokens_decoder" not in config:
        config |= _read(folder / "special_tokens_map.json", SETTINGS)
        tokens = [config.get(role) for role in ROLES]
        for name in ("additional_special_tokens", "extra_special_tokens"):
            more = config.get(name) or ()
            tokens += more.values() if isinstance(more, dict) else more
        special = {AddedToken.of(token).content for token in tokens if token}
        config["added_tokens_decoder"] = {
            id: AddedToken(content, special=content in special)
            for content, id in _added_ids(folder / "added_tokens.json").items()
        } | added
    else:
        decoder = {int(id): t for id, t in config["added_tokens_decoder"].items()}
        for id in added.keys() & decoder.keys():
            one, other = added[id]["content"], decoder[id]["content"]
            if one != other:
                raise ValueError(
                    f"{folder / 'tokenizer.json'}: the added token {id} is {one!r:.50}, "
                    f"and in tokenizer_config.json it is {other!r:.50}"
                )
        config["added_tokens_decoder"] = added | decoder
    # (Under this name transformers 5 saves them.)
    own = config.pop("model_specific_special_tokens", None)
    if own and not config.get("extra_special_tokens"):
        config["extra_special_tokens"] = own
    # The name of the additional ones in transformers 5.
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    if "model_max_length" not in config:
        sizes = dict.fromkeys(("n_positions", "n_ctx"), optional(LENGTH))
        model: dict[str, Any] = {}
        for name in ("hparams.json", "config.json"):
            model = _read(folder / name, sizes) or model
        config["model_max_length"] = model.get("n_positions", model.get("n_ctx"))
    return {name: value for name, value in config.items() if name not in PASSING}


# --- tokenizer.json ---

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
    whole: dict[str, Any], path: Path, pad_token: object = None
) -> tuple[dict[str, int], list[str], dict[str, Any]]:
    """Return what tokenizer.json says: (vocab, merges, settings).

    Args:
        pad_token: what another file says, which goes before the padding's.

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
    settings |= _truncation(whole, path)
    settings |= _padding(whole, path, pad_token is not None)
    settings |= _unknown(known, refuse)
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
    ids = whole["model"]["vocab"] | {
        added["content"]: added["id"] for added in whole.get("added_tokens") or ()
    }
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


def _unknown(model: dict[str, Any], refuse: Refusal) -> dict[str, Any]:
    """Return the setting of unk_token, where the vocabulary lacks a byte."""
    vocab, token = model["vocab"], model.get("unk_token")
    if all(character in vocab for character in bytes_to_unicode().values()):
        return {}
    if not isinstance(token, str) or token not in vocab:
        raise refuse(f"model.unk_token is {token!r:.100}, and its vocab lacks a byte")
    if model.get("fuse_unk"):
        raise refuse("model.fuse_unk is True, and its vocab lacks a byte")
    return {"unk_token": token}


def whole_of(tokenizer: PreTrainedTokenizer) -> dict[str, Any]:
    """Return what tokenizer.json says of a tokenizer, as `read_whole` reads it."""
    added, ids = tokenizer.added_tokens_decoder, tokenizer.bpe.ids
    template, unknown = tokenizer.template(), tokenizer.unk_token
    post_processor = None
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
            "unk_token": unknown if unknown in ids else None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": ids,
            "merges": tokenizer.bpe.written_merges(),
        },
    }


# --- files of any kind ---


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
