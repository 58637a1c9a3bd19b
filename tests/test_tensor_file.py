"""Memory of mapped files: given back, and there again when someone looks."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from minigpt2.checkpoints.safetensors_file import SafetensorsFile, save_safetensors
from minigpt2.checkpoints.tensor_file import let_go


def resident_kib(path):
    """How much of a mapped file this process has in memory."""
    if not Path("/proc/self/smaps").exists():
        pytest.skip("only Linux tells how much of a file is in memory")
    _, _, entry = Path("/proc/self/smaps").read_text().rpartition(str(path))
    return int(entry.split("Rss:")[1].split()[0])


def test_a_tensors_pages_are_given_back_and_its_neighbours_stay(tmp_path):
    size = 1 << 20
    tensors = {name: np.full(size, i, np.uint8) for i, name in enumerate("abc")}
    path = tmp_path / "three.safetensors"
    save_safetensors(path, tensors)
    file = SafetensorsFile(path)
    a, b, c = (file[name] for name in "abc")
    assert (a.max(), b.max(), c.max()) == (0, 1, 2)
    assert resident_kib(path) >= 3 * 1024
    let_go(b)
    assert resident_kib(path) <= 2 * 1024 + 64  # two tensors, and pages at the borders
    for i, array in enumerate((a, b, c)):
        np.testing.assert_array_equal(array, i)


def test_a_whole_files_pages_are_given_back_and_read_again(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"a": np.ones(1 << 20, np.uint8), "b": np.zeros((64, 1 << 14), np.uint8)}
    save_safetensors(path, tensors)
    file = SafetensorsFile(path)
    assert file["a"].sum() == 1 << 20
    assert file["b"].sum() == 0
    assert resident_kib(path) >= 2 * 1024
    let_go(file["b"].T[3:5], whole_file=True)
    assert resident_kib(path) == 0
    assert file["a"].sum() == 1 << 20


@pytest.mark.parametrize("whole_file", [False, True])
def test_a_mapping_of_someone_elses_keeps_what_was_written_to_it(tmp_path, whole_file):
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    with open(tmp_path / "file", "rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    array = np.frombuffer(mapping, np.uint8)
    array[:] = 3
    let_go(array, whole_file)
    np.testing.assert_array_equal(array, 3)


def test_memory_that_is_no_files_is_left_alone():
    array = np.arange(100_000)
    let_go(array[5:])
    let_go(array, whole_file=True)
    np.testing.assert_array_equal(array, np.arange(100_000))
