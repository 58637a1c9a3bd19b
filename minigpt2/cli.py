"""The `minigpt2` command.

Results go to standard output and everything else to standard error. Exit codes: 0 all
well, 1 the request can't be met (the line says why), 2 the command line is wrong, 130
interrupted. Nothing heavy is imported before the arguments are read.
"""

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence

from . import __version__
from .commands import convert, download, generate, info, score, tokenize, verify

COMMANDS = (generate, tokenize, score, info, verify, convert, download)


def main(argv: Sequence[str] | None = None) -> int:
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
        message = with_options(str(error), arguments.options)
        print(f"minigpt2: error: {message}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="minigpt2",
        description="GPT-2 in NumPy: continue and score texts, and inspect, verify, "
        "convert and fetch models. A small model comes with the package.",
        epilog="`minigpt2 COMMAND --help` tells more about a command.",
    )
    top.add_argument("--version", action="version", version=f"minigpt2 {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    for subparser in commands.choices.values():
        subparser.set_defaults(options=options_of(subparser))
    return top


def options_of(command: argparse.ArgumentParser) -> dict[str, str]:
    """Return {Python's name: option} of a command's options, such as top_p: --top-p."""
    return {
        action.dest: action.option_strings[-1]
        for action in command._actions
        if action.option_strings
    }


def with_options(message: str, options: Mapping[str, str]) -> str:
    """Say a message of the library in options: top_p=2 becomes --top-p 2."""
    for name, option in options.items():
        message = re.sub(rf"\b{name}=('?)([\w.+-]+)\1", rf"{option} \2", message)
        if "_" in name:  # any other may be a word of the sentence
            message = re.sub(rf"(?<![\w./']){name}(?![\w./'])", option, message)
    return message
