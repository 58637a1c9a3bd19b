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
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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


def read_folder(folder: str | os.PathLike) -> tuple[Any, Any, dict[str, Any]]:
    """Return what a folder says of its tokenizer: (vocab, merges, settings).

    The first two are what GPT2Tokenizer takes as vocab_file and merges_file. The third is
    its keywords.
    """
    folder = Path(folder)
    config = _read(folder / "tokenizer_config.json")
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
        whole = _read(folder / "tokenizer.json")
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
        config |= _read(folder / "special_tokens_map.json")
        tokens = [config.get(role) for role in ROLES]
        tokens += config.get("additional_special_tokens") or ()
        special = {AddedToken.of(token).content for token in tokens if token}
        config["added_tokens_decoder"] = {
            id: AddedToken(content, special=content in special)
            for content, id in _read(folder / "added_tokens.json").items()
        } | {token["id"]: token for token in whole.get("added_tokens", ())}
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
    model = whole.get("model") or {}
    if not isinstance(model.get("vocab"), dict) or not isinstance(
        model.get("merges"), list
    ):
        raise ValueError(f"{path} has no model with a vocab and merges")


def path_in(folder: str | os.PathLike, name: str, prefix: str | None = None) -> Path:
    """Return the path of a file to write in a folder, which is made if it isn't there."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder, f"{prefix}-{name}" if prefix else name)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_whole(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _read(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, {} without the file."""
    return read_json(path) if path.is_file() else {}


def _first(folder: Path, names: Iterable[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)
