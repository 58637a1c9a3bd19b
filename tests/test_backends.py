"""Both backends make the same model; which one is chosen is never a secret."""

import os
import subprocess
import sys

import numpy as np
import pytest

from minigpt2 import GPT2Config, GPT2LMHeadModel, ops
from minigpt2.model.backends import choose
from minigpt2.runtime.installation import pip_install

SMALL = GPT2Config(n_layer=2, n_embd=64, n_head=4)


@pytest.fixture(autouse=True)
def no_override(monkeypatch):
    monkeypatch.delenv("MINIGPT2_BACKEND", raising=False)
    monkeypatch.setattr("minigpt2.model.backends._numba_failed", False)


def test_the_names_give_complete_namespaces():
    name, numpy_ops = choose("numpy", SMALL, np.float32)
    assert (name, numpy_ops) == ("numpy", ops)
    name, kernels = choose("numba", SMALL, np.float32)
    assert name == "numba"
    functions = [
        n for n, f in vars(ops).items() if callable(f) and f.__module__ == ops.__name__
    ]
    assert [n for n in functions if not callable(getattr(kernels, n, None))] == []


def test_auto_is_numba_for_large_models_in_float32():
    model = GPT2LMHeadModel(GPT2Config(), seed=None)
    assert model.backend == model.transformer.backend == "numba"
    assert "backend=numba" in repr(model)
    assert choose("auto", SMALL, np.float32)[0] == "numpy"
    assert choose("auto", GPT2Config(), np.float64)[0] == "numpy"


def test_the_environment_says_what_auto_is_and_nothing_else(monkeypatch):
    monkeypatch.setenv("MINIGPT2_BACKEND", "numba")
    assert GPT2LMHeadModel(SMALL).backend == "numba"
    assert GPT2LMHeadModel(SMALL, backend="numpy").backend == "numpy"
    monkeypatch.setenv("MINIGPT2_BACKEND", "numpy")
    assert choose("auto", GPT2Config(), np.float32)[0] == "numpy"
    monkeypatch.setenv("MINIGPT2_BACKEND", "")
    assert choose("auto", GPT2Config(), np.float32)[0] == "numba"


def test_an_unknown_backend_is_named_with_its_place(monkeypatch):
    with pytest.raises(ValueError, match="unknown backend 'cuda'; there are 'numpy'"):
        choose("cuda", SMALL, np.float32)
    monkeypatch.setenv("MINIGPT2_BACKEND", "jax")
    with pytest.raises(ValueError, match="'jax' in MINIGPT2_BACKEND"):
        choose("auto", SMALL, np.float32)


def test_without_numba_auto_is_numpy_and_says_so_if_numba_is_broken(monkeypatch):
    monkeypatch.setitem(sys.modules, "minigpt2.kernels", None)  # an import that fails
    with pytest.warns(UserWarning, match="Numba can't be used"):
        assert choose("auto", GPT2Config(), np.float32)[0] == "numpy"
    with pytest.raises(ImportError):
        choose("numba", SMALL, np.float32)
    monkeypatch.setattr("minigpt2.model.backends.find_spec", lambda name: None)
    assert choose("auto", GPT2Config(), np.float32)[0] == "numpy"


ASK = """
import warnings
import numpy as np
from minigpt2 import GPT2Config
from minigpt2.model.backends import choose
large = GPT2Config(), np.dtype(np.float32)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    print(*(choose("auto", *large)[0] for _ in range(3)))
print(len(seen), "warning:", *(warning.message for warning in seen))
try:
    choose("numba", *large)
except ImportError as error:
    print("ImportError:", error)
"""


@pytest.mark.parametrize(
    ("package", "source", "environment", "cause"),
    [
        (
            "llvmlite",
            "raise OSError('libllvmlite.so is not there')",
            {},
            "OSError: lib",
        ),
        ("numba", "raise ImportError('needs NumPy 2.4')", {}, "ImportError: needs Num"),
        ("numba", "raise RuntimeError('broken')", {}, "RuntimeError: broken"),
        (
            "numba",
            "njit = print",
            {},
            "AttributeError: module 'numba' has no attribute",
        ),
        ("other", "", {"NUMBA_DISABLE_JIT": "1"}, "NUMBA_DISABLE_JIT is set: unset it"),
    ],
)
def test_a_numba_that_does_not_work_is_told_once_and_never_silently_replaced(
    tmp_path, package, source, environment, cause
):
    (tmp_path / f"{package}.py").write_text(source)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    chosen, warned, refused = done.stdout.splitlines()
    assert chosen == "numpy numpy numpy"
    assert warned.startswith("1 warning: Numba can't be used here")
    assert refused.startswith("ImportError: Numba can't be used here")
    for message in (warned, refused):
        assert cause in message
        assert pip_install("fast") in message
        assert "backend='numpy'" in message


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
