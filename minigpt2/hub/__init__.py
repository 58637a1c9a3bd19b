"""A model's name -> the local folder that holds its files.

In reading order:

- archive   what was published: names, sizes, files and addresses
- folders   a name or a folder -> a folder; the Hugging Face Hub and its cache
- transfer  an address -> a file, resumed where it broke off
- download  OpenAI's original files, or the Hub's, into a folder of one's own
"""

from .archive import CKPT_NAME, CONFIG_NAME, HPARAMS_NAME, HUB_IDS
from .folders import (
    DATA,
    EMBEDDED_MODEL,
    Options,
    config_file,
    model_folder,
    options_of,
    tokenizer_folder,
    whole_folder,
)

__all__ = [
    "CKPT_NAME",
    "CONFIG_NAME",
    "DATA",
    "EMBEDDED_MODEL",
    "HPARAMS_NAME",
    "HUB_IDS",
    "Options",
    "config_file",
    "model_folder",
    "options_of",
    "tokenizer_folder",
    "whole_folder",
]
