"""One table of names and shapes: what models, transformers and OpenAI's files have."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import GPT2Config, GPT2Model
from minigpt2.checkpoints.layouts import without_leading_one
from minigpt2.checkpoints.names import (
    TABLE,
    canonical,
    is_gpt2_parameter,
    openai_name,
    parameter_shapes,
)
from minigpt2.checkpoints.tf_bundle import TFBundle
from minigpt2.hub.archive import GPT2_SIZES

SMALL = {"vocab_size": 11, "n_positions": 7, "n_embd": 12, "n_layer": 3, "n_head": 4}


@st.composite
def configs(draw):
    """Configurations of every size and pruning that GPT2Config takes."""
    H, layers = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    heads = st.lists(st.integers(0, H - 1), max_size=H - 1)
    return GPT2Config(
        vocab_size=draw(st.integers(1, 9)),
        n_positions=draw(st.integers(1, 9)),
        n_embd=H * draw(st.integers(1, 3)),
        n_layer=layers,
        n_head=H,
        n_inner=draw(st.none() | st.integers(1, 9)),
        pruned_heads=draw(st.dictionaries(st.integers(0, layers - 1), heads)),
    )


def own_shapes(config):
    model = GPT2Model(config, seed=None, backend="numpy")
    return {
        name: module.shapes[attribute]
        for name, (module, attribute) in model.parameter_slots().items()
    }


@settings(max_examples=50, deadline=None)
@given(config=configs())
def test_the_table_has_the_names_and_shapes_of_a_model_in_its_order(config):
    assert list(parameter_shapes(config).items()) == list(own_shapes(config).items())


@pytest.mark.peers
@pytest.mark.parametrize("n_inner", [None, 5])
def test_the_table_has_the_names_and_shapes_of_transformers(n_inner):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(**SMALL, n_inner=n_inner)
    config.pruned_heads = {}  # version 5 has no such field
    theirs = transformers.GPT2Model(config).state_dict()
    assert parameter_shapes(config) == {
        name: tuple(tensor.shape) for name, tensor in theirs.items()
    }


def test_the_table_has_the_names_of_openais_files(shakespeare):
    tensors = TFBundle(shakespeare.folder)
    shapes = parameter_shapes(GPT2Config.from_pretrained(shakespeare.folder))
    assert {openai_name(name) for name in shapes} == set(tensors)
    for name in tensors:
        assert without_leading_one(tensors[name]).shape == shapes[canonical(name)]


@pytest.mark.parametrize(
    ("size", "tensors", "parameters"),
    [
        ("gpt2", 148, 124_439_808),
        ("gpt2-medium", 292, 354_823_168),
        ("gpt2-large", 436, 774_030_080),
        ("gpt2-xl", 580, 1_557_611_200),
    ],
)
def test_the_released_sizes_have_the_published_numbers(size, tensors, parameters):
    shapes = parameter_shapes(GPT2Config(**GPT2_SIZES[size]))
    assert len(shapes) == tensors
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters


def test_plain_numbers_will_do_for_a_configuration():
    sizes = SimpleNamespace(**SMALL, n_inner=None, pruned_heads={2: [0, 3]})
    shapes = parameter_shapes(sizes)
    assert shapes["h.1.attn.c_attn.weight"] == (12, 36)
    assert shapes["h.2.attn.c_attn.weight"] == (12, 18)
    assert shapes["h.2.attn.c_attn.bias"] == (18,)
    assert shapes["h.2.attn.c_proj.weight"] == (6, 12)
    assert shapes["h.2.mlp.c_fc.weight"] == (12, 48)


def test_every_name_leads_to_openais_and_back():
    for name in parameter_shapes(GPT2Config(n_layer=12)):
        assert is_gpt2_parameter(name)
        for written in (openai_name(name), name, f"transformer.{name}"):
            assert canonical(written) == name
        suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
        assert canonical(openai_name(name) + suffix) == name


@pytest.mark.parametrize(
    ("written", "here"),
    [
        ("transformer.h.3.attn.bias", None),
        ("h.10.attn.masked_bias", None),
        ("h.0.ln_1.gamma", "h.0.ln_1.weight"),
        ("transformer.ln_f.beta", "ln_f.bias"),
    ],
)
def test_old_versions_names_are_known(written, here):
    assert canonical(written) == here


@pytest.mark.parametrize(
    "name",
    [
        "lm_head.weight",
        "global_step",
        "model/h0/attn/c_attn/w/Adam",
        "model/h0/attn/c_attn/g",
        "model/h/ln_1/g",
        "model/h0.ln_1/g",
        "h.0.attn.c_attn",
        "h.x.ln_1.weight",
        "h.0.h.0.ln_1.weight",
        "h..ln_1.weight",
        *(row.name for row in TABLE if "#" in row.name),
        *(row.openai for row in TABLE if "#" in row.name),
    ],
)
def test_what_is_no_parameter_comes_back_as_it_is(name):
    assert canonical(name) == name
    assert not is_gpt2_parameter(name)
    with pytest.raises(ValueError, match="is no parameter of GPT2Model"):
        openai_name(name)


def test_only_the_leading_one_of_openais_weights_goes():
    for shape in [(1, 3), (1,), (), (1, 2, 1, 1), (2, 1, 3)]:
        assert without_leading_one(np.zeros(shape)).shape == shape
    assert without_leading_one(np.zeros((1, 1, 3))).shape == (1, 3)
