"""GPT-2 at its real size, from a folder as OpenAI released it, written by TensorFlow.

The parameters are random (nobody needs a download for this) and drawn tensor by tensor,
so that tests can draw one again rather than keep them all.
"""

import json
import os
import re
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
from model_cases import parameter_shapes

from minigpt2 import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer, load_tf_weights_in_gpt2

tf = pytest.importorskip("tensorflow")

HPARAMS = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12}
SHAPES = parameter_shapes(
    {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12}
)  # Hugging Face's names


def draw(name):
    """A parameter by Hugging Face's name: normal with GPT-2's spread of 0.02."""
    generator = np.random.default_rng(list(SHAPES).index(name))
    values = generator.standard_normal(SHAPES[name], dtype=np.float32)
    values *= 0.02
    return values + 1 if ".ln_" in name and name.endswith("weight") else values


def openai_name(name):
    """transformer.h.0.ln_1.weight -> model/h0/ln_1/g, as OpenAI's code names it."""
    name = name.removeprefix("transformer.").replace(".", "/")
    name = re.sub(r"^h/(\d+)", r"h\1", name)
    name = re.sub(r"^(wte|wpe)/weight$", r"\1", name)
    name = re.sub(r"(ln_\w)/weight$", r"\1/g", name)
    return "model/" + name.replace("/weight", "/w").replace("/bias", "/b")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder of OpenAI's layout; tf.train.Saver writes the parameters."""
    folder = tmp_path_factory.mktemp("124M")
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        for name in SHAPES:
            value = draw(name)
            if "/c_" in openai_name(name) and value.ndim == 2:
                value = value[None]  # a convolution of width 1
            variable = v1.Variable(
                v1.placeholder(tf.float32, value.shape),
                name=openai_name(name),
                use_resource=False,
            )
            session.run(variable.initializer, {variable.initializer.inputs[1]: value})
        v1.train.Saver().save(session, os.fspath(folder / "model.ckpt"))
    (folder / "hparams.json").write_text(json.dumps(HPARAMS), encoding="utf-8")
    packaged = resources.files("minigpt2") / "data" / "gpt2" / "vocab.bpe"
    (folder / "vocab.bpe").write_bytes(packaged.read_bytes())
    tokens = GPT2Tokenizer.from_pretrained("gpt2").convert_ids_to_tokens(range(50257))
    encoder = {token: id for id, token in enumerate(tokens)}
    (folder / "encoder.json").write_text(json.dumps(encoder), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def model(folder):
    return GPT2LMHeadModel.from_pretrained(folder)


def test_files_have_the_sizes_of_the_published_ones(folder):
    # Sizes in OpenAI's storage: every variable has its published name and shape.
    assert (folder / "model.ckpt.index").stat().st_size == 5_215
    data = folder / "model.ckpt.data-00000-of-00001"
    assert data.stat().st_size == 497_759_232


def test_from_pretrained_reads_every_parameter(model):
    assert model.config == GPT2Config.from_hparams(HPARAMS)
    assert model.num_parameters() == 124_439_808
    parameters = model.state_dict()
    for name in SHAPES:
        if ".h." not in name or ".h.0." in name or ".h.11." in name:
            np.testing.assert_array_equal(parameters[name], draw(name), err_msg=name)


def test_load_tf_weights_in_gpt2_fills_a_model(folder, model):
    fresh = GPT2LMHeadModel(model.config, seed=None)
    assert load_tf_weights_in_gpt2(fresh, folder) is fresh
    expected = model.state_dict()
    for name, array in fresh.state_dict().items():
        assert np.array_equal(array, expected[name]), name


def test_a_prompt_in_text_is_continued(folder, model):
    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    ids = tokenizer.encode("Hello, my dog is", return_tensors="np")
    assert ids.tolist() == [[15496, 11, 616, 3290, 318]]
    out = model.generate(ids, max_new_tokens=5, pad_token_id=50256)
    assert out.shape == (1, 10)
    # Greedy: each new id is the best one after those before it.
    best = model(out[:, :-1]).logits[0, 4:].argmax(axis=-1)
    np.testing.assert_array_equal(out[0, 5:], best)
    assert tokenizer.decode(out[0]).startswith("Hello, my dog is")


LOADING = """
import re, sys
from minigpt2 import GPT2LMHeadModel

def mebibytes():
    # The most that this process has had in memory, mapped files included. (ru_maxrss
    # counts what its parent had, too.)
    status = open("/proc/self/status").read()
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1]) / 2**10

before = mebibytes()
model = GPT2LMHeadModel.from_pretrained(sys.argv[1], weights=sys.argv[2], backend="numpy")
model([[15496, 11]])
slots = model.own_slots().values()
size = sum(module.stored(name).nbytes for module, name in slots) / 2**20
print(before, mebibytes(), size, model.weights)
if len(sys.argv) > 3:
    model.save_pretrained(sys.argv[3])
"""


def loaded(*arguments):
    """Load in a process of its own; (MiB before, at most, of parameters; weight format)."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("only Linux tells the most memory that a process has had")
    done = subprocess.run(
        [sys.executable, "-c", LOADING, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    *sizes, weights = done.stdout.split()
    return *map(float, sizes), weights


@pytest.mark.parametrize(
    ("weights", "mebibytes"), [("bfloat16", 239), ("int8", 122), ("int4", 86)]
)
def test_loading_in_fewer_bits_takes_little_more_memory_than_these(
    folder, weights, mebibytes
):
    before, most, size, found = loaded(folder, weights)
    print(f"{weights}: {size:.0f} MiB; {before:.0f} before, {most:.0f} MiB at most")
    assert found == weights
    assert abs(size - mebibytes) < 1
    # What is not the parameters themselves: some more modules, one matrix of the blocks
    # (9 MiB) in the file, a MiB of rows under way. Measured: 5 to 12 MiB.
    assert most - before - size < 30


def test_a_saved_int8_folder_is_read_in_place_and_computes_alike(
    folder, model, tmp_path
):
    loaded(folder, "int8", tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 123 * 2**20
    saved = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert saved.weights == "int8"
    made = GPT2LMHeadModel.from_pretrained(folder, weights="int8")
    prompt = [[15496, 11, 616, 3290, 318]]
    logits = saved(prompt).logits
    np.testing.assert_array_equal(logits, made(prompt).logits)
    # Random parameters and rounded ones: the logits' own spread is 0.5.
    np.testing.assert_allclose(logits, model(prompt).logits, rtol=0, atol=0.2)
    assert saved.generate(prompt, max_new_tokens=3, pad_token_id=50256).shape == (1, 8)


@pytest.mark.peers
def test_logits_equal_those_of_transformers(model):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    state = {name: torch.from_numpy(draw(name)) for name in SHAPES}
    state["lm_head.weight"] = state["transformer.wte.weight"]
    theirs = transformers.GPT2LMHeadModel.from_pretrained(
        None,  # no folder: made from the state_dict, without drawing parameters first
        config=transformers.GPT2Config(attn_implementation="eager"),
        state_dict=state,
    )
    ids = (7919 * np.arange(64) % 50_000).reshape(2, 32)
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    # float32 rounds by 6e-8; sums of up to 3,072 terms, twelve layers deep.
    difference = np.abs(model(ids).logits - expected).max()
    assert difference <= 1e-5 * np.abs(expected).max()
