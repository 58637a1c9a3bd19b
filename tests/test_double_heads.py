"""Two heads: transformers' losses and scores, choices on an axis of their own."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import (
    assert_close,
    double_heads_state_dict,
    random_ids,
    random_state_dict,
)

from minigpt2 import (
    GPT2Config,
    GPT2DoubleHeadsModel,
    GPT2LMHeadModel,
    PreTrainedModel,
)
from minigpt2.checkpoints.safetensors_file import save_safetensors

GOLDENS = json.loads(
    (Path(__file__).parent / "data" / "double_heads_goldens.json").read_text("utf-8")
)
TINY = {"vocab_size": 31, "n_positions": 16, "n_embd": 12, "n_layer": 2, "n_head": 3}
IDS = random_ids((2, 3, 5), 31, 1)


def made(config, seed=0, dtype=np.float64):
    model = GPT2DoubleHeadsModel(GPT2Config(**config), dtype=dtype, seed=None)
    model.load_state_dict(double_heads_state_dict(config, seed))
    return model


@pytest.fixture(scope="module")
def tiny():
    return made(TINY)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", GOLDENS["cases"], ids=lambda case: case["name"])
def test_losses_and_scores_are_transformers(case, dtype):
    out = made(case["config"], case["seed"], dtype)(**case["arguments"])
    # sums of 24 terms in another order, in two layers: 1e-12, or 1e-5 in float32
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    for name, expected in case["outputs"].items():
        assert out[name].dtype == dtype, name
        actual = out[name]
        if name == "lm_logits":
            actual = actual.reshape(-1)[:: GOLDENS["lm_logits_step"]]
        assert_close(actual, expected, tolerance, f"{case['name']}: {name}")


def test_arguments_and_outputs_are_the_documented_ones(tiny):
    parameters = inspect.signature(GPT2DoubleHeadsModel.forward).parameters.values()
    positional = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD]
    assert (
        positional
        == (
            "self input_ids past attention_mask token_type_ids position_ids head_mask "
            "inputs_embeds mc_token_ids lm_labels mc_labels"
        ).split()
    )
    assert isinstance(tiny, PreTrainedModel)
    out = tiny(IDS, mc_token_ids=[[4, 4, 4]] * 2, lm_labels=IDS, mc_labels=[0, 2])
    assert list(out) == [
        "lm_loss",
        "mc_loss",
        "lm_logits",
        "mc_logits",
        "past_key_values",
    ]
    assert out.lm_logits.shape == (2, 3, 5, 31)
    assert out.mc_logits.shape == (2, 3)
    assert out.lm_loss.shape == out.mc_loss.shape == ()
    assert out.past_key_values[0][0].shape == (6, 3, 5, 4)
    more = tiny(IDS, output_hidden_states=True, output_attentions=True)
    assert more.hidden_states[2].shape == (2, 3, 5, 12)
    assert more.attentions[1].shape == (2, 3, 3, 5, 5)


def test_later_names_of_the_outputs_name_the_same_fields(tiny):
    out = tiny(IDS, labels=IDS)
    assert out.loss is out.lm_loss is out["loss"] is out["lm_loss"] is out[0]
    assert out.logits is out.lm_logits is out.get("logits")
    assert "loss" in out
    assert "mc_loss" not in out
    assert tiny(IDS).loss is None
    assert "loss" not in tiny(IDS)
    with pytest.raises(AttributeError, match="has no field 'last_hidden_state'"):
        _ = out.last_hidden_state
    names = {"lm_labels": IDS, "labels": IDS}
    with pytest.raises(ValueError, match="lm_labels and labels are two names of one"):
        tiny(IDS, **names)


def test_a_tuple_has_the_losses_first_as_far_as_there_are_any(tiny):
    labels = {"lm_labels": IDS, "mc_labels": [0, 2]}
    out = tiny(IDS, **labels)
    lm_loss, mc_loss, lm_logits, mc_logits, _ = tiny(IDS, **labels, return_dict=False)
    assert (lm_loss, mc_loss) == (out.lm_loss, out.mc_loss)
    np.testing.assert_array_equal(lm_logits, out.lm_logits)
    np.testing.assert_array_equal(mc_logits, out.mc_logits)
    assert tiny(IDS, mc_labels=[0, 2], return_dict=False)[0] == out.mc_loss
    assert len(tiny(IDS, return_dict=False, use_cache=False)) == 2


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_sequences_score_is_a_line_through_its_hidden_state(tiny, data):
    """For any leading axes, by hand: pick, multiply, add."""
    leading = tuple(data.draw(st.lists(st.integers(1, 3), max_size=3)))
    length = data.draw(st.integers(1, 6))
    ids = random_ids((*leading, length), 31, data.draw(st.integers(0, 99)))
    ends = random_ids(leading, length, data.draw(st.integers(0, 99)))
    out = tiny(ids, mc_token_ids=ends, output_hidden_states=True)
    hidden, head = out.hidden_states[-1], tiny.multiple_choice_head.summary
    assert out.mc_logits.shape == leading
    for place in np.ndindex(leading):
        expected = hidden[place][ends[place]] @ head.weight[0] + head.bias[0]
        np.testing.assert_allclose(out.mc_logits[place], expected, rtol=1e-12)


def test_summaries_are_taken_along_the_positions_also_with_choices():
    for kind in ("last", "first", "mean"):
        model = made({**TINY, "summary_type": kind})
        with_choices = model(IDS).mc_logits
        assert with_choices.shape == (2, 3)
        flat = model(IDS.reshape(6, 5)).mc_logits
        np.testing.assert_array_equal(with_choices.reshape(6), flat)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"mc_token_ids": [0, 1]},
            r"mc_token_ids has shape \(2,\); it must be \(2, 3\)",
        ),
        ({"mc_token_ids": [[0, 1, 5]] * 2}, "mc_token_ids holds 5, .* outside 0 to 4"),
        ({"mc_token_ids": [[0, 1, -1]] * 2}, "mc_token_ids holds -1"),
        ({"mc_labels": [0, 3]}, "label 3 is outside 0 to 2"),
        ({"mc_labels": [[0, 1, 2]] * 2}, r"integers of shape \(2,\): .* of 3 choices"),
        ({"mc_labels": [0.0, 1.0]}, "dtype float64"),
        ({"lm_labels": IDS[0]}, "labels have shape"),
        ({"lm_labels": IDS, "logits_to_keep": 1}, "labels need the logits of all"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(tiny, arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny(IDS, **arguments)


def test_unknown_summaries_are_refused_by_name():
    for field, value in (("summary_type", "attn"), ("summary_activation", "selu")):
        with pytest.raises(ValueError, match=f"{field} is '{value}'; known are"):
            GPT2DoubleHeadsModel(GPT2Config(**TINY, **{field: value}))


def test_weights_without_the_second_head_load_and_it_is_drawn_with_a_warning(tmp_path):
    weights = {n: a.astype("f4") for n, a in random_state_dict(TINY, 3).items()}
    GPT2Config(**TINY).save_pretrained(tmp_path)
    save_safetensors(tmp_path / "model.safetensors", weights, {"format": "pt"})
    new = ["multiple_choice_head.summary.weight", "multiple_choice_head.summary.bias"]
    with pytest.warns(UserWarning, match=f"no {new[0]}, {new[1]}: freshly drawn"):
        model, info = GPT2DoubleHeadsModel.from_pretrained(
            tmp_path, output_loading_info=True
        )
    assert info == {"missing_keys": new, "unexpected_keys": [], "error_msgs": []}
    state = model.state_dict()
    assert state[new[0]].shape == (1, 12)
    assert 0 < np.abs(state[new[0]]).max() < 6 * 0.02
    assert state[new[1]] == 0
    plain = GPT2LMHeadModel.from_pretrained(tmp_path)
    np.testing.assert_array_equal(model(IDS).logits, plain(IDS).logits)


def test_a_trained_second_head_is_kept_when_weights_without_one_are_loaded(tiny):
    model = made(TINY)
    weights = random_state_dict(TINY, 7)
    info = model.load_tensors(weights)
    assert len(info["missing_keys"]) == 2
    head = model.multiple_choice_head.summary
    np.testing.assert_array_equal(head.weight, tiny.multiple_choice_head.summary.weight)
    np.testing.assert_array_equal(
        model.transformer.wte.weight, weights["transformer.wte.weight"]
    )


def test_it_generates_as_the_model_without_the_second_head(tiny):
    plain = GPT2LMHeadModel(tiny.config, dtype=np.float64, seed=None)
    plain.load_tensors(tiny.state_dict())
    prompt = IDS[:, 0]
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    options = {"attention_mask": mask, "max_length": 12, "eos_token_id": 0}
    np.testing.assert_array_equal(
        tiny.generate(prompt, **options), plain.generate(prompt, **options)
    )


def test_dropout_is_drawn_before_and_after_the_summary_in_train_mode():
    for field in ("summary_first_dropout", "summary_last_dropout"):
        off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        rates = {"summary_first_dropout": 0.0, field: 0.5}
        model = made({**TINY, **off, **rates}).train()
        quiet = model.eval()(IDS).mc_logits
        loud = model.train()(IDS, generator=np.random.default_rng(0)).mc_logits
        assert np.abs(loud - quiet).max() > 1e-3, field
        with pytest.raises(ValueError, match="needs generator="):
            model(IDS)


@pytest.mark.peers
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_configuration_gives_what_the_installed_transformers_gives(data):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    heads = data.draw(st.integers(1, 3))
    config = {
        "vocab_size": data.draw(st.integers(2, 40)),
        "n_positions": 10,
        "n_embd": heads * data.draw(st.integers(2, 6)),
        "n_layer": data.draw(st.integers(1, 2)),
        "n_head": heads,
        "summary_type": data.draw(
            st.sampled_from(["cls_index", "last", "first", "mean"])
        ),
        "summary_use_proj": data.draw(st.booleans()),
        "summary_proj_to_labels": data.draw(st.booleans()),
        "summary_activation": data.draw(
            st.sampled_from([None, "tanh", "relu", "silu"])
        ),
        "bos_token_id": None,
        "eos_token_id": None,
    }
    seed = data.draw(st.integers(0, 2**20))
    by_index = config["summary_type"] == "cls_index"
    leading = (2, 3) if by_index and data.draw(st.booleans()) else (3,)
    length = data.draw(st.integers(2, 6))
    ids = random_ids((*leading, length), config["vocab_size"], seed)
    arguments = {"input_ids": ids, "labels": ids}
    if by_index and data.draw(st.booleans()):
        arguments["mc_token_ids"] = random_ids(leading, length, seed, 1)
    if data.draw(st.booleans()):
        types = random_ids(ids.shape, config["vocab_size"], seed, 2)
        arguments["token_type_ids"] = types
    weights = double_heads_state_dict(config, seed)
    theirs = transformers.GPT2DoubleHeadsModel(transformers.GPT2Config(**config))
    theirs = theirs.double().eval()
    state = {name: torch.tensor(array) for name, array in weights.items()}
    theirs.load_state_dict(state, strict=False)
    theirs.tie_weights()
    with torch.no_grad():
        expected = theirs(**{k: torch.tensor(a) for k, a in arguments.items()})
    ours = made(config, seed)(**arguments)
    assert_close(ours.lm_logits, expected.logits.numpy(), 1e-12, "lm_logits")
    assert_close(ours.mc_logits, expected.mc_logits.numpy(), 1e-12, "mc_logits")
    # transformers may compute this loss in float32
    assert_close(ours.lm_loss, expected.loss.numpy(), 1e-6, "lm_loss")
