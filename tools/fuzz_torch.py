"""PyTorch's files, zip and legacy, as the fuzzer sees them.

Their pickles are changed instruction by instruction. The witness is the standard library's
unpickler, which is given records for what a state dict names.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import random
import warnings
import zipfile
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
from fuzz_formats import ARRAYS, Arrays, Base, Files, Format, widened
from fuzz_mutations import NUMBERS, mutate_bytes, mutate_same_length

TORCH = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16", "LongStorage": "i8", "IntStorage": "i4",
    "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
    "ComplexFloatStorage": "c8", "ComplexDoubleStorage": "c16", "UntypedStorage": "u1",
}  # fmt: skip


class _Pickled(NamedTuple):
    """What stands for a tensor: its storage (kind, key, length) and the view of it."""

    storage: tuple
    offset: int
    shape: tuple
    strides: tuple
    kind: str | None


class _Dtype(str):
    """A torch dtype by its NumPy name."""


class _Other:
    """What stands for anything else that is saved beside tensors."""

    def __init__(self, *_: Any):
        pass


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """The standard library's pickle machine; nothing it names is imported.

    (The one in Python, for that in C makes an array of the highest number of a memo.)
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in (
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
        ):
            return lambda storage, offset, shape, strides, *_: _Pickled(
                storage, offset, shape, strides, None
            )
        if (module, name) == ("torch._utils", "_rebuild_tensor_v3"):
            return lambda storage, offset, shape, strides, grad, hooks, dtype, *_: (
                _Pickled(storage, offset, shape, strides, str(dtype))
            )
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if (module, name) == ("torch", "Size"):
            return tuple
        if module in ("torch", "torch.storage") and name in TORCH:
            return TORCH[name]
        if module == "torch" and name in ("uint16", "uint32", "uint64"):
            return _Dtype(name)
        return _Other

    def persistent_load(self, pid: Any) -> tuple:
        _, kind, key, _, length = pid[:5]
        return kind, key, length


def is_tensor(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, _Pickled)


def torch_views(state: Any, storages: dict[str, bytes], order: str) -> Arrays:
    """The tensors of a state dict, given the storages' bytes."""
    arrays = {}
    for name, value in state.items():
        if not is_tensor(name, value):
            continue
        kind = value.kind or value.storage[0]
        stored = np.dtype("u2" if kind == "bfloat16" else kind).newbyteorder(order)
        items = np.frombuffer(storages[value.storage[1]], stored)
        array = np.empty(value.shape, stored)
        for place in np.ndindex(*value.shape if array.size else (0,)):
            at = value.offset + sum(i * s for i, s in zip(place, value.strides))
            array[place] = items[at]
        array = array.astype(array.dtype.newbyteorder("="))
        arrays[name] = widened(array) if kind == "bfloat16" else array
    return arrays


class _Storage:
    """Pickles as torch does it: a reference to bytes outside the pickle."""

    def __init__(self, kind: str, key: str, length: int):
        self.reference = ("storage", _Name("torch", kind), key, "cpu", length)


class _Name:
    """Pickles as the global `module.name`."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class _Call:
    """Pickles as a call of a global."""

    def __init__(self, function: _Name, arguments: tuple):
        self.function, self.arguments = function, arguments


class _Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes what torch.save writes: globals by name, storages by reference."""

    def persistent_id(self, value: Any) -> Any:
        return value.reference if isinstance(value, _Storage) else None

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, _Name):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, _Call):
            self.save(value.function)
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def torch_state(legacy: bool) -> tuple[bytes, dict[str, tuple[str, bytes]]]:
    """(the pickle of a state dict, key -> (kind, bytes) of its storages)."""
    float32, half = ARRAYS["wte.weight"], ARRAYS["h.0.ln_1.bias"]
    bits = (float32.view(np.uint32) >> 16).astype(np.uint16)
    storages = {
        "0": ("FloatStorage", float32.tobytes()),
        "1": ("HalfStorage", half.tobytes()),
        "2": ("BFloat16Storage", bits.tobytes()),
    }
    lengths = {"0": 20, "1": 3, "2": 20}

    def tensor(key: str, offset: int, shape: tuple, strides: tuple) -> _Call:
        storage = _Storage(storages[key][0], key, lengths[key])
        if legacy:
            storage.reference += (None,)
        hooks = _Call(_Name("collections", "OrderedDict"), ())
        arguments = (storage, offset, shape, strides, False, hooks)
        return _Call(_Name("torch._utils", "_rebuild_tensor_v2"), arguments)

    state = {
        "wte.weight": tensor("0", 0, (5, 4), (4, 1)),
        "transposed": tensor("0", 4, (4, 2), (1, 4)),
        "h.0.ln_1.bias": tensor("1", 0, (3,), (1,)),
        "bits": tensor("2", 0, (20,), (1,)),
        "step": 7,
    }
    buffer = io.BytesIO()
    _Pickler(buffer, 2).dump(state)
    return buffer.getvalue(), storages


def mutate_pickle(program: bytes, rng: random.Random) -> bytes:
    """Return a pickle with one instruction changed, or one byte."""
    if rng.randrange(3) == 0:
        return mutate_bytes(program, rng)
    try:
        starts = [at for _, _, at in pickletools.genops(program)]
    except ValueError:
        return mutate_bytes(program, rng)
    ends = [*starts[1:], len(program)]
    pieces = [program[a:b] for a, b in zip(starts, ends)]
    at = rng.randrange(len(pieces))
    match rng.randrange(6):
        case 0:
            del pieces[at]
        case 1:
            pieces.insert(at, pieces[at])
        case 2:
            other = rng.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        case 3:
            pieces.insert(
                at,
                rng.choice(
                    (b"(", b")", b"0", b"2", b"]", b"}", b"N", b"\x85", b"t", b"u", b"s",
                     b"e", b"a", b"R", b"b", b"Q", b"h\x00", b"K\x01", b"\x88", b".",
                     b"U\x01a", b"C\x01a", b"\x8f", b"\x90", b"\x91", b"\x94", b"\x81",
                     b"J\xff\xff\xff\xff", b"r\xff\xff\xff\x7f", b"cos\nsystem\n",
                     b"cbuiltins\nset\n", b"cnumpy\ndtype\n", b"ctorch\ndevice\n",
                     b"cnumpy.core.multiarray\n_reconstruct\n", b"ctorch\nfloat32\n",
                     b"\x8a\x09" + b"\xff" * 8 + b"\x00", b"G\x7f\xf8\0\0\0\0\0\0"),
                ),
            )  # fmt: skip
        case 4:
            numbers = [n for n, piece in enumerate(pieces) if piece[:1] in b"KMJ"]
            if numbers:
                number = rng.choice(NUMBERS)
                pieces[rng.choice(numbers)] = pickle.dumps(number, 2)[2:-1]
        case _:
            pieces[at] = mutate_bytes(pieces[at], rng)
    return b"".join(pieces)


class TorchZip(Format):
    name = "torch zip"
    share = 4
    target = "pytorch_model.bin"
    gate = ("minigpt2.checkpoints.torch_file", "_members")
    modules = ("checkpoints/torch_file.py", "checkpoints/inert_pickle.py")

    def make_bases(self) -> list[Base]:
        program, storages = torch_state(legacy=False)
        bases = []
        for order in ("little", "big"):
            members = {"archive/data.pkl": program, "archive/byteorder": order.encode()}
            for key, (kind, raw) in storages.items():
                if order == "big":
                    width = {"FloatStorage": "u4"}.get(kind, "u2")
                    raw = np.frombuffer(raw, width).byteswap().tobytes()
                members[f"archive/data/{key}"] = raw
            members["archive/version"] = b"3\n"
            files = self.packed({"members": list(map(list, members.items()))})
            bases.append(Base(files, self.witness(files)))
        return bases

    def unpacked(self, files: Files) -> Any:
        with zipfile.ZipFile(io.BytesIO(files[self.target])) as archive:
            return {
                "members": [[name, archive.read(name)] for name in archive.namelist()]
            }

    def change(self, parts: Any, rng: random.Random) -> None:
        members = parts["members"]
        match rng.randrange(8):
            case 0:
                member = rng.choice(members)
                member[0] = rng.choice(
                    (rng.choice(members)[0], member[0][1:], member[0] + "x", "data.pkl")
                )
            case 1 if len(members) > 1:
                members.remove(rng.choice(members))
            case 2 | 3:
                member = rng.choice(members)
                mutate = rng.choice((mutate_same_length, mutate_bytes))
                member[1] = mutate(member[1], rng)
            case _:
                for member in members:
                    if member[0].endswith("data.pkl"):
                        member[1] = mutate_pickle(member[1], rng)

    def packed(self, parts: Any) -> Files:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a name that is there twice
            for name, data in parts["members"]:
                archive.writestr(zipfile.ZipInfo(name.replace("\0", "") or "x"), data)
        return {self.target: buffer.getvalue()}

    def witness(self, files: Files) -> Arrays:
        with zipfile.ZipFile(io.BytesIO(files[self.target])) as archive:
            names = archive.namelist()
            (name,) = (name for name in names if name.endswith("/data.pkl"))
            folder = name.removesuffix("data.pkl")
            state = _Unpickler(io.BytesIO(archive.read(name))).load()
            order = b"little"
            if f"{folder}byteorder" in names:
                order = archive.read(f"{folder}byteorder")
            used = {v.storage[1] for name, v in state.items() if is_tensor(name, v)}
            storages = {key: archive.read(f"{folder}data/{key}") for key in used}
        return torch_views(state, storages, {b"little": "<", b"big": ">"}[order])


class TorchLegacy(Format):
    """No checksums; what is repaired are the lengths, and the pickles stay pickles."""

    name = "torch legacy"
    share = 4
    target = "pytorch_model.bin"
    gate = ("minigpt2.checkpoints.torch_file", "_call")
    modules = ("checkpoints/torch_file.py", "checkpoints/inert_pickle.py")

    def make_bases(self) -> list[Base]:
        program, storages = torch_state(legacy=True)
        pickles = [
            *(
                pickle.dumps(v, 2)
                for v in (0x1950A86A20F9469CFC6C, 1001, {"little": 1})
            ),
            *(program, pickle.dumps(list(storages), 2)),
        ]
        widths = {"FloatStorage": 4}
        raws = [
            [len(raw) // widths.get(kind, 2), raw] for kind, raw in storages.values()
        ]
        files = self.packed({"pickles": pickles, "raws": raws})
        return [Base(files, self.witness(files))]

    def unpacked(self, files: Files) -> Any:
        stream = io.BytesIO(files[self.target])
        pickles = []
        for _ in range(5):
            start = stream.tell()
            value = _Unpickler(stream).load()
            pickles.append(files[self.target][start : stream.tell()])
        raws = []
        for width in (4, 2, 2)[: len(value)]:
            count = int.from_bytes(stream.read(8), "little")
            raws.append([count, stream.read(count * width)])
        return {"pickles": pickles, "raws": raws}

    def change(self, parts: Any, rng: random.Random) -> None:
        match rng.randrange(6):
            case 0:
                raw = rng.choice(parts["raws"])
                raw[0] = rng.choice((raw[0] + 1, raw[0] - 1, *NUMBERS))
            case 1:
                raw = rng.choice(parts["raws"])
                mutate = rng.choice((mutate_same_length, mutate_bytes))
                raw[1] = mutate(raw[1], rng)
            case 2:
                at = rng.randrange(5)
                parts["pickles"][at] = mutate_pickle(parts["pickles"][at], rng)
            case _:
                parts["pickles"][3] = mutate_pickle(parts["pickles"][3], rng)

    def packed(self, parts: Any) -> Files:
        data = b"".join(parts["pickles"])
        for count, raw in parts["raws"]:
            data += (count % 2**64).to_bytes(8, "little") + raw
        return {self.target: data}

    def witness(self, files: Files) -> Arrays:
        stream = io.BytesIO(files[self.target])
        kinds: dict[str, str] = {}

        class Unpickler(_Unpickler):
            def persistent_load(self, pid: Any) -> tuple:
                kinds[pid[2]] = pid[1]
                return super().persistent_load(pid)

        *_, state, keys = (Unpickler(stream).load() for _ in range(5))
        storages = {}
        for key in keys:
            count = int.from_bytes(stream.read(8), "little")
            kind = kinds[key]
            width = np.dtype("u2" if kind == "bfloat16" else kind).itemsize
            storages[key] = stream.read(count * width)
        return torch_views(state, storages, "<")
