"""`minigpt2 tokenize`: show a text's ids and tokens, and how they came to be."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..hub import EMBEDDED_MODEL
from ..runtime.progress import columns, shortened
from . import text_of

if TYPE_CHECKING:
    from ..tokenizer import GPT2Tokenizer


DEFAULT = "gpt2"  # GPT-2's own vocabulary, which is what its ids are known by


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "tokenize",
        help="show a text's ids and tokens, or the text of ids",
        description=f"Show a text's ids and tokens. Without --model they are {DEFAULT}'s; "
        f"the model that `generate` takes by default, {EMBEDDED_MODEL}, has another "
        "vocabulary.",
    )
    parser.add_argument(
        "text",
        metavar="TEXT",
        help="in quotes if it has spaces; with --decode ids; '-': standard input",
    )
    parser.add_argument(
        "--model",
        metavar="NAME_OR_FOLDER",
        help=f"whose vocabulary (default: {DEFAULT}, which comes with the package)",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--ids", action="store_true", help="ids alone, on one line")
    kind.add_argument("--pieces", action="store_true", help="tokens alone, one a line")
    kind.add_argument(
        "--decode",
        action="store_true",
        help='print the text of ids, such as "15496 995"',
    )
    kind.add_argument("--json", action="store_true", help="print a JSON object")
    kind.add_argument(
        "--show-merges",
        action="store_true",
        help="how bytes become tokens: one merge a line. Ġ stands for a space",
    )
    parser.set_defaults(run=run, text_argument="TEXT")


def run(arguments: argparse.Namespace) -> int:
    """Print ids, pieces, both side by side, a text, or the merges that led to them."""
    from ..tokenizer import GPT2Tokenizer

    a = arguments
    tokenizer = GPT2Tokenizer.from_pretrained(a.model or DEFAULT)
    text = text_of(a.text)
    if a.show_merges:
        show_merges(tokenizer, text)
        return 0
    if a.decode:
        ids = ids_in(text)
        exact = {"clean_up_tokenization_spaces": False}
        print(tokenizer.decode(ids, **exact))
        return 0
    ids = tokenizer.encode(text, verbose=False)
    tokens = tokenizer.convert_ids_to_tokens(ids)
    if a.ids:
        print(*ids)
    elif a.pieces:
        print(*tokens, sep="\n")
    elif a.json:
        result = {"model": a.model or DEFAULT, "ids": ids, "tokens": tokens}
        print(json.dumps(result, ensure_ascii=False))
    else:
        for i, token in zip(ids, tokens):
            print(f"{i:>6}  {token}")
        if a.model is None:
            print(
                f"({DEFAULT}'s vocabulary; `generate` has another by default: "
                f"--model {EMBEDDED_MODEL})",
                file=sys.stderr,
            )
    return 0


def ids_in(text: str) -> list[int]:
    """Return the ids that a text lists, with spaces, commas or brackets between them."""
    words = re.sub(r"[\[\],]", " ", text).split()
    for word in words:
        if not (word.isascii() and word.isdigit()):
            raise ValueError(
                f"--decode takes ids, whole numbers from 0 on, not {word!r}"
            )
    return list(map(int, words))


def show_merges(tokenizer: GPT2Tokenizer, text: str) -> None:
    """Print each piece of a text: its bytes, the merges in order, and its ids.

    The number before a merge is its rank, which is how many were learned before it.
    """
    from ..bpe import BPE, bytewise, disguise, merge_steps, pieces

    bpe = BPE(tokenizer.bpe.written_merges())

    def show(line: str) -> None:
        print(shortened(line, columns(sys.stdout)))

    def row(first: object, second: str, tokens: Iterable[str] = ()) -> None:
        show(f"{first:>7}  {second:<22}  {' '.join(tokens)}".rstrip())

    for part, id, _ in tokenizer.parts(text):
        if id is not None:  # an added token is one id, whatever the merges say
            show(repr(part))
            row("id", f"{id}, an added token")
            continue
        for piece in pieces(part):
            spelled = piece.encode("utf-8")
            show(repr(piece))
            show(f"{'UTF-8':>7}  {spelled.hex(' ')}")
            row("written", "", map(disguise, bytewise(spelled)))
            for pair, tokens in merge_steps(spelled, bpe.ranks):
                left, right = map(disguise, pair)
                row(bpe.ranks[pair], f"{left} + {right}", map(disguise, tokens))
            ids = tokenizer.bpe.encode(piece, tokenizer.unk_token_id)
            row("id" if len(ids) == 1 else "ids", " ".join(map(str, ids)))
