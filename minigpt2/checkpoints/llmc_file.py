"""llm.c's model file (`gpt2_124M.bin`) <-> arrays: a header, then all numbers in a row.

    header   256 int32: 20240326, version, T, V, L, H, C, Vp, and zeros
    body     wte [Vp, C], wpe [T, C]; then of each parameter of a block those of all L
             layers, in the order of names.BLOCK; ln_f's two

T is n_positions, L n_layer and H n_head. Version 3 is float32 and version 5 bfloat16, all
little-endian. Vp is V rounded up to a multiple of 128; the rows of wte from V on are
zero, and not read. A linear layer's matrix is [out, in], the transpose of ours. An
interim version 3 was bfloat16 in another order; it has Vp = 0, and is refused.

llm.c has no word for an inner width other than 4C, for pruned heads or an untied head.
Source: github.com/karpathy/llm.c, train_gpt2.py (write_model) and train_gpt2.c.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..runtime.files import open_whole
from . import CheckpointError, names
from .names import Sizes
from .tensor_file import (
    TensorFile,
    as_array,
    as_kind,
    beginning,
    map_file,
    stored_dtype,
    stored_size,
)

MAGIC, STATE, TOKENIZER, TOKENS = 20240326, 20240327, 20240328, 20240520
VERSIONS = {3: "float32", 5: "bfloat16"}
HEADER = 1024  # bytes: 256 int32
KINDS = {
    MAGIC: "model file",
    STATE: "debug state",
    TOKENIZER: "tokenizer file",
    TOKENS: "token file",
}
ROWS = 128  # wte has a multiple of as many


@dataclass
class LlmcSizes:
    """What a header says of the model, under the names of GPT2Config."""

    n_positions: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    n_inner: int | None = None
    pruned_heads: Mapping[int, Sequence[int]] = field(default_factory=dict)


class Entry(NamedTuple):
    kind: str
    shape: tuple[int, ...]
    start: int  # of the bytes, from the body's first
    transposed: bool  # as it is stored


class LlmcFile(TensorFile):
    """The parameters in llm.c's model file, under their canonical names.

    Arrays are read-only views of the mapped file, [in, out] by their strides; bfloat16
    is widened to float32. `sizes` is what the header says.

    Raises:
        CheckpointError: for a file that is missing, truncated, or something else.
    """

    def __init__(self, path: str | os.PathLike):
        path = Path(path)
        file = map_file(path)
        try:
            self.sizes, kind = _sizes(header_of(file, MAGIC))
            self._body = file[HEADER:]
            expected = body_items(self.sizes) * stored_dtype(kind).itemsize
            if len(self._body) != expected:
                raise CheckpointError(
                    f"{len(self._body)} bytes follow the header, and its sizes ask for "
                    f"{expected}"
                )
        except CheckpointError as error:
            raise CheckpointError(
                f"{path} is no sound model file of llm.c: {error}"
            ) from None
        super().__init__(path, entries(self.sizes, kind), {})

    def __getitem__(self, name: str) -> np.ndarray:
        return array_of(self._body, self._tensor(name))

    def bfloat16_bits(self, name: str) -> np.ndarray | None:
        entry = self._tensor(name)
        if entry.kind != "bfloat16":
            return None
        return array_of(self._body, entry._replace(kind="uint16"))


def is_llmc(path: str | os.PathLike, magic: int = MAGIC) -> bool:
    """Say whether a file begins as llm.c's model files do, or its others."""
    return map_file(Path(path))[:4].tobytes() == magic.to_bytes(4, "little")


def header_of(file: np.ndarray, magic: int) -> list[int]:
    """Return the 256 numbers that a file of llm.c begins with, the first being `magic`."""
    if len(file) < HEADER:
        raise CheckpointError(
            f"it has {len(file)} bytes, and the header alone takes {HEADER}; "
            + beginning(file)
        )
    header: list[int] = file[:HEADER].view("<i4").tolist()
    if header[0] != magic:
        other = f"it is llm.c's {KINDS[header[0]]}" if header[0] in KINDS else None
        raise CheckpointError(
            f"it does not begin with {magic}; {other or beginning(file)}"
        )
    return header


def _sizes(header: list[int]) -> tuple[LlmcSizes, str]:
    """Return what a model's header says, and the kind of its numbers."""
    version, padded = header[1], header[7]
    if version == 3 and padded == 0:
        raise CheckpointError(
            "it is of an interim version of llm.c, in another order; export it again"
        )
    if version not in VERSIONS:
        raise CheckpointError(
            f"its version is {version}, and 3 (float32) and 5 (bfloat16) are known"
        )
    T, V, L, H, C = header[2:7]
    sizes = LlmcSizes(T, V, L, H, C)
    if min(header[2:7]) < 1 or padded != padded_vocabulary(sizes):
        raise CheckpointError(
            f"it says T, V, L, H, C, Vp = {', '.join(map(str, header[2:8]))}; they must "
            f"be positive, and Vp be V rounded up to a multiple of {ROWS}"
        )
    return sizes, VERSIONS[version]


def padded_vocabulary(sizes: Sizes) -> int:
    """Return Vp, how many rows wte has in the file."""
    return -(-sizes.vocab_size // ROWS) * ROWS


def body_items(sizes: Sizes) -> int:
    """Return how many numbers there are, the zeros behind wte included."""
    C = sizes.n_embd
    embeddings = (padded_vocabulary(sizes) + sizes.n_positions) * C
    return embeddings + sizes.n_layer * (12 * C * C + 13 * C) + 2 * C


def _parts(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield (canonical name, shape) in the order of the body."""
    shapes = names.parameter_shapes(sizes)
    layers = range(sizes.n_layer)
    blocks = [row.name.replace("#", str(i)) for row in names.BLOCK for i in layers]
    for name in (*(row.name for row in names.EMBEDDINGS), *blocks):
        yield name, shapes[name]
    for row in names.FINAL_NORM:
        yield row.name, shapes[row.name]


def entries(sizes: Sizes, kind: str) -> dict[str, Entry]:
    """Return {canonical name: where it lies in the body}, in order."""
    found, start = {}, 0
    for name, shape in _parts(sizes):
        found[name] = Entry(kind, shape, start, name.endswith(names.MATRICES))
        rows = padded_vocabulary(sizes) if name == "wte.weight" else shape[0]
        start += stored_size(kind, (rows, *shape[1:]))
    return found


def array_of(body: np.ndarray, entry: Entry) -> np.ndarray:
    """Return one of `entries` as an array in our layout."""
    raw = body[entry.start : entry.start + stored_size(entry.kind, entry.shape)]
    if entry.transposed:
        return as_array(raw, entry.kind, entry.shape[::-1]).T
    return as_array(raw, entry.kind, entry.shape)


def save_llmc(
    path: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    sizes: Sizes,
    dtype: str = "float32",
) -> None:
    """Write a model file of llm.c, whole or not at all.

    Args:
        path: the file; one that is there is replaced when the new one is complete.
        tensors: canonical name -> array [in, out]. Any mapping will do, another file's
            reader too: one array at a time is asked for.
        sizes: the model's.
        dtype: "float32" or "bfloat16", each number to the nearest, ties to even.

    Raises:
        ValueError: for what llm.c has no word for, another dtype, or an array that is
            missing or of another shape.
    """
    versions = {kind: version for version, kind in VERSIONS.items()}
    if dtype not in versions:
        raise ValueError(f"llm.c has {' and '.join(versions)}, not {dtype!r}")
    if sizes.n_inner not in (None, 4 * sizes.n_embd) or sizes.pruned_heads:
        raise ValueError("llm.c has no word for n_inner or for pruned heads")
    header = [MAGIC, versions[dtype], sizes.n_positions, sizes.vocab_size]
    header += [sizes.n_layer, sizes.n_head, sizes.n_embd, padded_vocabulary(sizes)]
    with open_whole(path) as file:
        write_header(file, header)
        write_body(file, tensors, sizes, dtype)


def write_header(file: BinaryIO, numbers: Sequence[int]) -> None:
    """Write the 256 numbers that a file of llm.c begins with, zeros after those given."""
    header = np.zeros(HEADER // 4, "<i4")
    header[: len(numbers)] = numbers
    file.write(header.tobytes())


def write_body(
    file: BinaryIO, tensors: Mapping[str, np.ndarray], sizes: Sizes, kind: str
) -> None:
    """Write all parameters, or numbers of their shapes, in llm.c's order and layout."""
    for name, shape in _parts(sizes):
        if name not in tensors:
            raise ValueError(f"{name} is missing")
        array = np.asarray(tensors[name])
        if array.shape != shape or array.dtype.kind != "f":
            raise ValueError(
                f"{name} has shape {array.shape} and dtype {array.dtype}; it must be "
                f"floating and {shape}"
            )
        try:
            items = as_kind(array.T if name.endswith(names.MATRICES) else array, kind)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        file.write(items.reshape(-1).view(np.uint8).data)
        if name == "wte.weight":
            rows = padded_vocabulary(sizes) - len(array)
            file.write(bytes(stored_size(kind, (rows, *shape[1:]))))
