"""Random numbers: frozen words, exact arithmetic, and the right distribution."""

import math

import numpy as np
import pytest

from minigpt2.runtime.randomness import UniformGenerator, normal


def exact_normal(words, std):
    """normal()'s formula for one number, in Python's integers."""
    raw = [int(words.random_raw()) for _ in range(3)]
    total = sum(word >> shift & 0xFFFF for word in raw for shift in (0, 16, 32, 48))
    return float(total - 6 * 65535) * (std / 65536)


def test_normal_is_its_formula_across_the_border_of_blocks(monkeypatch):
    monkeypatch.setattr("minigpt2.runtime.randomness.BLOCK", 7)
    drawn = normal(np.random.PCG64(5), (4, 5), 0.02, np.float64)
    words = np.random.PCG64(5)
    expected = [exact_normal(words, 0.02) for _ in range(20)]
    np.testing.assert_array_equal(drawn.reshape(-1), expected)


def test_raw_words_are_those_that_numpy_publishes():
    # numpy/random/tests/data/pcg64-testset-1.csv: seed 0xdeadbeaf, words 0 and 1
    words = np.random.PCG64(0xDEADBEAF).random_raw(2)
    assert [int(w) for w in words] == [0x60D24054E17A0698, 0xD5E79D89856E4F12]


def test_normal_has_the_moments_of_a_normal_distribution():
    n = 1_000_000
    x = normal(np.random.PCG64(1), (n,), 2.0, np.float64) / 2.0
    # 5 standard errors of each moment: sqrt(1/n), sqrt(2/n), sqrt(15/n), sqrt(96/n)
    assert abs(x.mean()) < 5 / math.sqrt(n)
    assert abs(x.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((x**3).mean()) < 5 * math.sqrt(15 / n)
    # twelve uniforms have the excess kurtosis -1.2 / 12
    assert abs((x**4).mean() - 2.9) < 5 * math.sqrt(96 / n)
    assert np.abs(x).max() < 6


def test_float32_numbers_are_the_float64_ones_rounded():
    wide = normal(np.random.PCG64(2), (100,), 0.02, np.float64)
    narrow = normal(np.random.PCG64(2), (100,), 0.02, np.float32)
    np.testing.assert_array_equal(narrow, wide.astype(np.float32))


def test_generators_of_rows_and_results_are_distinct_and_repeatable():
    keys = [(7, 0, 0), (7, 0, 1), (7, 1, 0), (8, 0, 0)]
    drawn = [[UniformGenerator(*key).next() for _ in range(2)] for key in keys]
    assert len({u for pair in drawn for u in pair}) == 4  # the first number of each
    generator = UniformGenerator(7)
    numbers = [generator.next() for _ in range(10_000)]
    assert numbers[0] == drawn[0][0]
    assert min(numbers) >= 0
    assert max(numbers) < 1
    assert np.mean(numbers) == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / 10_000))
