"""loss_and_grads against torch's autograd through transformers, and by differences.

Hypothesis chooses configurations and arguments; both sides compute in float64, with the
same dropout masks. Without torch, central differences of the model's own forward pass
prove the same for every parameter and every step.
"""

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_cases import assert_close, random_ids
from training_cases import TINY, tiny

from minigpt2 import (
    GPT2Config,
    GPT2DoubleHeadsModel,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
    ops,
    trace,
)
from minigpt2.tracing.steps import steps_of
from minigpt2.training import loss_and_grads

many = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
few = settings(many, max_examples=15)

# The derivatives of these jump where a random number may be.
KINKED = {"relu", "relu6", "leaky_relu", "hardswish", "gelu_10"}


@st.composite
def cases(draw, smooth=False):
    """(model, arguments of loss_and_grads but for the generator, its seed)."""
    heads = draw(st.integers(1, 3))
    activations = sorted(set(ops.ACTIVATIONS) - (KINKED if smooth else set()))
    fields = {
        "vocab_size": draw(st.integers(2, 12)),
        "n_positions": draw(st.integers(6, 9)),
        "n_embd": heads * draw(st.integers(2, 4)),
        "n_layer": draw(st.integers(1, 3)),
        "n_head": heads,
        "n_inner": draw(st.none() | st.integers(1, 9)),
        "activation_function": draw(st.sampled_from(activations)),
        "layer_norm_epsilon": draw(st.sampled_from([1e-5, 0.1])),
        "scale_attn_weights": draw(st.booleans()),
        "scale_attn_by_inverse_layer_idx": draw(st.booleans()),
        "tie_word_embeddings": draw(st.booleans()),
        "summary_type": draw(st.sampled_from(["cls_index", "first", "last", "mean"])),
        "summary_activation": draw(st.sampled_from([None, "tanh"])),
    }
    names = ("embd_pdrop", "attn_pdrop", "resid_pdrop", "summary_first_dropout")
    fields |= {name: draw(st.sampled_from([0.0, 0.3])) for name in names}
    cls = draw(st.sampled_from([GPT2Model, GPT2LMHeadModel, GPT2DoubleHeadsModel]))
    seed = draw(st.integers(0, 2**32 - 1))
    model = tiny(cls, seed=seed, **fields)
    double = cls is GPT2DoubleHeadsModel
    new = draw(st.integers(2, 6))
    shape = (
        (draw(st.integers(1, 3)), 2, new) if double else (draw(st.integers(1, 3)), new)
    )
    arguments = {"input_ids": random_ids(shape, fields["vocab_size"], seed)}
    if draw(st.booleans()):
        arguments["token_type_ids"] = random_ids(shape, fields["vocab_size"], seed, 1)
    if draw(st.booleans()):
        arguments["position_ids"] = random_ids(shape, fields["n_positions"], seed, 2)
    if draw(st.booleans()):
        arguments["head_mask"] = np.random.default_rng(seed).random(
            (fields["n_layer"], heads)
        )
    counted = np.ones(shape, bool)  # positions whose outputs may be judged
    mask = draw(st.sampled_from(["none", "left", "right", "scores"]))
    if mask == "scores":
        added = np.random.default_rng(seed).standard_normal((1, 1, new, new))
        added[:, :, np.triu(np.ones((new, new), bool), 1)] = -np.inf
        arguments["attention_mask"] = np.repeat(added, counted.size // new, axis=0)
    elif mask != "none":
        hidden = draw(st.integers(0, new - 2))
        counted[..., :hidden] = False
        if mask == "right":
            counted = counted[..., ::-1]
        arguments["attention_mask"] = counted.astype(int)
    if cls is GPT2Model:
        grad = np.random.default_rng(seed).standard_normal((*shape, fields["n_embd"]))
        arguments["output_grad"] = grad * counted[..., None]
        return model, arguments, seed
    goals = draw(st.sampled_from(["labels", "output_grad"]))
    if goals == "labels":
        labels = arguments["input_ids"].copy()
        ignored = random_ids(shape, 4, seed, 3) == 0
        labels[ignored] = -100
        # A label at t + 1 judges the output at t.
        labels[..., 1:][~counted[..., :-1]] = -100
        labels[..., 0] = -1
        if (labels[..., 1:] < 0).all():
            seen = np.argwhere(counted[..., :-1])[0]
            labels[(*seen[:-1], seen[-1] + 1)] = 1
        arguments["labels"] = labels
    else:
        grad = np.random.default_rng(seed).standard_normal(
            (*shape, fields["vocab_size"])
        )
        arguments["output_grad"] = grad * counted[..., None]
    if double and (counted.all() or fields["summary_type"] == "cls_index"):
        arguments["mc_labels"] = random_ids(shape[:1], 2, seed, 4)
        if not counted.all() or draw(st.booleans()):
            last = counted.cumsum(-1).argmax(-1)  # the last that is seen
            arguments["mc_token_ids"] = last
    return model, arguments, seed


def probabilities(model):
    config = model.config
    return (
        config.embd_pdrop + config.attn_pdrop + config.resid_pdrop
        + config.summary_first_dropout
    )  # fmt: skip


def gradients(model, arguments, seed, **options):
    """loss_and_grads in train mode, if something drops."""
    model.train(bool(probabilities(model)))
    return loss_and_grads(
        model, **arguments, generator=np.random.default_rng(seed), **options
    )


# Against torch


class Masks:
    """An observer that collects what dropout keeps."""

    joined = True

    def __init__(self):
        self.kept = {}

    def begin(self, forward_pass):
        pass

    def see(self, module, name, array):
        if name.endswith("kept"):
            self.kept[module, name] = array
        return array


def dropout_masks(model, arguments, seed):
    """{(module, name): bools} of the pass that loss_and_grads makes with this seed."""
    masks = Masks()
    goals = ("output_grad", "labels", "mc_labels")
    inputs = {name: a for name, a in arguments.items() if name not in goals}
    model.train(bool(probabilities(model)))
    model.forward(**inputs, generator=np.random.default_rng(seed), trace=masks)
    return masks.kept


def autograd(model, arguments, seed):
    """(loss, {parameter: gradient}) by torch through transformers, in eager mode."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def tensor(array):
        return torch.from_numpy(np.array(array))

    class Times(torch.nn.Module):
        """Stands for a dropout: our mask, scaled, and our heads' factors."""

        def __init__(self, kept, probability, factors=None):
            super().__init__()
            self.factor = tensor(1.0)
            if kept is not None:
                self.factor = tensor(kept / (1.0 - probability))
            if factors is not None:
                self.factor = self.factor * tensor(factors)

        def forward(self, x):
            return x * self.factor

    modeling = transformers.models.gpt2.modeling_gpt2
    attention = modeling.eager_attention_forward

    def eager(module, *args, **options):
        """Theirs, with module.attn_dropout where version 5 has a dropout of no module."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                torch.nn.functional,
                "dropout",
                lambda x, **options: module.attn_dropout(x),
            )
            return attention(module, *args, **options)

    fields = model.config.to_dict()
    config = transformers.GPT2Config(
        **{name: fields[name] for name in (
            "vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner",
            "activation_function", "layer_norm_epsilon", "scale_attn_weights",
            "scale_attn_by_inverse_layer_idx", "tie_word_embeddings", "summary_type",
            "summary_activation",
        )},
        attn_implementation="eager", bos_token_id=None, eos_token_id=None, num_labels=1,
    )  # fmt: skip
    theirs = getattr(transformers, type(model).__name__)(config).double().eval()
    state = {n: tensor(a) for n, a in model.state_dict().items()}
    assert not theirs.load_state_dict(state, strict=False).unexpected_keys
    if type(model) is not GPT2Model:
        theirs.tie_weights()
    kept, ours = dropout_masks(model, arguments, seed), model.base_model
    base = theirs.transformer if type(model) is not GPT2Model else theirs
    config = model.config
    base.drop = Times(kept.get((ours, "drop.kept")), config.embd_pdrop)
    head_mask = arguments.get("head_mask")
    for i, (mine, block) in enumerate(zip(ours.h, base.h)):
        factors = None if head_mask is None else head_mask[i][:, None, None]
        weights = kept.get((mine.attn, "weights.kept"))
        block.attn.attn_dropout = Times(weights, config.attn_pdrop, factors)
        for my, their, name in (
            (mine.attn.c_proj, block.attn, "resid_dropout"),
            (mine.mlp.c_proj, block.mlp, "dropout"),
        ):
            setattr(their, name, Times(kept.get((my, "kept")), config.resid_pdrop))
    double = type(model) is GPT2DoubleHeadsModel
    if double:
        head = model.multiple_choice_head
        first = kept.get((head, "first_kept"))
        theirs.multiple_choice_head.first_dropout = Times(
            first, config.summary_first_dropout
        )
        theirs.multiple_choice_head.last_dropout = Times(
            kept.get((head, "last_kept")), head.last_dropout
        )
    goals = ("output_grad", "labels", "mc_labels", "head_mask")
    inputs = {n: tensor(a) for n, a in arguments.items() if n not in goals}
    # Without a mask, theirs reads the ends of packed sequences out of position_ids.
    inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
    for name in ("attention_mask", "position_ids"):
        if name in inputs and inputs[name].ndim == 3:  # choices: theirs does not fold
            inputs[name] = inputs[name].flatten(0, 1)
    if double:  # theirs takes summaries along the choices but for cls_index
        theirs.multiple_choice_head.summary_type = "cls_index"
        length = arguments["input_ids"].shape[-1]
        if config.summary_type in ("first", "last"):
            where = 0 if config.summary_type == "first" else length - 1
            shape = arguments["input_ids"].shape[:-1]
            inputs["mc_token_ids"] = torch.full(shape, where)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling, "eager_attention_forward", eager)
        output = theirs(**inputs, use_cache=False)
    main = output[0] if type(model) is GPT2Model else output.logits
    loss = tensor(0.0)
    if "output_grad" in arguments:
        loss = loss + (main * tensor(arguments["output_grad"])).sum()
    if "labels" in arguments:
        labels = tensor(arguments["labels"])
        labels = torch.where(labels < 0, -100, labels)[..., 1:].flatten()
        rows = main[..., :-1, :].reshape(-1, main.shape[-1])
        loss = loss + torch.nn.functional.cross_entropy(rows, labels)
    if "mc_labels" in arguments:
        loss = loss + torch.nn.functional.cross_entropy(
            output.mc_logits, tensor(arguments["mc_labels"])
        )
    loss.backward()
    return loss.item(), {
        name: np.zeros(p.shape) if p.grad is None else p.grad.numpy()
        for name, p in theirs.named_parameters()
    }


@pytest.mark.peers
@given(cases())
@many
def test_gradients_are_those_of_torchs_autograd_through_transformers(case):
    model, arguments, seed = case
    if arguments.get("mc_labels") is not None and model.config.summary_type == "mean":
        del arguments["mc_labels"]  # theirs means along the choices; differences below
        if "labels" not in arguments and "output_grad" not in arguments:
            return
    loss, grads = gradients(model, arguments, seed)
    expected_loss, expected = autograd(model, arguments, seed)
    assert abs(loss - expected_loss) <= 1e-10 * max(1.0, abs(expected_loss))
    assert list(grads) == list(model.own_slots())
    assert set(grads) == set(expected)
    largest = max(np.abs(g).max() for g in expected.values())
    for name, gradient in grads.items():
        # What is 0 but for rounding has no relative error.
        scale = max(np.abs(expected[name]).max(), 1e-5 * largest)
        difference = np.abs(gradient - expected[name]).max()
        assert difference <= 1e-10 * scale, (name, difference / scale)


# By differences, without torch


def forward_loss(model, arguments, seed, **options):
    """The loss by the model's own forward pass."""
    goals = ("output_grad", "labels", "mc_labels")
    inputs = {n: a for n, a in arguments.items() if n not in goals}
    inputs |= {n: a for n, a in arguments.items() if n in ("labels", "mc_labels")}
    model.train(bool(probabilities(model)))
    output = trace(
        model, **inputs, generator=np.random.default_rng(seed), names=[], **options
    ).output
    loss = 0.0
    if "output_grad" in arguments:
        main = output[0] if type(model) is GPT2Model else None
        if main is None:
            main = getattr(output, "logits", None)
            main = output.lm_logits if main is None else main
        loss += float((main * arguments["output_grad"]).sum())
    for name in ("loss", "lm_loss"):
        if "labels" in arguments and getattr(output, name, None) is not None:
            loss += float(getattr(output, name))
            break
    if "mc_labels" in arguments:
        loss += float(output.mc_loss)
    return loss


def difference(loss_at, step=1e-5):
    """The slope of a function of one number at 0, by Richardson's central differences."""
    near, far = (
        (loss_at(h) - loss_at(-h)) / (2 * h) for h in (step, 2 * step)
    )  # errors of h^2 and 4 h^2
    return (4 * near - far) / 3


@given(cases(smooth=True), st.data())
@many
def test_every_parameters_gradient_is_a_central_difference(case, data):
    model, arguments, seed = case
    loss, grads = gradients(model, arguments, seed)
    assert abs(loss - forward_loss(model, arguments, seed)) <= 1e-12 * max(1, abs(loss))
    state = {name: np.array(a) for name, a in model.state_dict().items()}
    name = data.draw(st.sampled_from(sorted(grads)))
    direction = np.random.default_rng(seed + 1).standard_normal(grads[name].shape)
    tied = {of: n for n, of in model.tied_parameters().items()}

    def loss_at(h):
        changed = {**state, name: state[name] + h * direction}
        if name in tied:
            changed[tied[name]] = changed[name]
        model.load_state_dict(changed)
        return forward_loss(model, arguments, seed)

    measured, expected = difference(loss_at), (grads[name] * direction).sum()
    scale = np.abs(grads[name] * direction).sum() + abs(loss) + 1e-3
    assert abs(measured - expected) <= 1e-7 * scale, name


@given(cases(smooth=True), st.data())
@many
def test_every_steps_gradient_is_a_central_difference(case, data):
    model, arguments, seed = case
    with_head = type(model) is not GPT2Model
    names = [step.name for step in steps_of(model.config.n_layer, with_head)]
    loss, grads = gradients(model, arguments, seed, wrt="*", parameters=())
    assert set(grads) <= set(names)
    assert [n for n in names if n in grads] == list(grads)
    wanted = data.draw(st.sampled_from(list(grads)))
    whole = trace(
        model,
        **{n: a for n, a in arguments.items() if n != "output_grad"},
        generator=np.random.default_rng(seed),
    )
    # Every step that the pass had has its gradient, but for a loss that was not asked.
    assert set(whole) - set(grads) <= {"lm_head", "multiple_choice_head"}
    for name in grads:
        assert grads[name].shape == whole[name].shape, name
    step, gradient = whole[wanted], grads[wanted]
    assert gradient.shape == step.shape
    if wanted.endswith("loss"):
        assert gradient == 1.0
        return
    direction = np.random.default_rng(seed + 1).standard_normal(step.shape)

    def loss_at(h):
        edit = {wanted: step + h * direction}
        return forward_loss(model, arguments, seed, edit=edit)

    measured, expected = difference(loss_at), (gradient * direction).sum()
    scale = np.abs(gradient * direction).sum() + abs(loss) + 1e-3
    assert abs(measured - expected) <= 1e-7 * scale, wanted


# What else is promised


@given(cases())
@few
def test_recomputing_gives_the_same_bits(case):
    model, arguments, seed = case
    loss, grads = gradients(model, arguments, seed)
    again, grads_again = gradients(model, arguments, seed, recompute=True)
    assert loss == again
    assert list(grads) == list(grads_again)
    for name in grads:
        assert grads[name].tobytes() == grads_again[name].tobytes(), name


@pytest.mark.parametrize("drops", [0.0, 0.3])
def test_a_compiled_forward_pass_gives_the_same_gradients_within_float32(drops):
    pytest.importorskip("numba")
    fields = {"embd_pdrop": drops, "attn_pdrop": drops, "resid_pdrop": drops}
    ids = random_ids((2, 9), TINY["vocab_size"], 1)
    results = {}
    for backend, dtype in (
        ("numpy", np.float64), ("numpy", np.float32), ("numba", np.float32)
    ):  # fmt: skip
        model = tiny(dtype=dtype, backend=backend, **fields)
        # Drawn in float32, whatever the model: float64 would draw other numbers.
        generator = np.random.default_rng(3)
        if drops and dtype == np.float64:
            continue
        model.train(bool(drops))
        results[backend, dtype] = loss_and_grads(model, ids, ids, generator=generator)
    _, expected = next(iter(results.values()))
    for (_, dtype), (loss, grads) in results.items():
        assert loss.dtype == dtype
        for name, gradient in grads.items():
            assert gradient.dtype == dtype
            assert_close(gradient, expected[name], 2e-5, name)


def test_float32_stays_float32_with_every_option():
    model = tiny(GPT2DoubleHeadsModel, np.float32, attn_pdrop=0.1).train()
    ids = random_ids((2, 2, 5), TINY["vocab_size"], 1)
    loss, grads = loss_and_grads(
        model,
        ids,
        ids,
        mc_labels=[0, 1],
        head_mask=[1.0, 0.5, 0.0],
        generator=np.random.default_rng(0),
        wrt="*",
    )
    assert {a.dtype for a in grads.values()} == {loss.dtype} == {np.dtype(np.float32)}


def test_the_loss_is_the_forward_passs_and_nothing_of_the_model_changes():
    model = tiny(dtype=np.float32)
    before = {name: a.copy() for name, a in model.state_dict().items()}
    ids = random_ids((2, 6), TINY["vocab_size"], 1)
    loss, _ = loss_and_grads(model, ids, ids)
    assert abs(loss - model(ids, labels=ids).loss) <= 1e-6
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_head_in_chunks_gives_the_same_gradients(monkeypatch):
    from minigpt2.training import gradients as module

    model, ids = tiny(), random_ids((2, 6), TINY["vocab_size"], 1)
    labels = np.where(ids % 3, ids, -100)
    loss, grads = loss_and_grads(model, ids, labels, wrt="lm_head")
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 3 * TINY["vocab_size"])
    again, chunked = loss_and_grads(model, ids, labels, wrt="lm_head")
    assert abs(loss - again) <= 1e-14
    for name in grads:
        assert_close(chunked[name], grads[name], 1e-13, name)


@pytest.mark.parametrize(("index", "position"), [((0, 3, 5), 3), ((1, 0, 2), 0)])
def test_one_logits_gradient_reaches_no_later_position(index, position):
    model, ids = tiny(), random_ids((2, 6), TINY["vocab_size"], 1)
    one = np.zeros((2, 6, TINY["vocab_size"]))
    one[index] = 1.0
    loss, grads = loss_and_grads(
        model, ids, output_grad=one, wrt=["wte", "h.0"], parameters=()
    )
    assert loss == pytest.approx(model(ids).logits[index], rel=1e-12)
    assert list(grads) == ["transformer.wte", "transformer.h.0"]
    for gradient in grads.values():
        seen = np.abs(gradient).max(axis=-1) > 0
        expected = np.zeros((2, 6), bool)
        expected[index[0], : position + 1] = True
        np.testing.assert_array_equal(seen, expected)


def test_gradients_by_inputs_embeds_are_those_by_the_embeddings_of_ids():
    model, ids = tiny(), random_ids((2, 6), TINY["vocab_size"], 1)
    embeds = model.state_dict()["transformer.wte.weight"][ids]
    loss, grads = loss_and_grads(model, ids, ids, wrt="wte", parameters="*wpe*")
    again, same = loss_and_grads(
        model, inputs_embeds=embeds, labels=ids, wrt="wte", parameters="*wpe*"
    )
    assert loss == again
    assert list(grads) == ["transformer.wpe.weight", "transformer.wte"]
    for name in grads:
        np.testing.assert_array_equal(grads[name], same[name])


def test_a_single_position_has_no_loss():
    loss, grads = loss_and_grads(tiny(), [[1]], [[1]], wrt="lm_head")
    assert np.isnan(loss)
    assert grads["lm_head"].shape == (1, 1, TINY["vocab_size"])


def test_a_loss_of_no_labels_is_nan_and_changes_nothing_as_in_torch():
    model, ids = tiny(), random_ids((1, 4), TINY["vocab_size"], 1)
    loss, grads = loss_and_grads(model, ids, np.full((1, 4), -100))
    assert np.isnan(loss)
    assert not any(gradient.any() for gradient in grads.values())


@pytest.mark.parametrize("cls", [GPT2Model, GPT2LMHeadModel])
def test_attention_computed_in_float32_goes_back_in_float32(cls):
    model = tiny(cls, reorder_and_upcast_attn=True)
    plain = tiny(cls)
    ids = random_ids((2, 5), TINY["vocab_size"], 1)
    goal = {"labels": ids}
    if cls is GPT2Model:
        goal = {"output_grad": np.random.default_rng(0).random((2, 5, 12))}
    _, grads = loss_and_grads(model, ids, **goal)
    _, expected = loss_and_grads(plain, ids, **goal)
    for name in grads:
        assert grads[name].dtype == np.float64
        assert_close(grads[name], expected[name], 1e-5, name)


def test_pruned_heads_go_back_as_heads_that_were_masked():
    ids = random_ids((2, 6), TINY["vocab_size"], 1)
    pruned, whole = tiny(), tiny()
    pruned.prune_heads({0: [1]})
    mask = np.ones((2, 3))
    mask[0, 1] = 0
    loss, grads = loss_and_grads(pruned, ids, ids)
    again, expected = loss_and_grads(whole, ids, ids, head_mask=mask)
    assert abs(loss - again) <= 1e-13
    for name in grads:
        if ".h.0.attn." not in name or name.endswith("c_proj.bias"):
            assert_close(grads[name], expected[name], 1e-12, name)


# bfloat16 multiplies with these numbers; int8 rounds the other factor too.
@pytest.mark.parametrize(("weights", "tolerance"), [("bfloat16", 1e-5), ("int8", 0.05)])
def test_quantized_models_have_the_gradients_of_their_numbers(weights, tolerance):
    ids = random_ids((2, 6), TINY["vocab_size"], 1)
    quantized = tiny(dtype=np.float32).with_weights(weights)
    plain = tiny(dtype=np.float32)
    plain.load_state_dict(quantized.state_dict())
    _, grads = loss_and_grads(quantized, ids, ids)
    _, expected = loss_and_grads(plain, ids, ids)
    for name in grads:
        assert_close(grads[name], expected[name], tolerance, name)


def test_threads_go_back_through_one_model_at_once():
    model = tiny(attn_pdrop=0.2).train()
    ids = [random_ids((2, 6), TINY["vocab_size"], i) for i in range(8)]

    def back(i):
        return loss_and_grads(model, ids[i], ids[i], generator=np.random.default_rng(i))

    expected = [back(i) for i in range(8)]
    found = [None] * 8
    workers = [
        threading.Thread(target=lambda i=i: found.__setitem__(i, back(i)))
        for i in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for (loss, grads), (again, same) in zip(expected, found):
        assert loss == again
        assert all(grads[name].tobytes() == same[name].tobytes() for name in grads)


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (GPT2Model, {}, "goes back from output_grad"),
        (GPT2Model, {"labels": [[1, 2]]}, "has no labels"),
        (GPT2LMHeadModel, {}, "goes back from labels or output_grad"),
        (GPT2LMHeadModel, {"mc_labels": [1]}, "has no mc_labels"),
        (GPT2LMHeadModel, {"labels": [[1]]}, "labels have shape"),
        (GPT2LMHeadModel, {"labels": [[1, 99]]}, "label 99 is outside"),
        (GPT2LMHeadModel, {"output_grad": [1.0]}, "output_grad has shape"),
        (
            GPT2LMHeadModel,
            {"labels": [[1, 2]], "output_grad": np.ones((1, 2, 13))},
            "two goals",
        ),
        (GPT2LMHeadModel, {"labels": [[1, 2]], "wrt": "h.9"}, "no step 'h.9'"),
        (
            GPT2LMHeadModel,
            {"labels": [[1, 2]], "wrt": ["wte.types", "wte"]},
            "no step 'wte.types' to go back to",
        ),
        (
            GPT2LMHeadModel,
            {"labels": [[1, 2]], "parameters": "lm_tail.*"},
            "no parameter 'lm_tail",
        ),
    ],
)
def test_what_can_not_be_gone_back_from_is_said(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        loss_and_grads(tiny(cls), [[1, 2]], **arguments)


def test_other_models_and_a_missing_generator_are_refused():
    other = GPT2ForSequenceClassification(GPT2Config(**TINY))
    with pytest.raises(TypeError, match="give that as output_grad"):
        loss_and_grads(other, [[1, 2]], [0])
    with pytest.raises(ValueError, match="needs generator"):
        loss_and_grads(tiny().train(), [[1, 2]], [[1, 2]])


def test_recomputing_takes_less_memory():
    import tracemalloc

    fields = {"n_layer": 6, "n_embd": 48, "n_positions": 64}
    model = tiny(dtype=np.float32, **fields)
    ids = random_ids((8, 64), TINY["vocab_size"], 1)

    def peak(**options):
        tracemalloc.start()
        loss_and_grads(model, ids, ids, parameters=(), **options)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    token, tokens = 48 * 4, 8 * 64  # bytes of C numbers
    kept, less = peak(), peak(recompute=True)
    # 10 C a token and layer, and 1 C; each and a block's work of at most 40 C.
    assert less <= (6 + 40) * token * tokens
    assert kept <= (6 * 10 + 40) * token * tokens
