"""`minigpt2 info`: show what a model folder holds."""

from __future__ import annotations

import argparse
import json
import math
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from ..runtime.progress import columns
from . import Commands

if TYPE_CHECKING:
    from ..checkpoints.tensor_file import TensorFile

ORIGIN = "ORIGIN.txt"  # a file that says where a model comes from


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "info",
        help="show what a model folder holds",
        description="Print the files, the tensors and the configuration of a model. "
        "Every tensor is read, so damage is found where the format has checksums.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="a model's folder or name")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a folder's files, configuration and tensors, and check its checksums."""
    from ..checkpoints.open import open_checkpoint
    from ..hub import model_folder
    from ..model.backends import choose
    from ..model.gpt2 import GPT2LMHeadModel
    from ..runtime.files import sha256

    folder = model_folder(arguments.folder)
    files = [
        {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(path for path in folder.iterdir() if path.is_file())
    ]
    checkpoint = open_checkpoint(folder)
    tensors = []
    for name in checkpoint:
        array = checkpoint[name]  # its checksum is verified, if the format has any
        tensors.append(
            {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
        )
    # (On NumPy: Numba might compile its kernels, for nothing.)
    model = GPT2LMHeadModel.from_pretrained(folder, backend="numpy")
    auto, _ = choose("auto", model.config, model.dtype)
    origin = folder / ORIGIN
    result = {
        "folder": str(folder),
        "format": format_of(checkpoint),
        "origin": origin.read_text("utf-8") if origin.is_file() else None,
        "files": files,
        "tensors": tensors,
        "numbers": sum(math.prod(tensor["shape"]) for tensor in tensors),
        "checksums": checkpoint.has_checksums,
        "parameters": model.num_parameters(),
        "config": model.config.to_dict(),
        "backend": auto,
    }
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        show(result, repr(model))
    return 0


def format_of(checkpoint: TensorFile) -> str:
    """Say whose layout a checkpoint has."""
    from ..checkpoints.llmc_file import LlmcFile
    from ..checkpoints.tf_bundle import TFBundle
    from ..quantization.files import weight_format_of

    weights = weight_format_of(checkpoint)
    if weights != "float32":
        return f"minigpt2, {weights} weights"
    if "model_args" in getattr(checkpoint, "besides", {}):
        return "nanoGPT"
    if isinstance(checkpoint, LlmcFile):
        return "llm.c"
    return "OpenAI (TensorFlow)" if isinstance(checkpoint, TFBundle) else "Hugging Face"


def show(result: dict[str, Any], model: str) -> None:
    """Print what `run` has gathered, and the model's own words."""
    print(f"{result['folder']}: {result['format']}")
    if result["origin"]:
        print("\n" + result["origin"].strip())
    print("\nfiles (bytes, name, sha256)")
    for file in result["files"]:
        print(f"  {file['bytes']:>13,}  {file['name']}\n      {file['sha256']}")
    print("\ntensors")
    for tensor in result["tensors"]:
        shape = str(tuple(tensor["shape"]))
        print(f"  {tensor['dtype']:<8} {shape:<16} {tensor['name']}")
    checked = (
        "all checksums hold" if result["checksums"] else "the format has no checksums"
    )
    print(
        f"  {len(result['tensors'])} tensors of {result['numbers']:,} numbers; {checked}"
    )
    print()
    width = columns(sys.stdout)
    for line in model.splitlines():
        parts = textwrap.wrap(line, width, subsequent_indent="    ")
        print("\n".join(parts) if len(line) > width else line)
    print(f"{result['parameters']:,} parameters")
    print(f"backend='auto' is {result['backend']!r} here")
