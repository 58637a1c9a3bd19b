"""What a type checker says to a user's program, and to a user's mistakes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """
from typing import assert_type

import numpy as np

from minigpt2 import (
    CausalLMOutputWithPast,
    GPT2Config,
    GPT2DoubleHeadsModel,
    GPT2LMHeadModel,
    GPT2Model,
    GPT2Tokenizer,
    KVCache,
    ops,
)
from minigpt2.tasks.convert import convert
from minigpt2.tasks.score import LogProbs, TextScore, score_text, token_log_probs
from minigpt2.tasks.verify import Result, verify

config = GPT2Config(vocab_size=100, n_layer=2, n_embd=32, n_head=4)
fresh = GPT2Model(config, dtype=np.float64, seed=1)
assert_type(fresh.num_parameters(), int)

model = GPT2LMHeadModel.from_pretrained("shakespeare-1m", weights="int8")
assert_type(model, GPT2LMHeadModel)
assert_type(model.eval(), GPT2LMHeadModel)
assert_type(GPT2DoubleHeadsModel.from_pretrained("x").transformer, GPT2Model)
assert_type(model.state_dict()["transformer.wte.weight"], np.ndarray)

tokenizer = GPT2Tokenizer.from_pretrained("shakespeare-1m")
ids = tokenizer.encode("ROMEO:", return_tensors="np")
out = model.generate(ids, max_new_tokens=20, do_sample=True, top_k=40, seed=1)
print(tokenizer.decode(out[0]))
for token in model.stream(ids, max_new_tokens=3, tokenizer=tokenizer):
    assert_type(token.id, int)
output = model.forward([[1, 2]], past_key_values=None, output_attentions=True)
assert not isinstance(output, tuple)
assert_type(output, CausalLMOutputWithPast)
assert_type(ops.softmax(np.ones((2, 3))), np.ndarray)

score = score_text(model, tokenizer, ["To be, ", "or not to be"], stride=8)
assert_type(score, TextScore)
assert_type((score + score).perplexity, float)
for part in token_log_probs(model, [1, 2, 3], start=2):
    assert_type(part, LogProbs)
results: list[Result] = list(verify("gpt2", dtype=np.float64))
convert("gpt2", "folder", format="npz", dtype="float16").exists()
"""

MISTAKES = """
from minigpt2 import GPT2LMHeadModel, GPT2Tokenizer
from minigpt2 import GPT3LMHeadModel  # attr-defined
from minigpt2.tasks.score import score_text

model = GPT2LMHeadModel.from_pretrained("gpt2", weights=8)  # arg-type
model.num_params()  # attr-defined
score_text(model, GPT2Tokenizer.from_pretrained("gpt2"), 5)  # arg-type
score_text(model, "gpt2", "a text").ppl  # arg-type, attr-defined
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("types")  # with mypy's cache of the library


def mypy(program: str, folder: Path) -> str:
    """Return what mypy says about a program, with no settings but these."""
    (folder / "program.py").write_text(program)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file=",
        "--disallow-any-unimported",
    ]
    command += ["--follow-imports=silent", f"--cache-dir={folder}", "program.py"]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_a_users_program_passes(folder):
    said = mypy(PROGRAM, folder)
    assert "Success" in said, said


def test_a_users_mistakes_are_found(folder):
    said = mypy(MISTAKES, folder).splitlines()
    found = [f"{line.split(':')[1]} {line.rpartition(' ')[2]}" for line in said[:-1]]
    expected = [
        f"{number} [{code}]"
        for number, line in enumerate(MISTAKES.splitlines(), start=1)
        if "  # " in line
        for code in line.rpartition("# ")[2].split(", ")
    ]
    assert sorted(found) == sorted(expected), said
