import json
import math
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import AddedToken, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer
from minigpt2.cli import main
from minigpt2.commands.score import parts_of
from minigpt2.tasks.score import (
    TextScore,
    iter_ids,
    iter_log_probs,
    log_probs_of,
    score_text,
    token_log_probs,
)

FOLDER = Path(__file__).parent / "data" / "score"
EXPECTED = json.loads((FOLDER / "expected.json").read_text("utf-8"))
TEXT = (FOLDER / "sonnets.txt").read_bytes().decode("utf-8")
MODEL = "shakespeare-1m"
CASES = {f"{case['window']}, {case['stride']}": case for case in EXPECTED["cases"]}


@pytest.fixture(scope="module")
def tokenizer():
    return GPT2Tokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def exact():
    return GPT2LMHeadModel.from_pretrained(MODEL, dtype=np.float64)


@pytest.fixture(scope="module")
def tiny():
    config = GPT2Config(vocab_size=60, n_positions=20, n_layer=1, n_embd=4, n_head=1)
    return GPT2LMHeadModel(config)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_each_window_scores_what_transformers_recipe_does(exact, tokenizer, case):
    windows = iter_log_probs(exact, tokenizer, TEXT, case["window"], case["stride"])
    found = [log_probs for _, _, log_probs in windows]
    assert [len(log_probs) for log_probs in found] == case["scored"]
    losses = [-log_probs.mean() for log_probs in found]
    # Both are float64, and differ in the order of their sums.
    np.testing.assert_allclose(losses, case["losses"], rtol=1e-11)

    # The recipe weighs each window by a number one below that of the ids in it that are
    # no label -100: only in the first window is that the number of ids that count.
    overlap = case["stride"] < case["window"]
    weights = [
        count - (overlap and number > 0) for number, count in enumerate(case["scored"])
    ]
    recipe = math.exp(np.average(losses, weights=weights))
    assert recipe == pytest.approx(case["recipe"], rel=1e-11)


def test_perplexity_is_transformers_where_windows_do_not_overlap(exact, tokenizer):
    found = score_text(exact, tokenizer, TEXT, stride=256)
    assert found.perplexity == pytest.approx(CASES["256, 256"]["recipe"], rel=1e-11)


@pytest.mark.parametrize(("dtype", "atol"), [("float64", 1e-11), ("float32", 3e-5)])
def test_every_ids_log_probability_is_transformers(tokenizer, dtype, atol):
    # float32: logits of magnitude 10 through four layers, 1e-6 of that at each.
    model = GPT2LMHeadModel.from_pretrained(MODEL, dtype=np.dtype(dtype))
    windows = list(iter_log_probs(model, tokenizer, TEXT, 64, 16))
    ids = np.concatenate([ids for _, ids, _ in windows])
    assert ids.tolist() == EXPECTED["ids"][1:]
    found = np.concatenate([log_probs for _, _, log_probs in windows])
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, CASES["64, 16"]["log_probs"], rtol=0, atol=atol)


def test_positions_count_every_id_once(exact):
    windows = list(token_log_probs(exact, iter(range(100)), 16, 5))
    positions = [p + i for p, ids, _ in windows for i in range(len(ids))]
    assert positions == list(range(1, 100))
    assert [id for _, ids, _ in windows for id in ids] == positions


@given(length=st.integers(0, 60), window=st.integers(2, 20), stride=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_windows_are_those_of_a_plain_loop(tiny, length, window, stride):
    stride = min(stride, window)
    expected, previous_end = [], 0
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        expected += range(max(previous_end, begin + 1), end)
        previous_end = end
        if end == length:
            break
    windows = token_log_probs(tiny, range(length), window, stride)
    assert [id for _, ids, _ in windows for id in ids] == expected


@given(
    length=st.integers(0, 60),
    window=st.integers(2, 20),
    stride=st.integers(1, 20),
    start=st.integers(0, 60),
)
@settings(max_examples=60, deadline=None)
def test_a_start_leaves_out_what_comes_before_it(tiny, length, window, stride, start):
    stride = min(stride, window)
    found = []
    for first in (1, start):
        parts = token_log_probs(tiny, range(length), window, stride, start=first)
        found.append([pair for p in parts for pair in zip(p.ids, p.log_probs)])
    every, some = found
    expected = [(id, log_prob) for id, log_prob in every if id >= start]
    # The sums of fewer rows may be in another order.
    np.testing.assert_allclose(some, expected, rtol=1e-5)


def test_the_windows_before_a_start_are_not_computed(exact, monkeypatch):
    read = []
    forward = exact.transformer.forward

    def counted(ids, **options):
        read.append(ids.shape[1])
        return forward(ids, **options)

    monkeypatch.setattr(exact.transformer, "forward", counted)
    (part,) = token_log_probs(exact, range(100), 16, 8, start=98)
    assert (part.position, part.ids.tolist(), read) == (98, [98, 99], [11])


@given(
    seed=st.integers(0, 2**32),
    scale=st.floats(0, 3e4),
    shape=st.sampled_from([(5,), (3, 4), (2, 3, 4)]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_log_probs_of_ids_are_log_softmax_at_them(seed, scale, shape, dtype):
    draw = np.random.default_rng(seed)
    logits = (scale * draw.standard_normal(shape)).astype(dtype)
    ids = draw.integers(0, shape[-1], shape[:-1])
    found = log_probs_of(logits, ids)
    assert (found.dtype, found.shape) == (np.float64, shape[:-1])
    # By the definition, in Python's floats: a row at a time, and its largest logit out.
    rows = logits.astype(np.float64).reshape(-1, shape[-1]).tolist()
    expected = [
        row[id] - max(row) - math.log(math.fsum(math.exp(x - max(row)) for x in row))
        for row, id in zip(rows, ids.ravel().tolist())
    ]
    rtol = np.finfo(dtype).eps
    np.testing.assert_allclose(found.ravel(), expected, rtol=rtol, atol=8 * rtol)


def test_bos_scores_the_first_id_too(exact, tokenizer):
    without, with_bos = (
        score_text(exact, tokenizer, TEXT, bos=bos) for bos in (False, True)
    )
    assert with_bos.tokens == without.tokens + 1 == len(EXPECTED["ids"])
    assert with_bos.bytes == len(TEXT.encode())
    assert with_bos.characters == len(TEXT)


def test_bits_are_nats_by_bytes_and_characters():
    found = TextScore(tokens=2, bytes=4, characters=3, nats=6 * math.log(2))
    assert found.bits_per_byte == pytest.approx(1.5)
    assert found.bits_per_character == pytest.approx(2.0)
    assert found.loss == pytest.approx(3 * math.log(2))
    assert found.perplexity == pytest.approx(8.0)
    assert found + found == TextScore(4, 8, 6, 12 * math.log(2))


def test_a_text_longer_than_the_model_takes_is_no_reason_to_warn(tokenizer, caplog):
    assert len(list(iter_ids(tokenizer, [TEXT]))) > tokenizer.model_max_length
    assert caplog.records == []


def test_nothing_scored_has_no_perplexity():
    assert math.isnan(TextScore().perplexity)
    assert math.isnan(TextScore().bits_per_byte)
    assert TextScore(tokens=1, nats=1e6).perplexity == math.inf


@given(
    parts=st.lists(st.text(st.sampled_from("ab'l  \n\t\x1c\x85é1!<|>日"), max_size=12)),
    prefix=st.booleans(),
)
@settings(deadline=None)
def test_a_text_in_parts_has_the_ids_of_the_whole(parts, prefix):
    tokenizer = GPT2Tokenizer.from_pretrained(MODEL, add_prefix_space=prefix)
    whole = "".join(parts)
    assert list(iter_ids(tokenizer, parts)) == tokenizer.encode(whole)
    assert tokenizer.add_prefix_space == prefix


ADDED = st.builds(
    AddedToken,
    st.sampled_from(["New York", "<x>", "York", " b", "b ", "\n\n", "a b", "<|", "w"]),
    single_word=st.booleans(),
    lstrip=st.booleans(),
    rstrip=st.booleans(),
    normalized=st.booleans(),
    special=st.booleans(),
)


@given(
    added=st.lists(ADDED, max_size=4, unique_by=str),
    parts=st.lists(
        st.text(st.sampled_from("ab \n\x85'"))
        | st.sampled_from(
            ["New", " York", "York ", "<x>", "New York", "<|endoftext|>", " a b", "w"]
        ),
        max_size=12,
    ),
    prefix=st.booleans(),
    bos=st.booleans(),
    eos=st.booleans(),
    split=st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_whatever_the_added_tokens_a_text_in_parts_has_the_ids_of_the_whole(
    added, parts, prefix, bos, eos, split
):
    tokenizer = GPT2Tokenizer.from_pretrained(
        MODEL,
        add_prefix_space=prefix,
        add_bos_token=bos,
        add_eos_token=eos,
        split_special_tokens=split,
    )
    tokenizer.add_tokens(added)
    whole = "".join(parts)
    assert list(iter_ids(tokenizer, parts)) == tokenizer.encode(whole)


def test_a_text_is_cut_beside_added_tokens_too(tokenizer, monkeypatch):
    monkeypatch.setattr("minigpt2.tasks.score.LONGEST_WORD", 100)
    text = "one <|endoftext|> two <|endoftext|>\n" * 50
    assert list(iter_ids(tokenizer, text)) == tokenizer.encode(text, verbose=False)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_special_tokens_may_be_cut_anywhere(tokenizer, size):
    whole = "One.<|endoftext|>\nTwo <|endoftext|> three"
    parts = [whole[i : i + size] for i in range(0, len(whole), size)]
    assert list(iter_ids(tokenizer, parts)) == tokenizer.encode(whole)


def test_memory_is_bounded_on_a_long_text(tokenizer):
    def text():
        for _ in range(200):
            yield "The same words again and again, " * 100

    tracemalloc.start()
    count = sum(1 for _ in iter_ids(tokenizer, text()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > 140_000
    assert peak < 1_000_000  # a list of the ids alone has 1.1 MB


def test_endless_characters_without_a_space_are_refused(tokenizer, monkeypatch):
    monkeypatch.setattr("minigpt2.tasks.score.LONGEST_WORD", 1000)
    with pytest.raises(ValueError, match="characters without a space"):
        list(iter_ids(tokenizer, iter(lambda: "x" * 64, None)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"window": 257}, "window=257: this model takes 2 to 256"),
        ({"window": 1}, "window=1"),
        ({"stride": 0}, "stride=0 must be 1 to window, 256"),
        ({"window": 10, "stride": 11}, "stride=11 must be 1 to window, 10"),
    ],
)
def test_windows_that_cannot_be_are_refused(exact, tokenizer, options, says):
    with pytest.raises(ValueError, match=says):
        score_text(exact, tokenizer, TEXT, **options)


def test_the_command_prints_a_line_a_file_and_one_for_all(
    tmp_path, capsys, monkeypatch
):
    (tmp_path / "one").write_text("To be, or not to be.\n")
    (tmp_path / "two").write_text("Friends, Romans, countrymen.\n")
    monkeypatch.chdir(tmp_path)  # short names stand in their lines
    assert main(["score", "--bos", "one", "two"]) == 0
    out, err = capsys.readouterr()
    header, one, two, together = out.splitlines()
    assert header.split() == [
        *"tokens bytes characters loss perplexity bits/byte bits/char file".split()
    ]
    assert one.split()[1:3] == ["21", "21"]
    assert together.split()[1] == str(21 + 29)
    assert err == ""  # no progress in a pipe


def test_the_command_prints_each_token(tmp_path, capsys, tokenizer, exact):
    path = tmp_path / "text"
    path.write_bytes("A café.\r\n".encode())  # line ends are kept
    assert main(["score", "--tokens", "--bos", str(path)]) == 0
    out, err = capsys.readouterr()
    lines = [line.split("\t") for line in out.splitlines()]
    ids = tokenizer.encode("A café.\r\n")
    assert [int(id) for _, id, _, _ in lines] == ids
    assert [int(position) for position, *_ in lines] == list(range(1, len(ids) + 1))
    ((_, _, expected),) = iter_log_probs(exact, tokenizer, "A café.\r\n", bos=True)
    found = [float(log_prob) for _, _, log_prob, _ in lines]
    np.testing.assert_allclose(found, expected, atol=3e-5)
    assert "perplexity" in err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "nothing to score"),
        (b"a", "nothing to score"),
        (b"ab\xff", "is no UTF-8 text: invalid start byte at byte 2"),
    ],
)
def test_what_is_no_text_is_an_error_of_one_line(tmp_path, capsys, content, says):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert main(["score", str(path)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert str(path) in error
    assert re.search(says, error)


@pytest.mark.parametrize("tail", ["é".encode()[:1], b"\xff"])
def test_the_place_of_a_bad_byte_is_that_in_the_file(tmp_path, tail):
    path = tmp_path / "file"
    path.write_bytes("日本 ".encode() * 5000 + tail)  # parts end within characters
    with pytest.raises(ValueError, match="at byte 35000"):
        list(parts_of(path))
    path.write_bytes("日本 ".encode() * 5000)
    assert "".join(parts_of(path)) == "日本 " * 5000


def test_the_table_fits_80_columns_and_json_has_all_of_it(tmp_path, capsys):
    path = tmp_path / ("long" * 20)
    path.write_text("\ufeffTo be, or not to be.\n", encoding="utf-8")
    assert main(["score", "--bos", str(path), str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if str(path) not in line) <= 80
    assert lines[-1].split()[-1] == "together"
    assert main(["score", "--bos", "--json", str(path)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["bytes"], result["file"]) == (21, str(path))  # no byte order mark
    assert result["perplexity"] == pytest.approx(math.exp(result["loss"]))


def test_standard_input_is_a_file_too():
    command = [sys.executable, "-m", "minigpt2", "score", "-"]
    done = subprocess.run(
        command, input=b"To be or not", capture_output=True, check=True
    )
    assert done.stdout.splitlines()[1].split()[-1] == b"-"
    assert done.stderr == b""


@pytest.mark.peers
@pytest.mark.parametrize(("window", "stride"), [(256, 256), (128, 64), (50, 13)])
def test_transformers_recipe_run_now(tokenizer, window, stride):
    """The recipe as the documentation has it, in float32."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from minigpt2.hub import DATA

    model = GPT2LMHeadModel.from_pretrained(MODEL)
    found = [
        -lp.mean()
        for _, _, lp in iter_log_probs(model, tokenizer, TEXT, window, stride)
    ]
    theirs = transformers.GPT2LMHeadModel.from_pretrained(
        DATA / MODEL, dtype=torch.float32
    ).eval()
    ids = torch.tensor([EXPECTED["ids"]])
    losses, previous_end = [], 0
    for begin in range(0, ids.shape[1], stride):
        end = min(begin + window, ids.shape[1])
        inputs = ids[:, begin:end]
        labels = inputs.clone()
        labels[:, : -(end - previous_end)] = -100
        with torch.no_grad():
            losses.append(theirs(inputs, labels=labels).loss.item())
        previous_end = end
        if end == ids.shape[1]:
            break
    np.testing.assert_allclose(found, losses, rtol=3e-6)  # a mean of float32 numbers
