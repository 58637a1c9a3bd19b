"""KVCache is a value: whoever continues one, the caches made before keep their words."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2 import KVCache

SHAPES = [(2, 3, 4), (2, 1, 4)]  # two layers, the second pruned to one head


def step(cache, number, new=1):
    """Continue a cache by `new` positions that hold `number`."""
    grown = cache.extended(new)
    for layer, (batch, heads, size) in enumerate(SHAPES):
        block = np.full((batch, heads, new, size), number, np.float32)
        grown.write(layer, block, -block)
    return grown


def content(cache):
    """What the cache says: the numbers that its positions hold."""
    for layer, (batch, heads, size) in enumerate(SHAPES):
        k, v = cache[layer]
        assert k.shape == v.shape == (batch, heads, cache.length, size)
        np.testing.assert_array_equal(k, np.broadcast_to(k[:1, :1, :, :1], k.shape))
        np.testing.assert_array_equal(v, -k)
    return cache[0][0][0, 0, :, 0].tolist()


@given(
    st.integers(0, 6),
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 3)), max_size=20),
)
def test_continuations_of_any_cache_in_any_order_leave_all_others_alone(room, choices):
    family = [(KVCache.empty(SHAPES, room, np.float32), [])]
    for number, (choice, new) in enumerate(choices, start=1):
        parent, words = family[choice % len(family)]
        family.append((step(parent, number, new), words + [number] * new))
    for cache, words in family:
        assert content(cache) == words


def test_a_loop_of_steps_within_the_reserved_room_copies_nothing():
    cache = KVCache.empty(SHAPES, 5, np.float32)
    first = step(cache, 1)
    for number in range(2, 6):
        cache = step(first if number == 2 else cache, number)
    assert np.shares_memory(first[0][0], cache[0][0])
    assert not np.shares_memory(first[0][0], step(first, 9)[0][0])


def test_two_threads_that_continue_one_cache_both_get_their_own():
    prompt = step(KVCache.empty(SHAPES, 1000, np.float32), 7)
    results = {}

    def continue_with(number):
        cache = prompt
        for _ in range(200):
            cache = step(cache, number)
        results[number] = cache

    threads = [threading.Thread(target=continue_with, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, cache in results.items():
        assert content(cache) == [7] + [number] * 200


def test_a_cache_reads_like_a_tuple_of_pairs_that_cannot_be_written_to():
    cache = step(KVCache.empty(SHAPES, 3, np.float32), 1, new=3)
    k, v = cache[1]
    assert len(cache) == 2
    assert [pair[0].shape for pair in cache] == [(2, 3, 3, 4), (2, 1, 3, 4)]
    assert cache[-1][0] is not None
    assert len(cache[:1]) == 1
    with pytest.raises(ValueError, match="read-only"):
        k[...] = 0
    assert repr(cache) == "KVCache(layers=2, positions=3)"
    again = KVCache.of([(k, v) for k, v in cache], np.float32)
    assert content(again) == content(cache)


def test_rows_are_selected_and_repeated():
    keys = np.arange(2 * 3 * 2 * 4, dtype=np.float32).reshape(2, 3, 2, 4)
    cache = KVCache.of([(keys, -keys)], np.float32)
    chosen = cache.select([1, 1, 0], spare=2)
    np.testing.assert_array_equal(chosen[0][0], keys[[1, 1, 0]])
    np.testing.assert_array_equal(chosen[0][1], -keys[[1, 1, 0]])


def test_a_past_of_unlike_arrays_is_refused():
    k = np.zeros((1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"past_key_values\[1\] has keys"):
        KVCache.of([(k, k), (k, k[:, :, :2])], np.float64)


def grown(rows, positions):
    keys = np.arange(rows * 3 * positions * 4, dtype=np.float32)
    keys = keys.reshape(rows, 3, positions, 4)
    cache = KVCache.empty([(rows, 3, 4)], positions + 4, np.float32).extended(positions)
    cache.write(0, keys, -keys)
    return cache, keys


@given(st.data())
def test_rows_are_reordered_in_place_from_where_they_differ(data):
    rows, positions = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    cache, keys = grown(rows, positions)
    since = data.draw(st.integers(0, positions))
    keys[:, :, :since] = keys[:1, :, :since]  # alike up to there
    cache.write(0, keys, -keys)
    memory = cache[0][0]
    order = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=rows))
    cache.reorder(order, since)
    np.testing.assert_array_equal(cache[0][0], keys[order])
    np.testing.assert_array_equal(cache[0][1], -keys[order])
    assert np.shares_memory(cache[0][0], memory)
    longer = cache.extended(1)
    assert longer.layer_shape(0) == (len(order), 3, 4)
    assert np.shares_memory(longer[0][0], memory)


def test_a_crop_leaves_the_whole_as_it_was_and_truncating_does_not():
    whole, keys = grown(2, 5)
    short = whole.cropped(3)
    np.testing.assert_array_equal(short[0][0], keys[:, :, :3])
    other = short.extended(1)
    other.write(0, keys[:, :, :1], keys[:, :, :1])
    np.testing.assert_array_equal(whole[0][0], keys)  # the copy took the new position
    assert not np.shares_memory(other[0][0], whole[0][0])
    memory = whole[0][0]
    whole.truncate(3)
    np.testing.assert_array_equal(whole[0][0], keys[:, :, :3])
    assert np.shares_memory(whole.extended(1)[0][0], memory)
