"""What happens to files when a process is killed, a disk is full, a folder can't be
written to, a file shrinks while it is mapped, or two processes write at once."""

import errno
import functools
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from fuzz_judge import Worker

from minigpt2 import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer
from minigpt2.checkpoints.npz_file import save_npz
from minigpt2.checkpoints.open import open_checkpoint
from minigpt2.checkpoints.safetensors_file import save_safetensors
from minigpt2.checkpoints.tf_bundle_writer import save_tf_bundle
from minigpt2.tasks.convert import convert

ARRAYS = {"a": np.arange(300_000, dtype=np.float32), "b": np.ones(7)}
OTHERS = {"a": -ARRAYS["a"], "b": np.zeros(7)}
WRITERS = {
    "x.safetensors": save_safetensors,
    "x.npz": save_npz,
    "model.ckpt": save_tf_bundle,
}
SIZES = {"vocab_size": 500, "n_positions": 16, "n_embd": 64, "n_layer": 2, "n_head": 2}
SMALL = GPT2Config(**SIZES, bos_token_id=499, eos_token_id=499)


def in_a_child(task) -> str:
    """Run a task in a forked process; return how it died, or ''."""
    worker = Worker(lambda send: task())
    worker.wait()
    return worker.death + worker.words


def killed_after(milliseconds, task):
    """Run a task in a forked process for a while, then end it by kill -9."""

    def run(send):
        send("begun")
        while True:
            task()

    worker = Worker(run)
    messages = iter(worker)
    assert next(messages) == "begun"
    time.sleep(milliseconds / 1000)
    os.kill(worker.pid, signal.SIGKILL)
    assert list(messages) == []
    assert worker.death == "Crash: signal 9", worker.words


def is_one_of(path, *expected) -> bool:
    file = open_checkpoint(path)
    return any(
        all(np.array_equal(file[name], array) for name, array in arrays.items())
        for arrays in expected
    )


def small_model(seed):
    rng = np.random.default_rng(seed)
    model = GPT2LMHeadModel(SMALL, backend="numpy")
    state = {
        name: rng.standard_normal(array.shape).astype(array.dtype)
        for name, array in model.state_dict().items()
        if name != "lm_head.weight"
    }
    model.load_state_dict(state, strict=False)
    return model


def same_parameters(a, b) -> bool:
    b = b.state_dict()
    return all(np.array_equal(array, b[name]) for name, array in a.state_dict().items())


# --- kill -9 ---


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz"])
def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new(tmp_path, name):
    write, path = WRITERS[name], tmp_path / name
    write(path, ARRAYS)

    def both():
        write(path, OTHERS)
        write(path, ARRAYS)

    for milliseconds in (1, 5, 9, 14, 23, 37):
        killed_after(milliseconds, both)
        assert is_one_of(path, ARRAYS, OTHERS)


def test_a_model_that_is_saved_over_another_one_and_killed_is_one_of_them(tmp_path):
    models = [small_model(seed) for seed in (1, 2)]
    models[0].save_pretrained(tmp_path)
    for milliseconds in (1, 4, 8, 13, 21):
        killed_after(
            milliseconds, lambda: [m.save_pretrained(tmp_path) for m in models]
        )
        found = GPT2LMHeadModel.from_pretrained(tmp_path, backend="numpy")
        assert any(same_parameters(found, model) for model in models)


def test_a_conversion_that_is_killed_leaves_a_whole_folder_or_none(tmp_path):
    source = tmp_path / "source"
    small_model(1).save_pretrained(source)
    GPT2Tokenizer.from_pretrained("gpt2").save_pretrained(source)
    for number, milliseconds in enumerate((1, 20, 50, 90, 150)):
        target = tmp_path / f"target {number}"

        def once(target=target):
            if not target.exists():
                convert(source, target, "tf")

        killed_after(milliseconds, once)
        if target.exists():
            found = GPT2LMHeadModel.from_pretrained(target, backend="numpy")
            assert same_parameters(found, small_model(1))


# --- Full disks, and folders that nobody may write to ---


def limit_files():
    """From here on, no file of this process may be longer than 500,000 bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))


def fill_the_disk():
    """From here on, nothing more gets to the disk."""

    def fsync(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.fsync = fsync


@pytest.mark.parametrize("full", [limit_files, fill_the_disk])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_an_error_that_names_the_file_and_the_old_one_stays(
    tmp_path, name, full
):
    write, path = WRITERS[name], tmp_path / name
    write(path, ARRAYS)
    before = sorted(p.name for p in tmp_path.iterdir())

    def fail():
        full()
        with pytest.raises(OSError, match=str(path)):
            write(path, OTHERS)

    assert in_a_child(fail) == ""
    assert is_one_of(path, ARRAYS)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_conversion_to_a_full_disk_leaves_nothing(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    small_model(1).save_pretrained(source)

    def fail():
        fill_the_disk()
        with pytest.raises(OSError, match=f"No space left on device.*{tmp_path}"):
            convert(source, target)

    assert in_a_child(fail) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("name", [*WRITERS, "model"])
def test_a_folder_that_cannot_be_written_to_is_an_error_that_names_it(tmp_path, name):
    if name == "model":
        write = small_model(1).save_pretrained
    else:
        write = functools.partial(WRITERS[name], tensors=ARRAYS)
    path = tmp_path if name == "model" else tmp_path / name
    write(path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    tmp_path.chmod(0o555)

    def fail():
        if os.getuid() == 0:  # whom no mode keeps out
            for parent in (*tmp_path.parents, tmp_path):
                if parent.stat().st_mode & 0o005 != 0o005:
                    parent.chmod(parent.stat().st_mode | 0o005)
            os.setuid(65534)
        with pytest.raises(OSError, match=str(tmp_path)):
            write(path)

    try:
        assert in_a_child(fail) == ""
    finally:
        tmp_path.chmod(0o755)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- Files that change while they are mapped ---


def test_a_mapped_file_may_be_replaced_and_must_not_be_made_shorter(tmp_path):
    path = tmp_path / "x.safetensors"
    save_safetensors(path, ARRAYS)
    file = open_checkpoint(path)
    save_safetensors(path, OTHERS)
    np.testing.assert_array_equal(file["a"], ARRAYS["a"])

    file = open_checkpoint(path)

    def read_what_is_gone():
        os.truncate(path, 4096)
        file["a"].sum()

    # As the documentation of map_file says: nothing in Python can catch this.
    death = in_a_child(read_what_is_gone)
    assert death.startswith(f"Crash: signal {signal.SIGBUS.value}")


# --- Two processes at once ---


def at_once(*tasks) -> list[str]:
    """Run tasks in forked processes at the same time; return how each died, or ''."""
    workers = [Worker(lambda send, task=task: task()) for task in tasks]
    for worker in workers:
        worker.wait()
    return [worker.death + worker.words for worker in workers]


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz"])
def test_two_processes_that_write_one_file_leave_a_whole_one(tmp_path, name):
    write, path = WRITERS[name], tmp_path / name

    def some(arrays):
        for _ in range(10):
            write(path, arrays)

    assert at_once(lambda: some(ARRAYS), lambda: some(OTHERS)) == ["", ""]
    assert is_one_of(path, ARRAYS, OTHERS)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_two_processes_that_save_into_one_folder_leave_one_of_the_models(tmp_path):
    models = [small_model(seed) for seed in (1, 2)]

    def save(model):
        for _ in range(10):
            model.save_pretrained(tmp_path)

    assert at_once(*(lambda m=m: save(m) for m in models)) == ["", ""]
    found = GPT2LMHeadModel.from_pretrained(tmp_path, backend="numpy")
    assert any(same_parameters(found, model) for model in models)


def test_of_two_conversions_into_one_folder_one_takes_the_name(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    small_model(1).save_pretrained(source)

    def one():
        try:
            convert(source, target)
        except OSError as error:
            os._exit(3 if str(target) in str(error) else 4)

    deaths = sorted(at_once(one, one))
    assert deaths[0] == ""
    assert deaths[1] in ("", "Crash: exit 3")
    found = GPT2LMHeadModel.from_pretrained(target, backend="numpy")
    assert same_parameters(found, small_model(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_two_processes_that_compile_kernels_share_their_cache(tmp_path):
    pytest.importorskip("numba")
    program = (
        "import sys, numpy as np\n"
        "from minigpt2 import kernels, ops\n"
        "x = np.arange(20.0).reshape(4, 5)\n"
        "g, b = np.ones(5), np.zeros(5)\n"
        "np.testing.assert_allclose(\n"
        "    kernels.layer_norm(x, g, b), ops.layer_norm(x, g, b))\n"
        "dispatcher = next(iter(kernels.norms._layer_norm.values()))\n"
        "print(sum(dispatcher.stats.cache_hits.values()))\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    for process in [start(), start()]:
        _, err = process.communicate()
        assert (process.returncode, err) == (0, "")
    out, err = start().communicate()
    assert (out, err) == ("1\n", "")
