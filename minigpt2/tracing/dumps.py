"""Somebody's dump -> {name: array}: what `minigpt2 golden diff` compares with a golden.

    .safetensors, .npz, .json     tensors by name, with or without what a golden says
    .pt, .pth, .bin               a dict of tensors that torch.save wrote
    .bin                          llm.c's debug state
    a folder                      ONNX's test data, or what transformers' model debugger
                                  wrote: a safetensors file for each tensor

Names are left as they are, but for the debugger's: it names files after modules
(`GPT2LMHeadModel.transformer.h.0.ln_2_outputs.safetensors`), and what flows from block to
block is in the inputs' files of the modules that read it. These get the names of steps.py.
bfloat16 is widened to float32.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..checkpoints import CheckpointError
from ..checkpoints.llmc_file import STATE, is_llmc
from ..checkpoints.names import Sizes
from ..checkpoints.safetensors_file import SafetensorsFile
from . import llmc_state
from .golden import INPUTS, NPZ_NAME, golden_of, open_tensors, with_prefix

# The debugger's file: a model's class, a module's path, what it is.
DEBUGGER = re.compile(r"\w+?(?:\.([\w.]+))?_(inputs|outputs)((?:_\w+)?)\.safetensors")
IN_BLOCK = re.compile(r"(.*\b)h\.(\d{1,9})(?:\.(.+))?")
# What a module in a block reads -> the step that it is.
READS = {"ln_2": "resid_mid", "attn.c_proj": "attn.z"}


def read_dump(
    path: str | os.PathLike, sizes: Sizes | None = None
) -> dict[str, np.ndarray]:
    """Return the tensors of a dump; a golden's inputs are under `inputs.NAME`.

    Args:
        path: a file or folder of any of the formats above.
        sizes: the model's configuration, which llm.c's debug state needs.

    Raises:
        CheckpointError: it is missing, damaged, or of no such format.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir())
        if any(DEBUGGER.fullmatch(name) for name in names):
            return dict(_of_debugger(path, names))
    elif path.suffix == ".bin" and is_llmc(path, STATE):
        golden = golden_of(llmc_state.read_state(path, sizes))
        return with_prefix(golden.inputs) | golden.steps
    elif path.suffix in (".pt", ".pth", ".bin"):
        from ..checkpoints.torch_file import TorchFile  # zipfile is slow to import

        return dict(TorchFile(path))
    tensors, _ = open_tensors(path)
    return {name: tensors[name] for name in tensors if name != NPZ_NAME}


def _of_debugger(folder: Path, files: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, array) of the files that hold an input, or what a step gives."""
    found = [match for file in files if (match := DEBUGGER.fullmatch(file))]
    blocks = [match for m in found if (match := IN_BLOCK.fullmatch(m[1] or ""))]
    last = max((int(match[2]) for match in blocks), default=0)
    for match in found:
        name = _step_of(match[1], match[2], match[3], last)
        if name is None:
            continue
        file = SafetensorsFile(folder / match[0])
        if list(file) != ["data"]:
            raise CheckpointError(f"{folder / match[0]} has not the one tensor 'data'")
        yield name, file["data"]


def _step_of(module: str | None, role: str, which: str, last: int) -> str | None:
    """Return the name of what is in a file of the debugger; None if it is elsewhere.

    Args:
        module: its path; None for the whole model.
        role: "inputs" or "outputs".
        which: which of them.
        last: the number of the last block.
    """
    first = which in ("_args_0", "_kwargs_hidden_states")
    if module is None:
        name = which.removeprefix("_kwargs_")
        given = role == "inputs" and (first or name != which)
        return INPUTS + ("input_ids" if first else name) if given else None
    if role == "outputs":
        return module if which in ("", "_0") else None
    if not first:
        return None
    if module.endswith("ln_f"):
        return f"{module.removesuffix('ln_f')}h.{last}"
    match = IN_BLOCK.fullmatch(module)
    if match is None:
        return None
    before, number, local = match[1], int(match[2]), match[3]
    if local is None:  # the block itself
        return f"{before}h.{number - 1}" if number else f"{before}drop"
    return f"{before}h.{number}.{READS[local]}" if local in READS else None
