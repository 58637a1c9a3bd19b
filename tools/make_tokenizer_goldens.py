"""Make tests/data/tokenizer_goldens.json: what transformers' tokenizers return, frozen.

    python tools/make_tokenizer_goldens.py

needs transformers. Run with 4.57.6, whose GPT2Tokenizer is in Python, it makes "batches"
(calls of the tokenizer with random options, and their results or errors) and "added"
(texts with added tokens). Run with 5.23.0 it makes "offsets". Each run keeps what the
other made. The inputs are drawn from a fixed seed.
"""

import json
import logging
import random
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers

from minigpt2 import GPT2Tokenizer

GOLDENS = Path(__file__).parent.parent / "tests" / "data" / "tokenizer_goldens.json"
END = "<|endoftext|>"
WORDS = ["one", " two", "three", " fourteen", "\n", "é", "😀", " 中文", END]
OPTIONS = {
    "add_special_tokens": (True, False),
    "padding": (False, True, "longest", "max_length"),
    "truncation": (None, False, True, "longest_first", "only_first", "only_second"),
    "max_length": range(1, 13),
    "stride": range(4),
    "pad_to_multiple_of": (1, 2, 3),
    "padding_side": ("right", "left"),
    "return_token_type_ids": (True, False),
    "return_attention_mask": (True, False),
    "return_special_tokens_mask": (True, False),
    "return_overflowing_tokens": (True, False),
}
SETTINGS = {
    "add_bos_token": (True, False),
    "add_prefix_space": (True, False),
    "padding_side": ("right", "left"),
    "truncation_side": ("right", "left"),
    "model_max_length": (5, 1024, int(1e30)),
}
ADDED = [
    {"content": "<x>"},
    {"content": "<l>", "lstrip": True},
    {"content": "<r>", "rstrip": True},
    {"content": "<b>", "lstrip": True, "rstrip": True, "special": True},
    {"content": "<é 中>", "special": True},
    {"content": "<x><x>"},
]


def give_up(message: str) -> None:
    """Raise what transformers only logs before it returns a text that is too long."""
    raise ValueError(message)


def text(draw: random.Random, words: list[str] = WORDS) -> str:
    """Draw up to seven words."""
    return "".join(draw.choices(words, k=draw.randint(0, 7)))


def batches(
    tokenizer: transformers.GPT2Tokenizer, draw: random.Random
) -> Iterator[dict[str, Any]]:
    """Yield random calls of the tokenizer, with their results or errors."""
    for _ in range(200):
        rows = [text(draw) for _ in range(draw.randint(1, 3))]
        pairs = [text(draw) for _ in rows] if draw.random() < 0.4 else None
        row = [rows, pairs] if draw.random() < 0.5 else [rows[0], pairs and pairs[0]]
        how = {k: draw.choice(v) for k, v in OPTIONS.items() if draw.random() < 0.4}
        setting = {name: draw.choice(values) for name, values in SETTINGS.items()}
        for name, value in setting.items():
            setattr(tokenizer, name, value)
        result = error = None
        try:
            result = dict(tokenizer(*row, **how))
        except (ValueError, TypeError) as raised:
            error = str(raised)
        yield {
            "input": row,
            "options": how,
            "setting": setting,
            "result": result,
            "error": error,
        }


def added(
    tokenizer: transformers.GPT2Tokenizer, draw: random.Random
) -> Iterator[dict[str, Any]]:
    """Yield random texts with added tokens in them, their ids, and the way back."""
    for fields in ADDED:
        token = transformers.AddedToken(**fields)
        tokenizer.add_tokens([token], special_tokens=fields.get("special", False))
    words = [*WORDS, " ", "  ", ".", *(fields["content"] for fields in ADDED)]
    for _ in range(60):
        given = text(draw, words)
        ids = tokenizer.encode(given)
        yield {
            "text": given,
            "ids": ids,
            "decoded": tokenizer.decode(ids, spaces_between_special_tokens=False),
            "with_spaces": tokenizer.decode(ids, spaces_between_special_tokens=True),
            "skipped": tokenizer.decode(
                ids, skip_special_tokens=True, spaces_between_special_tokens=False
            ),
        }


def offsets(
    tokenizer: transformers.GPT2Tokenizer, draw: random.Random
) -> Iterator[dict[str, Any]]:
    """Yield random texts, their ids, and where in the text each token stands."""
    for _ in range(40):
        given = text(draw)
        encoded = tokenizer(given, return_offsets_mapping=True)
        yield {
            "text": given,
            "ids": encoded["input_ids"],
            "offsets": encoded["offset_mapping"],
        }


def main() -> None:
    """Write what the installed version makes, and keep the rest."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        GPT2Tokenizer.from_pretrained("gpt2").save_vocabulary(folder)

        def fresh():
            return transformers.GPT2Tokenizer.from_pretrained(folder, pad_token=END)

        goldens = json.loads(GOLDENS.read_text("utf-8")) if GOLDENS.exists() else {}
        version = transformers.__version__
        if version.startswith("4."):
            transformers.tokenization_utils_base.logger.error = give_up
            goldens["made by"] = {"batches, added": f"transformers {version}"} | (
                goldens.get("made by", {})
            )
            goldens["batches"] = list(batches(fresh(), random.Random(0)))
            goldens["tokens"] = ADDED
            goldens["added"] = list(added(fresh(), random.Random(1)))
        elif version.startswith("5."):
            goldens["made by"] = {"offsets": f"transformers {version}"} | (
                goldens.get("made by", {})
            )
            goldens["offsets"] = list(offsets(fresh(), random.Random(2)))
        else:
            sys.exit(f"transformers {version} is neither 4 nor 5")
    lines = []
    for name, value in goldens.items():
        if isinstance(value, list):
            rows = ",\n".join("  " + json.dumps(row) for row in value)
            lines.append(f' "{name}": [\n{rows}\n ]')
        else:
            lines.append(f' "{name}": {json.dumps(value)}')
    GOLDENS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
