"""`minigpt2 generate`: continue a text."""

import secrets
import sys

from ..hub import EMBEDDED_MODEL
from . import add_model, text_of


def add_to(commands):
    parser = commands.add_parser(
        "generate",
        help="continue a text",
        description="Continue PROMPT; the text is printed as it comes. Samples with "
        "temperature 0.8 and top-k 40 unless told otherwise.",
    )
    parser.add_argument("prompt", metavar="PROMPT", help="'-': standard input")
    add_model(parser, EMBEDDED_MODEL)
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="ids to add (default: 100, or what the context leaves)",
    )
    parser.add_argument(
        "--greedy", action="store_true", help="take the likeliest id at each step"
    )
    parser.add_argument("--temperature", type=float, default=0.8, metavar="T")
    parser.add_argument(
        "--top-k", type=int, default=40, metavar="K", help="0: off (default: 40)"
    )
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="1: off (the default)"
    )
    parser.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R")
    parser.add_argument("--num-return-sequences", type=int, default=1, metavar="N")
    parser.add_argument(
        "--seed", type=int, metavar="S", help="(default: drawn, and told on stderr)"
    )
    parser.set_defaults(run=run)


def run(arguments):
    """Print a continuation as it comes, or several one after another."""
    from ..generation.streamers import TextStreamer
    from ..model import GPT2LMHeadModel
    from ..tokenizer import GPT2Tokenizer

    prompt = text_of(arguments.prompt)
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
