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
truncation say how, and a call says when, as in transformers. See tokenizer_json.py.
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
    one_of,
    optional,
)
from ..runtime.files import read_json, write_whole
from .added_tokens import AddedToken, is_token
from .arguments import decodes
from .tokenizer_json import WHOLE, read_whole
from .vocabulary import ROLES, logger

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


TOKEN = Kind("a token, which is a text or an object with its content", is_token)
TOKENS = Kind(
    "a list of tokens, or an object of them",
    lambda value: (
        isinstance(value, list | dict)
        and all(map(is_token, value.values() if isinstance(value, dict) else value))
    ),
)
# (A role may be "": it is taken by no token.)
ROLE = Kind(f"{TOKEN.words}, or null", lambda v: v in (None, "") or is_token(v))
SIDE = one_of("right", "left")
SETTINGS: dict[str, Kind] = {
    "tokenizer_class": optional(TEXT),
    "errors": Kind("a name of what to do with bytes that are no UTF-8", decodes),
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
                isinstance(token, dict) and is_token(token) for token in value.values()
            )
        ),
    ),
    **dict.fromkeys(
        ("bpe", "self", "post_processor", "vocab", "merges"),
        Kind("left out", lambda value: False),
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
        vocab, merges, said = read_whole(whole, path, config)
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
        if not is_token(text):
            raise ValueError(f"{path}: {text!r:.100} is no text of a token")
    return ids


def _first(folder: Path, names: Iterable[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)
