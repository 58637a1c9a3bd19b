"""Is this GPT-2? Compare what a model computes with the numbers that were published.

`data/published.json` holds numbers that other projects computed with the released
weights and published: greedy continuations, slices of hidden states and logits, losses,
ids of texts, SHA-256 of files; each with its source. A model is recognised by the sizes
in its configuration, and then all rows of its name are checked.

A file of one's own has the same form: `models` gives {name: {field of the configuration:
value}}, `rows` a list of

    {"models": [names], "source": "where from", "kind": one of KINDS, ...}

and what that kind needs is in the docstring of its function below. `prompt` is a text or
a list of ids; `input_ids`, `attention_mask` and `labels` are [B, T]; `at` is an index as
NumPy writes it ("0, 1:4, :5"); `tolerance` is absolute.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .. import hub
from ..config import GPT2Config
from ..model.gpt2 import GPT2LMHeadModel
from ..runtime.files import read_json, sha256
from ..runtime.progress import Progress
from ..tokenizer import GPT2Tokenizer

PUBLISHED = hub.DATA / "published.json"
HOLDS, FAILS, SKIPPED = "holds", "FAILS", "skipped"


@dataclass
class Result:
    """One row, checked: all but the verdict as texts to print."""

    kind: str  # one of KINDS
    what: str
    source: str
    expected: str
    got: str
    difference: str
    verdict: str  # HOLDS, FAILS, or SKIPPED, where a row has nothing to look at


class Subject:
    """A model that is being verified; its parts are loaded when a row asks for them."""

    def __init__(self, folder, dtype):
        self.folder = Path(folder)
        self.dtype = dtype
        self.config = GPT2Config.from_pretrained(self.folder)

    @cached_property
    def model(self):
        return GPT2LMHeadModel.from_pretrained(self.folder, dtype=self.dtype)

    @cached_property
    def own_tokenizer(self):
        try:
            return GPT2Tokenizer.from_pretrained(self.folder)
        except FileNotFoundError:
            return None

    @cached_property
    def tokenizer(self):
        return self.own_tokenizer or GPT2Tokenizer.from_pretrained("gpt2")

    def ids(self, prompt):
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt

    def continued(self, prompt, length, **options):
        """Continue a prompt, greedily but for `options`, to `length` ids; a list."""
        ids = np.array([self.ids(prompt)])
        options = {"do_sample": False, "repetition_penalty": 1.0, **options}
        return self.model.generate(ids, max_length=length, **options)[0].tolist()


def verify(name_or_path, numbers=None, dtype=np.float32):
    """Check a model against published numbers; yield a Result for each.

    - name_or_path: a model folder, or a name that `minigpt2.hub` knows.
    - numbers (path): a file of numbers; None is the one in the package.
    - dtype (np.float32 or np.float64): what the model computes in.

    Raises ValueError if no numbers are known for a model of these sizes or the file of
    numbers is malformed, and what loading a model raises.
    """
    numbers = PUBLISHED if numbers is None else numbers
    published = read_json(numbers)
    subject = Subject(hub.whole_folder(name_or_path), dtype)
    name = recognise(subject.config, published["models"])
    subject.model  # noqa: B018  one that can't be loaded is an error, not a failed row
    rows = [row for row in published["rows"] if name in row["models"]]
    with Progress("verifying", len(rows)) as progress:
        for row in rows:
            progress.step(row["source"])
            yield check(row, subject)


def recognise(config, models):
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


def check(row, subject):
    """Check one row; return its Result."""
    if row["kind"] not in KINDS:
        raise ValueError(f"unknown kind {row['kind']!r}; there are {', '.join(KINDS)}")
    try:
        what, expected, got, difference, holds = KINDS[row["kind"]](row, subject)
    except KeyError as error:
        raise ValueError(f"a row of {row['source']!r} lacks {error}") from None
    except (ValueError, OSError) as error:  # an id that it lacks, a damaged file
        what, expected, got, difference, holds = row["kind"], "", str(error), "", False
    verdict = SKIPPED if holds is None else HOLDS if holds else FAILS
    return Result(row["kind"], what, row["source"], expected, got, difference, verdict)


# --- The kinds of rows. Each returns (what, expected, got, difference, holds), where
# --- holds is None if the model has nothing to check.


def _file(row, subject):
    """file, bytes, sha256; `only` (bool, False): no other file may have this name.

    Weights may be written anew, with other bytes and the same numbers, so a file of
    another size is passed over. Of a vocabulary there is one version only.
    """
    path = subject.folder / row["file"]
    what, expected = f"SHA-256 of {path.name}", row["sha256"][:16] + "…"
    if not path.is_file():
        return what, expected, "no such file", "", None
    size = path.stat().st_size
    if size != row["bytes"]:
        difference = f"{size - row['bytes']:,} bytes"
        holds = False if row.get("only") else None
        return what, expected, "another file", difference, holds
    got = sha256(path)
    same = got == row["sha256"]
    return what, expected, got[:16] + "…", "none" if same else "other bytes", same


def _parameters(row, subject):
    """value: the number of parameters, tied ones counted once."""
    got = subject.model.num_parameters()
    difference = f"{got - row['value']:,}"
    what = "number of parameters"
    return what, f"{row['value']:,}", f"{got:,}", difference, got == row["value"]


def _tokenizer(row, subject):
    """vectors: [[text, ids], ...]."""
    vectors = row["vectors"]
    what = f"ids of {len(vectors)} texts"
    if subject.own_tokenizer is None:
        return what, "", "no tokenizer here", "", None
    encode = subject.own_tokenizer.encode
    wrong = [(text, ids) for text, ids in vectors if encode(text) != ids]
    difference = f"{len(wrong)} of {len(vectors)}"
    if not wrong:
        return what, "as published", "the same", difference, True
    text, ids = wrong[0]
    return f"{what}: {text!r}", str(ids), str(encode(text)), difference, False


def _greedy(row, subject):
    """prompt; ids, or text and length: the whole sequence, or its text and how many ids
    it has, prompt included; options (optional): of `generate`.
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
    texts = repr(decode(expected[new:])), repr(decode(got[new:]))
    difference = "none" if same else _first_difference(expected, got, subject)
    return what, *texts, difference, same


def _first_difference(expected, got, subject):
    """Say where two continuations part, and how nearly the model went the other way."""
    pairs = enumerate(zip(expected, got))
    at = next((i for i, (one, other) in pairs if one != other), 0)
    if at == 0:  # one is the beginning of the other, or the prompts differ
        return f"{len(expected)} ids, not {len(got)}"
    scores = subject.model(np.array([expected[:at]]), logits_to_keep=1).logits[0, -1]
    gap = scores[got[at]] - scores[expected[at]]
    return f"at id {at}, scores {gap:.2g} apart"


def _hidden(row, subject):
    """input_ids, attention_mask (optional), at, values, tolerance: the last hidden
    states, after ln_f.
    """
    output = subject.model.transformer(
        np.array(row["input_ids"]), attention_mask=row.get("attention_mask")
    )
    return _slice("last_hidden_state", output.last_hidden_state, row)


def _logits(row, subject):
    """input_ids, attention_mask (optional), at, values, tolerance."""
    output = subject.model(
        np.array(row["input_ids"]), attention_mask=row.get("attention_mask")
    )
    return _slice("logits", output.logits, row)


def _argmax(row, subject):
    """input_ids, values [B, T]: the likeliest id after each position."""
    logits = subject.model(np.array(row["input_ids"])).logits
    expected, got = np.array(row["values"]), logits.argmax(-1)
    wrong = np.argwhere(got != expected).tolist()
    first = tuple(wrong[0]) if wrong else (0, slice(3))
    difference = f"{len(wrong)} of {expected.size}"
    what = f"likeliest ids {list(expected.shape)}"
    return what, str(expected[first]), str(got[first]), difference, not wrong


def _loss(row, subject):
    """input_ids, labels (None: the ids themselves), value, tolerance: nats an id."""
    ids = np.array(row["input_ids"])
    loss = subject.model(ids, labels=np.array(row.get("labels", ids))).loss
    return _compared(f"loss of ids {list(ids.shape)}", loss, row["value"], row)


def _greedy_logits(row, subject):
    """prompt, values, tolerance: the scores of the ids of the greedy continuation."""
    scores, ids = _greedy_scores(row, subject)
    what = f"scores of what follows {row['prompt']!r}"
    return _compared(what, _chosen(scores, ids), row["values"], row)


def _greedy_log_probabilities(row, subject):
    """prompt, values, tolerance: the same as log-probabilities."""
    scores, ids = _greedy_scores(row, subject)
    scores = scores.astype(np.float64)
    top = scores.max(-1, keepdims=True)
    scores -= top + np.log(np.exp(scores - top).sum(-1, keepdims=True))
    what = f"log-probabilities after {row['prompt']!r}"
    return _compared(what, _chosen(scores, ids), row["values"], row)


def _greedy_scores(row, subject):
    """Continue greedily; return the scores [n, V] of each step, and its id [n]."""
    prompt = subject.ids(row["prompt"])
    new = len(row["values"])
    ids = np.array([subject.continued(prompt, len(prompt) + new)])
    return subject.model(ids[:, :-1], logits_to_keep=new).logits[0], ids[0, -new:]


def _chosen(scores, ids):
    return np.take_along_axis(scores, ids[:, None], -1)[:, 0]


KINDS = {
    "file": _file,
    "parameters": _parameters,
    "tokenizer": _tokenizer,
    "greedy": _greedy,
    "hidden": _hidden,
    "logits": _logits,
    "argmax": _argmax,
    "loss": _loss,
    "greedy logits": _greedy_logits,
    "greedy log-probabilities": _greedy_log_probabilities,
}


def _slice(name, array, row):
    parts = [part.strip().split(":") for part in row["at"].split(",")]
    index = tuple(
        int(part[0])
        if len(part) == 1
        else slice(*(int(p) if p else None for p in part))
        for part in parts
    )
    return _compared(f"{name}[{row['at']}]", array[index], row["values"], row)


def _compared(what, got, expected, row):
    got, expected = np.asarray(got), np.asarray(expected, np.float64)
    if got.shape != expected.shape:
        raise ValueError(f"{what} has shape {got.shape}, the numbers {expected.shape}")
    largest = np.max(np.abs(got - expected))
    difference = f"{largest:.2g} (at most {row['tolerance']:g})"
    holds = bool(largest <= row["tolerance"])  # NaN is not
    return what, _first(expected), _first(got), difference, holds


def _first(numbers, count=3):
    shown = ", ".join(f"{number:.6g}" for number in np.ravel(numbers)[:count])
    return shown + (", …" if numbers.size > count else "")
