"""The `minigpt2` command.

Results go to standard output and everything else to standard error. Exit codes: 0 all
well, 1 the request can't be met (the line says why), 2 the command line is wrong, 130
interrupted. Nothing heavy is imported before the arguments are read.
"""

import argparse
import os
import sys

from . import __version__
from .commands import convert, download, generate, info, score, tokenize, verify

COMMANDS = (generate, tokenize, score, info, verify, convert, download)


def main(argv=None):
    """Run the command; return its exit code."""
    arguments = parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (`| head`) has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, ValueError, ImportError) as error:
        print(f"minigpt2: error: {error}", file=sys.stderr)
        return 1


def parser():
    top = argparse.ArgumentParser(
        prog="minigpt2", description="GPT-2 in NumPy: text, ids, and checkpoints."
    )
    top.add_argument("--version", action="version", version=f"minigpt2 {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return top
