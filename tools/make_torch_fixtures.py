"""Make tests/data/torch: small files by torch.save, and what torch reads in them.

    python tools/make_torch_fixtures.py

needs torch (2.13.0 and NumPy 2.4.6 made the files that are there). Each file is a small
state dict with all that makes reading one hard: every dtype, tensors that share a
storage, strides, offsets, parameters, a module's metadata, values that are no tensors.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parent.parent / "tests" / "data" / "torch"
DTYPES = ("float64", "float32", "float16", "bfloat16", "bool")
DTYPES += ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64")
DTYPES += ("complex64", "complex128")


def state_dict() -> dict[str, Any]:
    """Return what each file holds."""
    torch.manual_seed(0)
    state = torch.nn.Linear(5, 3).state_dict()  # an OrderedDict with _metadata
    wte = torch.randn(7, 4)
    state["transformer.wte.weight"] = state["lm_head.weight"] = wte
    state["transposed"] = wte.T
    state["every other"] = wte[1::2, 1:3]
    state["expanded"] = wte[:, :1].expand(7, 6)
    state["parameter"] = torch.nn.Parameter(torch.randn(2, 1, 3))
    state["scalar"] = torch.tensor(2.5)
    state["empty"] = torch.empty(0, 3)
    for name in DTYPES:
        state[name] = torch.tensor([0, 1, 3]).to(getattr(torch, name))
    state["bfloat16 rows"] = torch.randn(4, 6).to(torch.bfloat16)[1:, ::2]
    state["step"] = 17
    return state


def main() -> None:
    """Write the files, and what torch reads in the first of them."""
    FOLDER.mkdir(exist_ok=True)
    state = state_dict()
    torch.save(state, FOLDER / "zip.bin")
    torch.save(state, FOLDER / "zip_protocol_4.bin", pickle_protocol=4)
    torch.save(state, FOLDER / "legacy.bin", _use_new_zipfile_serialization=False)
    expected = {
        name: (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy()
        for name, x in torch.load(FOLDER / "zip.bin").items()
        if isinstance(x, torch.Tensor)
    }
    np.savez(FOLDER / "expected.npz", **expected)
    for file in sorted(FOLDER.iterdir()):
        print(f"{file.name}: {file.stat().st_size} bytes, by torch {torch.__version__}")


if __name__ == "__main__":
    main()
