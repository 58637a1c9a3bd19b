"""A model's name -> a local folder that holds its files."""

from pathlib import Path

DATA = Path(__file__).parent / "data"
RELEASED = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")


def tokenizer_folder(name_or_path, **hub_options):
    """The folder with the tokenizer's files of a model, as a pathlib.Path."""
    if name_or_path in RELEASED:
        return DATA / "gpt2"
    if name_or_path == "shakespeare-1m":
        return DATA / "shakespeare-1m"
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    raise FileNotFoundError(f"{name_or_path!r} is neither a folder nor a known name")
