"""`minigpt2 info`: show what a model folder holds."""

import argparse

from . import Commands


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "info",
        help="show what a model folder holds",
        description="Print the files, the tensors and the configuration of a model. "
        "Every tensor is read, so damage is found where the format has checksums.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="a model's folder or name")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a folder's files, configuration and tensors, and check its checksums."""
    from ..checkpoints.open import ShardedFile, open_checkpoint
    from ..checkpoints.safetensors_file import SafetensorsFile
    from ..checkpoints.tf_bundle import TFBundle
    from ..hub import model_folder
    from ..model.backends import choose
    from ..model.gpt2 import GPT2LMHeadModel
    from ..quantization.files import weight_format_of
    from ..runtime.files import sha256

    folder = model_folder(arguments.folder)
    tensors = open_checkpoint(folder)
    weights = weight_format_of(tensors)
    origin = "OpenAI (TensorFlow)" if isinstance(tensors, TFBundle) else "Hugging Face"
    if weights != "float32":
        origin = f"minigpt2, {weights} weights"
    print(f"{folder}: {origin}")
    print("\nfiles (bytes, sha256)")
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        print(f"  {path.stat().st_size:>13,}  {sha256(path)}  {path.name}")
    print("\ntensors")
    total = 0
    for name in tensors:
        array = tensors[name]  # reading it verifies its checksum, if the format has any
        total += array.size
        print(f"  {array.dtype!s:<8} {array.shape!s:<16} {name}")
    unchecked = isinstance(tensors, SafetensorsFile | ShardedFile)
    checked = "the format has no checksums" if unchecked else "all checksums hold"
    print(f"  {len(tensors)} tensors of {total:,} numbers; {checked}")
    # (On NumPy: Numba might compile its kernels, for nothing.)
    model = GPT2LMHeadModel.from_pretrained(folder, backend="numpy")
    print(f"\n{model!r}\n{model.num_parameters():,} parameters")
    auto, _ = choose("auto", model.config, model.dtype)
    print(f"backend='auto' is {auto!r} here")
    return 0
