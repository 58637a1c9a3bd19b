"""Every format to every other and back, and what may go wrong on the way."""

import itertools

import numpy as np
import pytest

from minigpt2 import (
    CheckpointError,
    GPT2Config,
    GPT2DoubleHeadsModel,
    GPT2LMHeadModel,
    GPT2Tokenizer,
)
from minigpt2.checkpoints.llmc_data import read_token_bytes
from minigpt2.checkpoints.open import open_checkpoint
from minigpt2.checkpoints.tf_bundle import TFBundle
from minigpt2.cli import main
from minigpt2.tasks import convert as module
from minigpt2.tasks.convert import FORMATS, convert


@pytest.mark.parametrize(("first", "second"), list(itertools.product(FORMATS, FORMATS)))
def test_a_model_survives_two_conversions(tmp_path, shakespeare, first, second):
    convert(shakespeare.folder, tmp_path / "a", first)
    convert(tmp_path / "a", tmp_path / "b", second)
    prompt = shakespeare.expected["prompts"][0]
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "b")
    assert model.generate([prompt["ids"]], max_new_tokens=60).tolist() == [
        prompt["greedy_60"]
    ]
    original = GPT2LMHeadModel.from_pretrained(shakespeare.folder)
    assert model.config.eos_token_id == original.config.eos_token_id == 2047
    for name, array in original.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], array)
    assert (
        GPT2Tokenizer.from_pretrained(tmp_path / "b").encode(prompt["text"])
        == prompt["ids"]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_openais_layout_comes_out_as_tensorflow_wrote_it(tmp_path, shakespeare):
    convert("shakespeare-1m", tmp_path / "tf", "tf", "float32")
    for path in (tmp_path / "tf").iterdir():
        if path.name.startswith(("model", "vocab", "checkpoint")):
            assert path.read_bytes() == (shakespeare.folder / path.name).read_bytes()


@pytest.mark.parametrize(
    ("format", "dtype"),
    [
        ("safetensors", "bfloat16"),
        ("tf", "bfloat16"),
        ("npz", "float16"),
        ("llm.c", "bfloat16"),
    ],
)
def test_parameters_are_rounded_to_the_nearest(tmp_path, format, dtype):
    config = GPT2Config(vocab_size=9, n_positions=4, n_embd=6, n_layer=1, n_head=2,
                        bos_token_id=8, eos_token_id=8)  # fmt: skip
    model = GPT2LMHeadModel(config, seed=1)
    model.save_pretrained(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", format, dtype)
    rounded = GPT2LMHeadModel.from_pretrained(tmp_path / "b").state_dict()
    bits = {"bfloat16": 8, "float16": 11}[dtype]  # of the significand
    for name, array in model.state_dict().items():
        error = np.abs(rounded[name] - array)
        # half a unit in the last place; float16's smallest steps are 2^-24
        assert (error <= np.maximum(np.abs(array) * 2.0**-bits, 2.0**-25)).all()
    assert any((rounded[n] != a).any() for n, a in model.state_dict().items())


def test_optimizer_slots_and_mask_buffers_are_left_behind(tmp_path, shakespeare):
    from minigpt2.checkpoints.safetensors_file import save_safetensors

    convert("shakespeare-1m", tmp_path / "a")
    tensors = dict(open_checkpoint(tmp_path / "a"))
    tensors["h.0.attn.bias"] = np.ones((1, 1, 256, 256), np.float32)
    tensors["model/wte/Adam"] = np.ones(3, np.float32)
    save_safetensors(tmp_path / "a" / "model.safetensors", tensors)
    convert(tmp_path / "a", tmp_path / "b", "tf")
    assert list(TFBundle(tmp_path / "b")) == list(TFBundle(shakespeare.folder))


def test_what_openais_layout_cannot_say_is_refused(tmp_path):
    config = GPT2Config(vocab_size=9, n_positions=4, n_embd=6, n_layer=1, n_head=2,
                        activation_function="relu")  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "a")
    with pytest.raises(ValueError, match="can't say .*='relu'|can't say bos_token_id"):
        convert(tmp_path / "a", tmp_path / "b", "tf")
    assert not (tmp_path / "b").exists()


def test_llmcs_folder_has_its_files_and_refuses_what_it_cannot_say(tmp_path):
    convert("shakespeare-1m", tmp_path / "a", "llm.c")
    config = GPT2Config.from_pretrained("shakespeare-1m")
    numbers = np.fromfile(tmp_path / "a" / "model.bin", "<i4", 8).tolist()
    assert numbers == [20240326, 3, 256, 2048, 4, 4, 128, 2048]
    tokens, end = read_token_bytes(tmp_path / "a" / "tokenizer.bin")
    assert (len(tokens), end) == (config.vocab_size, config.eos_token_id)
    size = {"vocab_size": 9, "n_positions": 4, "n_embd": 6, "n_layer": 1, "n_head": 2}
    size |= {"bos_token_id": 8, "eos_token_id": 8}
    for number, (fields, said) in enumerate(
        [
            (
                {"activation_function": "relu"},
                "llm.c can't say activation_function='relu'",
            ),
            ({"n_inner": 7}, "llm.c can't say n_inner=7"),
            (
                {"tie_word_embeddings": False},
                "llm.c can't say tie_word_embeddings=False",
            ),
        ]
    ):
        folder = tmp_path / f"b{number}"
        GPT2LMHeadModel(GPT2Config(**size, **fields)).save_pretrained(folder)
        with pytest.raises(ValueError, match=said):
            convert(folder, tmp_path / "c", "llm.c")
    GPT2DoubleHeadsModel(GPT2Config(**size)).save_pretrained(tmp_path / "d")
    with pytest.raises(ValueError, match="no place for multiple_choice_head"):
        convert(tmp_path / "d", tmp_path / "c", "llm.c")
    with pytest.raises(ValueError, match="float32 and bfloat16, not 'float16'"):
        convert("shakespeare-1m", tmp_path / "c", "llm.c", "float16")
    assert not (tmp_path / "c").exists()


def test_nothing_is_left_of_a_conversion_that_fails(tmp_path, monkeypatch):
    def broken(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "compare", broken)
    with pytest.raises(KeyboardInterrupt):
        convert("shakespeare-1m", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_written_file_that_reads_otherwise_is_noticed(tmp_path, monkeypatch):
    write = module.write_checkpoint

    def lying(folder, *arguments):
        write(folder, *arguments)
        path = folder / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)

    monkeypatch.setattr(module, "write_checkpoint", lying)
    with pytest.raises(CheckpointError, match="reads otherwise than it was written"):
        convert("shakespeare-1m", tmp_path / "a")


def test_an_incomplete_source_and_a_taken_target_are_refused(tmp_path, shakespeare):
    from minigpt2.checkpoints.safetensors_file import save_safetensors

    convert("shakespeare-1m", tmp_path / "a")
    with pytest.raises(FileExistsError, match="is there already"):
        convert("shakespeare-1m", tmp_path / "a")
    tensors = dict(open_checkpoint(tmp_path / "a"))
    del tensors["transformer.wpe.weight"]
    save_safetensors(tmp_path / "a" / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match="wpe.weight is missing"):
        convert(tmp_path / "a", tmp_path / "b")


def test_the_command_prints_the_folder_or_one_line(tmp_path, capsys):
    target = str(tmp_path / "new")
    assert main(["convert", "shakespeare-1m", target, "--dtype", "float16"]) == 0
    assert capsys.readouterr().out == target + "\n"
    assert main(["convert", "shakespeare-1m", target]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["convert", "shakespeare-1m", target + "2", "--format", "npz",
                 "--dtype", "bfloat16"]) == 1  # fmt: skip
    assert "NumPy has no bfloat16" in capsys.readouterr().err
