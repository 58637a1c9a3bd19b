"""NumPy writes .npz files and we read them, and the other way round."""

import io
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minigpt2.checkpoints import CheckpointError
from minigpt2.checkpoints.npz_file import NpzFile, save_npz

files = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
numbers = (
    hnp.integer_dtypes(endianness="?")
    | hnp.unsigned_integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64))
    | hnp.complex_number_dtypes(endianness="?", sizes=(64, 128))
    | hnp.boolean_dtypes()
)
arrays = hnp.arrays(numbers, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
tensors = st.dictionaries(names, arrays, max_size=4)


def same(array, expected):
    """Bit for bit, not value for value: NaNs and minus zeros count."""
    expected = expected.astype(expected.dtype.newbyteorder("="))
    assert array.dtype == expected.dtype
    assert array.dtype.isnative
    assert array.shape == expected.shape
    assert array.tobytes() == expected.tobytes()


@files
@given(tensors=tensors, compressed=st.booleans(), fortran=st.booleans())
def test_what_numpy_writes_is_read(tmp_path, tensors, compressed, fortran):
    tensors = {f"n{name}": array for name, array in tensors.items()}  # not "file"
    if fortran:
        tensors = {name: np.asfortranarray(array) for name, array in tensors.items()}
    path = tmp_path / "model.npz"
    (np.savez_compressed if compressed else np.savez)(path, **tensors)
    file = NpzFile(path)
    assert list(file) == sorted(tensors)
    for name, array in tensors.items():
        assert file.shape(name) == array.shape
        assert file.dtype(name) == array.dtype.newbyteorder("=")
        same(file[name], array)
        assert not file[name].flags.writeable


@files
@given(tensors=tensors)
def test_numpy_reads_what_is_written(tmp_path, tensors):
    path = tmp_path / "model.npz"
    save_npz(path, tensors)
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file) == sorted(tensors)
        for name, array in tensors.items():
            same(file[name], array)
    again = tmp_path / "again.npz"
    save_npz(again, tensors)  # the time of day is not in it
    assert again.read_bytes() == path.read_bytes()


def test_what_holds_no_numbers_is_not_listed_and_never_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path / "marker").touch, ()

    path = tmp_path / "model.npz"
    np.savez(
        path,
        a=np.ones(3),
        objects=np.array([Evil()]),
        text=np.array(["text"]),
        days=np.array(["2026-11-23"], "M8[D]"),
        records=np.zeros(2, [("x", "f4")]),
    )
    (tmp_path / "marker").unlink(missing_ok=True)
    file = NpzFile(path)
    assert list(file) == ["a"]
    for name, kind in [("objects", "O"), ("text", "<U4"), ("records", "x")]:
        with pytest.raises(CheckpointError, match=f"'{name}' is of the dtype .*{kind}"):
            file[name]
    assert not (tmp_path / "marker").exists()


def test_a_conversion_is_made_as_it_is_written_or_refused(tmp_path):
    path = tmp_path / "model.npz"
    save_npz(path, {"x": np.array([1 / 3]), "i": np.arange(2)}, dtype="float16")
    same(NpzFile(path)["x"], np.array([1 / 3], np.float16))
    same(NpzFile(path)["i"], np.arange(2))
    before = path.read_bytes()
    for tensors, dtype, match in [
        ({"x": np.ones(2)}, "bfloat16", "NumPy has no bfloat16"),
        ({"x": np.array([1e9])}, "float16", r"'x': 1000000000\.0 is too large"),
        ({"x": np.array(["text"])}, None, "'x' holds no numbers"),
        ({"a\0b": np.ones(2)}, None, "no name for a file in a zip archive"),
    ]:
        with pytest.raises(ValueError, match=match):
            save_npz(path, tensors, dtype)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def npy(shape, data: bytes, descr="'<f4'", version=b"\1\0") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"
    length = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + length + header.encode() + data


@pytest.mark.parametrize(
    ("member", "match"),
    [
        (
            npy("(3,)", bytes(8)),
            r"<?f(loat3|4)2? of shape \(3,\), takes .* the archive",
        ),
        (npy("(1,)", bytes(8)), "takes"),
        (npy(f"({2**40}, {2**40})", b""), "no array can have the shape"),
        (npy("(-1, -2)", bytes(8)), "is no .npy file"),
        (npy("(" + "1," * 65 + ")", bytes(4)), "no array can have the shape"),
        (npy("(2.0,)", bytes(8)), "is no .npy file"),
        (npy("(2 3,)", bytes(8)), "invalid literal"),
        (npy("(" + "9" * 5000 + ",)", bytes(8)), "Exceeds the limit"),
        (npy("(2,)", bytes(8), "'<f3'"), "data type '<f3' not understood"),
        (npy("((" * 4000, bytes(8)), "is no .npy file"),
        (npy("__import__('os')", bytes(8)), "is no .npy file"),
        (npy("(2,)", bytes(8))[:20], "is no .npy file"),
        (b"", "is no .npy file"),
        (b"<html>", "is no .npy file"),
    ],
)
def test_every_lie_of_a_header_is_found(tmp_path, member, match):
    path = tmp_path / "model.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", member)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=match) as caught:
        NpzFile(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert peak < 5_000_000


@pytest.mark.parametrize("header", [b"-" * 9000 + b"1", b"(" * 900, b"[" * 9000])
def test_no_header_overflows_the_stack_of_a_small_thread(tmp_path, header):
    path = tmp_path / "model.npz"
    with zipfile.ZipFile(path, "w") as archive:
        length = len(header).to_bytes(2, "little")
        archive.writestr("x.npy", b"\x93NUMPY\1\0" + length + header)
    # In a process of its own, which a stack overflow would end.
    code = f"""
import threading
from minigpt2.checkpoints import CheckpointError
from minigpt2.checkpoints.npz_file import NpzFile

def read():
    try:
        NpzFile({str(path)!r})
    except CheckpointError as error:
        print(error)

threading.stack_size(256 * 1024)
thread = threading.Thread(target=read)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "is no .npy file" in done.stdout


def test_other_files_are_shown(tmp_path):
    path = tmp_path / "model.npz"
    for raw, match in [
        (b"", "it is empty"),
        (b"<!DOCTYPE html>", "begins with b'<!DOCTYPE html>'"),
        (b"PK\3\4" + bytes(99), "begins with b'PK"),
    ]:
        path.write_bytes(raw)
        with pytest.raises(CheckpointError, match=match):
            NpzFile(path)
    with pytest.raises(CheckpointError, match="No such file"):
        NpzFile(tmp_path / "missing.npz")


@settings(parent=files, max_examples=100)
@given(data=st.data(), compressed=st.booleans())
def test_mutated_files_give_the_right_arrays_or_an_error(tmp_path, data, compressed):
    stream = io.BytesIO()
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.ones(3, np.int8)}
    (np.savez_compressed if compressed else np.savez)(stream, **tensors)
    mutated = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(mutated) - 1))
        mutated[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=3)
        )
    path = tmp_path / "model.npz"
    path.write_bytes(mutated)
    try:
        arrays = dict(NpzFile(path))
    except CheckpointError:
        return
    for name in set(arrays) & set(tensors):
        same(arrays[name], tensors[name])


@pytest.mark.parametrize("field", [20, 24])  # the sizes: compressed, and as it was
def test_a_member_that_claims_more_than_the_archive_has_costs_no_memory(
    tmp_path, field
):
    path = tmp_path / "model.npz"
    np.savez_compressed(path, a=np.arange(6.0))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + field
    data[at : at + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"model\.npz.*2147483648"):
        NpzFile(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_numpy_does_not_use_are_refused(tmp_path, method):
    """A few bytes of LZMA's header ask for gigabytes."""
    array = io.BytesIO()
    np.save(array, np.arange(6.0))
    with zipfile.ZipFile(tmp_path / "model.npz", "w", method) as archive:
        archive.writestr("a.npy", array.getvalue())
    with pytest.raises(CheckpointError, match=f"compressed by method {method}"):
        NpzFile(tmp_path / "model.npz")
