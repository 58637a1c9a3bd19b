"""`minigpt2 convert`: write a model into a new folder in another format."""

import argparse

from . import Commands, add_weights

# tasks.convert's, which must not be imported before the arguments are read.
FORMATS = ("safetensors", "npz", "tf", "llm.c")
DTYPES = ("float16", "bfloat16", "float32")


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "convert",
        help="write a model in another format",
        description="Write the model SRC into the new folder DST. What was written is "
        "read again and compared before DST appears.",
    )
    parser.add_argument(
        "source", metavar="SRC", help="a model's name, or its folder in any format"
    )
    parser.add_argument("target", metavar="DST", help="a folder that is not there yet")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="safetensors",
        help="the format of DST; tf is OpenAI's layout, llm.c is for that program "
        "(default: safetensors)",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="round the parameters to it (default: keep them as they are)",
    )
    add_weights(
        parser,
        "keep the large matrices in fewer bits, in a safetensors file that only minigpt2 "
        "reads; float32 is the way back, without what was rounded away",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert, and print the new folder."""
    from ..tasks.convert import convert

    a = arguments
    print(convert(a.source, a.target, a.format, a.dtype, a.weights))
    return 0
