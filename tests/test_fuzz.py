"""What the fuzzer found stays mended; it sees what it should; files are written whole."""

import ctypes
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import fuzz  # noqa: E402
import fuzz_formats  # noqa: E402
import fuzz_surfaces  # noqa: E402

from minigpt2.checkpoints import npz_file, safetensors_file, tf_bundle, torch_file  # noqa: E402
from minigpt2.checkpoints.npz_file import save_npz  # noqa: E402
from minigpt2.checkpoints.open import open_checkpoint  # noqa: E402
from minigpt2.checkpoints.safetensors_file import save_safetensors  # noqa: E402
from minigpt2.checkpoints.tf_bundle_writer import save_tf_bundle  # noqa: E402


@pytest.fixture(scope="module")
def formats():
    found = [
        *fuzz_formats.file_formats(),
        fuzz_surfaces.Options(),
        fuzz_surfaces.CommandLine(),
    ]
    return {format.name: format for format in found}


# --- What was found ---


@pytest.mark.parametrize(
    "path", sorted(fuzz.CORPUS.glob("*.json")), ids=lambda p: p.stem
)
def test_what_was_a_fault_is_refused_or_read_right(formats, path):
    name, files = fuzz.load_kept(path)
    assert fuzz.verdict_of(formats[name], files)[0] in ("equal", "refused")


# --- The fuzzer sees what it should ---


def skip_checksums(monkeypatch):
    original = tf_bundle.TFBundle.__init__
    monkeypatch.setattr(
        tf_bundle.TFBundle,
        "__init__",
        lambda self, path, verify=True: original(self, path, False),
    )
    return "tensorflow"


def begin_a_byte_early(monkeypatch):
    original = npz_file._entry

    def entry(archive, info):
        found = original(archive, info)
        odd = isinstance(found, npz_file.Entry) and found.start % 2
        return found._replace(start=found.start - 1) if odd else found

    monkeypatch.setattr(npz_file, "_entry", entry)
    return "npz"


def believe_shapes(monkeypatch):
    class Whatever(int):
        def __ne__(self, other):
            return False

    monkeypatch.setattr(safetensors_file, "stored_size", lambda kind, shape: Whatever())
    monkeypatch.setattr(Whatever, "__rsub__", lambda self, other: self)
    return "safetensors"


def check_no_bounds(monkeypatch):
    monkeypatch.setattr(torch_file, "_check", lambda name, tensor, records: None)
    return "torch legacy"


def swap_bytes(monkeypatch):
    original = npz_file.as_array

    def as_array(raw, kind, shape, byteorder="<"):
        return original(raw, kind, shape, "<")

    monkeypatch.setattr(npz_file, "as_array", as_array)
    return "npz"


@pytest.mark.parametrize(
    "plant",
    [skip_checksums, begin_a_byte_early, believe_shapes, check_no_bounds, swap_bytes],
)
def test_planted_faults_of_readers_are_found(formats, monkeypatch, plant):
    tally = fuzz.campaign(formats[plant(monkeypatch)], 1500, traced=0)
    assert tally.faults


def crash(folder):
    ctypes.string_at(0)


def hang(folder):
    while True:
        pass


def fill_memory(folder):
    return {"x": np.zeros(1 << 28)}


def lose_a_key(folder):
    return {}["x"]


def refuse_without_the_file(folder):
    raise ValueError("no")


@pytest.mark.parametrize(
    ("read", "key"),
    [
        (crash, "Crash: signal 11"),
        (hang, "Hang"),
        (fill_memory, "MemoryError"),
        (lose_a_key, "KeyError"),
        (refuse_without_the_file, "does not name the file"),
    ],
)
def test_every_kind_of_fault_is_seen(formats, monkeypatch, read, key):
    format = formats["safetensors"]
    files = format.bases[0].files | {"model.safetensors": b"mutated"}
    sound = format.read
    monkeypatch.setattr(fuzz, "SECONDS", 0.5)
    monkeypatch.setattr(fuzz.judge, "__defaults__", (0.5,))

    def reads(folder):
        mutated = (folder / "model.safetensors").stat().st_size == len(b"mutated")
        return read(folder) if mutated else sound(folder)

    monkeypatch.setattr(format, "read", reads)
    verdict, found, _ = fuzz.verdict_of(format, files)
    assert verdict == "fault"
    assert key in found


def test_a_worker_that_dies_costs_one_input(formats, monkeypatch):
    format = formats["safetensors"]
    victim = fuzz.make_input(format, 0, 37)
    sound = format.read

    def reads(folder):
        if (folder / "model.safetensors").read_bytes() == victim["model.safetensors"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return sound(folder)

    monkeypatch.setattr(format, "read", reads)
    tally = fuzz.campaign(format, 100, traced=0)
    assert tally.inputs == 100
    assert [(f.key, f.number) for f in tally.faults.values()] == [
        ("Crash: signal 9", 37)
    ]


def test_a_fault_is_made_smaller_and_can_be_kept(formats, monkeypatch, tmp_path):
    format = formats["generation_config.json"]

    def reads(folder):
        if b'"top_k": 7' in (folder / format.file).read_bytes():
            raise KeyError("top_k")
        return {}

    monkeypatch.setattr(format, "read", reads)
    monkeypatch.setattr(format, "use", lambda folder: None)
    text = b'{"top_k": 7, "bad_words_ids": [[1, 2], [3]], "seed": 1}'
    files = {format.file: text}
    fault = fuzz.Fault(fuzz.verdict_of(format, files)[1], "", 0, 1, files)
    fault.files = fuzz.reduced(format, fault)
    assert fault.files == {format.file: b'{"top_k": 7}'}
    path = fuzz.keep(format, fault, tmp_path)
    assert fuzz.load_kept(path) == (format.name, fault.files)


# --- Writing: whole or not at all ---

ARRAYS = {"a": np.arange(300_000, dtype=np.float32), "b": np.ones(7)}
OTHERS = {"a": -ARRAYS["a"], "b": np.zeros(7)}
WRITERS = {
    "x.safetensors": save_safetensors,
    "x.npz": save_npz,
    "model.ckpt": save_tf_bundle,
}


def in_a_child(task) -> int:
    """Run a task in a forked process; return its exit status, negative for a signal."""
    worker = fuzz.Worker(lambda begin: task())
    result, _, why = worker.wait()
    return 0 if not why else -int(why.rpartition(" ")[2]) if "signal" in why else 1


def is_one_of(path, *expected) -> bool:
    file = open_checkpoint(path)
    return any(
        all(np.array_equal(file[name], array) for name, array in arrays.items())
        for arrays in expected
    )


def write_forever(write, path):
    while True:
        write(path, OTHERS)
        write(path, ARRAYS)


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz"])
def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new(tmp_path, name):
    write, path = WRITERS[name], tmp_path / name
    write(path, ARRAYS)
    for milliseconds in (1, 5, 9, 14, 23, 37):
        worker = fuzz.Worker(lambda begin: write_forever(write, path))
        time.sleep(0.05 + milliseconds / 1000)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        assert is_one_of(path, ARRAYS, OTHERS)


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_an_error_and_the_old_file_stays(tmp_path, name):
    write, path = WRITERS[name], tmp_path / name
    write(path, ARRAYS)
    before = sorted(p.name for p in tmp_path.iterdir())

    def fail():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        with pytest.raises(OSError, match="."):
            write(path, OTHERS)

    assert in_a_child(fail) == 0
    assert is_one_of(path, ARRAYS)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_cannot_be_written_to_is_an_error_that_names_it(tmp_path, name):
    write, path = WRITERS[name], tmp_path / name
    write(path, ARRAYS)
    tmp_path.chmod(0o555)

    def fail():
        if os.getuid() == 0:  # whom no mode keeps out
            for parent in (*tmp_path.parents, tmp_path):
                if parent.stat().st_mode & 0o005 != 0o005:
                    parent.chmod(parent.stat().st_mode | 0o005)
            os.setuid(65534)
        with pytest.raises(OSError, match=str(tmp_path)):
            write(path, OTHERS)

    try:
        assert in_a_child(fail) == 0
    finally:
        tmp_path.chmod(0o755)
    assert is_one_of(path, ARRAYS)


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz"])
def test_two_processes_that_write_at_once_leave_one_whole_file(tmp_path, name):
    write, path = WRITERS[name], tmp_path / name

    def some(arrays):
        for _ in range(10):
            write(path, arrays)

    workers = [fuzz.Worker(lambda begin, a=a: some(a)) for a in (ARRAYS, OTHERS)]
    assert [worker.wait()[2] for worker in workers] == ["", ""]
    assert is_one_of(path, ARRAYS, OTHERS)
    assert [p.name for p in tmp_path.iterdir()] == [name]
