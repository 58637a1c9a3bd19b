"""The `minigpt2` command: generate, tokenize, info.

Text goes to standard output and everything else to standard error. Exit codes: 0 all
well, 1 the request can't be met (the line says why), 2 the command line is wrong, 130
interrupted. Nothing heavy is imported before the arguments are read.
"""

import argparse
import os
import secrets
import sys

from . import __version__
from .hub import EMBEDDED_MODEL


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

    generate = commands.add_parser(
        "generate",
        help="continue a text",
        description="Continue PROMPT; the text is printed as it comes. Samples with "
        "temperature 0.8 and top-k 40 unless told otherwise.",
    )
    generate.add_argument("prompt", metavar="PROMPT", help="'-': standard input")
    add_model(generate)
    generate.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="ids to add (default: 100, or what the context leaves)",
    )
    generate.add_argument(
        "--greedy", action="store_true", help="take the likeliest id at each step"
    )
    generate.add_argument("--temperature", type=float, default=0.8, metavar="T")
    generate.add_argument(
        "--top-k", type=int, default=40, metavar="K", help="0: off (default: 40)"
    )
    generate.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="1: off (the default)"
    )
    generate.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R")
    generate.add_argument("--num-return-sequences", type=int, default=1, metavar="N")
    generate.add_argument(
        "--seed", type=int, metavar="S", help="(default: drawn, and told on stderr)"
    )
    generate.set_defaults(run=run_generate)

    tokenize = commands.add_parser("tokenize", help="show a text's ids and pieces")
    tokenize.add_argument("text", metavar="TEXT", help="'-': standard input")
    add_model(tokenize, default="gpt2")
    kind = tokenize.add_mutually_exclusive_group()
    kind.add_argument("--ids", action="store_true", help="ids alone, on one line")
    kind.add_argument("--pieces", action="store_true", help="pieces alone, one a line")
    tokenize.set_defaults(run=run_tokenize)

    info = commands.add_parser("info", help="show what a model folder holds")
    info.add_argument("folder", metavar="FOLDER")
    info.set_defaults(run=run_info)
    return top


def add_model(command, default=EMBEDDED_MODEL):
    command.add_argument(
        "--model",
        default=default,
        metavar="NAME_OR_FOLDER",
        help=f"(default: {default}, which comes with the package)",
    )


def text_argument(text):
    """Return the text of an argument that may be '-', which means standard input."""
    if text != "-":
        return text
    return sys.stdin.buffer.read().decode("utf-8")


def run_generate(arguments):
    """Print a continuation as it comes, or several one after another."""
    from .generation.streamers import TextStreamer
    from .model import GPT2LMHeadModel
    from .tokenizer import GPT2Tokenizer

    prompt = text_argument(arguments.prompt)
    tokenizer = GPT2Tokenizer.from_pretrained(arguments.model)
    model = GPT2LMHeadModel.from_pretrained(arguments.model)
    ids = tokenizer.encode(prompt, return_tensors="np") if prompt else None
    limit = model.config.n_positions
    room = limit - (1 if ids is None else ids.shape[1])
    if room < 1:
        raise ValueError(
            f"the prompt has {ids.shape[1]} ids and this model takes {limit}, what it "
            "adds included: shorten the prompt"
        )
    new = arguments.max_new_tokens
    options = {
        "max_new_tokens": min(100, room) if new is None else new,
        "repetition_penalty": arguments.repetition_penalty,
    }
    seed = arguments.seed
    if not arguments.greedy:
        if seed is None:
            seed = secrets.randbits(32)
            print(f"seed {seed}", file=sys.stderr)
        options |= {
            "do_sample": True,
            "temperature": arguments.temperature,
            "top_k": arguments.top_k,
            "top_p": arguments.top_p,
            "seed": seed,
        }
    if arguments.num_return_sequences == 1:
        model.generate(ids, streamer=TextStreamer(tokenizer), **options)
        return 0
    results = model.generate(
        ids, num_return_sequences=arguments.num_return_sequences, **options
    )
    for number, result in enumerate(results):
        if number:
            print("---")
        print(tokenizer.decode(result, skip_special_tokens=True), flush=True)
    return 0


def run_tokenize(arguments):
    """Print ids, pieces, or both side by side."""
    from .tokenizer import GPT2Tokenizer

    tokenizer = GPT2Tokenizer.from_pretrained(arguments.model)
    ids = tokenizer.encode(text_argument(arguments.text))
    pieces = tokenizer.convert_ids_to_tokens(ids)
    if arguments.ids:
        print(*ids)
    elif arguments.pieces:
        print(*pieces, sep="\n")
    else:
        for i, piece in zip(ids, pieces):
            print(f"{i:>6}  {piece}")
    return 0


def run_info(arguments):
    """Print a folder's files, configuration and tensors, and check its checksums."""
    import hashlib

    from .checkpoints.open import open_checkpoint
    from .checkpoints.tf_bundle import TFBundle
    from .hub import model_folder
    from .model import GPT2LMHeadModel

    folder = model_folder(arguments.folder)
    tensors = open_checkpoint(folder)
    kind = "OpenAI (TensorFlow)" if isinstance(tensors, TFBundle) else "Hugging Face"
    print(f"{folder}: {kind}")
    print("\nfiles (bytes, sha256)")
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        print(f"  {path.stat().st_size:>13,}  {digest}  {path.name}")
    print("\ntensors")
    total = 0
    for name in tensors:
        array = tensors[name]  # reading it verifies its checksum, if the format has any
        total += array.size
        print(f"  {array.dtype!s:<8} {array.shape!s:<16} {name}")
    checked = "all checksums hold" if kind.startswith("OpenAI") else "no checksums"
    print(f"  {len(tensors)} tensors of {total:,} numbers; {checked}")
    model = GPT2LMHeadModel.from_pretrained(folder)
    print(f"\n{model!r}\n{model.num_parameters():,} parameters")
    return 0
