"""The plugin as another project's tests have it, and the assertions that go with it."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.testing import (
    TINY_MODELS,
    assert_logits_close,
    assert_matches,
    tiny_inputs,
    tiny_model,
)
from minigpt2.tracing import Golden, make_golden, save_golden
from minigpt2.tracing.golden import that_count

ROOT = Path(__file__).parents[1]
MASK = tiny_inputs().attention_mask
OTHERS = """
import sys

def test_of_somebody_else():
    loaded = {name for name in sys.modules if name.startswith("minigpt2")}
    assert loaded == {"minigpt2", "minigpt2.pytest_plugin"}
    assert "numpy" not in sys.modules
"""
USERS = """
import numpy as np
import pytest

from minigpt2 import trace
from minigpt2.testing import assert_logits_close, assert_matches


def test_every_step(minigpt2_tiny_model, minigpt2_tiny_inputs, minigpt2_tiny_golden):
    golden = minigpt2_tiny_golden()
    assert golden is minigpt2_tiny_golden("tiny")
    mine = minigpt2_tiny_model(dtype=np.float64)
    assert_matches(golden, trace(mine, **minigpt2_tiny_inputs().arguments()))


def test_logits(minigpt2_tiny_golden):
    golden = minigpt2_tiny_golden("gelu", dtype="float64", names="lm_head")
    assert_logits_close(golden["logits"].astype(np.float32), golden["logits"])


def test_each(minigpt2_each_tiny_model, minigpt2_golden, tmp_path):
    assert minigpt2_each_tiny_model.config.n_positions == 24


def test_folder(minigpt2_tiny_folder):
    assert {"config.json", "model.safetensors"} <= {
        path.name for path in minigpt2_tiny_folder("untied").iterdir()
    }
    assert minigpt2_tiny_folder("untied") == minigpt2_tiny_folder("untied")
"""


def run_pytest(folder, program, *options):
    """Run pytest on a file in a folder, with the plugin and no other; return its output."""
    (folder / "test_it.py").write_text(program)
    command = [sys.executable, "-m", "pytest", "-p", "minigpt2.pytest_plugin", *options]
    return subprocess.run(
        [*command, "test_it.py"],
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )


def test_it_is_silent_and_imports_nothing_where_it_is_not_used(tmp_path):
    done = run_pytest(tmp_path, OTHERS, "-q", "-W", "error")
    assert done.returncode == 0, done.stdout
    assert "minigpt2" not in done.stdout
    assert not done.stderr


def test_a_users_tests_have_the_fixtures(tmp_path):
    done = run_pytest(tmp_path, USERS, "-q")
    assert done.returncode == 0, done.stdout
    assert f"{3 + len(TINY_MODELS)} passed" in done.stdout


def test_every_fixture_begins_with_our_name_and_says_what_it_is(tmp_path):
    listed = run_pytest(tmp_path, "", "--fixtures", "-q").stdout
    _, _, ours = listed.partition("fixtures defined from minigpt2.pytest_plugin")
    names = [line.split()[0] for line in ours.splitlines() if " -- " in line]
    assert len(names) == 6
    assert all(name.startswith("minigpt2_") for name in names)
    assert "no docstring available" not in ours


def test_the_entry_point_is_declared():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", "utf-8")
    declared = parser["options.entry_points"]["pytest11"].split()
    assert declared == ["minigpt2", "=", "minigpt2.pytest_plugin"]


# --- assert_matches


@pytest.fixture(scope="module")
def golden():
    return make_golden(tiny_model(), **tiny_inputs().arguments())


def exact():
    return make_golden(tiny_model(dtype=np.float64), **tiny_inputs().arguments()).steps


def test_an_honest_port_matches(golden, tmp_path):
    assert_matches(golden, exact())
    save_golden(tmp_path / "golden.npz", golden)
    np.savez(tmp_path / "theirs.npz", **exact())
    assert_matches(tmp_path / "golden.npz", str(tmp_path / "theirs.npz"))
    short = {n.removeprefix("transformer."): a for n, a in exact().items()}
    assert_matches(golden, {"h.1": short["h.1"], "of theirs alone": np.ones(3)})


def test_hidden_scores_may_have_any_number_that_softmax_makes_zero(golden):
    theirs = dict(exact())
    for name in theirs:
        if name.endswith("masked"):
            lowest = float(np.finfo(np.float32).min)
            theirs[name] = np.maximum(theirs[name], lowest)
    assert_matches(golden, theirs)
    name = "transformer.h.1.attn.masked"
    theirs[name] = np.where(np.isneginf(exact()[name]), 0.0, exact()[name])
    real = tiny_inputs().attention_mask[:, None, :, None] == 1
    hidden = (np.isneginf(exact()[name]) & real).sum()
    with pytest.raises(AssertionError, match=rf"attn\.masked: {hidden} of 648 numbers"):
        assert_matches(golden, theirs)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_one_wrong_number_is_named_with_its_place(golden, data):
    theirs = {name: np.array(array) for name, array in golden.steps.items()}
    name = data.draw(st.sampled_from(sorted(theirs)))
    array = theirs[name]
    places = np.argwhere(np.isfinite(array) & that_count(name, array.shape, MASK != 0))
    place = tuple(places[data.draw(st.integers(0, len(places) - 1))].tolist())
    array[place] += 1e-2 * max(1.0, np.abs(array[np.isfinite(array)]).max())
    with pytest.raises(AssertionError) as raised:
        assert_matches(golden, theirs)
    said = str(raised.value)
    assert said.startswith(f"{name}: 1 of {array.size} numbers differ by more than")
    assert f"the first is {list(place)}: " in said
    assert "minigpt2 golden diff" in said
    assert_matches(golden, theirs, rtol=1e-1)


def test_what_a_position_of_padding_gives_does_not_count(golden):
    theirs = {name: np.array(array) for name, array in golden.steps.items()}
    padding = MASK == 0
    theirs["lm_head"][padding] = 7.0
    theirs["transformer.h.1"][padding] = np.nan
    weights = theirs["transformer.h.2.attn.weights"]
    weights.swapaxes(1, 2)[padding] = 1 / 9
    scores = theirs["transformer.h.1.attn.scores"]
    scores.transpose(0, 3, 1, 2)[padding] = 0.0  # of a key that is padding
    assert_matches(golden, theirs)


def test_the_first_wrong_step_comes_first(golden):
    theirs = dict(golden.steps)
    theirs["lm_head"] = theirs["lm_head"] * np.nan
    theirs["transformer.h.1"] = theirs["transformer.h.1"][:, :, :-1]
    with pytest.raises(
        AssertionError, match=r"transformer\.h\.1: its shape is"
    ) as said:
        assert_matches(golden, theirs)
    assert "(1 more steps differ)" in str(said.value)
    with pytest.raises(
        AssertionError, match="no step in common: .* theirs are blocks.0"
    ):
        assert_matches(golden, {"blocks.0.hook_q": np.ones(3)})


def test_a_step_without_a_measured_tolerance_is_granted_rounding():
    golden = Golden({}, {"x": np.ones(4, np.float32)})
    assert_matches(golden, {"x": np.ones(4) + 1e-6})
    with pytest.raises(AssertionError, match="4 of 4 numbers differ"):
        assert_matches(golden, {"x": np.ones(4) + 1e-5})


# --- assert_logits_close

logits = st.lists(
    st.lists(st.integers(-50, 50), min_size=4, max_size=4), min_size=1, max_size=5
)


@given(expected=logits, noise=st.integers(0, 2**32))
def test_the_likeliest_id_counts_only_where_the_choice_is_clear(expected, noise):
    expected = np.array(expected, np.float64)
    expected[0, 0] = 100.0
    actual = expected + np.random.default_rng(noise).uniform(-1, 1, expected.shape)
    first, second = np.sort(expected, axis=-1)[:, :-3:-1].T
    flips = (actual.argmax(axis=-1) != expected.argmax(axis=-1)) & (first - second > 1)
    if flips.any():
        with pytest.raises(AssertionError, match="the likeliest id is"):
            assert_logits_close(actual, expected, rtol=1e-2)
    else:
        assert_logits_close(actual, expected, rtol=1e-2)


def test_ties_may_fall_either_way_and_clear_choices_may_not():
    expected = np.array([[100.0, 99.9999, 0.0]])
    assert_logits_close([[99.9999, 100.0, 0.0]], expected)
    with pytest.raises(
        AssertionError, match=r"at \[0\] the likeliest id is 1, and shoul"
    ):
        assert_logits_close([[99.0, 99.9999, 0.0]], expected, rtol=1e-7)
    with pytest.raises(
        AssertionError, match=r"1 of 3 logits differ by more than 0\.001"
    ):
        assert_logits_close([[100.0, 99.9999, 0.1]], expected)
    with pytest.raises(AssertionError, match="1 of 3 logits differ"):
        assert_logits_close([[100.0, 99.9999, np.nan]], expected)
    with pytest.raises(AssertionError, match=r"\(3,\) against \(1, 3\)"):
        assert_logits_close([1.0, 2.0, 3.0], expected)
