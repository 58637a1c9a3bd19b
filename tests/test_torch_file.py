"""torch writes and we read; and whatever a pickle asks for, nothing of it is done."""

import argparse
import datetime
import io
import os
import pickle
import shutil
import sys
import time
import tracemalloc
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minigpt2.checkpoints import CheckpointError
from minigpt2.checkpoints.inert_pickle import MAX_STEPS, read_pickle
from minigpt2.checkpoints.torch_file import LEGACY, TorchFile

# Written by torch 2.13.0: see tools/make_torch_fixtures.py.
FIXTURES = Path(__file__).parent / "data" / "torch"
FILES = ["zip.bin", "zip_protocol_4.bin", "legacy.bin"]

files = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def same(array, expected):
    """Bit for bit, not value for value: NaNs and minus zeros count."""
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    assert array.tobytes() == expected.tobytes()


def shares_memory(a: np.ndarray, b: np.ndarray) -> bool:
    return np.may_share_memory(a, b)


# --- What torch wrote ---


@pytest.mark.parametrize("name", FILES)
def test_torchs_files_are_read_as_torch_reads_them(name):
    file = TorchFile(FIXTURES / name)
    with np.load(FIXTURES / "expected.npz") as expected:
        assert list(file) == sorted(expected)
        assert len(file) == 26
        for key in expected:
            same(file[key], expected[key])
            assert file.shape(key) == expected[key].shape
            assert file.dtype(key) == expected[key].dtype
            assert not file[key].flags.writeable
            assert file[key].flags.aligned
    assert "step" not in file
    with pytest.raises(CheckpointError, match="'step' is a int"):
        file["step"]
    with pytest.raises(KeyError, match="has no tensor 'wte'"):
        file["wte"]


def test_tensors_that_shared_memory_still_do():
    file = TorchFile(FIXTURES / "zip.bin")
    names = ["transformer.wte.weight", "lm_head.weight", "transposed", "every other"]
    arrays = [file[name] for name in names]
    for array in arrays:
        assert shares_memory(array, arrays[0])
    assert arrays[2].strides == (4, 16)
    assert file["expanded"].strides == (16, 0)


def big_endian(source: Path, target: Path, kinds: dict[str, str]) -> None:
    """What torch writes on a big-endian machine: swapped storages, and a note of it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            raw = old.read(name)
            if name.endswith("/byteorder"):
                raw = b"big"
            elif "/data/" in name:
                raw = np.frombuffer(raw, kinds[name.rpartition("/")[2]]).byteswap()
            new.writestr(name, bytes(raw))


# Of the storages of zip.bin, in the order of their numbers (complex: by halves).
KINDS_OF_STORAGES = ["f4"] * 6 + ["f8", "f4", "f2", "u2", "?", "i8", "i4", "i2"]
KINDS_OF_STORAGES += ["i1", "u1", "u2", "u4", "u8", "f4", "f8", "u2"]


def test_big_endian_files_are_read(tmp_path):
    kinds = {str(i): kind for i, kind in enumerate(KINDS_OF_STORAGES)}
    big_endian(FIXTURES / "zip.bin", tmp_path / "big.bin", kinds)
    file = TorchFile(tmp_path / "big.bin")
    with np.load(FIXTURES / "expected.npz") as expected:
        for key in expected:
            same(file[key], expected[key])


# --- With torch at hand ---


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip("torch")


def as_numpy(tensor) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


@pytest.mark.peers
@files
@given(data=st.data(), legacy=st.booleans(), protocol=st.integers(2, 4))
def test_any_views_of_any_storages_are_read_as_torch_reads_them(
    tmp_path, torch, data, legacy, protocol
):
    kinds = ["float32", "float16", "bfloat16", "float64", "int64", "uint8", "bool"]
    sizes = st.lists(st.integers(0, 4), max_size=4)
    state = {}
    for i in range(data.draw(st.integers(0, 5))):
        kind = getattr(torch, data.draw(st.sampled_from(kinds)))
        base = torch.arange(200, dtype=torch.float32).to(kind)
        shape = data.draw(sizes)
        strides = [data.draw(st.integers(0, 11)) for _ in shape]
        offset = data.draw(st.integers(0, 50))
        view = base.as_strided(shape, strides, offset)
        state[f"view {i}"] = view
        if data.draw(st.booleans()):
            state[f"other view {i}"] = base[3:9]
        if data.draw(st.booleans()) and kind.is_floating_point:
            state[f"parameter {i}"] = torch.nn.Parameter(view)
    path = tmp_path / "pytorch_model.bin"
    torch.save(
        state,
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not legacy,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        theirs = torch.load(path, weights_only=False)
    ours = TorchFile(path)
    assert list(ours) == sorted(theirs)
    for name, tensor in theirs.items():
        same(ours[name], as_numpy(tensor))


class Python2Pickler(pickle._Pickler):
    """Pickles as Python 2 did: its str, and an OrderedDict by its list of pairs."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_str(self, text):
        raw = text.encode("latin-1")
        if len(raw) < 256:
            self.write(pickle.SHORT_BINSTRING + len(raw).to_bytes(1, "little") + raw)
        else:
            self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        self.memoize(text)

    dispatch[str] = save_str

    def reducer_override(self, value):
        if isinstance(value, OrderedDict):
            return OrderedDict, ([[key, value[key]] for key in value],)
        return NotImplemented


def state_of_everything(torch):
    """A state dict, and beside it all that training programs save."""
    state = OrderedDict((f"h.{i}.weight", torch.randn(3, 2)) for i in range(3))
    state["half"] = torch.ones(2, dtype=torch.float16)
    defaults = defaultdict(list, {"a": [1]})
    besides = {
        "set": {1, 2},
        "frozenset": frozenset("ab"),
        "dtype": torch.float16,
        "numpy's dtype": np.dtype("float32"),
        "kind": np.float32,
        "device": torch.device("cpu"),
        "defaultdict": defaults,
        "Counter": Counter("abca"),
        "deque": deque([1, 2], maxlen=3),
        "Namespace": argparse.Namespace(lr=1e-4, betas=(0.9, 0.95), out=Path("out")),
        "SimpleNamespace": SimpleNamespace(a=1),
        "OrderedDict": OrderedDict(a=OrderedDict(b=1)),
        "array": np.arange(6.0).reshape(2, 3),
        "array of texts": np.array(["a", None], dtype=object),
        "scalar": np.float64(1.5),
        "flag": np.bool_(True),
        "date": datetime.datetime(2019, 11, 5, 12),
        "days": [datetime.date(2019, 11, 5), datetime.timedelta(3)],
        "zone": datetime.datetime(2019, 11, 5, tzinfo=datetime.UTC),
        "path": Path("out") / "ckpt.pt",
        "number": 2**70,
        "minus": -(2**70),
        "complex": 1 + 2j,
        "bytes": b"\xff\0",
        "bytearray": bytearray(b"ab"),
        "range": range(3),
        "slice": slice(1, None),
        "None": None,
        "keys": {1: "a", 2.5: "b", None: "c", "d": 1, b"e": 2},
        "size": torch.Size([2, 3]),
        "text": "\u00fc" * 300,
    }
    return state, besides


@pytest.mark.peers
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("python2", [False, True])
def test_what_is_saved_beside_tensors_does_not_keep_them_from_being_read(
    tmp_path, watcher, torch, legacy, protocol, inside, python2
):
    if python2 and protocol != 2:
        return  # the highest that Python 2 had
    state, besides = state_of_everything(torch)
    if python2:
        for name in ("set", "frozenset"):
            del besides[name]  # pickled by another way, of which there is a test below
    saved = (
        {"state_dict": state, **besides} if inside else OrderedDict(state, **besides)
    )
    path = tmp_path / "x.bin"
    module = SimpleNamespace(**vars(pickle)) if python2 else pickle
    if python2:
        module.Pickler = Python2Pickler
    torch.save(
        saved,
        path,
        pickle_module=module,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not legacy,
    )
    if python2:
        assert b"U\x0ah.0.weight" in path.read_bytes()
    global seen
    seen = []
    try:
        file = TorchFile(path)
        arrays = dict(file)
    finally:
        events, seen = seen, None
    assert events == []
    assert set(arrays) == set(state)
    for name, tensor in state.items():
        same(arrays[name], as_numpy(tensor))
    if inside:
        assert set(file.besides) == set(besides)
        for name in ("number", "minus", "None", "text"):
            assert file.besides[name] == besides[name]
    else:
        with pytest.raises(
            CheckpointError, match=r"'Namespace' is a argparse\.Namespace"
        ):
            file["Namespace"]


def test_names_of_python_2s_modules_are_known(tmp_path):
    for name in ("__builtin__ set", "__builtin__ frozenset", "__builtin__ xrange"):
        program = b"\x80\2}U\1s" + named(name) + b"](K\1K\2e\x85Rs."
        write_zip(tmp_path / "x.bin", program)
        with pytest.raises(
            CheckpointError, match=f"is a {name.replace(' ', '.')}, not"
        ):
            TorchFile(tmp_path / "x.bin")["s"]


@pytest.mark.peers
def test_torch_reads_our_big_endian_file_as_we_do(tmp_path, torch):
    kinds = {str(i): kind for i, kind in enumerate(KINDS_OF_STORAGES)}
    big_endian(FIXTURES / "zip.bin", tmp_path / "big.bin", kinds)
    ours = TorchFile(tmp_path / "big.bin")
    for name, tensor in torch.load(tmp_path / "big.bin").items():
        # (torch 2.13 does not swap the untyped storages of these.)
        if name in ours and name not in ("uint16", "uint32", "uint64"):
            same(ours[name], as_numpy(tensor))


@pytest.mark.peers
def test_what_torch_does_to_values_while_loading_is_refused_not_ignored(
    tmp_path, torch
):
    path = tmp_path / "x.bin"
    torch.save({"x": torch.ones(3, dtype=torch.complex64).conj()}, path)
    with pytest.raises(
        CheckpointError, match=r"calls torch\._utils\._rebuild_tensor_v2"
    ):
        TorchFile(path)
    torch.save({"x": torch.eye(3).to_sparse()}, path)
    with pytest.raises(CheckpointError, match=r"asks for 'torch\.\w+\._rebuild_sparse"):
        TorchFile(path)
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(CheckpointError, match=r"asks for 'torch\.nn\.modules\.linear"):
        TorchFile(path)


@pytest.mark.peers
def test_files_without_checksums_are_read(tmp_path, torch):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"x": torch.arange(3)}, tmp_path / "x.bin")
    finally:
        torch.serialization.set_crc32_options(True)
    same(TorchFile(tmp_path / "x.bin")["x"], np.arange(3))


# --- Hostile pickles ---


class Evil:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def push(value) -> bytes:
    """The instructions that put a plain value on the stack."""
    return pickle.dumps(value, 2)[2:-1]


def named(name: str) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def call(name: str, *arguments: bytes) -> bytes:
    return named(name) + b"(" + b"".join(arguments) + b"tR"


def storage(kind="FloatStorage", key="0", length=4, tag="storage", more=b"") -> bytes:
    parts = push(tag) + named(f"torch {kind}") + push(key) + push("cpu") + push(length)
    return b"(" + parts + more + b"tQ"


def tensor(offset=0, shape=(4,), strides=(1,), version=2, more=(), **options) -> bytes:
    arguments = [push(part) for part in (offset, shape, strides, False, {}, *more)]
    name = f"torch._utils _rebuild_tensor_v{version}"
    return call(name, storage(**options), *arguments)


def state_of(value: bytes, key: bytes = push("x")) -> bytes:
    """A program whose value is {"x": value}."""
    return b"\x80\2}" + key + value + b"s."


def write_zip(path, program: bytes, storages=None, extra=None):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for key, raw in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", raw)
        for name, raw in (extra or {}).items():
            archive.writestr(name, raw)


def write_legacy(path, program: bytes, storages=None):
    storages = storages or {}
    system = {"protocol_version": 1001, "little_endian": True}
    head = (
        pickle.dumps(LEGACY[0], 2)
        + pickle.dumps(LEGACY[1], 2)
        + pickle.dumps(system, 2)
    )
    data = b"".join(
        (len(raw) // 4).to_bytes(8, "little") + raw for raw in storages.values()
    )
    path.write_bytes(head + program + pickle.dumps(list(storages), 2) + data)


writers = pytest.mark.parametrize("write", [write_zip, write_legacy])

WATCHED = {"pickle.find_class", "os.system", "exec", "compile", "subprocess.Popen"}
seen: list | None = None


def watch(event, _):
    if seen is not None and event in WATCHED:
        seen.append(event)


@pytest.fixture(scope="session")
def watcher():
    sys.addaudithook(watch)  # it stays as long as the process


def refuses(path, match):
    """A CheckpointError, soon, with little memory, and nothing run on the way."""
    global seen
    seen = []
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(CheckpointError, match=match) as caught:
            dict(TorchFile(path))
    finally:
        elapsed = time.process_time() - start
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        events, seen = seen, None
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert events == []
    assert elapsed < 10  # of the processor's; tracemalloc makes it a few times as long
    assert peak < 1_000_000 + 200 * path.stat().st_size


@writers
@pytest.mark.parametrize(
    ("program", "match"),
    [
        (lambda m: pickle.dumps(Evil(os.system, f"touch {m}"), 2), r"\.system"),
        (lambda m: pickle.dumps(Evil(os.system, f"touch {m}"), 4), r"\.system"),
        (lambda m: pickle.dumps(Evil(os.system, f"touch {m}"), 0), r"\.system"),
        (
            lambda m: pickle.dumps({"x": Evil(eval, f"open({m!r}, 'w')")}, 2),
            "asks for '__builtin__.eval', which no state dict needs; that was neither",
        ),
        (lambda m: pickle.dumps(Evil(exec, f"open({m!r}, 'w')"), 4), "builtins.exec"),
        (lambda m: pickle.dumps(Evil(open, m, "w"), 2), "io.open"),
        (
            lambda m: pickle.dumps(
                Evil(getattr, Evil(__import__, "os"), "system"), 2
            ),
            "__builtin__.getattr",
        ),
        (lambda m: call("builtins getattr", named("os system")) + b".", "getattr"),
        (lambda m: named("torch._utils os.system") + b".", "torch._utils.os.system"),
        (lambda m: named("collections OrderedDict.__init__") + b".", "__init__"),
        (lambda m: call("torch load", push(m)) + b".", "torch.load"),
        (lambda m: b"(" + push(f"touch {m}") + b"ios\nsystem\n.", "instruction b'i'"),
        (lambda m: b"(S'touch'\nios\nsystem\n.", "instruction b'S'"),
        (lambda m: named("torch Size") + b")\x81.", "calls torch.Size with"),  # NEWOBJ
        (lambda m: named("torch Size") + b")}\x92.", r"instruction b'\\x92'"),
        (lambda m: b"(" + named("torch Size") + b"o.", "instruction b'o'"),
        (lambda m: b"\x82\1.", r"instruction b'\\x82'"),  # EXT1
        (lambda m: b"Pstorage\n.", "instruction b'P'"),
        (lambda m: call("torch Size", push(m)) + b".", "calls torch.Size with"),
        (
            lambda m: call("collections OrderedDict", push([("a", 1)])) + b".",
            "calls collections.OrderedDict with arguments",
        ),
        (lambda m: named("torch FloatStorage") + b")R.", "calls torch.FloatStorage"),
        (lambda m: push("os.system") + b")R.", "a call of no function"),
        (lambda m: named("torch Size") + push("x") + b"R.", "a call of no function"),
        (lambda m: named("torch Size") + push({"__setstate__": 1}) + b"b.", "no dict"),
    ],
)  # fmt: skip
def test_nothing_that_a_pickle_asks_for_is_run(
    tmp_path, watcher, write, program, match
):
    marker = tmp_path / "marker"
    path = tmp_path / "pytorch_model.bin"
    write(path, program(str(marker)))
    refuses(path, match)
    assert not marker.exists()


def test_the_watcher_sees_what_the_pickle_module_would_have_run(tmp_path, watcher):
    global seen
    seen = []
    pickle.loads(pickle.dumps(Evil(os.system, f"touch {tmp_path / 'marker'}"), 2))
    events, seen = seen, None
    assert {"pickle.find_class", "os.system"} <= set(events)
    assert (tmp_path / "marker").exists()


HUGE = (2**62).to_bytes(8, "little")
DEEP = b")" + b"\x85" * 100_000  # ((((...))))


@writers
@pytest.mark.parametrize(
    ("program", "match"),
    [
        (b"", "1 bytes wanted"),
        (b"\x80\2", "1 bytes wanted"),
        (b".", "too little on the stack"),
        (b"N0.", "instruction b'0'"),
        (b"(.", "too little on the stack"),
        (b"(N.", "holds a NoneType, not a state dict|legacy"),
        (b"N(\x85.", "too little on the stack"),  # TUPLE1 across a mark
        (b"t.", "no mark"),
        (b"h\0.", "no 0 in the memo"),
        (b"q\0.", "no object on the stack"),
        (b"NNs.", "too little on the stack|no dict"),
        (b"NNNs.", "no dict"),
        (b"}(Nu.", "with keys"),
        (b"Ne.", "no mark"),
        (b"N(Ne.", "no list"),
        (b"\xff.", r"instruction b'\\xff'"),
        (pickle.BINUNICODE8 + HUGE + b"short.", "4611686018427387904 bytes wanted"),
        (pickle.BINUNICODE + b"\xff\xff\xff\xff.", "4294967295 bytes wanted"),
        (pickle.SHORT_BINUNICODE + b"\2\xff\xff.", "no text"),
        (pickle.BINBYTES8 + HUGE + b".", "4611686018427387904 bytes wanted"),
        (pickle.BYTEARRAY8 + HUGE + b".", "4611686018427387904 bytes wanted"),
        (pickle.LONG4 + b"\xff\xff\xff\x7f.", "2147483647 bytes wanted"),
        (pickle.LONG1 + b"\xff.", "255 bytes wanted"),
        (b"c" + b"a" * 1_000_000, "no line"),
        (b"c\xff\xfe\n\xff\n.", r"xff"),
        (b"\x8c\1a" + b"N\x93.", "a nameless global"),
        (push("m" * 100_000) + push("n" * 100_000) + b"\x93.", "asks for 'mmmm"),
        (b"N" + b"r\xff\xff\xff\xff" + b".", "NoneType|legacy"),  # memo[2**32 - 1]
        # a list that holds itself; a pair of pairs of pairs ...: 2**100 items
        (state_of(b"]q\1h\1a"), None),
        (state_of(b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(100))), None),
        (state_of(push("no tensor")), None),
    ],
)  # fmt: skip
def test_damaged_and_absurd_pickles_are_refused(
    tmp_path, watcher, write, program, match
):
    path = tmp_path / "pytorch_model.bin"
    write(path, program)
    if match is None:
        assert list(TorchFile(path)) == []
        match = "'x' is a (list|tuple|str), not an array"
        with pytest.raises(CheckpointError, match=match):
            TorchFile(path)["x"]
    else:
        refuses(path, match)


@pytest.mark.parametrize(
    ("program", "match"),
    [
        (b"N" * (MAX_STEPS + 1) + b".", f"more than {MAX_STEPS} instructions"),
        (b"}" * 1_000_000, f"more than {MAX_STEPS} instructions"),
        (b"(" * 1_000_000, f"more than {MAX_STEPS} instructions"),
        (DEEP + b".", "holds a tuple"),
        (state_of(b"N", DEEP), "keys that are no strings"),
        (DEEP + b"Q.", "refers to a storage in an unknown way"),
        (call("torch._utils _rebuild_tensor_v2", DEEP) + b".", "calls torch._utils"),
        # one list of 15,000 pairs, of which 10,000 dicts are to be made
        (
            b"]("
            + b"".join(b"](U\5%05dNe" % i for i in range(15_000))
            + b"eq\0"
            + named("collections OrderedDict")
            + b"q\1"
            + b"h\1h\0\x85R" * 10_000
            + b"N.",
            "holds a NoneType",
        ),
    ],
    ids=["values", "dicts", "marks", "state", "key", "reference", "argument", "pairs"],
)
def test_endless_and_bottomless_pickles_cost_neither_time_nor_memory(
    tmp_path, watcher, program, match
):
    path = tmp_path / "pytorch_model.bin"
    write_zip(path, program)
    refuses(path, match)


@writers
@pytest.mark.parametrize(
    "reference",
    [
        b"NQ",
        push("storage") + b"Q",
        push(("storage", "torch.FloatStorage", "0", "cpu", 4)) + b"Q",
        push(("module", "torch.FloatStorage", "0")) + b"Q",
        storage(tag="module"),
        storage(kind="Size"),
        storage(key=0),
        storage(length=-1),
        storage(length=4.0),
        storage(more=push(("view", 1, 2))),
        storage(more=b"NN"),
    ],
)
def test_references_of_another_form_are_refused(tmp_path, watcher, write, reference):
    path = tmp_path / "pytorch_model.bin"
    write(path, state_of(reference), {"0": bytes(16)})
    refuses(path, "refers to a storage in an unknown way")


FOUR = np.arange(4, dtype="<f4")


@writers
@pytest.mark.parametrize(
    ("program", "match"),
    [
        (tensor(), FOUR),
        (tensor(shape=(2, 2), strides=(2, 1)), FOUR.reshape(2, 2)),
        (tensor(1, (2, 2), (1, 1)), np.array([[1, 2], [2, 3]], "f4")),
        (tensor(3, (), ()), np.float32(3)),
        (tensor(0, (1, 4), (10**30, 1)), FOUR[None]),
        (tensor(9, (0, 9), (1, 10**30)), np.empty((0, 9), "f4")),
        (tensor(1), r"'x' ends at byte 20 of a storage of 16 bytes"),
        (tensor(10**30), "ends at byte"),
        (tensor(0, (2,), (4,)), "ends at byte"),
        (tensor(0, (2, 2), (1,)), "no sound shape and strides"),
        (tensor(-1), "no sound shape"),
        (tensor(3, (4,), (-1,)), "no sound shape"),
        (tensor(0, (-4,), (1,)), "no sound shape"),
        (tensor(0, (4.0,), (1,)), "no sound shape"),
        (tensor(0, (True,), (1,)), "no sound shape"),
        (tensor(False), "no sound shape"),
        (tensor(0, (2**40, 2**40), (0, 0)), "no array can have the shape"),
        (tensor(0, (1,) * 65, (1,) * 65), "no array can have the shape"),
        (tensor(length=5), "of 20 bytes, and 16 are there|two things|list of storages"),
        (tensor(length=10**20), "are there"),
        (tensor(key="1"), "storage '1' of 16 bytes, and 0 are there|list of storages"),
        (tensor(more=({"conj": True},)), "calls torch._utils._rebuild_tensor_v2 with"),
        (tensor(version=3), "calls torch._utils._rebuild_tensor_v3 with"),
        (tensor(0, 4, 1), "calls torch._utils._rebuild_tensor_v2 with"),
    ],
)
def test_tensors_that_do_not_fit_their_storage_are_refused(
    tmp_path, watcher, write, program, match
):
    path = tmp_path / "pytorch_model.bin"
    write(path, state_of(program), {"0": FOUR.tobytes()})
    if isinstance(match, str):
        refuses(path, match)
    else:
        same(TorchFile(path)["x"], match)


def test_an_endless_view_of_little_memory_takes_little_memory(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    for kind, size in [("FloatStorage", 16), ("BFloat16Storage", 8)]:
        program = state_of(tensor(0, (2**50, 4), (0, 1), kind=kind))
        write_zip(path, program, {"0": bytes(size)})
        array = TorchFile(path)["x"]
        assert array.shape == (2**50, 4)
        assert array[-1].tolist() == [0, 0, 0, 0]


@writers
def test_two_tensors_that_disagree_about_a_storage_are_refused(tmp_path, write):
    path = tmp_path / "pytorch_model.bin"
    other = tensor(0, (8,), kind="HalfStorage", length=9)
    program = b"\x80\2}" + push("a") + tensor() + b"s" + push("b") + other + b"s."
    write(path, program, {"0": bytes(16)})
    with pytest.raises(
        CheckpointError, match=r"two things|of 18 bytes, and 16 are there"
    ):
        TorchFile(path)


# --- Damaged files ---


def test_a_flipped_bit_is_found_where_the_file_has_checksums(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    raw = bytearray((FIXTURES / "zip.bin").read_bytes())
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        wte = raw.index(archive.read("zip/data/2"))
        program = raw.index(archive.read("zip/data.pkl"))
    raw[wte + 50] ^= 1
    path.write_bytes(raw)
    file = TorchFile(path)
    file["parameter"]
    for name in ("lm_head.weight", "transformer.wte.weight"):
        with pytest.raises(
            CheckpointError,
            match=rf"tensor '{name}' is damaged: the checksum of its storage is stored "
            r"as 0x\w{8}, and 0x\w{8} was computed from its 112 bytes",
        ):
            file[name]
    TorchFile(path, verify=False)["lm_head.weight"]
    raw[program + 60] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"zip/data\.pkl in it is damaged"):
        TorchFile(path, verify=False)


@pytest.mark.parametrize("name", ["zip.bin", "legacy.bin"])
def test_every_truncation_is_found(tmp_path, name):
    path = tmp_path / "pytorch_model.bin"
    sound = (FIXTURES / name).read_bytes()
    for size in range(0, len(sound), 17):
        path.write_bytes(sound[:size])
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
            TorchFile(path)


def test_other_files_are_shown_or_named(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    tar = tmp_path / "x.tar"
    shutil.make_archive(str(tar.with_suffix("")), "tar", FIXTURES)
    for raw, match in [
        (b"", "it is empty"),
        (b"<!DOCTYPE html>", "begins with b'<!DOCTYPE html>"),
        (
            b"version https://git-lfs.github.com",
            "begins with b'version https://git-lfs",
        ),
        (b"PK\3\4" + bytes(100), "a truncated or damaged zip archive of 104 bytes"),
        (pickle.dumps({"x": 1}), "wanted"),
        (pickle.dumps({"x": 1}) + pickle.dumps(1), "not in the legacy layout"),
        (tar.read_bytes(), "is a tar archive, as torch 0.1 wrote them"),
    ]:
        path.write_bytes(raw)
        with pytest.raises(CheckpointError, match=match):
            TorchFile(path)
    with pytest.raises(CheckpointError, match="No such file"):
        TorchFile(tmp_path / "missing.bin")


def test_archives_that_torch_would_not_write_are_refused(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    program = state_of(tensor())

    def refused(match):
        with pytest.raises(CheckpointError, match=match):
            TorchFile(path)

    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))
    refused(r"a zip archive with 0 members data\.pkl")
    write_zip(path, program, {"0": bytes(16)}, {"other/data.pkl": program})
    refused(r"a zip archive with 2 members data\.pkl")
    write_zip(path, program, {"0": bytes(16)}, {"archive/byteorder": b"middle"})
    refused("byteorder is neither little nor big")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", program)
    refused(r"'archive/data\.pkl' in it is compressed")
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_zip(path, program, {"0": bytes(16)}, {"archive/data/0": bytes(16)})
    refused("it has 'archive/data/0' twice")


@settings(parent=files, max_examples=150)
@given(data=st.data(), name=st.sampled_from(FILES))
def test_mutated_files_give_arrays_within_the_file_or_an_error(tmp_path, data, name):
    path = tmp_path / "pytorch_model.bin"
    mutated = bytearray((FIXTURES / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(mutated) - 1))
        mutated[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=3)
        )
    path.write_bytes(mutated)
    try:
        arrays = dict(TorchFile(path, verify=data.draw(st.booleans())))
    except CheckpointError:
        return
    for array in arrays.values():
        assert not array.flags.writeable


@settings(parent=files, max_examples=250)
@given(data=st.data(), write=st.sampled_from([write_zip, write_legacy]))
def test_mutated_pickles_give_arrays_or_an_error(tmp_path, data, write):
    path = tmp_path / "pytorch_model.bin"
    program = bytearray(state_of(tensor()))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(program) - 1))
        program[place : place + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=2) | st.sampled_from([b"(", b")", b"}", b"]", b"h\0"])
        )
    write(path, bytes(program), {"0": FOUR.tobytes()})
    try:
        arrays = dict(TorchFile(path))
    except CheckpointError:
        return
    for array in arrays.values():
        assert set(array.flat) <= {0, 1, 2, 3}


def test_plain_pickles_come_out_as_pickle_reads_them():
    value = {"a": [1, -1, 2**31, -(2**70), 300, 70000, True, None, 1.5, "ü" * 300]}
    value |= {5: (), "t": ((1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)), "d": {"e": {}}}
    value["again"] = value["a"]
    for protocol in (2, 3, 4, 5):
        raw = b"before" + pickle.dumps(value, protocol)
        read, end = read_pickle(np.frombuffer(raw + b"after", np.uint8), 6)
        assert read == value
        assert read["again"] is read["a"]
        assert end == len(raw)
