"""A model's name or folder -> the local folder that holds its files.

A folder is taken as it is. `shakespeare-1m` is the small model inside the package, and
the tokenizers of GPT-2's four sizes are there too, so these names work with no network.
"""

import os
from pathlib import Path

from .config import CONFIG_NAME, GPT2_SIZES, HPARAMS_NAME

DATA = Path(__file__).parent / "data"
EMBEDDED_MODEL = "shakespeare-1m"
OPTIONS = ("cache_dir", "revision", "local_files_only", "force_download", "token")


def options_of(kwargs):
    """Take the options of this module out of a dict of keywords; return them."""
    return {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}


def model_folder(name_or_path, **options):
    """Return the folder of a model. OSError, saying what would do, if there is none."""
    path = Path(name_or_path)
    if path.is_dir():
        return path
    if os.fspath(name_or_path) == EMBEDDED_MODEL:
        return DATA / EMBEDDED_MODEL
    raise FileNotFoundError(
        f"there is no folder {os.fspath(name_or_path)!r}; the one model that comes "
        f"with the package is {EMBEDDED_MODEL!r}. A model folder is OpenAI's "
        f"({HPARAMS_NAME}, model.ckpt.*) or Hugging Face's ({CONFIG_NAME}, "
        "model.safetensors)"
    )


def tokenizer_folder(name_or_path):
    """Return the folder of a tokenizer: a model's, or GPT-2's own vocabulary."""
    if not Path(name_or_path).is_dir() and os.fspath(name_or_path) in GPT2_SIZES:
        return DATA / "gpt2"
    return model_folder(name_or_path)


def config_file(name_or_path, **options):
    """Return the path of a model's config.json or hparams.json, or that path."""
    if Path(name_or_path).is_file():
        return Path(name_or_path)
    folder = model_folder(name_or_path, **options)
    for name in (CONFIG_NAME, HPARAMS_NAME):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} holds neither {CONFIG_NAME} nor {HPARAMS_NAME}")
