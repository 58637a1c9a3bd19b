"""Both backends make the same model; which one is chosen is never a secret."""

import numpy as np
import pytest

from minigpt2 import GPT2LMHeadModel, ops
from minigpt2.backends import choose


def test_the_names_give_complete_namespaces():
    name, numpy_ops = choose("numpy")
    assert (name, numpy_ops) == ("numpy", ops)
    name, kernels = choose("numba")
    assert name == "numba"
    functions = [
        n for n, f in vars(ops).items() if callable(f) and f.__module__ == ops.__name__
    ]
    assert [n for n in functions if not callable(getattr(kernels, n, None))] == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_numba_model_computes_what_transformers_computes(shakespeare, dtype):
    model = GPT2LMHeadModel.from_pretrained(
        shakespeare.folder, dtype=dtype, backend="numba"
    )
    assert "backend=numba" in repr(model)
    # The NumPy model's own tolerances: float32 rounds a few hundred times on the way.
    tolerance = {np.float32: 1e-5, np.float64: 1e-12}[dtype]
    for i, prompt in enumerate(shakespeare.expected["prompts"]):
        logits = model([prompt["ids"]]).logits[0]
        expected = shakespeare.arrays[f"logits_{i}_float64"]
        assert np.abs(logits - expected).max() <= tolerance * np.abs(expected).max()
        ids = model.generate([prompt["ids"]], max_new_tokens=60)
        assert ids.tolist() == [prompt["greedy_60"]]
    padded = model.generate(
        shakespeare.arrays["padded_ids"],
        attention_mask=shakespeare.arrays["padded_mask"],
        max_new_tokens=30,
    )
    assert padded[:, 23:].tolist() == shakespeare.expected["padded_greedy_30"]
