"""What a format is to the fuzzer; safetensors, its shards, our quantized files, npz.

A format has base files with the tensors that are in them; it mutates them, with and
without making checksums and lengths right again; it reads them by minigpt2; and it has a
second reader, the *witness*, which shares no code with minigpt2's (but for a checksum
and a key of TensorFlow's, which the tests hold to TensorFlow): the standard library's
pickle and zipfile, numpy.load, or a few lines by the format's definition.

The rule of numbers: what minigpt2 reads of a mutated file must be, bit for bit, what was
in the base file; or else what the witness, which verifies all checksums that the format
has, reads of the same mutated file. Anything else is a wrong number.
"""

from __future__ import annotations

import io
import json
import random
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fuzz_mutations import (
    NUMBERS,
    dump_json,
    mutate_bytes,
    mutate_json,
    mutate_same_length,
)

from minigpt2.checkpoints.open import open_checkpoint
from minigpt2.checkpoints.safetensors_file import save_safetensors
from minigpt2.quantization import quantized
from minigpt2.quantization.files import read_quantized, weight_format_of

Files = dict[str, bytes]
Arrays = dict[str, np.ndarray]


class Base(NamedTuple):
    """Sound files, and the arrays that are in them."""

    files: Files
    arrays: Arrays


class Wrong(Exception):
    """A result that cannot be right, found by reading with minigpt2."""


class Format:
    """One format: see the top of this file."""

    name = ""
    share = 1  # of the inputs of a slice, relative to the other formats
    target = ""  # what is opened in the folder; "" is the folder itself
    # (module, function): it returns only once the header has been believed, of settings
    # once the text is JSON. It is the function that reads `file`, if that is given.
    gate = ("", "")
    file = ""
    modules: tuple[str, ...] = ()  # whose lines are counted
    refusals: tuple[type[Exception], ...] = (ValueError, OSError)
    names_file = True  # a refusal must say which file
    limited = True  # in memory: what compiles cannot be
    lists_all = True  # `read` gives every tensor that the witness gives

    def __init__(self) -> None:
        self.bases = self.make_bases()

    def make_bases(self) -> list[Base]:
        raise NotImplementedError

    def mutated(self, base: Base, rngs: list[random.Random], repaired: bool) -> Files:
        """Return the files of a base after one mutation for each generator.

        Args:
            repaired: make checksums and lengths right again, so that mutations are
                read. Otherwise bytes are changed as they lie in the files.
        """
        files = dict(base.files)
        if not repaired:
            for rng in rngs:
                name = rng.choice(sorted(files))
                files[name] = mutate_bytes(files[name], rng)
            return files
        parts = self.unpacked(files)
        for rng in rngs:
            self.change(parts, rng)
        return self.packed(parts)

    def unpacked(self, files: Files) -> Any:
        raise NotImplementedError

    def change(self, parts: Any, rng: random.Random) -> None:
        raise NotImplementedError

    def packed(self, parts: Any) -> Files:
        raise NotImplementedError

    def read(self, folder: Path) -> Arrays:
        """Return what minigpt2 reads; what it raises is the verdict."""
        return checked(open_checkpoint(folder / self.target))

    def witness(self, files: Files) -> Arrays | None:
        """Return what another reader reads, whatever it raises; None: there is none."""
        return None

    def use(self, folder: Path) -> None:
        """Use what was read: here a refusal need not name the file."""


def checked(file: Any) -> Arrays:
    """Return all tensors of an open checkpoint, which must be what it announces."""
    arrays = {}
    for name in file:
        array = file[name]
        if array.shape != file.shape(name) or array.dtype != file.dtype(name):
            raise Wrong(f"{name!r} is not of the shape and dtype that were announced")
        if array.flags.writeable:
            raise Wrong(f"{name!r} can be written to")
        arrays[name] = array
    return arrays


def sample(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(kind).kind in "fc":
        return rng.standard_normal(shape).astype(kind)
    return rng.integers(0, 100, shape).astype(kind)


ARRAYS = {
    "wte.weight": sample("float32", (5, 4), 1),
    "h.0.ln_1.bias": sample("float16", (3,), 2),
    "ids": sample("int64", (2, 3), 3),
    "scalar": sample("float64", (), 4),
    "empty": sample("float32", (0, 3), 5),
}


def widened(bits: np.ndarray) -> np.ndarray:
    """bfloat16's bits -> float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def written(write: Callable[[Path], object]) -> Files:
    """Return the files that a function writes into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


# --- safetensors ---

SAFETENSORS = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2",
    "BF16": "<u2", "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8",
    "I64": "<i8", "F64": "<f8", "C64": "<c8",
}  # fmt: skip


def safetensors_by_definition(data: bytes) -> Arrays:
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in SAFETENSORS:
            continue
        start, stop = entry["data_offsets"]
        array = np.frombuffer(body[start:stop], SAFETENSORS[entry["dtype"]])
        array = widened(array) if entry["dtype"] == "BF16" else array
        arrays[name] = array.reshape(entry["shape"])
    return arrays


class Safetensors(Format):
    name = "safetensors"
    share = 4
    target = "model.safetensors"
    gate = ("minigpt2.checkpoints.safetensors_file", "_metadata")
    modules = ("checkpoints/safetensors_file.py", "checkpoints/tensor_file.py")

    def make_bases(self) -> list[Base]:
        return [
            self.base(ARRAYS, {"format": "pt"}),
            self.base(ARRAYS, {"format": "pt"}, "bfloat16"),
        ]

    def base(self, arrays: Arrays, metadata: dict, dtype: str | None = None) -> Base:
        files = written(
            lambda folder: save_safetensors(
                folder / self.target, arrays, metadata, dtype
            )
        )
        return Base(files, self.witness(files))

    def unpacked(self, files: Files) -> Any:
        (data,) = files.values()
        length = int.from_bytes(data[:8], "little")
        return {
            "header": json.loads(data[8 : 8 + length]),
            "text": None,
            "body": data[8 + length :],
            "fit": True,
        }

    def change(self, parts: Any, rng: random.Random) -> None:
        match rng.randrange(8):
            case 0 | 1:
                parts["body"] = mutate_same_length(parts["body"], rng)
            case 2:
                parts["text"] = rng.getrandbits(32)  # of the header's bytes
            case 3:
                parts["body"] = mutate_bytes(parts["body"], rng)
            case 4:
                entry = rng.choice([*parts["header"].values()] or [{}])
                if isinstance(entry, dict) and isinstance(entry.get("shape"), list):
                    rng.shuffle(entry["shape"])
                    entry["dtype"] = rng.choice([*SAFETENSORS, "F8_E4M3", "x"])
            case 5:
                entries = [e for e in parts["header"].values() if isinstance(e, dict)]
                offsets = [
                    e for e in entries if isinstance(e.get("data_offsets"), list)
                ]
                if offsets:
                    entry = rng.choice(offsets)
                    number = rng.choice(NUMBERS)
                    entry["data_offsets"] = rng.choice(
                        ([0, number], [number, number], entry["data_offsets"][::-1])
                    )
            case _:
                parts["header"] = mutate_json(parts["header"], rng)
                if not isinstance(parts["header"], dict):
                    parts["header"] = {"x": parts["header"]}

    def packed(self, parts: Any) -> Files:
        text = dump_json(parts["header"])
        if parts["text"] is not None:
            text = mutate_bytes(text, random.Random(parts["text"]))
        text += b" " * (-(8 + len(text)) % 64)
        return {self.target: len(text).to_bytes(8, "little") + text + parts["body"]}

    def witness(self, files: Files) -> Arrays:
        return safetensors_by_definition(files[self.target])


class Shards(Format):
    name = "shard index"
    share = 4
    target = "model.safetensors.index.json"
    gate = ("minigpt2.checkpoints.open", "_weight_map")
    modules = ("checkpoints/open.py",)

    def make_bases(self) -> list[Base]:
        def write(folder: Path) -> None:
            places = {}
            for number, names in enumerate((["wte.weight", "ids"], ["scalar"])):
                file = f"model-{number}.safetensors"
                save_safetensors(folder / file, {name: ARRAYS[name] for name in names})
                places |= dict.fromkeys(names, file)
            index = {"metadata": {"total_size": 8}, "weight_map": places}
            (folder / self.target).write_bytes(dump_json(index))

        files = written(write)
        return [Base(files, self.witness(files))]

    def unpacked(self, files: Files) -> Any:
        return dict(files) | {self.target: json.loads(files[self.target])}

    def change(self, parts: Any, rng: random.Random) -> None:
        if rng.randrange(4):
            parts[self.target] = mutate_json(parts[self.target], rng)
        else:
            shard = rng.choice([name for name in parts if name != self.target])
            parts[shard] = mutate_same_length(parts[shard], rng)

    def packed(self, parts: Any) -> Files:
        return parts | {self.target: dump_json(parts[self.target])}

    def witness(self, files: Files) -> Arrays:
        places = json.loads(files[self.target])["weight_map"]
        return {
            name: safetensors_by_definition(files[file])[name]
            for name, file in places.items()
        }


class Quantized(Safetensors):
    """Our own file of quantized parameters, as far as it goes beyond safetensors."""

    name = "quantized"
    lists_all = False
    modules = ("quantization/files.py",)
    NAME, SHAPE = "transformer.h.0.attn.c_attn.weight", (24, 64)

    def make_bases(self) -> list[Base]:
        bases = []
        rows = sample("float32", self.SHAPE, 6)
        for weights in ("int8", "int4", "bfloat16"):
            arrays = quantized(rows, weights).arrays()
            tensors = dict(zip((self.NAME, self.NAME + "_scale"), arrays))
            metadata = {"format": "minigpt2", "weights": weights}
            files = self.base(tensors, metadata).files
            bases.append(Base(files, tensors))
        return bases

    def read(self, folder: Path) -> Arrays:
        file = open_checkpoint(folder / self.target)
        weights = weight_format_of(file)
        if weights == "float32":
            return checked(file)
        try:
            matrix = read_quantized(file, self.NAME, self.SHAPE, weights)
        except ValueError as error:  # as loading a model does
            raise ValueError(f"{file.path}: {error}") from None
        if not np.asarray(matrix).shape == self.SHAPE:
            raise Wrong("a matrix of another shape")
        return dict(zip((self.NAME, self.NAME + "_scale"), matrix.arrays()))


# --- NumPy ---


class Npz(Format):
    name = "npz"
    share = 4
    target = "model.npz"
    gate = ("minigpt2.checkpoints.npz_file", "_entry")
    modules = ("checkpoints/npz_file.py",)

    def make_bases(self) -> list[Base]:
        arrays = ARRAYS | {"fortran": np.asfortranarray(ARRAYS["wte.weight"])}
        arrays["big"] = ARRAYS["ids"].astype(">i8")
        bases = []
        for save in (np.savez, np.savez_compressed):
            files = written(lambda folder, s=save: s(folder / self.target, **arrays))
            bases.append(Base(files, self.witness(files)))
        return bases

    def unpacked(self, files: Files) -> Any:
        with zipfile.ZipFile(io.BytesIO(files[self.target])) as archive:
            return {
                "kind": archive.infolist()[0].compress_type,
                "members": [[name, archive.read(name)] for name in archive.namelist()],
                "claims": None,
            }

    def change(self, parts: Any, rng: random.Random) -> None:
        members = parts["members"]
        member = rng.choice(members)
        match rng.randrange(9):
            case 0:
                member[0] = rng.choice(
                    (rng.choice(members)[0], member[0][:-4], "x", "/")
                )
            case 1:
                parts["kind"] = rng.choice((0, 8, 12, 14, 99))
            case 2:
                parts["claims"] = rng.getrandbits(32)
            case 3:
                member[1] = mutate_bytes(member[1], rng)
            case 4:
                member[1] = member[1][:80] + mutate_same_length(member[1][80:], rng)
            case _:
                member[1] = self._change_header(member[1], rng)

    def _change_header(self, data: bytes, rng: random.Random) -> bytes:
        """A .npy file whose header says something else, its length right again."""
        length = int.from_bytes(data[8:10], "little")
        header, items = data[10 : 10 + length], data[10 + length :]
        number = str(rng.choice(NUMBERS)).encode()
        old, new = rng.choice(
            (
                (b"(", b"(" + number + b", "),
                (b"(", b"(0, " + number + b", "),
                (b"'shape': (5, 4)", b"'shape': (4, 5)"),
                (b"'shape': (5, 4)", b"'shape': (" + number + b", 4)"),
                (b"False", b"True"),
                (b"True", b"False"),
                (b"<f4", rng.choice((b">f4", b"<i4", b"<f8", b"|O", b"<U4", b"<f16"))),
                (b"<i8", rng.choice((b">i8", b"<c8", b"|V8", b"<M8", b"<i0", b"=i8"))),
                (b" ", b""),
            )
        )
        header = header.replace(old, new, 1)
        if rng.randrange(4) == 0:
            header = mutate_bytes(header, rng)
        return data[:8] + len(header).to_bytes(2, "little")[:2] + header + items

    def packed(self, parts: Any) -> Files:
        buffer = io.BytesIO()
        kind = parts["kind"] if parts["kind"] != 99 else 0
        with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, data in parts["members"]:
                info = zipfile.ZipInfo(name.replace("\0", "") or "x")
                info.compress_type = kind
                archive.writestr(info, data)
        data = bytearray(buffer.getvalue())
        if parts["claims"] is not None:  # what the directory says of one member
            rng = random.Random(parts["claims"])
            places = [n for n in range(len(data) - 46) if data[n : n + 4] == b"PK\1\2"]
            at = rng.choice(places) + rng.choice((8, 10, 16, 20, 24, 42))
            data[at : at + 4] = (rng.choice(NUMBERS) % 2**32).to_bytes(4, "little")
        return {self.target: bytes(data)}

    def witness(self, files: Files) -> Arrays:
        with np.load(io.BytesIO(files[self.target]), allow_pickle=False) as arrays:
            found = {}
            for name in arrays:
                try:
                    array = np.asarray(arrays[name])
                except Exception:  # objects, no .npy at all, or what NumPy makes of it
                    continue
                if array.dtype.kind in "biufc":
                    found[name] = array.astype(array.dtype.newbyteorder("="))
            return found
