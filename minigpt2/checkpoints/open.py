"""Find the reader of a checkpoint: any file or folder -> {name: array}."""

import json
import os
import re
from pathlib import Path

import numpy as np

from . import CheckpointError
from .llmc_file import LlmcFile, is_llmc
from .safetensors_file import SafetensorsFile
from .tensor_file import TensorFile, beginning, map_file
from .tf_bundle import TFBundle, find_prefix

# In a folder, the better one first; `checkpoint` names a TensorFlow checkpoint.
NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "checkpoint",
    "model.ckpt.index",
    "model.npz",
    "ckpt.pt",  # nanoGPT's
    "model.bin",  # llm.c's
)
SHARD = r"[^/\\\0]+\.(safetensors|bin)"


def open_checkpoint(
    path: str | os.PathLike, verify: bool = True, safetensors: bool | None = None
) -> TensorFile:
    """Return the tensors of a checkpoint, under the names that it gives them.

    Args:
        path: a file (.safetensors, .bin, .pt or .ckpt, .npz, llm.c's .bin, the
            .index.json of a sharded checkpoint, any file of a TensorFlow checkpoint), a
            TensorFlow prefix ("model.ckpt"), or a folder. There model.safetensors is
            looked for, then pytorch_model.bin, each of them whole or sharded, then a
            TensorFlow checkpoint, model.npz, nanoGPT's ckpt.pt and llm.c's model.bin.
        verify: whether a tensor's checksum, where the format has one, is verified when
            it is first read.
        safetensors: of a folder, whether to look for that format alone, or for every
            other; None looks for all.

    Raises:
        CheckpointError: if nothing is found, saying what was looked for, or if what is
            found is damaged.
    """
    path = Path(path)
    if path.is_dir():
        wanted = [n for n in NAMES if safetensors in (None, "safetensors" in n)]
        for name in wanted:
            if (path / name).is_file():
                return open_checkpoint(path / name, verify)
        if safetensors is not True and any(path.glob("*.index")):
            return TFBundle(path, verify)  # of another name than TensorFlow's usual
        inside = (p.parent for n in (*wanted, "*.index") for p in path.glob(f"*/{n}"))
        hint = next((f"; {p} has one: give that folder" for p in sorted(inside)), "")
        raise CheckpointError(
            f"the folder {path} has no checkpoint: none of {', '.join(wanted)}{hint}"
        )
    if path.name.endswith(".index.json"):
        return ShardedFile(path, verify)
    match path.suffix:
        case ".safetensors":
            return SafetensorsFile(path)
        case ".bin" if path.is_file() and is_llmc(path):
            return LlmcFile(path)
        # (Imported here because zipfile is slow to import, and seldom needed.)
        case ".bin" | ".pt" | ".pth" | ".ckpt" if _is_torchs(path):
            from .torch_file import TorchFile

            return TorchFile(path, verify)
        case ".npz":
            from .npz_file import NpzFile

            return NpzFile(path)
    if not path.exists() and not Path(f"{find_prefix(path)}.index").exists():
        raise CheckpointError(f"there is no file, folder or TensorFlow prefix {path}")
    return TFBundle(path, verify)


def _is_torchs(path: Path) -> bool:
    """Say whether a file may be torch.save's: model.ckpt may be TensorFlow's, too."""
    if path.suffix != ".ckpt":
        return True
    return path.is_file() and map_file(path)[:2].tobytes() in (b"PK", b"\x80\2")


class ShardedFile(TensorFile):
    """The tensors of several files, by Hugging Face's index of them.

        {"metadata": {"total_size": 12}, "weight_map": {"name": "file beside it"}}

    All files are opened, and all names looked up, when the index is.

    Raises:
        CheckpointError: if a file or a tensor is missing, damaged, or something else.
    """

    def __init__(self, path: str | os.PathLike, verify: bool = True):
        path = Path(path)
        weight_map = _weight_map(path)
        shards = {
            file: open_checkpoint(path.with_name(file), verify)
            for file in sorted(set(weight_map.values()))
        }
        self._shards = {name: shards[file] for name, file in weight_map.items()}
        for name, shard in self._shards.items():
            if name not in shard:
                raise CheckpointError(
                    f"{path} puts {name!r} into {shard.path}: not there"
                )
        tensors = {name: shard._tensor(name) for name, shard in self._shards.items()}
        super().__init__(path, tensors, {})

    def __getitem__(self, name: str) -> np.ndarray:
        self._tensor(name)
        return self._shards[name][name]

    @property
    def has_checksums(self) -> bool:
        return all(shard.has_checksums for shard in self._shards.values())

    def bfloat16_bits(self, name: str) -> np.ndarray | None:
        self._tensor(name)
        return self._shards[name].bfloat16_bits(name)


def _weight_map(path: Path) -> dict[str, str]:
    """Return {tensor: file}; the files are plain names of single-file formats."""
    raw = map_file(path)
    try:
        index = json.loads(raw.tobytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is no JSON: {error} ({beginning(raw)})"
        ) from None
    listed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(listed, dict):
        raise CheckpointError(f"{path} has no weight_map")
    for name, file in listed.items():
        if not isinstance(file, str) or not re.fullmatch(SHARD, file):
            raise CheckpointError(
                f"{path} puts {name!r} into {file!r:.100}, which is no name of a "
                ".safetensors or .bin file beside it"
            )
    return listed
