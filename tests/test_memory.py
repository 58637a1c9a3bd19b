"""Memory is used again, and never while anyone can see it."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2.runtime import memory
from minigpt2.runtime.memory import KEPT, LARGE, LINE, empty_aligned, empty_reused


@pytest.fixture(autouse=True)
def nothing_kept():
    memory._blocks.clear()


@pytest.mark.parametrize("empty", [empty_aligned, empty_reused])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_large_arrays_start_on_a_line(empty, dtype):
    for shape in ((3, 300_000), (0, 5), (7,), (70_001,)):
        array = empty(shape, dtype)
        assert (array.shape, array.dtype, array.flags.c_contiguous) == (
            shape,
            dtype,
            True,
        )
        assert array.nbytes < memory.SMALL or array.ctypes.data % LINE == 0


def test_memory_is_used_again_when_the_last_view_of_it_is_gone():
    array = empty_reused((1000, 1000), np.float32)
    place = array.ctypes.data
    views = [array[3:5].T, array.reshape(-1)[::7], memoryview(array), iter(array)]
    del array
    while views:
        other = empty_reused((1000, 999), np.float32)  # in a block of the same size
        assert other.ctypes.data != place
        del other
        views.pop()
    assert empty_reused((1000, 1000), np.float32).ctypes.data == place


@given(st.lists(st.tuples(st.integers(1, 8), st.booleans()), max_size=80))
def test_living_arrays_keep_what_was_written_to_them(steps):
    living = []
    for number, (size, dies) in enumerate(steps):
        if dies and living:
            living.pop(size % len(living))
        array = empty_reused((size, 1 << 14), np.float32)
        array[:] = number
        living.append((number, array))
    for number, array in living:
        assert (array == number).all()


def test_threads_never_share_memory():
    wrong = []

    def work(number):
        for _ in range(300):
            array = empty_reused((1 << 16,), np.float32)
            array[:] = number
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_kept_is_bounded():
    arrays = [empty_reused((LARGE,), np.uint8) for _ in range(12)]
    assert len(memory._blocks) == 12
    arrays.clear()
    empty_reused((1 << 17,), np.uint8)
    assert sum(map(len, memory._blocks)) <= KEPT + (1 << 18)
    arrays = [empty_reused((1 << 17,), np.uint8) for _ in range(200)]
    assert len(memory._blocks) <= 32
    arrays = [empty_reused((LARGE + 1,), np.uint8)]
    assert sum(map(len, memory._blocks)) <= KEPT + (1 << 18)
