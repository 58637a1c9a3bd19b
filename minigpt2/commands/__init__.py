"""The subcommands of `minigpt2`, a module each.

A module has `add_to(commands)`, which describes the arguments to argparse, and
`run(arguments)`, which does the work and returns the exit code. What is shared is here.
"""

import sys


def add_model(parser, default):
    """Add --model NAME_OR_FOLDER, whose default comes with the package."""
    parser.add_argument(
        "--model",
        default=default,
        metavar="NAME_OR_FOLDER",
        help=f"(default: {default}, which comes with the package)",
    )


def add_weights(parser, help):
    """Add --weights KIND, one of `parameters.WEIGHTS`, which must not be imported yet."""
    kinds = ("float32", "bfloat16", "int8", "int4")
    parser.add_argument("--weights", choices=kinds, help=help)


def text_of(argument):
    """Return the text of an argument that may be '-', which means standard input."""
    if argument != "-":
        return argument
    return sys.stdin.buffer.read().decode("utf-8")
