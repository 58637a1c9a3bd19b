"""A model's name -> the local folder that holds its files.

- folders   names and folders; the Hugging Face Hub and its cache
- download  OpenAI's original files, or the Hub's, into a folder of one's own
"""

from .folders import (
    DATA,
    EMBEDDED_MODEL,
    HUB_IDS,
    config_file,
    model_folder,
    network_errors,
    options_of,
    require_huggingface_hub,
    tokenizer_folder,
    whole_folder,
)

__all__ = [
    "DATA",
    "EMBEDDED_MODEL",
    "HUB_IDS",
    "config_file",
    "model_folder",
    "network_errors",
    "options_of",
    "require_huggingface_hub",
    "tokenizer_folder",
    "whole_folder",
]
