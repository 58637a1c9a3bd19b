"""AdamW, clipping and the schedule against torch, and numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import random_ids
from training_cases import TINY, tiny

from minigpt2 import GPT2DoubleHeadsModel, GPT2LMHeadModel
from minigpt2.training import AdamW, Schedule, clip, loss_and_grads

many = settings(max_examples=30, deadline=None, derandomize=True)


def one_number(value):
    """A model all of whose numbers are `value`."""
    model = tiny()
    state = {n: np.full(a.shape, value) for n, a in model.state_dict().items()}
    model.load_state_dict(state)
    return model


def test_a_first_step_is_the_rate_against_the_gradients_sign_and_the_decay():
    model = one_number(0.5)
    optimizer = AdamW(model, rate=0.1, decay=0.2)
    grads = {name: np.full(p.shape, -3.0) for name, p in model.named_parameters()}
    optimizer.step(grads)
    for name, p in model.named_parameters():
        # m' = g and v' = g^2, so g / |g|, but for eps
        decayed = 0.5 * (1 - 0.1 * 0.2) if p.ndim == 2 else 0.5
        np.testing.assert_allclose(p, decayed + 0.1, rtol=1e-8, err_msg=name)


def test_two_steps_are_what_the_formula_says():
    model = one_number(1.0)
    optimizer = AdamW(model, rate=0.1, betas=(0.5, 0.75), eps=0.0, decay=0.0)
    for g in (2.0, -1.0):
        optimizer.step({n: np.full(p.shape, g) for n, p in model.named_parameters()})
    m = 0.5 * (0.5 * 2) + 0.5 * -1  # 0
    v = 0.75 * (0.25 * 4) + 0.25 * 1
    second = 0.1 * (m / 0.75) / math.sqrt(v / (1 - 0.75**2))
    for _, p in model.named_parameters():
        np.testing.assert_allclose(p, 1.0 - 0.1 - second, rtol=1e-15)


@pytest.mark.peers
@given(st.data())
@many
def test_steps_are_torchs(data):
    torch = pytest.importorskip("torch")
    settings_ = {
        "betas": data.draw(st.sampled_from([(0.9, 0.999), (0.9, 0.95), (0.0, 0.5)])),
        "eps": data.draw(st.sampled_from([1e-8, 1e-3])),
    }
    decay = data.draw(st.sampled_from([0.0, 0.01, 0.3]))
    decays = data.draw(st.sampled_from(["matrices", "all"]))
    limit = data.draw(st.sampled_from([math.inf, 1.0, 1e-3]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    model = tiny(data.draw(st.sampled_from([GPT2LMHeadModel, GPT2DoubleHeadsModel])))
    optimizer = AdamW(model, decay=decay, decays=decays, **settings_)
    theirs = {
        name: torch.from_numpy(np.array(p)).requires_grad_()
        for name, p in model.named_parameters()
    }
    groups = [
        {"params": [p for p in theirs.values() if p.ndim >= 2], "weight_decay": decay},
        {
            "params": [p for p in theirs.values() if p.ndim < 2],
            "weight_decay": decay if decays == "all" else 0.0,
        },
    ]
    other = torch.optim.AdamW(groups, **settings_, foreach=False)
    for step in range(20):
        rate = 0.01 * (step + 1)
        grads = {n: rng.standard_normal(p.shape) for n, p in theirs.items()}
        for name, p in theirs.items():
            p.grad = torch.from_numpy(grads[name].copy())
        norm = clip(grads, limit)
        expected = torch.nn.utils.clip_grad_norm_(theirs.values(), limit)
        assert norm == pytest.approx(expected.item(), rel=1e-12)
        for group in other.param_groups:
            group["lr"] = rate
        optimizer.step(grads, rate)
        other.step()
    for name, p in model.named_parameters():
        expected = theirs[name].detach().numpy()
        np.testing.assert_allclose(p, expected, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.peers
@pytest.mark.parametrize("tied", [True, False])
def test_twenty_steps_of_a_model_are_torchs_through_transformers(tied):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = tiny(tie_word_embeddings=tied)
    config = transformers.GPT2Config(
        **TINY, tie_word_embeddings=tied, attn_implementation="eager",
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).double().eval()
    state = {n: torch.from_numpy(a.copy()) for n, a in model.state_dict().items()}
    theirs.load_state_dict(state, strict=False)
    theirs.tie_weights()
    parameters = dict(theirs.named_parameters())
    optimizer = AdamW(model, rate=1e-3, decay=0.1)
    other = torch.optim.AdamW(
        [
            {"params": [p for p in parameters.values() if p.ndim >= 2]},
            {"params": [p for p in parameters.values() if p.ndim < 2],
             "weight_decay": 0.0},
        ],
        lr=1e-3, weight_decay=0.1,
    )  # fmt: skip
    schedule = Schedule(peak=1e-3, steps=20, warmup=5, least=0.1)
    losses = []
    for step in range(20):
        ids = random_ids((4, 9), TINY["vocab_size"], 7)
        loss, grads = loss_and_grads(model, ids, ids)
        clip(grads, 1.0)
        optimizer.step(grads, schedule(step))
        losses.append(loss)
        logits = theirs(torch.from_numpy(ids)).logits[:, :-1].flatten(0, 1)
        labels = torch.from_numpy(ids)[:, 1:].flatten()
        expected = torch.nn.functional.cross_entropy(logits, labels)
        assert abs(loss - expected.item()) <= 1e-9
        other.zero_grad()
        expected.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        for group in other.param_groups:
            group["lr"] = schedule(step)
        other.step()
    assert losses[-1] < losses[0]
    for name, p in model.named_parameters():
        expected = parameters[name].detach().numpy()
        np.testing.assert_allclose(p, expected, rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_model_computes_with_what_a_step_has_changed(backend):
    if backend == "numba":
        pytest.importorskip("numba")
    model = tiny(dtype=np.float32, backend=backend)
    ids = random_ids((4, 9), TINY["vocab_size"], 7)
    optimizer = AdamW(model, rate=1e-2)
    losses = []
    for _ in range(10):
        loss, grads = loss_and_grads(model, ids, ids)
        optimizer.step(grads)
        losses.append(loss)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]
    fresh = tiny(dtype=np.float32, backend="numpy")
    fresh.load_state_dict(model.state_dict())
    np.testing.assert_allclose(fresh(ids).logits, model(ids).logits, atol=1e-5)


def test_a_state_goes_on_to_the_same_bits_and_another_models_is_refused():
    ids = random_ids((4, 9), TINY["vocab_size"], 7)

    def steps(optimizer, count):
        for _ in range(count):
            _, grads = loss_and_grads(optimizer.model, ids, ids)
            optimizer.step(grads)

    whole = AdamW(tiny(dtype=np.float32))
    steps(whole, 6)
    half = AdamW(tiny(dtype=np.float32))
    steps(half, 3)
    state = {name: a.copy() for name, a in half.state_dict().items()}
    model = tiny(dtype=np.float32)
    model.load_state_dict(half.model.state_dict())
    resumed = AdamW(model)
    resumed.load_state_dict(state)
    steps(resumed, 3)
    for name, p in resumed.model.named_parameters():
        assert p.tobytes() == whole.parameters[name].tobytes(), name
    with pytest.raises(ValueError, match="another model"):
        AdamW(tiny(n_layer=1)).load_state_dict(state)


def test_a_schedule_warms_up_and_goes_down_a_cosine():
    schedule = Schedule(peak=2.0, steps=14, warmup=4, least=0.1)
    rates = [schedule(step) for step in range(20)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0
    assert rates[9] == pytest.approx((2.0 + 0.2) / 2)  # halfway
    assert rates[14:] == [pytest.approx(0.2)] * 6
    assert rates[4:15] == sorted(rates[4:15], reverse=True)
    constant = Schedule(peak=2.0, steps=14, warmup=4, shape="constant")
    assert [constant(step) for step in (0, 3, 4, 99)] == [0.5, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule(1.0, 10, shape="square"), "known are constant, cosine"),
        (lambda: Schedule(1.0, 10, warmup=11), "warmup=11 must lie in 0 .. steps=10"),
        (lambda: Schedule(-1.0, 10), "not be negative"),
        (lambda: Schedule(1.0, 10, least=2.0), "a part of the peak"),
        (lambda: AdamW(tiny(), rate=-1.0), "must not be negative"),
        (lambda: AdamW(tiny(), betas=(0.9, 1.0)), "lie in 0 .. 1"),
        (lambda: AdamW(tiny(), decays="biases"), "known are matrices, all"),
        (
            lambda: AdamW(tiny(dtype=np.float32).with_weights("int8")),
            "a model in int8 can't be trained",
        ),
    ],
)
def test_settings_out_of_bounds_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_clipping_says_when_a_gradient_is_no_number():
    grads = {"a": np.array([3.0, 4.0]), "b": np.zeros(2)}
    assert clip(grads, 10.0) == 5.0
    assert grads["a"].tolist() == [3.0, 4.0]
    assert clip(grads, 1.0) == 5.0
    np.testing.assert_allclose(grads["a"], [0.6, 0.8], rtol=1e-6)
    assert math.isnan(clip({"a": np.array([math.nan])}, 1.0))
