"""llm.c's files, byte for byte against a writer of this test's own."""

import contextlib
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_cases import base_state_dict, random_ids, random_state_dict

from minigpt2 import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer
from minigpt2.checkpoints import CheckpointError
from minigpt2.checkpoints.llmc_data import (
    read_token_bytes,
    read_tokens,
    save_token_bytes,
    save_tokens,
)
from minigpt2.checkpoints.llmc_file import LlmcFile, LlmcSizes, save_llmc
from minigpt2.checkpoints.open import open_checkpoint
from minigpt2.tasks.convert import write_tokenizer
from minigpt2.tracing.llmc_state import State, read_state, save_state, size_of

files = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
sizes = st.builds(
    LlmcSizes,
    n_positions=st.integers(1, 9),
    vocab_size=st.integers(1, 300),
    n_layer=st.integers(1, 3),
    n_head=st.just(2),
    n_embd=st.sampled_from([2, 4, 6]),
)
GPT2_124M = LlmcSizes(1024, 50257, 12, 12, 768)


def parameters_of(sizes, seed=1):
    config = {
        "vocab_size": sizes.vocab_size,
        "n_positions": sizes.n_positions,
        "n_embd": sizes.n_embd,
        "n_layer": sizes.n_layer,
    }
    state = base_state_dict(random_state_dict(config, seed))
    return {name: array.astype(np.float32) for name, array in state.items()}


def body(parameters, sizes):
    """All numbers in llm.c's order, as train_gpt2.py's write_tensors writes them."""
    padded = (sizes.vocab_size + 127) // 128 * 128
    wte = np.zeros((padded, sizes.n_embd), np.float32)
    wte[: sizes.vocab_size] = parameters["wte.weight"]
    parts = [wte, parameters["wpe.weight"]]

    def each(name, transposed=False):
        for layer in range(sizes.n_layer):
            array = parameters[f"h.{layer}.{name}"]
            parts.append(array.T if transposed else array)

    each("ln_1.weight")
    each("ln_1.bias")
    each("attn.c_attn.weight", transposed=True)
    each("attn.c_attn.bias")
    each("attn.c_proj.weight", transposed=True)
    each("attn.c_proj.bias")
    each("ln_2.weight")
    each("ln_2.bias")
    each("mlp.c_fc.weight", transposed=True)
    each("mlp.c_fc.bias")
    each("mlp.c_proj.weight", transposed=True)
    each("mlp.c_proj.bias")
    parts += [parameters["ln_f.weight"], parameters["ln_f.bias"]]
    return np.concatenate([part.ravel() for part in parts])


def header(*numbers):
    return struct.pack("<256i", *numbers, *[0] * (256 - len(numbers)))


def model_file(parameters, sizes, version=3):
    s = sizes
    padded = (s.vocab_size + 127) // 128 * 128
    numbers = [20240326, version, s.n_positions, s.vocab_size, s.n_layer, s.n_head]
    items = body(parameters, sizes)
    if version == 5:
        items = items.astype(ml_dtypes.bfloat16)
    return header(*numbers, s.n_embd, padded) + items.tobytes()


@files
@given(sizes=sizes, version=st.sampled_from([3, 5]))
def test_a_model_is_written_and_read_as_llmc_has_it(tmp_path, sizes, version):
    parameters = parameters_of(sizes)
    expected = model_file(parameters, sizes, version)
    path = tmp_path / "gpt2.bin"
    save_llmc(path, parameters, sizes, {3: "float32", 5: "bfloat16"}[version])
    assert path.read_bytes() == expected
    file = open_checkpoint(path)
    assert isinstance(file, LlmcFile)
    assert file.sizes == sizes
    assert set(file) == set(parameters)
    for name, array in parameters.items():
        if version == 5:
            narrow = array.astype(ml_dtypes.bfloat16)
            bits = file.bfloat16_bits(name)
            np.testing.assert_array_equal(bits, narrow.view(np.uint16))
            array = narrow.astype(np.float32)
        np.testing.assert_array_equal(file[name], array)
        assert file.shape(name) == array.shape
        assert not file[name].flags.writeable


def test_a_file_of_124m_has_llmcs_size(tmp_path):
    shapes = parameter_shapes_of_124m()
    zeros = {
        name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()
    }
    path = tmp_path / "gpt2_124M.bin"
    save_llmc(path, zeros, GPT2_124M)
    assert path.stat().st_size == 497_904_640
    save_llmc(path, zeros, GPT2_124M, "bfloat16")
    assert path.stat().st_size == 248_952_832
    path.unlink()
    assert size_of(4 * 64, GPT2_124M) == 549_369_860


def parameter_shapes_of_124m():
    from minigpt2.checkpoints.names import parameter_shapes

    return parameter_shapes(GPT2_124M)


def test_a_model_in_llmcs_file_computes_what_it_did(tmp_path):
    sizes = LlmcSizes(16, 61, 2, 3, 12)
    config = GPT2Config(vocab_size=61, n_positions=16, n_embd=12, n_layer=2, n_head=3)
    model = GPT2LMHeadModel(config, seed=7)
    save_llmc(tmp_path / "model.bin", model.transformer.state_dict(), sizes)
    again = GPT2LMHeadModel(config, seed=None)
    again.load_tensors(open_checkpoint(tmp_path / "model.bin"))
    ids = random_ids((2, 7), 61, 1)
    np.testing.assert_array_equal(again(ids).logits, model(ids).logits)


def test_what_llmc_has_no_word_for_is_refused(tmp_path):
    sizes = LlmcSizes(3, 5, 1, 1, 2)
    parameters = parameters_of(sizes)
    path = tmp_path / "x.bin"
    with pytest.raises(ValueError, match="no word for n_inner"):
        save_llmc(path, parameters, LlmcSizes(3, 5, 1, 1, 2, n_inner=7))
    with pytest.raises(ValueError, match="float32 and bfloat16, not 'float16'"):
        save_llmc(path, parameters, sizes, "float16")
    del parameters["wpe.weight"]
    with pytest.raises(ValueError, match=r"wpe\.weight is missing"):
        save_llmc(path, parameters, sizes)
    parameters["wpe.weight"] = np.zeros((4, 2), np.float32)
    with pytest.raises(ValueError, match=r"wpe\.weight has shape \(4, 2\)"):
        save_llmc(path, parameters, sizes)
    assert not list(tmp_path.iterdir())


def test_other_versions_are_refused_by_name(tmp_path):
    sizes = LlmcSizes(3, 5, 1, 1, 2)
    data = model_file(parameters_of(sizes), sizes)
    path = tmp_path / "x.bin"
    for at, number, said in [
        (28, 0, "an interim version of llm.c"),
        (4, 2, r"its version is 2, and 3 \(float32\) and 5"),
        (0, 7, "does not begin with 20240326; it begins with"),
        (0, 20240327, "20240326; it is llm.c's debug state"),
        (12, 0, "must be positive"),
        (16, 2, "bytes follow the header, and its sizes ask for"),
    ]:
        path.write_bytes(data[:at] + struct.pack("<i", number) + data[at + 4 :])
        with pytest.raises(CheckpointError, match=said):
            LlmcFile(path)


def state_of(sizes, batch, new, seed=3):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(batch, new, sizes.vocab_size)).astype(np.float32)
    return State(
        rng.integers(0, sizes.vocab_size, (batch, new)),
        rng.integers(0, sizes.vocab_size, (batch, new)),
        logits,
        np.float32(3.25),
        parameters_of(sizes, seed),
    )


def state_file(state, sizes):
    return b"".join(
        [
            header(20240327, 2, *state.x.shape),
            state.x.astype("<i4").tobytes(),
            state.y.astype("<i4").tobytes(),
            state.logits.tobytes(),
            struct.pack("<f", state.loss),
            body(state.gradients, sizes).tobytes(),
        ]
    )


@files
@given(sizes=sizes, batch=st.integers(1, 3), new=st.integers(1, 4))
def test_a_debug_state_is_written_and_read_as_llmc_has_it(tmp_path, sizes, batch, new):
    state = state_of(sizes, batch, new)
    path = tmp_path / "gpt2_debug_state.bin"
    save_state(path, state)
    assert path.read_bytes() == state_file(state, sizes)
    assert path.stat().st_size == size_of(batch * new, sizes)
    found = read_state(path, sizes)
    for array, expected in zip(found[:4], state[:4]):
        np.testing.assert_array_equal(array, expected)
    assert set(found.gradients) == set(state.gradients)
    for name, array in state.gradients.items():
        np.testing.assert_array_equal(found.gradients[name], array)


def test_a_debug_state_of_another_model_is_refused(tmp_path):
    sizes = LlmcSizes(3, 5, 1, 1, 2)
    path = tmp_path / "state.bin"
    path.write_bytes(state_file(state_of(sizes, 1, 2), sizes))
    with pytest.raises(CheckpointError, match="549|bytes; with 2 positions, .* 768"):
        read_state(path)
    with pytest.raises(CheckpointError, match="is it another model's"):
        read_state(path, LlmcSizes(3, 5, 2, 1, 2))


@settings(files, max_examples=300)
@given(data=st.data())
def test_a_mutated_file_is_read_or_is_a_checkpoint_error(tmp_path, data):
    sizes = LlmcSizes(3, 5, 1, 1, 2)
    is_state = data.draw(st.booleans())
    if is_state:
        whole = state_file(state_of(sizes, 2, 2), sizes)
    else:
        version = data.draw(st.sampled_from([3, 5]))
        whole = model_file(parameters_of(sizes), sizes, version)
    mutated = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = 4 * data.draw(st.integers(0, 9) | st.integers(0, len(whole) // 4 - 1))
        number = data.draw(st.sampled_from([0, 1, -1, 2, 2**31 - 1, -(2**31), 128, 7]))
        mutated[at : at + 4] = struct.pack("<i", number)
    length = data.draw(st.just(len(whole)) | st.integers(0, len(whole) + 9))
    path = tmp_path / "mutated.bin"
    path.write_bytes((bytes(mutated) + b"x" * 9)[:length])
    with contextlib.suppress(CheckpointError):
        found = read_state(path, sizes).gradients if is_state else LlmcFile(path)
        assert [found[name] for name in found]
        assert length == len(whole)  # all the bytes are there


# --- Tokens


@files
@given(tokens=st.lists(st.binary(max_size=255), min_size=1, max_size=20), end=st.data())
def test_tokenizer_files_are_as_llmc_has_them(tmp_path, tokens, end):
    id = end.draw(st.integers(0, len(tokens) - 1))
    expected = header(20240328, 2, len(tokens), id) + b"".join(
        struct.pack("<B", len(token)) + token for token in tokens
    )
    path = tmp_path / "tokenizer.bin"
    save_token_bytes(path, tokens, id)
    assert path.read_bytes() == expected
    assert read_token_bytes(path) == (tokens, id)
    path.write_bytes(header(20240328, 1, len(tokens)) + expected[1024:])
    assert read_token_bytes(path) == (tokens, None)


def test_gpt2s_own_tokenizer_file(tmp_path):
    """Of 50,257 tokens, each is what the tokenizer decodes it to."""
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    write_tokenizer(tmp_path, tmp_path / "gpt2", "llm.c")
    tokens, end = read_token_bytes(tmp_path / "tokenizer.bin")
    assert (len(tokens), end) == (50257, 50256)
    assert tokens[:3] == [b"!", b'"', b"#"]
    assert tokens[262] == b" the"
    assert tokens[50256] == b"<|endoftext|>"
    ids = tokenizer.encode("Grüße, 🤗 and  more")
    assert b"".join(tokens[id] for id in ids).decode() == "Grüße, 🤗 and  more"
    for id in range(0, 50257, 97):
        written = tokenizer.convert_ids_to_tokens(id)  # a character a byte
        assert len(written) == len(tokens[id])


@files
@given(ids=st.lists(st.integers(0, 65535), min_size=1, max_size=50))
def test_token_files_are_as_llmc_has_them(tmp_path, ids):
    path = tmp_path / "tokens.bin"
    save_tokens(path, ids)
    body = struct.pack(f"<{len(ids)}H", *ids)
    assert path.read_bytes() == header(20240520, 1, len(ids)) + body
    assert read_tokens(path).tolist() == ids


def test_ids_that_do_not_fit_are_refused(tmp_path):
    for ids in ([65536], [-1], [], [[1]], [0.5]):
        with pytest.raises(ValueError, match="ids"):
            save_tokens(tmp_path / "x.bin", ids)
    with pytest.raises(ValueError, match="255 bytes at most"):
        save_token_bytes(tmp_path / "x.bin", [b"x" * 256], 0)


@settings(files, max_examples=200)
@given(data=st.data())
def test_mutated_token_files_are_read_or_are_checkpoint_errors(tmp_path, data):
    path = tmp_path / "x.bin"
    is_tokens = data.draw(st.booleans())
    if is_tokens:
        save_tokens(path, [1, 2, 3])
    else:
        save_token_bytes(path, [b"a", b"", b"cde"], 1)
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, 15) | st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    path.write_bytes(
        whole[: data.draw(st.just(len(whole)) | st.integers(0, len(whole)))]
    )
    with contextlib.suppress(CheckpointError):
        found = read_tokens(path) if is_tokens else read_token_bytes(path)
        assert len(found) in (2, 3)
