"""A configuration may describe anything: the file's shapes are asked before it is made."""

import json
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import base_state_dict, random_state_dict

import minigpt2
from minigpt2 import (
    CheckpointError,
    GPT2Config,
    GPT2DoubleHeadsModel,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
)
from minigpt2.checkpoints.names import openai_name, parameter_shapes
from minigpt2.checkpoints.safetensors_file import save_safetensors
from minigpt2.checkpoints.tf_bundle_writer import save_tf_bundle
from minigpt2.model.loading import checked_tensors
from minigpt2.tasks.convert import convert

TINY = {"vocab_size": 31, "n_positions": 16, "n_embd": 12, "n_layer": 2, "n_head": 3}
WEIGHTS = random_state_dict(TINY, 3)
MODELS = [
    GPT2Model,
    GPT2LMHeadModel,
    GPT2DoubleHeadsModel,
    GPT2ForSequenceClassification,
]
LARGE = 2**31 - 1


def folders(tmp_path, fields):
    """Folders of each kind of this model, whose configuration says something else."""
    tmp_path.mkdir(exist_ok=True)
    config = GPT2Config(**TINY)
    for name in ("safetensors", "int8", "int4"):
        model = GPT2LMHeadModel(config, backend="numpy")
        model = model if name == "safetensors" else model.with_weights(name)
        model.save_pretrained(tmp_path / name)
        path = tmp_path / name / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    names = {
        "vocab_size": "n_vocab",
        "n_positions": "n_ctx",
        **{name: name for name in ("n_embd", "n_head", "n_layer")},
    }
    if set(fields) <= set(names):
        openai = {openai_name(n): a for n, a in base_state_dict(WEIGHTS).items()}
        (tmp_path / "tf").mkdir()
        save_tf_bundle(tmp_path / "tf" / "model.ckpt", openai)
        said = {names[n]: value for n, value in {**TINY, **fields}.items()}
        (tmp_path / "tf" / "hparams.json").write_text(json.dumps(said))
    return sorted(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"n_layer": 65_535},
            "n_layer is 65535 in the configuration, and 2 by the names",
        ),
        ({"n_layer": LARGE}, f"n_layer is {LARGE} in .*, and 2 by the names"),
        ({"vocab_size": LARGE}, f"vocab_size is {LARGE} in .*, and 31 by .*wte.weight"),
        (
            {"n_positions": LARGE},
            f"n_positions is {LARGE} in .*, and 16 by .*wpe.weight",
        ),
        (
            {"n_embd": 2**30, "n_head": 2**30},
            f"n_embd is {2**30} in .*, and 12 by .*ln_f.weight",
        ),
        (
            {"n_inner": LARGE},
            f"n_inner is {LARGE} in .*, and 48 by .*h.0.mlp.c_fc.bias",
        ),
    ],
)
def test_a_configuration_of_any_size_is_refused_in_no_time(tmp_path, fields, message):
    for folder in folders(tmp_path, fields):
        for model_class in MODELS:
            tracemalloc.start()
            start = time.process_time()
            with pytest.raises(CheckpointError, match=message) as caught:
                model_class.from_pretrained(folder)
            elapsed = time.process_time() - start
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert str(folder) in str(caught.value)
            assert elapsed < 1  # tracemalloc makes it a few times as long
            assert peak < 5_000_000
        if folder.name in ("tf", "safetensors"):
            with pytest.raises(CheckpointError, match=message):
                convert(folder, tmp_path / "converted")


def test_a_file_that_lacks_what_tells_a_size_is_refused_before_anything_is_made():
    for name in ("wte.weight", "wpe.weight", "ln_f.weight", "h.0.mlp.c_fc.bias"):
        rest = base_state_dict(WEIGHTS)
        del rest[name]
        fields = {"vocab_size": LARGE, "n_positions": LARGE, "n_inner": LARGE}
        fields |= {"n_embd": 2**30, "n_head": 2**30}
        with pytest.raises(ValueError, match=rf"{name} is missing"):
            checked_tensors(GPT2Config(**TINY | fields), rest)


def test_a_name_of_an_absurd_layer_costs_nothing():
    weights = WEIGHTS | {f"transformer.h.{10**12}.ln_1.weight": np.ones(12)}
    for layers in (2, 3, LARGE):
        with pytest.raises(ValueError, match="n_layer is|more layers|is missing"):
            checked_tensors(GPT2Config(**TINY | {"n_layer": layers}), weights)


def test_a_fresh_head_is_not_larger_than_all_that_the_file_holds(tmp_path):
    GPT2LMHeadModel(GPT2Config(**TINY)).save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | {"num_labels": 10**9}))
    with pytest.raises(
        CheckpointError, match="score.weight is missing, .* num_labels=1"
    ):
        GPT2ForSequenceClassification.from_pretrained(tmp_path)
    assert GPT2LMHeadModel.from_pretrained(tmp_path).config.num_labels == 10**9
    with pytest.warns(UserWarning, match="freshly drawn"):
        model = GPT2ForSequenceClassification.from_pretrained(
            tmp_path, num_labels=10**4
        )
    assert model.score.weight.shape == (10**4, 12)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_exactly_the_tables_shapes_are_taken(data):
    """One tensor of another shape, or none of it, is named whichever it is."""
    pruned = data.draw(st.sampled_from([{}, {0: [1]}, {0: [0, 2], 1: [1]}]))
    config = GPT2Config(**TINY, pruned_heads=pruned)
    shapes = parameter_shapes(config)
    tensors = {name: np.zeros(shape) for name, shape in shapes.items()}
    assert set(checked_tensors(config, tensors)) == set(shapes)
    name = data.draw(st.sampled_from(sorted(shapes)))
    other = data.draw(st.lists(st.integers(0, 40), max_size=3).map(tuple))
    if other in (shapes[name], (1, *shapes[name])):  # as OpenAI has them
        return
    changed = {**tensors, name: np.zeros(other)}
    if data.draw(st.booleans()):
        del changed[name]
    with pytest.raises(ValueError, match=rf"\b{name} (has shape|is missing)"):
        checked_tensors(config, changed)


def test_every_field_that_differs_is_said_at_once(tmp_path):
    save_safetensors(tmp_path / "model.safetensors", WEIGHTS)
    GPT2Config(**TINY | {"vocab_size": 30, "n_positions": 8}).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        GPT2LMHeadModel.from_pretrained(tmp_path)
    for said in (
        "vocab_size is 30 in the configuration, and 31 by the shape of transformer.wte",
        "n_positions is 8 in the configuration, and 16 by the shape of transformer.wpe",
        "transformer.wte.weight has shape (31, 12), not (30, 12)",
    ):
        assert said in str(caught.value)


def test_every_class_has_the_prefix_that_its_names_have():
    for name in minigpt2.__all__:
        model_class = getattr(minigpt2, name)
        if isinstance(model_class, type) and hasattr(model_class, "own_prefix"):
            if not hasattr(model_class, "build") or name == "PreTrainedModel":
                continue
            model = model_class(GPT2Config(**TINY), backend="numpy")
            assert f"{model_class.own_prefix}wte.weight" in model.state_dict()
