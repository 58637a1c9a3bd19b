"""Any file or folder of a checkpoint finds its reader."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from minigpt2.checkpoints import CheckpointError
from minigpt2.checkpoints.npz_file import NpzFile, save_npz
from minigpt2.checkpoints.open import ShardedFile, open_checkpoint
from minigpt2.checkpoints.safetensors_file import SafetensorsFile, save_safetensors
from minigpt2.checkpoints.tf_bundle import TFBundle
from minigpt2.checkpoints.tf_bundle_writer import save_tf_bundle
from minigpt2.checkpoints.torch_file import TorchFile

DATA = Path(__file__).parent / "data"
ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.int64)}


def same(tensors, expected):
    assert list(tensors) == sorted(expected)
    for name, array in expected.items():
        assert tensors.shape(name) == array.shape
        assert tensors.dtype(name) == array.dtype
        np.testing.assert_array_equal(tensors[name], array)


def write_shards(folder, names=("one.safetensors", "two.safetensors")):
    for name, key in zip(names, ARRAYS):
        save_safetensors(folder / name, {key: ARRAYS[key]})
    index = {"metadata": {"total_size": 40}, "weight_map": dict(zip(ARRAYS, names))}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    return path


def test_every_kind_of_file_finds_its_reader(tmp_path):
    save_safetensors(tmp_path / "x.safetensors", ARRAYS)
    save_npz(tmp_path / "x.npz", ARRAYS)
    (tmp_path / "tf").mkdir()
    save_tf_bundle(tmp_path / "tf" / "model.ckpt", ARRAYS)
    for path, reader in [
        ("x.safetensors", SafetensorsFile),
        ("x.npz", NpzFile),
        ("tf", TFBundle),
        ("tf/checkpoint", TFBundle),
        ("tf/model.ckpt", TFBundle),
        ("tf/model.ckpt.index", TFBundle),
        ("tf/model.ckpt.data-00000-of-00001", TFBundle),
    ]:
        tensors = open_checkpoint(tmp_path / path)
        assert type(tensors) is reader
        same(tensors, ARRAYS)
    for name in ("zip.bin", "legacy.bin"):
        for suffix in (".bin", ".pt", ".pth"):
            shutil.copy(DATA / "torch" / name, tmp_path / f"x{suffix}")
            tensors = open_checkpoint(str(tmp_path / f"x{suffix}"))
            assert type(tensors) is TorchFile
            assert len(tensors) == 26


def test_a_folder_gives_its_best_file(tmp_path):
    save_npz(tmp_path / "model.npz", ARRAYS)
    assert type(open_checkpoint(tmp_path)) is NpzFile
    save_tf_bundle(tmp_path / "model.ckpt", ARRAYS)
    assert type(open_checkpoint(tmp_path)) is TFBundle
    (tmp_path / "checkpoint").unlink()
    assert type(open_checkpoint(tmp_path)) is TFBundle
    shutil.copy(DATA / "torch" / "zip.bin", tmp_path / "pytorch_model.bin")
    assert type(open_checkpoint(tmp_path)) is TorchFile
    write_shards(tmp_path)
    assert type(open_checkpoint(tmp_path)) is ShardedFile
    save_safetensors(tmp_path / "model.safetensors", ARRAYS)
    assert type(open_checkpoint(tmp_path)) is SafetensorsFile


def test_sharded_safetensors_are_one_mapping(tmp_path):
    tensors = open_checkpoint(write_shards(tmp_path))
    same(tensors, ARRAYS)
    assert "c" not in tensors
    assert not tensors.has_checksums
    with pytest.raises(KeyError, match=r"index\.json has no tensor 'c'"):
        tensors["c"]


@pytest.mark.peers
def test_what_transformers_shards_is_read(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=20, n_embd=16, n_layer=3, n_head=2
    )
    model = transformers.GPT2LMHeadModel(config)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "st", max_shard_size="20KB")
    tensors = open_checkpoint(tmp_path / "st")
    assert type(tensors) is ShardedFile
    assert len({id(shard) for shard in tensors._shards.values()}) > 2
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, state[name])
    assert set(state) - set(tensors) <= {"lm_head.weight"}

    # transformers 5 no longer writes sharded .bin files; this is what 4 wrote.
    (tmp_path / "bin").mkdir()
    names = sorted(state)
    weight_map = {}
    for i in range(3):
        file = f"pytorch_model-{i + 1:05d}-of-00003.bin"
        part = {name: model.state_dict()[name] for name in names[i::3]}
        torch.save(part, tmp_path / "bin" / file)
        weight_map |= dict.fromkeys(part, file)
    index = tmp_path / "bin" / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    shards = open_checkpoint(tmp_path / "bin")
    same(shards, state)
    assert shards.has_checksums


def test_what_is_not_there_is_said_with_what_was_looked_for(tmp_path):
    with pytest.raises(CheckpointError, match="no file, folder or TensorFlow prefix"):
        open_checkpoint(tmp_path / "nothing")
    with pytest.raises(
        CheckpointError,
        match=r"has no checkpoint: none of model\.safetensors, .*pytorch_model\.bin, "
        r".*checkpoint, model\.ckpt\.index, model\.npz",
    ):
        open_checkpoint(tmp_path)
    other = tmp_path / "tf_model.h5"
    other.write_bytes(b"\x89HDF")
    with pytest.raises(CheckpointError, match=r"tf_model\.h5 is something else"):
        open_checkpoint(other)


@pytest.mark.parametrize(
    ("index", "match"),
    [
        (b"<html>", r"is no JSON: .*begins with b'<html>"),
        (b"[" * 100_000, "is no JSON"),
        (b"[]", "has no weight_map"),
        (b'{"weight_map": []}', "has no weight_map"),
        (b'{"weight_map": {"a": 7}}', "'a' into 7, which is no name"),
        (b'{"weight_map": {"a": "../one.safetensors"}}', "no name of a"),
        (b'{"weight_map": {"a": "/one.safetensors"}}', "no name of a"),
        (b'{"weight_map": {"a": "..\\\\one.safetensors"}}', "no name of a"),
        (b'{"weight_map": {"a": "model.safetensors.index.json"}}', "no name of a"),
        (b'{"weight_map": {"a": "gone.safetensors"}}', "cannot be read"),
        (
            b'{"weight_map": {"c": "one.safetensors"}}',
            "'c' into .*one.safetensors: not",
        ),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, index, match):
    path = write_shards(tmp_path)
    path.write_bytes(index)
    with pytest.raises(CheckpointError, match=match):
        open_checkpoint(tmp_path)


def test_verify_reaches_every_reader_that_has_checksums(tmp_path):
    shutil.copytree(DATA / "shakespeare-1m", tmp_path / "tf")
    data = tmp_path / "tf" / "model.ckpt.data-00000-of-00001"
    (tmp_path / "torch").mkdir()
    torch = tmp_path / "torch" / "pytorch_model.bin"
    shutil.copy(DATA / "torch" / "zip.bin", torch)
    parameter = open_checkpoint(torch)["parameter"].tobytes()
    for file, place in [
        (data, 4_000_000),
        (torch, torch.read_bytes().index(parameter)),
    ]:
        raw = bytearray(file.read_bytes())
        raw[place] ^= 1
        file.write_bytes(raw)
        with pytest.raises(CheckpointError, match="is damaged"):
            dict(open_checkpoint(file.parent))
        dict(open_checkpoint(file.parent, verify=False))
