"""One number of threads for both backends: who says it, and that they obey."""

import math
import os
import subprocess
import sys

import pytest

from minigpt2 import set_num_threads
from minigpt2.runtime.threads import _cgroup_quota

# Prints what NumPy's BLAS and the kernels use after a model was made.
ASK = """
import numpy as np
import threadpoolctl
from minigpt2 import GPT2Config, GPT2Model, get_num_threads, kernels, set_num_threads
{say}
GPT2Model(GPT2Config(vocab_size=5, n_positions=4, n_embd=4, n_layer=1, n_head=1))
np.ones((4, 4)) @ np.ones((4, 4))
blas = {{
    library["num_threads"]
    for library in threadpoolctl.threadpool_info()
    if library["user_api"] == "blas"
}}
print(get_num_threads(), kernels.get_num_threads(), *blas)
"""


def run(code, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.endswith("NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**kept, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("say", "environment", "expected"),
    [
        ("", {"MINIGPT2_NUM_THREADS": "1"}, "1 1 1"),
        ("set_num_threads(1)", {"NUMBA_NUM_THREADS": "2"}, "1 1 1"),
        ("kernels.set_num_threads(1)", {"NUMBA_NUM_THREADS": "2"}, "1 1 1"),
        ("set_num_threads(2)", {"MINIGPT2_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"},
         "2 2 2"),
        ("", {"OMP_NUM_THREADS": "1"}, "1 1 1"),
    ],
)  # fmt: skip
def test_both_backends_obey(say, environment, expected):
    pytest.importorskip("threadpoolctl")
    done = run(ASK.format(say=say), **environment)
    assert done.stdout.strip() == expected, done.stderr


def test_blas_is_told_by_its_variable_if_numpy_is_not_there_yet():
    code = """
import os, sys
from minigpt2 import set_num_threads
assert "numpy" not in sys.modules
set_num_threads(1)
print(os.environ["OPENBLAS_NUM_THREADS"])
"""
    assert run(code).stdout == "1\n"


def test_without_threadpoolctl_a_warning_says_what_to_do():
    code = """
import sys, warnings
import numpy
sys.modules["threadpoolctl"] = None
from minigpt2 import set_num_threads
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    set_num_threads(1)
print(caught[0].message)
"""
    assert "OPENBLAS_NUM_THREADS=1 before Python starts" in run(code).stdout


@pytest.mark.parametrize("value", ["=x", "zero", "0", "-1", "1.5"])
def test_a_bad_number_is_refused_by_name_whatever_the_backend(value):
    for backend in ("numpy", "numba"):
        code = f"""
from minigpt2 import GPT2LMHeadModel
try:
    GPT2LMHeadModel.from_pretrained("shakespeare-1m", backend={backend!r})
except ValueError as error:
    print(error)
"""
        printed = run(code, MINIGPT2_NUM_THREADS=value).stdout
        assert printed.startswith(f"MINIGPT2_NUM_THREADS={value!r}: expected a number")


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "2", 4097, 10**21])
def test_a_bad_number_from_python_is_refused(count):
    with pytest.raises(ValueError, match="must be a whole number from 1 to 4096, not"):
        set_num_threads(count)


def test_thread_counts_follow_the_cgroup(tmp_path):
    assert _cgroup_quota(tmp_path) == math.inf
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert _cgroup_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert _cgroup_quota(tmp_path) == math.inf
