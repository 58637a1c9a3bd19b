"""Is this GPT-2? Compare what a model computes with the numbers that were published.

`data/published.json` holds numbers that other projects computed with the released
parameters and published: greedy continuations, slices of hidden states and logits,
losses, ids of texts, SHA-256 of files; each with its source. A model is recognized by
the sizes in its configuration, and then all rows of its name are checked.

A file of one's own has the same form: `models` gives {name: {field of the configuration:
value}}, and `rows` is a list of

    {"models": [names], "source": "where from", "kind": one of KINDS, ...}

The docstring of a kind's function below says what else its rows hold. `prompt` is a text
or a list of ids; `input_ids`, `attention_mask` and `labels` are [B, T]; `at` is an index
as NumPy writes it ("0, 1:4, :5"); `tolerance` is absolute.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import hub
from ..config import GPT2Config
from ..model.gpt2 import GPT2LMHeadModel
from ..runtime.declared import (
    FLAG,
    ID,
    TEXT,
    Kind,
    check_fields,
    is_id,
    list_of,
    one_of,
)
from ..runtime.files import read_json, sha256
from ..runtime.progress import Progress
from ..tokenizer import GPT2Tokenizer
from .score import token_log_probs

PUBLISHED = hub.DATA / "published.json"
HOLDS, FAILS, SKIPPED = "holds", "FAILS", "skipped"

Row = Mapping[str, Any]


@dataclass
class Result:
    """One row and what became of it, as text to print."""

    kind: str  # one of KINDS
    what: str
    source: str
    expected: str
    got: str
    difference: str
    verdict: str  # HOLDS, FAILS, or SKIPPED, where the model has nothing to check


class Finding(NamedTuple):
    """What a kind's function finds out about a row."""

    what: str
    expected: str
    got: str
    difference: str
    holds: bool | None  # None: the model has nothing to check


class Subject:
    """A model under verification. Its parts are loaded when a row asks for them."""

    def __init__(self, folder: str | os.PathLike, dtype: npt.DTypeLike):
        self.folder = Path(folder)
        self.dtype = dtype
        self.config = GPT2Config.from_pretrained(self.folder)

    @cached_property
    def model(self) -> GPT2LMHeadModel:
        return GPT2LMHeadModel.from_pretrained(self.folder, dtype=self.dtype)

    @cached_property
    def own_tokenizer(self) -> GPT2Tokenizer | None:
        try:
            return GPT2Tokenizer.from_pretrained(self.folder)
        except FileNotFoundError:
            return None

    @cached_property
    def tokenizer(self) -> GPT2Tokenizer:
        return self.own_tokenizer or GPT2Tokenizer.from_pretrained("gpt2")

    def ids(self, prompt: str | list[int]) -> list[int]:
        """Return the ids of a prompt, which may be ids already."""
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt

    def continued(
        self, prompt: str | list[int], length: int, **options: Any
    ) -> list[int]:
        """Return a prompt and its continuation, `length` ids in all.

        Args:
            options: of `generate`; without any the continuation is greedy.
        """
        ids = np.array([self.ids(prompt)])
        options = {"do_sample": False, "repetition_penalty": 1.0, **options}
        return self.model.generate(ids, max_length=length, **options)[0].tolist()


def verify(
    name_or_path: str | os.PathLike,
    numbers: str | os.PathLike | None = None,
    dtype: npt.DTypeLike = np.float32,
) -> Iterator[Result]:
    """Check a model against published numbers, and yield a Result for each.

    Args:
        name_or_path: a model folder, or a name that `minigpt2.hub` knows.
        numbers: a file of numbers; None is the one in the package.
        dtype: float32 or float64, in which the model computes.

    Raises:
        ValueError: no numbers are known for a model of these sizes, or the file of
            numbers is malformed; besides, what loading a model raises.
    """
    numbers = PUBLISHED if numbers is None else numbers
    published = read_numbers(numbers)
    subject = Subject(hub.whole_folder(name_or_path), dtype)
    name = recognize(subject.config, published["models"])
    subject.model  # noqa: B018  one that can't be loaded is an error, not a failed row
    rows = [row for row in published["rows"] if name in row["models"]]
    with Progress("verifying", len(rows)) as progress:
        for row in rows:
            progress.step(row["source"])
            yield check(row, subject)


def read_numbers(path: str | os.PathLike) -> dict[str, Any]:
    """Return the content of a file of numbers; ValueError if it is malformed."""
    content = read_json(path)
    check_fields(path, content, FILE)
    for name in FILE:
        if name not in content:
            raise ValueError(f"{path} has no {name}, so it is no file of numbers")
    for number, row in enumerate(content["rows"]):
        where = f"{path}: row {number}"
        for name in ("models", "source", "kind"):
            if name not in row:
                raise ValueError(f"{where} has no {name}")
        check_fields(where, row, ROW)
    return content


def recognize(config: GPT2Config, models: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the name of the model that has this configuration's sizes."""
    for name, fields in models.items():
        if all(getattr(config, field, None) == fields[field] for field in fields):
            return name
    sizes = {
        field: getattr(config, field)
        for field in ("vocab_size", "n_positions", "n_layer", "n_embd", "n_head")
    }
    raise ValueError(
        f"no numbers are known for a model of these sizes: {sizes}. There are some for "
        + ", ".join(models)
    )


# An id that the model lacks, a place that an array lacks, an option of another form, a
# number that no float holds, more beams than there is memory for, a damaged file.
CAN_FAIL = (ValueError, IndexError, TypeError, ArithmeticError, MemoryError, OSError)


def check(row: Row, subject: Subject) -> Result:
    """Check one row."""
    try:
        found = KINDS[row["kind"]](row, subject)
    except KeyError as error:
        raise ValueError(f"a row of {row['source']!r} lacks {error}") from None
    except CAN_FAIL as error:
        found = Finding(row["kind"], "", str(error), "", False)
    *texts, holds = found
    verdict = SKIPPED if holds is None else HOLDS if holds else FAILS
    what, expected, got, difference = texts
    return Result(row["kind"], what, row["source"], expected, got, difference, verdict)


# --- The kinds of rows: a function each.


def _file(row: Row, subject: Subject) -> Finding:
    """file, bytes, sha256; only (optional, bool): no other file may have this name.

    A checkpoint may be written anew, with other bytes and the same numbers, so a file of
    another size is skipped. Of a vocabulary there is one version only.
    """
    path = subject.folder / row["file"]
    what, expected = f"SHA-256 of {path.name}", row["sha256"][:16] + "…"
    if not path.is_file():
        return Finding(what, expected, "no such file", "", None)
    size = path.stat().st_size
    if size != row["bytes"]:
        difference = f"{size - row['bytes']:,} bytes"
        holds = False if row.get("only") else None
        return Finding(what, expected, "another file", difference, holds)
    got = sha256(path)
    same = got == row["sha256"]
    difference = "none" if same else "other bytes"
    return Finding(what, expected, got[:16] + "…", difference, same)


def _parameters(row: Row, subject: Subject) -> Finding:
    """value: the number of parameters, tied ones counted once."""
    got = subject.model.num_parameters()
    difference = f"{got - row['value']:,}"
    what = "number of parameters"
    return Finding(
        what, f"{row['value']:,}", f"{got:,}", difference, got == row["value"]
    )


def _tokenizer(row: Row, subject: Subject) -> Finding:
    """vectors: [[text, ids], ...]."""
    vectors = row["vectors"]
    what = f"ids of {len(vectors)} texts"
    if subject.own_tokenizer is None:
        return Finding(what, "", "no tokenizer here", "", None)
    encode = subject.own_tokenizer.encode
    wrong = [(text, ids) for text, ids in vectors if encode(text) != ids]
    difference = f"{len(wrong)} of {len(vectors)}"
    if not wrong:
        return Finding(what, "as published", "the same", difference, True)
    text, ids = wrong[0]
    return Finding(f"{what}: {text!r}", str(ids), str(encode(text)), difference, False)


def _greedy(row: Row, subject: Subject) -> Finding:
    """prompt; ids, or text and length; options (optional): of `generate`.

    `ids` or `text` is the whole sequence, and `length` is how many ids `text` has.
    """
    prompt = subject.ids(row["prompt"])
    decode = subject.tokenizer.decode
    options = row.get("options", {})
    how = ", ".join(f"{name}={value}" for name, value in options.items()) or "greedy"
    what = f"{how} after {decode(prompt)!r}"
    length = len(row["ids"]) if "ids" in row else row["length"]
    got = subject.continued(prompt, length, **options)
    if "ids" in row:
        expected = row["ids"]
        same = got == expected
    else:
        expected = subject.ids(row["text"])
        same = decode(got) == row["text"]
    new = len(prompt)
    difference = "none" if same else _first_difference(expected, got, subject)
    return Finding(
        what, repr(decode(expected[new:])), repr(decode(got[new:])), difference, same
    )


def _first_difference(expected: list[int], got: list[int], subject: Subject) -> str:
    """Say where two continuations part, and how close the two logits are there."""
    pairs = enumerate(zip(expected, got))
    at = next((i for i, (one, other) in pairs if one != other), 0)
    if at == 0:  # one is the beginning of the other, or the prompts differ
        return f"{len(expected)} ids, not {len(got)}"
    logits = subject.model(np.array([expected[:at]]), logits_to_keep=1).logits[0, -1]
    gap = logits[got[at]] - logits[expected[at]]
    return f"at id {at}, logits {gap:.2g} apart"


def _hidden(row: Row, subject: Subject) -> Finding:
    """input_ids, attention_mask (optional), at, values, tolerance: the last hidden
    states, after ln_f.
    """
    output = subject.model.transformer(
        np.array(row["input_ids"]), attention_mask=row.get("attention_mask")
    )
    return _compared_at("last_hidden_state", output.last_hidden_state, row)


def _logits(row: Row, subject: Subject) -> Finding:
    """input_ids, attention_mask (optional), at, values, tolerance."""
    output = subject.model(
        np.array(row["input_ids"]), attention_mask=row.get("attention_mask")
    )
    return _compared_at("logits", output.logits, row)


def _argmax(row: Row, subject: Subject) -> Finding:
    """input_ids, values [B, T]: the likeliest id after each position."""
    logits = subject.model(np.array(row["input_ids"])).logits
    expected, got = np.array(row["values"]), logits.argmax(-1)
    wrong = np.argwhere(got != expected).tolist()
    first = tuple(wrong[0]) if wrong else (0, slice(3))
    difference = f"{len(wrong)} of {expected.size}"
    what = f"likeliest ids {list(expected.shape)}"
    return Finding(what, str(expected[first]), str(got[first]), difference, not wrong)


def _loss(row: Row, subject: Subject) -> Finding:
    """input_ids, labels (optional: the ids themselves), value, tolerance: nats an id."""
    ids = np.array(row["input_ids"])
    loss = subject.model(ids, labels=np.array(row.get("labels", ids))).loss
    return _compared(f"loss of ids {list(ids.shape)}", loss, row["value"], row)


def _greedy_logits(row: Row, subject: Subject) -> Finding:
    """prompt, values, tolerance: the logits of the ids of the greedy continuation."""
    ids, start = _greedy_ids(row, subject)
    chosen = np.array(ids[start:])
    output = subject.model(np.array([ids[:-1]]), logits_to_keep=len(chosen))
    logits = np.take_along_axis(output.logits[0], chosen[:, None], -1)[:, 0]
    what = f"logits of what follows {row['prompt']!r}"
    return _compared(what, logits, row["values"], row)


def _greedy_log_probs(row: Row, subject: Subject) -> Finding:
    """prompt, values, tolerance: the same as log-probabilities."""
    ids, start = _greedy_ids(row, subject)
    parts = token_log_probs(subject.model, ids, start=start)
    log_probs = np.concatenate([part.log_probs for part in parts])
    what = f"log-probabilities after {row['prompt']!r}"
    return _compared(what, log_probs, row["values"], row)


def _greedy_ids(row: Row, subject: Subject) -> tuple[list[int], int]:
    """Return the prompt with an id for each of the values, and where these begin."""
    prompt = subject.ids(row["prompt"])
    length = len(prompt) + len(row["values"])
    return subject.continued(prompt, length), len(prompt)


KINDS: dict[str, Callable[[Row, Subject], Finding]] = {
    "file": _file,
    "parameters": _parameters,
    "tokenizer": _tokenizer,
    "greedy": _greedy,
    "hidden": _hidden,
    "logits": _logits,
    "argmax": _argmax,
    "loss": _loss,
    "greedy logits": _greedy_logits,
    "greedy log-probabilities": _greedy_log_probs,
}
# What a file of numbers may hold.
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
NUMBER = Kind("a number", lambda value: type(value) in (int, float))
IDS = list_of(ID)
NUMBERS = Kind("a list of numbers, or of lists of them", lambda v: isinstance(v, list))
FILE: dict[str, Kind] = {
    "models": Kind(
        "an object of models, each an object of fields and their values",
        lambda value: (
            isinstance(value, dict) and all(map(OBJECT.holds, value.values()))
        ),
    ),
    "rows": list_of(OBJECT),
}
ROW: dict[str, Kind] = {
    "models": list_of(TEXT),
    "source": TEXT,
    "kind": one_of(*KINDS),
    "file": Kind(
        "the name of a file",
        lambda value: isinstance(value, str) and value == Path(value).name != "",
    ),
    "bytes": NUMBER,
    "sha256": TEXT,
    "only": FLAG,
    "value": NUMBER,
    "vectors": list_of(
        Kind(
            "a list of a text and its ids",
            lambda value: (
                isinstance(value, list)
                and len(value) == 2
                and TEXT.holds(value[0])
                and IDS.holds(value[1])
            ),
        )
    ),
    "prompt": Kind("a text or a list of ids", lambda v: TEXT.holds(v) or IDS.holds(v)),
    "ids": IDS,
    "text": TEXT,
    "length": Kind("a whole number from 0 on", is_id),
    "options": OBJECT,
    **dict.fromkeys(("input_ids", "attention_mask", "labels", "values"), NUMBERS),
    "at": TEXT,
    "tolerance": NUMBER,
}
NOT_COMPUTED = ("file", "parameters", "tokenizer")  # kinds that run no forward pass


def _compared_at(name: str, array: np.ndarray, row: Row) -> Finding:
    """Compare the part of an array that the row's `at` names."""
    parts = [part.strip().split(":") for part in row["at"].split(",")]
    index = tuple(
        int(part[0])
        if len(part) == 1
        else slice(*(int(p) if p else None for p in part))
        for part in parts
    )
    return _compared(f"{name}[{row['at']}]", array[index], row["values"], row)


def _compared(
    what: str, got: npt.ArrayLike, expected: npt.ArrayLike, row: Row
) -> Finding:
    """Compare numbers, within the row's tolerance."""
    got, expected = np.asarray(got), np.asarray(expected, np.float64)
    if got.shape != expected.shape:
        raise ValueError(f"{what} has shape {got.shape}, the numbers {expected.shape}")
    largest = np.max(np.abs(got - expected))
    difference = f"{largest:.2g} (at most {row['tolerance']:g})"
    holds = bool(largest <= row["tolerance"])  # NaN is not
    return Finding(what, _first(expected), _first(got), difference, holds)


def _first(numbers: np.ndarray, count: int = 3) -> str:
    shown = ", ".join(f"{number:.6g}" for number in np.ravel(numbers)[:count])
    return shown + (", …" if numbers.size > count else "")
