"""The safetensors library writes and we read, and the other way round."""

import json
import sys
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minigpt2.checkpoints import CheckpointError
from minigpt2.checkpoints.open import open_checkpoint
from minigpt2.checkpoints.safetensors_file import (
    KINDS,
    SafetensorsFile,
    save_safetensors,
)
from minigpt2.checkpoints.tensor_file import as_array, as_kind

SHARED = [kind for kind in KINDS.values() if kind != "bfloat16"]

files = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
arrays = hnp.arrays(
    st.sampled_from(SHARED), hnp.array_shapes(min_dims=0, min_side=0, max_side=5)
)
tensors = st.dictionaries(st.text(st.characters(codec="utf-8")), arrays, max_size=5)


def same(array, expected):
    """Bit for bit, not value for value: NaNs and minus zeros count."""
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    assert array.tobytes() == expected.tobytes()


def header_of(path) -> dict:
    raw = path.read_bytes()
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])


# --- Both ways ---


@files
@given(tensors=tensors, metadata=st.none() | st.just({"format": "pt", "ü": "\0"}))
def test_what_the_library_writes_is_read(tmp_path, tensors, metadata):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(tensors, path, metadata)
    file = SafetensorsFile(path)
    assert list(file) == sorted(tensors)
    assert file.metadata == (metadata or {})
    for name, array in tensors.items():
        assert (file.shape(name), file.dtype(name)) == (array.shape, array.dtype)
        same(file[name], array)
        assert not file[name].flags.writeable
        assert file[name].flags.aligned


@files
@given(tensors=tensors, metadata=st.none() | st.just({"format": "pt", "ü": "\0"}))
def test_the_library_reads_what_is_written(tmp_path, tensors, metadata):
    tensors.pop("__metadata__", None)
    path = tmp_path / "model.safetensors"
    save_safetensors(path, tensors, metadata)
    with safetensors.safe_open(path, "np") as file:
        assert sorted(file.keys()) == sorted(tensors)
        assert file.metadata() == metadata
        for name, array in tensors.items():
            same(file.get_tensor(name), array)
    ours = SafetensorsFile(path)
    for name, array in tensors.items():
        same(ours[name], array)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_bfloat16_is_widened_exactly_and_float16_kept(tmp_path):
    bits = np.arange(2**16, dtype=np.uint16)
    wide = bits.view(ml_dtypes.bfloat16)
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(
        {"b": wide.reshape(256, 256), "f": bits.view(np.float16)}, path
    )
    assert header_of(path)["b"]["dtype"] == "BF16"
    file = SafetensorsFile(path)
    assert file.dtype("b") == np.float32
    same(file["b"], (bits.astype(np.uint32) << 16).view(np.float32).reshape(256, 256))
    with np.errstate(invalid="ignore"):  # NaNs that signal
        np.testing.assert_array_equal(file["b"].reshape(-1), wide.astype(np.float32))
    same(file["f"], bits.view(np.float16))


def test_any_layout_of_an_array_is_written_as_its_values(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    layouts = {
        "transposed": array.T,
        "strided": array[:, ::2, ::-1],
        "fortran": np.asfortranarray(array),
        "big-endian": array.astype(">f4"),
        "broadcast": np.broadcast_to(array[0], (3, 3, 4)),
        "scalar": np.float32(7),
        "list": [1.5, 2.5],
    }
    save_safetensors(tmp_path / "a", layouts)
    file = SafetensorsFile(tmp_path / "a")
    for name, layout in layouts.items():
        expected = np.asarray(layout)
        same(
            file[name], np.array(expected, expected.dtype.newbyteorder("="), order="C")
        )


def test_data_begin_at_a_multiple_of_eight_and_wide_items_come_first(tmp_path):
    path = tmp_path / "a"
    save_safetensors(
        path,
        {"a": np.ones(3, np.int8), "b": np.ones(3, np.float64), "c": np.ones(3, "f2")},
    )
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
    offsets = {name: entry["data_offsets"] for name, entry in header_of(path).items()}
    assert offsets == {"b": [0, 24], "c": [24, 30], "a": [30, 33]}


def test_what_fills_cache_lines_starts_on_one(tmp_path):
    shapes = {"scales": (3, 5), "a": (7, 64), "long name " * 9: (16,), "c": (2, 64)}
    dtypes = dict(zip(shapes, ("f4", "u1", "f4", "u1")))
    tensors = {name: np.ones(shape, dtypes[name]) for name, shape in shapes.items()}
    path = tmp_path / "a"
    save_safetensors(path, tensors)
    file = SafetensorsFile(path)
    for name, array in tensors.items():
        same(file[name], array)
        assert array.nbytes % 64 or file[name].ctypes.data % 64 == 0


def test_bfloat16_bits_lie_in_the_file(tmp_path):
    array = np.arange(40, dtype=np.float32).reshape(5, 8) / 7
    path = tmp_path / "a.safetensors"
    save_safetensors(path, {"a": array}, dtype="bfloat16")
    save_safetensors(tmp_path / "b.safetensors", {"b": array})
    index = {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
    (tmp_path / "all.safetensors.index.json").write_text(json.dumps(index))
    shards = open_checkpoint(tmp_path / "all.safetensors.index.json")
    for file in (SafetensorsFile(path), shards):
        bits = file.bfloat16_bits("a")
        assert (bits.dtype, bits.shape) == (np.uint16, (5, 8))
        assert not bits.flags.writeable
        expected = array.astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(bits, expected.view(np.uint16))
        same(file["a"], expected.astype(np.float32))
    assert shards.bfloat16_bits("b") is None


def test_arrays_are_views_of_the_mapped_file(tmp_path):
    array = np.ones((1000, 1000), np.float32)
    save_safetensors(tmp_path / "a", {"a": array})
    tracemalloc.start()
    same(SafetensorsFile(tmp_path / "a")["a"], array)
    held = SafetensorsFile(tmp_path / "a")["a"]
    current, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held.sum() == 1e6
    assert current < 100_000


def test_writing_holds_one_tensor_at_a_time(tmp_path):
    class Lazy(dict):
        def __getitem__(self, name):
            return np.full((500_000,), int(name), np.float32)

        def items(self):
            return ((name, self[name]) for name in self)

    lazy = Lazy.fromkeys(map(str, range(20)))
    tracemalloc.start()
    save_safetensors(tmp_path / "a", lazy)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000  # of 40 MB in all
    assert SafetensorsFile(tmp_path / "a")["13"][-1] == 13


# --- Conversion as it is written ---


def nearest(values: np.ndarray, kind: str) -> np.ndarray:
    """What `kind` reads back as, by way of a file's bytes."""
    items = as_kind(values, kind)
    return as_array(items.reshape(-1).view(np.uint8), kind, values.shape)


def test_float32_rounds_to_the_bfloat16_that_ml_dtypes_gives():
    bits = np.random.default_rng(0).integers(0, 2**32, 1_000_000, dtype=np.uint32)
    halves = np.arange(0, 2**32, 2**15, dtype=np.uint32)  # all values and all ties
    values = np.concatenate([bits, halves]).view(np.float32)
    with np.errstate(all="ignore"):
        expected = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    fits = np.isinf(expected) == np.isinf(values)
    ours, theirs = nearest(values[fits], "bfloat16"), expected[fits]
    number = ~np.isnan(theirs)
    same(ours[number], theirs[number])
    assert np.isnan(ours[~number]).all()
    assert (~fits).any()
    with pytest.raises(ValueError, match="too large for bfloat16"):
        as_kind(values[~fits][:1], "bfloat16")


def test_float64_is_rounded_to_bfloat16_once():
    # Halfway between two bfloat16s, and a little off: in float32 that little is lost.
    tie = 1 + 2.0**-8
    values = np.array([tie, tie + 2.0**-40, tie - 2.0**-40, 3 * tie, -tie - 2.0**-40])
    same(
        nearest(values, "bfloat16"),
        np.array([1, 1 + 2.0**-7, 1, 3 + 2.0**-6, -1 - 2.0**-7], np.float32),
    )


@given(
    hnp.arrays(
        np.float64,
        20,
        elements=st.floats(-3e38, 3e38) | st.floats(-1e-37, 1e-37) | st.just(np.nan),
    )
)
def test_no_bfloat16_is_nearer_than_the_one_written(values):
    ours = nearest(values, "bfloat16").astype(np.float64)
    assert (np.isnan(ours) == np.isnan(values)).all()
    # Neighbours in the order of the bits; the distances are exact in float64's range.
    bits = ours.astype(np.float32).view(np.uint32) >> 16
    for neighbour in (bits - 1, bits + 1):
        with np.errstate(invalid="ignore"):  # NaNs that signal
            other = (neighbour << 16).view(np.float32).astype(np.float64)
        comparable = np.isfinite(other) & np.isfinite(values)
        nearer = abs(other - values) < abs(ours - values)
        assert not nearer[comparable & (np.sign(other) == np.sign(values))].any()


def test_only_floats_are_converted(tmp_path):
    save_safetensors(
        tmp_path / "a",
        {"f": np.ones(2), "i": np.arange(2), "c": np.ones(2, np.complex64)},
        dtype="float16",
    )
    file = SafetensorsFile(tmp_path / "a")
    assert {name: file.dtype(name).name for name in file} == {
        "f": "float16",
        "i": "int64",
        "c": "complex64",
    }


def test_a_dtype_that_is_no_float_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dtype is 'int8', and must be None or one of"):
        save_safetensors(tmp_path / "a", {"f": np.ones(2)}, dtype="int8")


def test_infinities_and_nans_are_no_overflow():
    nan = np.array(-1, np.int32).view(np.float32)  # a scalar, all bits set
    assert np.isnan(nearest(nan, "bfloat16"))
    values = np.array([np.inf, -np.inf, np.nan, 65504], np.float32)
    same(nearest(values, "float16"), values.astype(np.float16))
    with pytest.raises(ValueError, match=r"^70000\.0 is too large for float16"):
        as_kind(np.array([np.inf, -70000], np.float32), "float16")


# --- What is refused ---


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "model.safetensors"
    save_safetensors(path, {"a": np.arange(3)})
    before = path.read_bytes()
    for bad, match in [
        ({"a": np.ones(3), "b": np.array("text")}, "no str"),
        ({"a": np.ones(3, np.complex128)}, "no complex128 tensor named 'a'"),
        ({"__metadata__": np.ones(3)}, "named '__metadata__'"),
        ({"b": np.ones(3), "a": np.array([1e300])}, "tensor 'a': 1e.300 is too large"),
    ]:
        with pytest.raises(ValueError, match=match):
            save_safetensors(path, bad, dtype="float32")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def write(path, header, data=b"", length=None):
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    length = len(header) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + header + data)
    return path


def entry(dtype="F32", shape=(2,), start=0, stop=8, **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop], **more}


LIES = {
    "a header beyond the file": (b"{}", b"", 99, "has 10 bytes, and asks for 8 and a"),
    "an absurd header": (b"{}", b"", 2**64 - 1, "header of 18446744073709551615"),
    "no JSON": (b"<html>", b"", None, "is no JSON"),
    "no text": (b"\xff\xfe\xfa", b"", None, "is no JSON"),
    "deep JSON": (b"[" * 200_000, b"", None, "is no JSON"),
    "a number that JSON lacks": (b'{"a": NaN}', b"", None, "has NaN, which is no JSON"),
    "a long number": (b"{" + b"9" * 5000 + b"}", b"", None, "is no JSON"),
    "a list": ([], b"", None, "is a JSON list"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b"", None, "__metadata__"),
    "a list of metadata": ({"__metadata__": ["a"]}, b"", None, "__metadata__"),
    "a name twice": (
        b'{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]},'
        b' "a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}',
        b"",
        None,
        "has 'a' twice",
    ),
    "a field twice": (
        b'{"a": {"shape": [], "shape": [0]}}',
        b"",
        None,
        "'shape' twice",
    ),
    "no entry": ({"a": 7}, b"", None, "the entry of 'a' is 7"),
    "a field missing": (
        {"a": {"dtype": "F32", "shape": []}},
        b"",
        None,
        "the entry of",
    ),
    "a float for an axis": ({"a": entry(shape=[2.0])}, bytes(8), None, "the entry of"),
    "true for an axis": ({"a": entry(shape=[2, True])}, bytes(8), None, "the entry of"),
    "NaN for an axis": (
        b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}',
        bytes(8),
        None,
        "has NaN, which is no JSON",
    ),
    "a negative axis": ({"a": entry(shape=[-1, -2])}, bytes(8), None, "no array can"),
    "an absurd axis": ({"a": entry(shape=[2**62, 4])}, bytes(8), None, "no array can"),
    "too many axes": ({"a": entry(shape=[1] * 65)}, bytes(8), None, "65 axes"),
    "too short for its shape": (
        {"a": entry(shape=[3])},
        bytes(8),
        None,
        r"'a', F32 of shape \(3,\), takes 12 bytes, and lies at bytes 0 to 8",
    ),
    "true for an offset": ({"a": entry("U8", [1], 0, True)}, b"1", None, "entry of"),
    "a negative offset": (
        {"a": entry(start=-8, stop=0)},
        b"",
        None,
        "lies at bytes -8",
    ),
    "turned around": (
        {"a": entry("F8_E4M3", [8], 8, 0)},
        bytes(8),
        None,
        "lies at bytes 8 to 0",
    ),
    "overlap": (
        {"a": entry(), "b": entry(start=4, stop=12)},
        bytes(12),
        None,
        "'b' lies at bytes 4 to 12, but the one before it ends at 8",
    ),
    "the same place": ({"a": entry(), "b": entry()}, bytes(8), None, "ends at 8"),
    "a gap": ({"a": entry(start=4, stop=12)}, bytes(12), None, "ends at 0"),
    "truncated": ({"a": entry()}, bytes(7), None, "take 8 bytes, and 7 .*truncated"),
    "too long": ({"a": entry()}, bytes(9), None, "take 8 bytes, and 9 .*too long"),
}


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_of_a_header_is_found(tmp_path, lie):
    header, data, length, match = LIES[lie]
    path = write(tmp_path / "model.safetensors", header, data, length)
    with pytest.raises(CheckpointError, match=match) as caught:
        SafetensorsFile(path)
    assert str(path) in str(caught.value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
FIELDS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "BF16", "I64", "BOOL"]),
        "shape": st.lists(st.integers(0, 2), max_size=2),
        "data_offsets": st.sampled_from([[0, 8], [0, 4], [4, 8], [0, 0], [0], [8, 0]]),
    },
    optional={"more": ANYTHING, "shape ": ANYTHING},
)
HEADERS = st.fixed_dictionaries(
    {"a": FIELDS | FIELDS | ANYTHING},
    optional={
        "b": FIELDS | FIELDS | ANYTHING,
        "__metadata__": st.none()
        | st.dictionaries(
            st.text(max_size=3), st.text(max_size=3) | ANYTHING, max_size=2
        )
        | ANYTHING,
    },
)


@settings(files, max_examples=1000)
@given(header=HEADERS, length=st.sampled_from([8, 4, 0]))
@example(header={"a": entry(more=[{}]), "__metadata__": None}, length=8)
@example(header={"a": entry("F16", [2, 2], more=None), "__metadata__": {}}, length=8)
def test_every_header_that_the_library_takes_is_taken_and_no_other(
    tmp_path, header, length
):
    path = write(tmp_path / "file", header, bytes(range(length)))
    try:
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata()
            names = file.keys()  # (a file of theirs is no mapping)
            theirs = {name: file.get_slice(name).get_shape() for name in names}
    except safetensors.SafetensorError:
        with pytest.raises(CheckpointError):
            SafetensorsFile(path)
        return
    ours = SafetensorsFile(path)
    assert ours.metadata == (metadata or {})
    assert {name: list(ours.shape(name)) for name in ours} == theirs
    for name, array in ours.items():
        if ours.bfloat16_bits(name) is None:
            with safetensors.safe_open(path, "np") as file:
                same(array, file.get_tensor(name))


def test_web_pages_short_and_missing_files_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    for content, match in [
        (b"<!DOCTYPE html><html>", "begins with b'<!DOCTYPE html>"),
        (b"\x05\0\0", "has 3 bytes"),
        (b"", "it is empty"),
    ]:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=match):
            SafetensorsFile(path)
    with pytest.raises(CheckpointError, match=r"missing cannot be read: No such file"):
        SafetensorsFile(tmp_path / "missing")
    with pytest.raises(CheckpointError, match=r"cannot be read: Is a directory"):
        SafetensorsFile(tmp_path)


def test_dtypes_that_numpy_lacks_are_not_listed_and_named_when_asked_for(tmp_path):
    header = {"a": entry(), "b": entry("F8_E4M3", [8], 8, 16)}
    file = SafetensorsFile(write(tmp_path / "model.safetensors", header, bytes(16)))
    assert list(file) == ["a"]
    assert "b" not in file
    with pytest.raises(CheckpointError, match=r"'b' is of the dtype F8_E4M3"):
        file["b"]


def test_the_lowest_memory_a_hostile_header_can_ask_for_is_small(tmp_path):
    header = {"a": entry(shape=[2**40], stop=2**42)}
    path = write(tmp_path / "model.safetensors", header, bytes(8))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="truncated"):
        SafetensorsFile(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000


@settings(parent=files, max_examples=150)
@given(data=st.data())
def test_mutated_files_give_arrays_within_the_file_or_an_error(tmp_path, data):
    path = tmp_path / "model.safetensors"
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.ones(3, np.int8)}
    save_safetensors(path, tensors, {"format": "pt"})
    mutated = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(mutated) - 1))
        mutated[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"0", b"-", b"9", b"]", b'"'])
        )
    path.write_bytes(mutated)
    try:
        file = SafetensorsFile(path)
    except CheckpointError:
        return
    for name in file:
        assert file[name].nbytes <= len(mutated)
        assert file[name].shape == file.shape(name)
        assert sys.getsizeof(file.metadata) < 1000
