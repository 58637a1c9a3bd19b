"""`minigpt2 score`: how well a model predicts texts."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

from ..hub import EMBEDDED_MODEL
from ..runtime.progress import Progress, columns
from . import (
    Commands,
    add_computing,
    add_model,
    add_weights,
    says_where,
    standard_input,
)

if TYPE_CHECKING:
    from ..tasks.score import LogProbs, TextScore
    from ..tokenizer import GPT2Tokenizer


COLUMNS = {  # and their widths
    "tokens": 9,
    "bytes": 11,
    "characters": 11,
    "loss": 8,
    "perplexity": 11,
    "bits/byte": 10,
    "bits/char": 10,
}


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "score",
        help="say how well a model predicts texts",
        description="Print how well a model predicts each text: its perplexity, and "
        "bits per byte and per character, which can be compared between vocabularies. "
        "Files of any length are read through a sliding window, in bounded memory.",
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="a text in UTF-8; '-': standard input"
    )
    add_model(parser, EMBEDDED_MODEL)
    add_weights(parser, "keep the parameters in fewer bits (default: as they are)")
    add_computing(parser)
    parser.add_argument(
        "--window",
        type=int,
        metavar="W",
        help="ids that the model sees at a time (default: its n_positions)",
    )
    parser.add_argument(
        "--stride",
        type=int,
        metavar="S",
        help="ids that the window moves on by (default: half of it); a smaller one is "
        "slower and puts more ids before each id",
    )
    parser.add_argument(
        "--bos",
        action="store_true",
        help="begin each text with <|endoftext|>, so that its first id counts too",
    )
    parser.add_argument(
        "--tokens",
        action="store_true",
        help="print a line per id: position, id, log-probability, token; the sums go "
        "to standard error",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object for each text"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a line of numbers for each file, and one for all of them together."""
    from ..model.gpt2 import GPT2LMHeadModel
    from ..tasks.score import TextScore, add_up, iter_log_probs
    from ..tokenizer import GPT2Tokenizer

    tokenizer = GPT2Tokenizer.from_pretrained(arguments.model)
    model = GPT2LMHeadModel.from_pretrained(
        arguments.model, weights=arguments.weights, backend=arguments.backend
    )
    options = arguments.window, arguments.stride, arguments.bos
    sums = sys.stderr if arguments.tokens else sys.stdout
    show = print_json if arguments.json else print_score
    if not arguments.json:
        names = [f"{name:>{width}}" for name, width in COLUMNS.items()]
        print("".join(names) + "  file", file=sums)
    total = TextScore()
    for path in arguments.files:
        windows = iter_log_probs(model, tokenizer, parts_of(path), *options)
        if arguments.tokens:
            windows = printed(windows, tokenizer)
        score = add_up(windows, tokenizer)
        if not score.tokens:
            raise ValueError(f"{path}: nothing to score, it takes two tokens or --bos")
        show(score, path, sums)
        total += score
    if len(arguments.files) > 1:
        show(total, "together", sums)
    return 0


def print_json(score: TextScore, name: str, file: TextIO) -> None:
    result = {
        "file": name,
        **asdict(score),
        "loss": score.loss,
        "perplexity": score.perplexity,
        "bits_per_byte": score.bits_per_byte,
        "bits_per_character": score.bits_per_character,
    }
    print(json.dumps(result, ensure_ascii=False), file=file, flush=True)


def print_score(score: TextScore, name: str, file: TextIO) -> None:
    """Print a line of numbers and a name, which follows in a line of its own if long."""
    counts = (score.tokens, score.bytes, score.characters)
    means = (
        score.loss,
        score.perplexity,
        score.bits_per_byte,
        score.bits_per_character,
    )
    texts = [f"{n:,}" for n in counts] + [f"{x:.4f}" for x in means]
    line = "".join(f"{t:>{width}}" for t, width in zip(texts, COLUMNS.values()))
    apart = "  " if len(line) + 2 + len(name) <= columns(file) else "\n  "
    print(f"{line}{apart}{name}", file=file, flush=True)


def printed(
    windows: Iterable[LogProbs], tokenizer: GPT2Tokenizer
) -> Iterator[LogProbs]:
    """Yield each window as it is, and print its tokens on the way."""
    for window in windows:
        position, ids, log_probs = window
        tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
        for offset, (id, log_prob, token) in enumerate(zip(ids, log_probs, tokens)):
            print(position + offset, id, f"{log_prob:.6f}", token, sep="\t")
        yield window


def parts_of(path: str, size: int = 2**14) -> Iterator[str]:
    """Read a UTF-8 file in parts of `size` bytes, with progress on a terminal."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with contextlib.ExitStack() as stack:
        steps = 0
        if path == "-":
            file = standard_input()
        else:
            file = stack.enter_context(open(path, "rb"))
            steps = os.fstat(file.fileno()).st_size // size
        progress = stack.enter_context(Progress("scoring", steps)) if steps else None
        at = 0
        while part := file.read(size):
            if progress:
                progress.step(path)
            if at == 0 and part.startswith(codecs.BOM_UTF8):  # which is no text
                part, at = part.removeprefix(codecs.BOM_UTF8), len(codecs.BOM_UTF8)
            yield decoded(decoder, part, path, at)
            at += len(part)
        yield decoded(decoder, b"", path, at, final=True)


def decoded(
    decoder: codecs.IncrementalDecoder,
    part: bytes,
    path: str,
    at: int,
    final: bool = False,
) -> str:
    """Decode the bytes at `at` of a file, with those before it that wait for them."""
    start = at - len(decoder.getstate()[0])
    try:
        return decoder.decode(part, final)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{says_where(path)} is no UTF-8 text: {error.reason} at byte "
            f"{start + error.start}"
        ) from None
