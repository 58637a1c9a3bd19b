"""`minigpt2 tokenize`: show a text's ids and pieces, and how they came to be."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from . import add_model, text_of

if TYPE_CHECKING:
    from ..tokenizer import GPT2Tokenizer


def add_to(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("tokenize", help="show a text's ids and pieces")
    parser.add_argument("text", metavar="TEXT", help="'-': standard input")
    add_model(parser, "gpt2")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--ids", action="store_true", help="ids alone, on one line")
    kind.add_argument("--pieces", action="store_true", help="pieces alone, one a line")
    kind.add_argument(
        "--show-merges",
        action="store_true",
        help="how bytes become tokens: one merge a line. Ġ stands for a space",
    )
    parser.set_defaults(run=run, text_argument="TEXT")


def run(arguments: argparse.Namespace) -> int:
    """Print ids, pieces, both side by side, or the merges that led to them."""
    from ..tokenizer import GPT2Tokenizer

    tokenizer = GPT2Tokenizer.from_pretrained(arguments.model)
    text = text_of(arguments.text)
    if arguments.show_merges:
        show_merges(tokenizer, text)
        return 0
    ids = tokenizer.encode(text)
    pieces = tokenizer.convert_ids_to_tokens(ids)
    if arguments.ids:
        print(*ids)
    elif arguments.pieces:
        print(*pieces, sep="\n")
    else:
        for i, piece in zip(ids, pieces):
            print(f"{i:>6}  {piece}")
    return 0


def show_merges(tokenizer: GPT2Tokenizer, text: str) -> None:
    """Print each piece of a text: its bytes, the merges in order, and its ids.

    The number before a merge is its rank, which is how many were learned before it.
    """
    from ..bpe import BPE, bytewise, disguise, merge_steps, pieces

    bpe = BPE(tokenizer.bpe.written_merges())

    def row(first: object, second: str, tokens: Iterable[str] = ()) -> None:
        print(shortened(f"{first:>7}  {second:<22}  {' '.join(tokens)}".rstrip()))

    if tokenizer.add_prefix_space:
        text = " " + text
    for start, stop, id in tokenizer.split_added(text):
        if id is not None:  # an added token is one id, whatever the merges say
            print(shortened(repr(text[start:stop])))
            row("id", f"{id}, an added token")
            continue
        for piece in pieces(text[start:stop]):
            spelled = piece.encode("utf-8")
            print(shortened(repr(piece)))
            print(shortened(f"{'UTF-8':>7}  {spelled.hex(' ')}"))
            row("written", "", map(disguise, bytewise(spelled)))
            for pair, tokens in merge_steps(spelled, bpe.ranks):
                left, right = map(disguise, pair)
                row(bpe.ranks[pair], f"{left} + {right}", map(disguise, tokens))
            ids = tokenizer.bpe.encode(piece, tokenizer.unk_token_id)
            row("id" if len(ids) == 1 else "ids", " ".join(map(str, ids)))


def shortened(line: str, width: int = 80) -> str:
    """Cut a line to a width."""
    return line if len(line) <= width else line[: width - 1] + "…"
