"""What the fuzzer found stays mended, and it sees what it should."""

import ctypes
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import fuzz  # noqa: E402
import fuzz_corpus  # noqa: E402
import fuzz_judge  # noqa: E402

from minigpt2.checkpoints import npz_file, safetensors_file, tf_bundle, torch_file  # noqa: E402


@pytest.fixture(scope="module")
def formats():
    return {format.name: format for format in fuzz.all_formats()}


# --- What was found ---


@pytest.mark.parametrize(
    "path", sorted(fuzz.CORPUS.glob("*.json")), ids=lambda p: p.stem
)
def test_what_was_a_fault_is_refused_or_read_right(formats, path):
    verdict = fuzz.verdict_of(*fuzz.load_kept(path, formats))
    assert verdict.word in ("equal", "refused"), verdict


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
    monkeypatch.setattr(fuzz_judge, "SECONDS", 0.5)

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


def test_a_worker_that_ends_by_itself_says_why(formats, monkeypatch):
    def mutated(*_, repaired):
        raise ArithmeticError("in the fuzzer itself")

    monkeypatch.setattr(formats["npz"], "mutated", mutated)
    worker = fuzz.Worker(lambda send: fuzz.make_input(formats["npz"], 0, 0))
    assert worker.wait() == []
    assert worker.death == "Crash: exit 1"
    assert "ArithmeticError: in the fuzzer itself" in worker.words


def test_unchanged_files_that_are_not_read_end_a_campaign(formats, monkeypatch):
    monkeypatch.setattr(formats["npz"], "read", lose_a_key)
    tally = fuzz.campaign(formats["npz"], 10)
    assert tally.inputs == 1
    assert "KeyError" in tally.faults["an unchanged file"].text


def test_packing_and_the_witness_may_take_any_memory(formats, monkeypatch):
    """LZMA's 92 MB, once, ended a worker that was allowed 100 in all."""
    format = formats["npz"]
    monkeypatch.setattr(fuzz_judge, "MEMORY", 1 << 20)
    monkeypatch.setattr(format, "witness", lambda files: {"x": np.ones(1 << 24)})
    tally = fuzz.campaign(format, 110, traced=0)  # the 102nd is packed so
    assert tally.inputs == 110
    assert not [key for key in tally.faults if "Crash" in key or "Memory" in key]


class FakeAtheris:
    """What `guided` uses of atheris; its fuzzer draws at random."""

    def instrument_all(self):
        pass

    def Setup(self, options, one):
        assert options[0] == "fuzz"
        self.one = one

    def Fuzz(self):
        rng = np.random.default_rng(0)
        while True:
            self.one(rng.bytes(400))


def test_a_coverage_guided_fuzzer_steers_the_mutations(formats, monkeypatch):
    monkeypatch.setitem(sys.modules, "atheris", FakeAtheris())
    tally = fuzz.guided(formats["safetensors"], 1.0)
    assert tally.verdicts["equal"]
    assert tally.verdicts["refused"]
    assert not tally.faults
    assert tally.past > tally.inputs / 3


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
    key = fuzz.verdict_of(format, files).key
    smaller = fuzz_corpus.reduced(format, key, files)
    assert smaller == {format.file: b'{"top_k": 7}'}
    path = fuzz_corpus.keep(format, key, smaller, tmp_path)
    assert fuzz_corpus.load_kept(path, formats) == (format, smaller)
