"""`minigpt2 warm`: compile the kernels ahead of time, for images and first users."""

import argparse

from . import WEIGHT_FORMATS, Commands


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "warm",
        help="compile the kernels ahead of time",
        description="Compile the kernels that Numba runs, so that the first model need "
        "not wait for them: in the recipe of an image, for instance. They are kept in "
        "Numba's cache (NUMBA_CACHE_DIR moves it).",
    )
    parser.add_argument(
        "--weights",
        choices=WEIGHT_FORMATS,
        action="append",
        help="a weight format; may be repeated (default: float32)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compile; print each format that is ready."""
    import numpy as np

    from ..config import GPT2Config
    from ..model.backends import choose

    _, kernels = choose("numba", GPT2Config(), np.dtype(np.float32))
    for weight_format in arguments.weights or ["float32"]:
        kernels.prepare(np.dtype(np.float32), weight_format)
        print(f"kernels for {weight_format} weights are ready", flush=True)
    return 0
