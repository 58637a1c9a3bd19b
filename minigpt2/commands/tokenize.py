"""`minigpt2 tokenize`: show a text's ids and pieces."""

from . import add_model, text_of


def add_to(commands):
    parser = commands.add_parser("tokenize", help="show a text's ids and pieces")
    parser.add_argument("text", metavar="TEXT", help="'-': standard input")
    add_model(parser, "gpt2")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--ids", action="store_true", help="ids alone, on one line")
    kind.add_argument("--pieces", action="store_true", help="pieces alone, one a line")
    parser.set_defaults(run=run)


def run(arguments):
    """Print ids, pieces, or both side by side."""
    from ..tokenizer import GPT2Tokenizer

    tokenizer = GPT2Tokenizer.from_pretrained(arguments.model)
    ids = tokenizer.encode(text_of(arguments.text))
    pieces = tokenizer.convert_ids_to_tokens(ids)
    if arguments.ids:
        print(*ids)
    elif arguments.pieces:
        print(*pieces, sep="\n")
    else:
        for i, piece in zip(ids, pieces):
            print(f"{i:>6}  {piece}")
    return 0
