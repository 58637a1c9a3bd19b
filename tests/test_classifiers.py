"""The other heads against transformers: logits, losses, and files both ways."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import random_ids, random_values

from minigpt2 import (
    CheckpointError,
    GPT2Config,
    GPT2ForQuestionAnswering,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
)

HEADS = (
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2ForQuestionAnswering,
)
SIZES = {
    "vocab_size": 23,
    "n_positions": 12,
    "n_embd": 12,
    "n_layer": 2,
    "n_head": 3,
    "pad_token_id": 22,
    "bos_token_id": 22,
    "eos_token_id": 22,
}
many = settings(max_examples=25, deadline=None, derandomize=True)


def model_of(head, dtype=np.float64, **fields):
    model = head(GPT2Config(**{**SIZES, **fields}), dtype=dtype)
    state = {
        name: random_values(array.shape, 7, i) + (".ln_" in name and "weight" in name)
        for i, (name, array) in enumerate(model.state_dict().items())
    }
    model.load_state_dict(state)
    return model


def twin(model):
    """The same model in transformers."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    fields = {
        name: value
        for name, value in model.config.to_dict().items()
        if name not in ("num_labels", "pruned_heads", "model_type")
    }
    labels = {"num_labels": model.config.num_labels}
    config = transformers.GPT2Config(**fields, **labels, attn_implementation="eager")
    theirs = getattr(transformers, type(model).__name__)(config).double().eval()
    state = {n: torch.from_numpy(a.copy()) for n, a in model.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [name for name in missing if not name.endswith("attn.bias")]
    return theirs


def both(model, **arguments):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.as_tensor(value) for name, value in arguments.items()}
    with torch.no_grad():
        theirs = twin(model)(**tensors)
    return model(**arguments), theirs


def same(ours, theirs):
    # float64: 1e-12 of the largest value
    theirs = theirs.numpy()
    np.testing.assert_allclose(
        ours, theirs, rtol=0, atol=1e-12 * max(1, np.abs(theirs).max())
    )


def padded_ids(data, batch, length):
    """Rows with padding on a side of their own, none of it all padding."""
    ids = random_ids((batch, length), 22, data.draw(st.integers(0, 1000)))
    for row in ids:
        padding = data.draw(st.integers(0, length - 1))
        if padding and data.draw(st.booleans()):
            row[:padding] = 22
        elif padding:
            row[-padding:] = 22
    return ids


@pytest.mark.peers
@many
@given(st.data())
def test_sequence_classification_is_transformers(data):
    batch, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    num_labels = data.draw(st.integers(1, 4))
    kinds = ["regression"]
    if num_labels > 1:
        kinds += ["single_label_classification", "multi_label_classification"]
    problem = data.draw(st.sampled_from([None, *kinds]))
    chosen = problem or data.draw(st.sampled_from(kinds[1:] or kinds))
    model = model_of(
        GPT2ForSequenceClassification, num_labels=num_labels, problem_type=problem
    )
    ids = padded_ids(data, batch, length)
    seed = data.draw(st.integers(0, 1000))
    if chosen == "single_label_classification":
        labels = random_ids((batch,), num_labels, seed)
    elif chosen == "regression":
        shape = (batch,) if num_labels == 1 else (batch, num_labels)
        labels = random_values(shape, seed)
    else:
        labels = random_ids((batch, num_labels), 2, seed).astype(float)
    ours, theirs = both(model, input_ids=ids, labels=labels)
    same(ours.logits, theirs.logits)
    same(ours.loss, theirs.loss)
    assert model.config.problem_type == problem  # nothing changes on the model


@pytest.mark.peers
@many
@given(st.data())
def test_token_classification_is_transformers(data):
    batch, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    num_labels = data.draw(st.integers(2, 4))
    model = model_of(GPT2ForTokenClassification, num_labels=num_labels)
    ids = random_ids((batch, length), 23, data.draw(st.integers(0, 1000)))
    labels = random_ids((batch, length), num_labels, data.draw(st.integers(0, 1000)))
    labels[0, 1:] = -100
    ours, theirs = both(model, input_ids=ids, labels=labels)
    same(ours.logits, theirs.logits)
    same(ours.loss, theirs.loss)


@pytest.mark.peers
@many
@given(st.data())
def test_question_answering_is_transformers(data):
    batch, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    model = model_of(GPT2ForQuestionAnswering)
    ids = random_ids((batch, length), 23, data.draw(st.integers(0, 1000)))
    starts = random_ids((batch,), length + 3, data.draw(st.integers(0, 1000)))
    ends = random_ids((batch,), length + 3, data.draw(st.integers(0, 1000)))
    starts[0] = ends[0] = 0  # some position counts
    ours, theirs = both(
        model, input_ids=ids, start_positions=starts, end_positions=ends[:, None]
    )
    same(ours.start_logits, theirs.start_logits)
    same(ours.end_logits, theirs.end_logits)
    same(ours.loss, theirs.loss)


@pytest.mark.parametrize("head", HEADS)
def test_folders_come_back_and_plain_gpt2_gets_a_fresh_head(head, tmp_path):
    model = model_of(head, np.float32, num_labels=3)
    model.save_pretrained(tmp_path / "own")
    again = head.from_pretrained(tmp_path / "own")
    ids = random_ids((1, 5), 22, 1)
    for mine, other in zip(model(ids).to_tuple(), again(ids).to_tuple()):
        if isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, other)
    GPT2LMHeadModel(GPT2Config(**SIZES)).save_pretrained(tmp_path / "lm")
    with pytest.warns(UserWarning, match="freshly drawn"):
        head.from_pretrained(tmp_path / "lm", num_labels=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fewer = {"num_labels": 2}
        if head is not GPT2ForQuestionAnswering:
            with pytest.raises(CheckpointError, match="has shape"):
                head.from_pretrained(tmp_path / "own", **fewer)


@pytest.mark.peers
@pytest.mark.parametrize("head", HEADS)
def test_transformers_reads_the_folders_and_its_folders_are_read(head, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model = model_of(head, np.float32, num_labels=2)
    model.save_pretrained(tmp_path / "ours")
    theirs = getattr(transformers, head.__name__).from_pretrained(tmp_path / "ours")
    ids = random_ids((1, 5), 22, 1)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(ids))
    theirs.save_pretrained(tmp_path / "theirs")
    for loaded in (model, head.from_pretrained(tmp_path / "theirs", num_labels=2)):
        for name in ("logits", "start_logits"):
            if name in expected:
                np.testing.assert_allclose(
                    loaded(ids)[name], expected[name].numpy(), atol=1e-5
                )


def test_what_does_not_fit_is_said():
    model = model_of(GPT2ForSequenceClassification, num_labels=2, pad_token_id=None)
    with pytest.raises(ValueError, match=r"2 rows need a config\.pad_token_id"):
        model([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match=r"labels have shape \(3,\)"):
        model([[1, 2]], labels=[0, 1, 1])
    with pytest.raises(ValueError, match="label 2 is outside 0 to 1"):
        model([[1, 2]], labels=[2])
    with pytest.raises(ValueError, match="problem_type is 'ranking'"):
        model_of(GPT2ForSequenceClassification, num_labels=2, problem_type="ranking")(
            [[1, 2]], labels=[[0.0, 1.0]]
        )
    answering = model_of(GPT2ForQuestionAnswering)
    with pytest.raises(ValueError, match="start_positions holds -1"):
        answering([[1, 2]], start_positions=[-1], end_positions=[0])


def test_dropout_of_the_token_head_is_drawn_from_the_callers_generator():
    model = model_of(GPT2ForTokenClassification, classifier_dropout=0.5).train()
    ids = [[1, 2, 3]]
    runs = [model(ids, generator=np.random.default_rng(s)).logits for s in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()
    with pytest.raises(ValueError, match="needs generator"):
        model(ids)
