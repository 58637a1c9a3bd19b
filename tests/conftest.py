"""What several tests use: the trained Shakespeare model as its makers saved it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

SHAKESPEARE = Path(__file__).parent / "data" / "shakespeare-1m"


@pytest.fixture(scope="session")
def shakespeare():
    """OpenAI's folder of the trained model, and what transformers computes with it.

    expected (json): its versions ("source"); ids, losses and greedy continuations of three
    prompts. arrays (npz): their logits; of the first also hidden states and attention
    weights; the batch of all three, padded.
    """
    with np.load(SHAKESPEARE / "expected.npz") as arrays:
        return SimpleNamespace(
            folder=SHAKESPEARE,
            expected=json.loads((SHAKESPEARE / "expected.json").read_text("utf-8")),
            arrays=dict(arrays),
        )


@pytest.fixture(scope="session", params=["float64", "float32"])
def model(request):
    """The trained model in both dtypes, read from TensorFlow's files."""
    from minigpt2 import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(SHAKESPEARE, dtype=np.dtype(request.param))
