"""`minigpt2 convert`: write a model into a new folder in another format."""

from . import add_weights


def add_to(commands):
    parser = commands.add_parser(
        "convert",
        help="write a model in another format",
        description="Read the model in SRC, a folder of any format or a model's name, "
        "and write it into the new folder DST. What was written is read again and "
        "compared before DST appears.",
    )
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("target", metavar="DST")
    parser.add_argument(
        "--format",
        choices=("safetensors", "npz", "tf"),
        default="safetensors",
        help="(default: safetensors; tf is OpenAI's layout)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        help="round the weights to it (default: as they are)",
    )
    add_weights(
        parser,
        "keep the large matrices in so many bits, in a safetensors file that only "
        "minigpt2 reads; float32 is the way back, without what was rounded away",
    )
    parser.set_defaults(run=run)


def run(arguments):
    """Convert, and print the new folder."""
    from ..tasks.convert import convert

    a = arguments
    print(convert(a.source, a.target, a.format, a.dtype, a.weights))
    return 0
