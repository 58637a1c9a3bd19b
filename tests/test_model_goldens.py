"""minigpt2 against outputs of transformers that tools/make_goldens.py froze."""

import json
from pathlib import Path

import numpy as np
import pytest
from model_cases import (
    assert_close,
    base_state_dict,
    random_state_dict,
    real_rows,
)

from minigpt2 import GPT2Config, GPT2LMHeadModel, GPT2Model

DATA = Path(__file__).parent / "data"
GOLDENS = json.loads((DATA / "model_goldens.json").read_text(encoding="utf-8"))
with np.load(DATA / "model_goldens.npz") as _file:
    ARRAYS = dict(_file)
FORWARD = [
    pytest.param(case, dtype, id=f"{case['name']}-{dtype}")
    for case in GOLDENS["cases"]
    for dtype in ("float64", "float32")
    # transformers has no float64 with this flag
    if case["kind"] != "generate"
    and not (dtype == "float64" and case["config"].get("reorder_and_upcast_attn"))
]
GENERATE = [
    pytest.param(case, id=case["name"])
    for case in GOLDENS["cases"]
    if case["kind"] == "generate"
]

TOLERANCE = {
    # Sums of up to 100 terms in another order: each term rounds by 1e-16, and six
    # layers of that stay two orders below this.
    "float64": 1e-12,
    # The same with float32's 6e-8.
    "float32": 1e-5,
}


def arrays_under(*path):
    """What the npz holds directly below a path, by its last name."""
    folder = "/".join(path)
    split = ((*key.rpartition("/"), array) for key, array in ARRAYS.items())
    return {name: array for parent, _, name, array in split if parent == folder}


def make_model(case, dtype):
    weights = random_state_dict(case["config"], case["seed"])
    cls = GPT2LMHeadModel
    if case["kind"] == "base":
        cls, weights = GPT2Model, base_state_dict(weights)
    model = cls(GPT2Config(**case["config"]), dtype=np.dtype(dtype))
    model.load_state_dict(weights)
    return model


def arguments_of(case, dtype):
    arguments = {**case["arguments"], **arrays_under(case["name"])}
    arguments.pop("sequences", None)
    for name in ("inputs_embeds", "past_key_values"):
        if name in arguments:
            arguments[name] = arguments[name].astype(dtype)
    return arguments


def outputs_by_name(out):
    """Outputs with one array for all layers and one leading axis, as in the npz."""
    result = {
        name: out[name]
        for name in ("logits", "last_hidden_state", "loss")
        if out.get(name) is not None
    }
    result["keys"] = np.stack([keys for keys, values in out.past_key_values])
    result["values"] = np.stack([values for keys, values in out.past_key_values])
    for name, tail in ("hidden_states", 2), ("attentions", 3):
        if out.get(name) is not None:
            result[name] = np.stack(
                [x.reshape(-1, *x.shape[-tail:]) for x in out[name]]
            )
    return result


@pytest.mark.parametrize(("case", "dtype"), FORWARD)
def test_forward_computes_what_transformers_computes(case, dtype):
    expected = arrays_under(case["name"], dtype)
    arguments = arguments_of(case, dtype)
    mask = arguments.get("attention_mask")
    if mask is not None:
        mask = mask.reshape(-1, mask.shape[-1]).astype(bool)
    actual = outputs_by_name(make_model(case, dtype)(**arguments, use_cache=True))
    for name, golden in expected.items():
        assert actual[name].dtype == dtype, name
        assert_close(
            real_rows(name, actual[name], mask),
            real_rows(name, golden, mask),
            TOLERANCE[dtype],
            f"{case['name']}: {name}",
        )


@pytest.mark.parametrize("case", GENERATE)
def test_generate_writes_what_transformers_writes(case):
    model = make_model(case, "float64")
    arguments = arguments_of(case, "float64")
    sequences = model.generate(**arguments)
    np.testing.assert_array_equal(sequences, arrays_under(case["name"])["sequences"])


def test_the_goldens_say_where_they_come_from():
    assert GOLDENS["made_by"] == "python tools/make_goldens.py"
    assert GOLDENS["versions"]["transformers"].startswith("4.57")
