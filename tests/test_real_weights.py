"""The published numbers, on a real model: set MINIGPT2_REAL_WEIGHTS to its folder.

    MINIGPT2_REAL_WEIGHTS=124M python -m pytest tests/test_real_weights.py

(after `minigpt2 download 124M`). Without it these tests skip: the weights of the
smallest GPT-2 are half a gigabyte.
"""

import json
import os

import numpy as np
import pytest

from minigpt2.tasks import verify

FOLDER = os.environ.get("MINIGPT2_REAL_WEIGHTS")
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="MINIGPT2_REAL_WEIGHTS names no folder of real weights"
)
ROWS = json.loads(verify.PUBLISHED.read_text("utf-8"))["rows"]


@pytest.fixture(scope="module")
def subject():
    return verify.Subject(FOLDER, np.float32)


@pytest.fixture(scope="module")
def name(subject):
    models = json.loads(verify.PUBLISHED.read_text("utf-8"))["models"]
    return verify.recognize(subject.config, models)


@pytest.mark.parametrize("row", [row for row in ROWS if row["kind"] == "greedy"])
def test_greedy_continuations_are_the_published_ones(subject, name, row):
    if name not in row["models"]:
        pytest.skip(f"published for {row['models']}, and this is {name}")
    result = verify.check(row, subject)
    assert result.verdict == verify.HOLDS, result


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_published_numbers_hold(dtype):
    results = list(verify.verify(FOLDER, dtype=dtype))
    assert [r for r in results if r.verdict == verify.FAILS] == []
    assert any(r.kind in ("greedy", "logits", "loss") for r in results)
