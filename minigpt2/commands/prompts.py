"""A file of prompts for `minigpt2 generate`: a line each, as text or as JSON Lines."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from . import read_text, says_where

KEYS = ("prompt", "id", "max_new_tokens", "seed")  # of a JSON line


@dataclass
class Prompt:
    """A text to continue, and what its line says besides."""

    text: str
    index: int = 0  # its line's, from 0; blank lines count
    line: int | None = None  # its line's number, from 1, if it is from a file
    id: Any = None  # is given back with the result
    max_new_tokens: int | None = None
    seed: int | None = None

    def __str__(self) -> str:
        """Say in a message which prompt it is."""
        return "the prompt" if self.line is None else f"line {self.line}: the prompt"


def read_prompts(path: str, format: str | None = None) -> list[Prompt]:
    r"""Read a file of prompts.

    A line ends with \n or \r\n and nowhere else. Blank lines are passed over.

    Args:
        path: '-' is standard input.
        format: "text" or "jsonl"; None is jsonl if the first line begins as an object or
            a string of JSON.

    Raises:
        ValueError: no UTF-8, no prompts, or a line that is none; which line, and why.
    """
    name = says_where(path)
    lines = dict(_lines(read_text(path)))
    if not lines:
        raise ValueError(f"{name} has no prompts")
    if format is None:
        first = next(iter(lines.values())).lstrip()
        format = "jsonl" if first[0] in '{"' else "text"
    if format == "text":
        return [Prompt(text, index, index + 1) for index, text in lines.items()]
    try:
        return [_prompt_of(line, index) for index, line in lines.items()]
    except ValueError as error:
        raise ValueError(f"{name}, {error}") from None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    r"""Yield (index, line) of the lines that are not blank, without \n or \r\n."""
    for index, line in enumerate(text.split("\n")):
        if line.strip():
            yield index, line.removesuffix("\r")


def _prompt_of(line: str, index: int) -> Prompt:
    """Return the prompt of a JSON line: a string, or an object with some of KEYS."""
    where = f"line {index + 1}"
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, str):
        return Prompt(value, index, index + 1)
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
        raise ValueError(
            f'{where} is neither a JSON string nor {{"prompt": "..."}}: {line[:60]}'
            " (if the file is text, give --format text)"
        )
    unknown = _listed(sorted(value.keys() - set(KEYS)))
    if unknown:
        raise ValueError(f"{where} has the key {unknown}; the keys are {_listed(KEYS)}")
    for key, least in (("max_new_tokens", 1), ("seed", 0)):
        number = value.get(key)
        if number is not None and (type(number) is not int or number < least):
            raise ValueError(
                f"{where}: {key!r} must be a whole number from {least} on, not {number!r}"
            )
    return Prompt(value.pop("prompt"), index, index + 1, **value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
