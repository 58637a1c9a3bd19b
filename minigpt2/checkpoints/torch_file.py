"""PyTorch's `pytorch_model.bin` -> arrays, without torch and without running a pickle.

torch.save writes a pickle in which each tensor is a call, _rebuild_tensor_v2(storage,
offset, shape, strides, ...), and each storage, the memory that tensors may share, a
reference to bytes outside the pickle. There are two layouts:

    zip, torch 1.6 and later:
        NAME/data.pkl      the pickle
        NAME/data/KEY      a storage's bytes, not compressed
        NAME/byteorder     "little" or "big"; little where it is missing
    legacy, pickles one after the other, then bytes:
        magic number, protocol version, byte order of the machine, the dict itself,
        list of storage keys; for each key how many items (8 bytes), and the items,
        always little-endian

inert_pickle.py reads the pickles; a call becomes a record of what to view. The tar
archives of torch 0.1 are refused by name. Source: torch/serialization.py, _utils.py.
"""

import os
import pickle  # for the name of an instruction
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from . import CheckpointError
from .inert_pickle import Global, Inert, read_pickle
from .npz_file import ZIP_ERRORS
from .tensor_file import (
    ByteOrder,
    TensorFile,
    as_array,
    beginning,
    map_file,
    stored_dtype,
    stored_size,
)

KINDS = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
STORAGES = {f"torch.{name}Storage": kind for name, kind in KINDS.items()}
STORAGES["torch.storage.UntypedStorage"] = "uint8"
# Kinds that have no storage type of their own, only bytes and a dtype.
DTYPES = {f"torch.{kind}": kind for kind in ("uint16", "uint32", "uint64")}
CALLS = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.Size",
}
# What training programs save beside tensors, module by module. None of it is made: an
# Inert stands for each. (The names of modules are those of Python 2 and of NumPy 1, too.)
BESIDES = {
    f"{module}.{name}"
    for modules, names in {
        "builtins __builtin__": "set frozenset bytearray complex slice range xrange "
        "object dict list tuple int long float bool str unicode bytes",
        "collections": "defaultdict Counter deque",
        "argparse": "Namespace",
        "types": "SimpleNamespace",
        "datetime": "datetime date time timedelta timezone",
        "pathlib pathlib._local": "PosixPath WindowsPath PurePosixPath PureWindowsPath",
        "decimal": "Decimal",
        "uuid": "UUID",
        "_codecs": "encode",
        "numpy": "ndarray dtype float16 float32 float64 int32 int64 bool_",
        "numpy.core.multiarray numpy._core.multiarray": "scalar _reconstruct",
        "numpy.core.numeric numpy._core.numeric": "_frombuffer",
        "torch": f"device dtype layout strided complex32 {' '.join(KINDS.values())}",
    }.items()
    for module in modules.split()
    for name in names.split()
}
ALLOWED = {*STORAGES, *DTYPES, *CALLS, *BESIDES}
# Under these names a training program saves the state dict: nanoGPT "model", Lightning
# "state_dict", DeepSpeed "module".
STATE_DICTS = ("state_dict", "model_state_dict", "model", "module")

LEGACY = (0x1950A86A20F9469CFC6C, 1001)  # magic number, protocol version


class Storage(NamedTuple):
    """A reference from the pickle to `length` items outside."""

    key: str
    kind: str
    length: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count items."""

    storage: Storage
    kind: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def extent(self) -> int:
        """The number of items from the first to the last one."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides))


class Record(NamedTuple):
    """The bytes of a storage, and their CRC-32 where the file has one."""

    raw: np.ndarray
    crc: int | None = None


class TorchFile(TensorFile):
    """The tensors of a state dict that torch.save wrote.

    Args:
        path: the file, `pytorch_model.bin` say, of the zip or the legacy layout.
        verify: whether a storage's checksum is verified when it is first read. The
            legacy layout has none.

    Arrays are read-only views of the mapped file, with the strides they were saved
    with, and tensors that shared memory still do; but bfloat16 (widened to float32),
    big-endian files and odd offsets are copied. What the dict holds besides tensors is
    not listed.

    A training program saves its state dict inside another dict, as one of STATE_DICTS:
    then that is read, and what is beside it is in the attribute `besides`.

    Raises:
        CheckpointError: for a file that is missing, damaged, something else, or whose
            pickle asks for anything but tensors in a dict. Nothing it asks for is run.
    """

    def __init__(self, path: str | os.PathLike, verify: bool = True):
        path = Path(path)
        self.verify = verify
        self._verified: set[str] = set()
        try:
            saved, self._records, self._byteorder = _read(map_file(path), path)
            state, self.besides = _state_dict(saved)
            tensors, refused = _sort(state)
            for name, tensor in tensors.items():
                _check(name, tensor, self._records)
        except CheckpointError as error:
            raise CheckpointError(f"{path} is no sound PyTorch file: {error}") from None
        super().__init__(path, tensors, refused)

    @property
    def has_checksums(self) -> bool:
        """Whether the file has checksums, which reading a tensor verifies."""
        return all(record.crc is not None for record in self._records.values())

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._tensor(name)
        key = tensor.storage.key
        record = self._records[key]
        if self.verify and record.crc is not None and key not in self._verified:
            computed = zlib.crc32(record.raw.data)
            if computed != record.crc:
                raise CheckpointError(
                    f"{self.path}: tensor {name!r} is damaged: the checksum of its "
                    f"storage is stored as {record.crc:#010x}, and {computed:#010x} "
                    f"was computed from its {len(record.raw)} bytes"
                )
            self._verified.add(key)

        # First the stretch of memory, then the view of it: what must be copied to be
        # read is never more than the file has, whatever the strides repeat.
        size = stored_dtype(tensor.kind).itemsize
        start, extent = tensor.offset, tensor.extent
        raw = record.raw[start * size : (start + extent) * size]
        items = as_array(raw, tensor.kind, (extent,), self._byteorder)
        # (An axis that nobody steps along may have any stride, one beyond int64 too.)
        strides = [
            step * items.itemsize if extent and length > 1 else 0
            for length, step in zip(tensor.shape, tensor.strides)
        ]
        return as_strided(items, tensor.shape, strides, writeable=False)


def _read(file: np.ndarray, path: Path) -> tuple[Any, dict[str, Record], ByteOrder]:
    """Return what was saved, {storage's key: bytes}, and the byte order."""
    if file[:4].tobytes() == b"PK\3\4":
        return _read_zip(file, path)
    if file[:1].tobytes() == pickle.PROTO:
        return _read_legacy(file)
    if file[257:262].tobytes() == b"ustar":
        raise CheckpointError(
            "it is a tar archive, as torch 0.1 wrote them; load it with torch and save "
            "it again"
        )
    raise CheckpointError(f"neither zip nor pickles; {beginning(file)}")


def _read_zip(file: np.ndarray, path: Path) -> tuple[Any, dict[str, Record], ByteOrder]:
    members = _members(file, path)
    pickles = [name for name in members if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(f"a zip archive with {len(pickles)} members data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    program, crc = members[pickles[0]]
    if crc is not None and zlib.crc32(program.data) != crc:
        raise CheckpointError(
            f"{pickles[0]} in it is damaged: its checksum is not {crc:#x}"
        )
    state, _ = read_pickle(program, 0, ALLOWED, _call, _load)
    records = {
        name.removeprefix(f"{folder}data/"): record
        for name, record in members.items()
        if name.startswith(f"{folder}data/")
    }
    order = members.get(
        f"{folder}byteorder", Record(np.frombuffer(b"little", np.uint8))
    )
    byteorders: dict[bytes, ByteOrder] = {b"little": "<", b"big": ">"}
    byteorder = byteorders.get(order.raw.tobytes())
    if byteorder is None:
        raise CheckpointError("its byteorder is neither little nor big")
    return state, records, byteorder


def _members(file: np.ndarray, path: Path) -> dict[str, Record]:
    """Return the members of a zip archive, as views of the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except ZIP_ERRORS as error:
        raise CheckpointError(
            f"a truncated or damaged zip archive of {len(file)} bytes: {error}"
        ) from None
    members = {}
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"{info.filename!r} in it is compressed")
        if info.filename in members:
            raise CheckpointError(f"it has {info.filename!r} twice")
        # The bytes follow a local header: 30 bytes, the name again, and a padding.
        header = file[info.header_offset : info.header_offset + 30].tobytes()
        named = info.header_offset + 30
        start = named + int.from_bytes(header[26:28], "little")
        name = file[named:start].tobytes()
        start += int.from_bytes(header[28:30], "little")
        raw = file[start : start + info.file_size]
        encoding = "utf-8" if info.flag_bits & 0x800 else "cp437"
        if (
            header[:4] != b"PK\3\4"
            or name != info.orig_filename.encode(encoding)
            or len(raw) < info.file_size
        ):
            raise CheckpointError(
                f"its member {info.filename!r} of {info.file_size} bytes is not at "
                f"{info.header_offset}, or not whole"
            )
        # torch.serialization.set_crc32_options(False) leaves zeros.
        members[info.filename] = Record(raw, info.CRC or None)
    return members


def _read_legacy(file: np.ndarray) -> tuple[Any, dict[str, Record], ByteOrder]:
    storages: dict[str, Storage] = {}

    def load(persistent_id: Any) -> Storage:
        storage = _load(persistent_id)
        if storages.setdefault(storage.key, storage) != storage:
            raise CheckpointError(
                f"its storage {storage.key!r} is said to be two things"
            )
        return storage

    magic, at = read_pickle(file)
    version, at = read_pickle(file, at)
    if (magic, version) != LEGACY:
        raise CheckpointError("a pickle, but not in the legacy layout of torch.save")
    _, at = read_pickle(file, at)  # the machine's byte order says nothing of the file's
    state, at = read_pickle(file, at, ALLOWED, _call, load)
    keys, at = read_pickle(file, at)
    if not isinstance(keys, list):
        raise CheckpointError("its last pickle is no list of storages")
    records: dict[str, Record] = {}
    for key in keys:
        if not isinstance(key, str) or key not in storages or key in records:
            raise CheckpointError("its list of storages is not that of its tensors")
        length = int.from_bytes(file[at : at + 8].tobytes(), "little", signed=True)
        start, at = at + 8, at + 8 + length * stored_size(storages[key].kind, ())
        if not start <= at <= len(file):
            raise CheckpointError(
                f"it is truncated: storage {key!r} is at bytes {start} to {at}, and it "
                f"has {len(file)}"
            )
        records[key] = Record(file[start:at])
    return state, records, "<"


def _load(persistent_id: Any) -> Storage:
    """Return the storage that a persistent id names (ending in None, if legacy)."""
    match persistent_id:
        case ("storage", Global(name), str(key), str(), int(length), *rest) if (
            name in STORAGES and length >= 0 and rest in ([], [None])
        ):
            return Storage(key, STORAGES[name], length)
    raise CheckpointError("it refers to a storage in an unknown way")


def _call(name: str, arguments: tuple) -> Any:
    """Return what a call in the pickle makes: a dict, or a record of a tensor."""
    if name in BESIDES:
        return Inert(name)
    match name.rpartition(".")[2], arguments:
        case "OrderedDict", ():
            return {}
        case "OrderedDict", (list(pairs),) if all(  # as Python 2 pickles it
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
            for pair in pairs
        ):
            made = dict(pairs)
            pairs.clear()  # or one list would make thousands of dicts of its size
            return made
        case "Size", (tuple(shape),):
            return shape
        # (storage, offset, shape, strides, requires_grad, backward hooks, metadata):
        # metadata say that the values are to be negated or conjugated.
        case "_rebuild_tensor" | "_rebuild_tensor_v2", (
            Storage() as storage, int(offset), tuple(shape), tuple(strides), *rest,
        ) if not any(rest[2:]):  # fmt: skip
            return Tensor(storage, storage.kind, offset, shape, strides)
        # ... the same, with a dtype before the metadata
        case "_rebuild_tensor_v3", (
            Storage() as storage, int(offset), tuple(shape), tuple(strides), _, _,
            Global(dtype), *rest,
        ) if dtype in DTYPES and not any(rest):  # fmt: skip
            return Tensor(storage, DTYPES[dtype], offset, shape, strides)
        case "_rebuild_parameter" | "_rebuild_parameter_with_state", (
            Tensor() as tensor,
            *_,
        ):
            return tensor
    raise CheckpointError(f"it calls {name} with arguments that no state dict has")


def _state_dict(saved: Any) -> tuple[dict, dict[str, Any]]:
    """Return the state dict in what was saved, and what is beside it."""
    if not isinstance(saved, dict):
        raise CheckpointError(f"it holds {_shown(saved)}, not a state dict")
    inside = [
        name
        for name, value in saved.items()
        if isinstance(value, dict)
        and any(isinstance(each, Tensor) for each in value.values())
    ]
    for name in STATE_DICTS:
        if name in inside:
            return saved[name], {n: value for n, value in saved.items() if n != name}
    if inside and not any(isinstance(value, Tensor) for value in saved.values()):
        raise CheckpointError(
            f"its tensors are in dicts of the names {', '.join(map(repr, inside))}, none "
            f"of them {', '.join(map(repr, STATE_DICTS))}: save the right one by itself"
        )
    return saved, {}


def _sort(state: dict) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return {name: tensor} and, for what is none, {name: what it is}."""
    tensors, refused = {}, {}
    for name, value in state.items():
        if isinstance(value, Tensor) and isinstance(name, str):
            tensors[name] = value
        else:
            refused[name] = _shown(value)
    return tensors, refused


def _shown(value: Any) -> str:
    return f"a {value.name if isinstance(value, Inert) else type(value).__name__}"


def _check(name: str, tensor: Tensor, records: dict[str, Record]) -> None:
    """Raise CheckpointError unless the tensor lies in its storage, and that in the file."""
    storage, _, offset, shape, strides = tensor
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(
        type(n) is int and n >= 0 for n in numbers
    ):
        raise CheckpointError(f"tensor {name!r} has no sound shape and strides")
    stored_size(tensor.kind, shape)
    size = storage.length * stored_size(storage.kind, ())
    found = records.get(storage.key, Record(np.empty(0, np.uint8))).raw.size
    if size != found:
        raise CheckpointError(
            f"tensor {name!r} is in storage {storage.key!r} of {size} bytes, and "
            f"{found} are there"
        )
    end = (offset + tensor.extent) * stored_size(tensor.kind, ())
    if tensor.extent and end > size:
        raise CheckpointError(
            f"tensor {name!r} ends at byte {end} of a storage of {size} bytes"
        )
