"""plain.py, GPT-2 on one page, against model/ and against what is published of it."""

import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer, hub, plain


def random_model(data, dtype):
    """A GPT-2 of random sizes, with weights that make every part count."""
    n_head = data.draw(st.integers(1, 4), "n_head")
    config = GPT2Config(
        vocab_size=data.draw(st.integers(2, 60), "vocab_size"),
        n_positions=data.draw(st.integers(1, 20), "n_positions"),
        n_embd=n_head * data.draw(st.integers(1, 6), "head size"),
        n_layer=data.draw(st.integers(1, 3), "n_layer"),
        n_head=n_head,
        n_inner=data.draw(st.none() | st.integers(1, 30), "n_inner"),
    )
    model = GPT2LMHeadModel(config, dtype=dtype)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "seed"))
    state = {
        name: rng.standard_normal(array.shape)
        for name, array in model.transformer.state_dict().items()
    }
    model.transformer.load_state_dict(state)
    length = data.draw(st.integers(1, config.n_positions), "length")
    return model, rng.integers(0, config.vocab_size, length)


@settings(deadline=None)
@given(st.data())
def test_plain_is_the_oracle_of_model(data):
    model, ids = random_model(data, np.float64)
    config, parameters = model.config, model.transformer.state_dict()
    logits = plain.gpt2(ids, parameters, config.n_layer, config.n_head)
    expected = model(ids[None]).logits[0]
    # float64: 1e-12 of the largest logit
    np.testing.assert_allclose(
        logits, expected, rtol=0, atol=1e-12 * np.abs(expected).max()
    )


def test_its_greedy_loop_continues_as_generate_does():
    folder = hub.model_folder("shakespeare-1m")
    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    model = GPT2LMHeadModel.from_pretrained(folder)
    ids = tokenizer.encode("ROMEO:")
    sizes = model.config.n_layer, model.config.n_head
    new = list(plain.greedy(ids, plain.load(folder), *sizes, count=20))
    assert [*ids, *new] == model.generate([ids], max_new_tokens=20)[0].tolist()


def test_it_runs_as_a_program():
    command = [sys.executable, "-W", "error", "-m", "minigpt2.plain", "To be"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text.startswith("To be")
    assert len(text) > 60


def test_it_fits_on_a_page():
    with open(plain.__file__, encoding="utf-8") as file:
        code = [line for line in file if line.strip()]
    assert len(code) <= 90
