"""`minigpt2 generate` beyond one text: files of prompts, JSON, turns, stop strings."""

import io
import json
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import GPT2LMHeadModel, GPT2Tokenizer, hub, ops
from minigpt2.cli import main
from minigpt2.commands import prompts
from minigpt2.commands.generate import Turns, unescaped
from minigpt2.tokenizer import AddedToken


def run(capsys, *arguments):
    """Run the command in this process; return its exit code, output and errors."""
    code = main(["generate", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def typed(monkeypatch):
    """Make a text what the user types."""

    def type_in(text):
        file = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", file)

    return type_in


OPTIONS = ["--seed", "3", "--max-new-tokens", "6"]


def test_json_is_what_the_model_says(capsys):
    code, out, err = run(capsys, "ROMEO:", "--json", *OPTIONS)
    result = json.loads(out)
    assert (code, err) == (0, "")
    tokenizer = GPT2Tokenizer.from_pretrained("shakespeare-1m")
    model = GPT2LMHeadModel.from_pretrained("shakespeare-1m")
    ids = result["prompt_ids"] + result["ids"]
    assert tokenizer.encode("ROMEO:") == result["prompt_ids"]
    assert result["text"] == tokenizer.decode(ids) == "ROMEO:" + result["new_text"]
    again = model.generate(
        [result["prompt_ids"]], do_sample=True, temperature=0.8, top_k=40,
        max_new_tokens=6, seed=3,
    )  # fmt: skip
    assert again[0].tolist() == ids
    logs = ops.log_softmax(model([ids]).logits[0])[len(result["prompt_ids"]) - 1 : -1]
    expected = logs[np.arange(6), result["ids"]]
    np.testing.assert_allclose(result["logprobs"], expected, atol=2e-6)
    assert result["seconds"] > 0


def test_each_line_of_a_file_gets_what_it_gets_alone(capsys, tmp_path):
    prompts = ["ROMEO:", "To be, or not", "O"] * 4  # more than one batch
    plain, lines = tmp_path / "plain.txt", tmp_path / "lines.jsonl"
    plain.write_text("\n".join(prompts) + "\n\n")
    lines.write_text(
        "\n".join(
            json.dumps({"prompt": text} if i % 2 else text)
            for i, text in enumerate(prompts)
        )
    )
    code, out, _ = run(capsys, "--prompts", str(plain), "--json", *OPTIONS)
    assert code == 0
    results = [json.loads(line) for line in out.splitlines()]
    assert [result["prompt"] for result in results] == prompts
    assert [result["seed"] for result in results] == list(range(3, 15))
    for number in (0, 1, 11):
        alone = run(
            capsys, prompts[number], "--json", "--seed", str(3 + number),
            "--max-new-tokens", "6",
        )  # fmt: skip
        assert json.loads(alone[1])["ids"] == results[number]["ids"]
    texts = run(capsys, "--prompts", str(lines), *OPTIONS)[1].removesuffix("\n")
    assert texts.split("\n---\n") == [result["text"] for result in results]


def test_a_line_that_is_no_prompt_is_named(capsys, tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"prompt": "a"}\n{"text": "b"}\n')
    code, out, err = run(capsys, "--prompts", str(path))
    assert (code, out) == (1, "")
    assert 'line 2 is neither a JSON string nor {"prompt": "..."}' in err
    path.write_text("\n")
    assert "has no prompts" in run(capsys, "--prompts", str(path))[2]


def results_of(capsys, *arguments):
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


SAME = ("text", "new_text", "ids", "finish_reason", "prompt_ids")


@pytest.fixture
def two_ends(tmp_path):
    """A folder of the model in the package whose rows end with "," or "the"."""
    folder = tmp_path / "two-ends"
    shutil.copytree(hub.DATA / "shakespeare-1m", folder)
    config = json.loads((folder / "config.json").read_text())
    tokenizer = GPT2Tokenizer.from_pretrained("shakespeare-1m")
    ends = tokenizer.convert_tokens_to_ids([",", "Ġthe"])
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": ends}))
    return str(folder)


@pytest.mark.parametrize(
    "options",
    [
        ["--greedy", "--stop", ","],
        ["--seed", "5", "--stop", "e"],
        ["--num-beams", "3", "--max-new-tokens", "8"],
        ["--greedy"],
        ["--seed", "4", "--num-return-sequences", "2", "--max-new-tokens", "8"],
        ["--prompt-lookup-num-tokens", "3", "--greedy", "--max-new-tokens", "8"],
    ],
)
@pytest.mark.parametrize("ends", [1, 2])
def test_a_result_is_what_its_prompt_gives_alone(
    capsys, tmp_path, two_ends, options, ends
):
    """With other prompts beside it, also one that leaves 4 ids of the context."""
    tokenizer = GPT2Tokenizer.from_pretrained("shakespeare-1m")
    long = "the " * 300
    while len(tokenizer.encode(long, verbose=False)) > 248:
        long = long[4:]
    prompts = ["ROMEO:", "O, for a muse of fire", long, "KING"]
    file = tmp_path / "prompts"
    file.write_text("\n\n".join(prompts))
    options = [
        *options,
        "--json",
        "--model",
        two_ends if ends == 2 else "shakespeare-1m",
    ]
    together = results_of(capsys, "--prompts", str(file), *options)
    alone = []
    for i, prompt in enumerate(prompts):
        own = list(options)
        if "--seed" in own:
            place = own.index("--seed") + 1
            own[place] = str(int(own[place]) + 2 * i)  # blank lines count
        alone += results_of(capsys, prompt, *own)
    each = len(together) // len(prompts)
    assert [r["index"] for r in together] == [2 * (i // each) for i in range(4 * each)]
    for one, other in zip(together, alone):
        assert [one[key] for key in SAME] == [other[key] for key in SAME]
        assert len(one["logprobs"]) == len(one["ids"])
        assert one["text"] == one["prompt"] + one["new_text"]
    reasons = {result["finish_reason"] for result in together}
    if "--stop" in options and ends == 1:
        assert "stop_sequence" in reasons
    if ends == 2:
        assert "eos_token" in reasons


def test_a_line_that_is_too_long_is_named_before_any_is_continued(capsys, tmp_path):
    file = tmp_path / "prompts"
    file.write_text("a\n\n" + "the " * 400 + "\nb\n")
    code, out, err = run(capsys, "--prompts", str(file), "--greedy")
    assert (code, out) == (1, "")
    assert "line 3: the prompt has" in err
    code, out, err = run(
        capsys, "--prompts", str(file), "--greedy", "--max-new-tokens", "200"
    )
    assert (code, out) == (1, "")
    assert "line 3" in err


def test_lines_end_at_line_breaks_alone_and_a_byte_order_mark_is_no_text(tmp_path):
    odd = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g\rh"
    file = tmp_path / "prompts"
    file.write_bytes(f"\ufeff{odd}\r\n\nnext\n".encode())
    found = prompts.read_prompts(str(file))
    assert [(p.text, p.index, p.line) for p in found] == [(odd, 0, 1), ("next", 2, 3)]
    file.write_bytes(
        "\ufeff".encode() + json.dumps(odd, ensure_ascii=False).encode() + b"\n"
    )
    assert [p.text for p in prompts.read_prompts(str(file), "text")] == [
        file.read_text("utf-8-sig").removesuffix("\n")
    ]


def test_json_lines_may_hold_line_separators(tmp_path):
    file = tmp_path / "prompts"
    file.write_text('{"prompt": "a\u2028b\x85c"}\n"d"\n', encoding="utf-8")
    found = [p.text for p in prompts.read_prompts(str(file))]
    assert found == ["a\u2028b\x85c", "d"]


def test_a_text_that_begins_as_json_does_can_be_read(capsys, tmp_path):
    file = tmp_path / "prompts"
    file.write_text('"Speak," said he.\n{\n')
    code, _, err = run(capsys, "--prompts", str(file))
    assert code == 1
    assert "line 1 is neither" in err
    assert "give --format text" in err
    results = results_of(
        capsys, "--prompts", str(file), "--format", "text", "--json", *OPTIONS
    )
    assert [r["prompt"] for r in results] == ['"Speak," said he.', "{"]


def test_a_file_that_is_not_utf_8_is_named_with_its_line(capsys, tmp_path, monkeypatch):
    file = tmp_path / "prompts"
    file.write_bytes(b"a\nb\nc\xff\n")
    says = "is not UTF-8: invalid start byte in line 3 (the byte 0xff)"
    assert f"{file} {says}" in run(capsys, "--prompts", str(file))[2]
    stdin = io.TextIOWrapper(io.BytesIO(file.read_bytes()), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)
    assert f"standard input {says}" in run(capsys, "-")[2]


def test_every_key_of_a_json_line_is_used_or_refused(capsys, tmp_path):
    file = tmp_path / "prompts.jsonl"
    lines = [
        {"prompt": "O", "id": [7], "max_new_tokens": 3, "seed": 9},
        {"prompt": "O"},
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    one, two = results_of(capsys, "--prompts", str(file), "--json", *OPTIONS)
    assert (one["id"], one["seed"], len(one["ids"])) == ([7], 9, 3)
    assert (two["seed"], len(two["ids"])) == (4, 6)
    assert "id" not in two
    for wrong, says in [
        ({"stop": "x"}, "line 1 has the key 'stop'; the keys are 'prompt', 'id'"),
        ({"max_new_tokens": "3"}, "line 1: 'max_new_tokens' must be a whole number"),
        ({"seed": -1}, "line 1: 'seed' must be a whole number from 0 on"),
    ]:
        file.write_text(json.dumps({"prompt": "a", **wrong}))
        code, out, err = run(capsys, "--prompts", str(file))
        assert (code, out) == (1, "")
        assert says in err
        assert "--format" not in err


@pytest.mark.parametrize("prompt", ["O", "ROMEO:", "the " * 400])
def test_a_sliding_window_gives_as_many_log_probabilities_as_ids(capsys, prompt):
    (result,) = results_of(
        capsys, prompt, "--sliding-window", "50", "--max-new-tokens", "300",
        "--json", "--greedy",
    )  # fmt: skip
    assert len(result["ids"]) == len(result["logprobs"]) == 300


def test_an_escape_in_a_stop_string_is_a_line_break():
    typed = {r"\n": "\n", r"a\nb": "a\nb", r"\\n": r"\n", r"\t": r"\t", "\\": "\\"}
    assert {text: unescaped(text) for text in typed} == typed


def test_stop_at_a_line_break(capsys):
    (result,) = results_of(capsys, "ROMEO:", "--stop", r"\n", "--json", "--greedy")
    assert result["new_text"].endswith("\n")
    assert result["new_text"].count("\n") == 1


def test_streamed_text_is_that_of_json_whatever_the_tokenizer_cleans_up(
    capsys, tmp_path
):
    folder = tmp_path / "model"
    shutil.copytree(hub.DATA / "shakespeare-1m", folder)
    (folder / "tokenizer_config.json").write_text(
        '{"clean_up_tokenization_spaces": true}'
    )
    options = ["Hello , I 'm here .", "--model", str(folder), "--greedy"]
    (result,) = results_of(capsys, *options, "--json")
    assert run(capsys, *options)[1] == result["text"] + "\n"
    assert run(capsys, *options, "--new-text")[1] == result["new_text"] + "\n"
    assert result["text"].startswith("Hello , I 'm here .")


def test_an_assistant_model_and_a_backend_change_no_text(capsys):
    plain = run(capsys, "ROMEO:", "--greedy", "--max-new-tokens", "20")
    for more in (
        ["--assistant-model", "int8"],
        ["--assistant-model", "shakespeare-1m"],
        ["--backend", "numpy", "--threads", "1"],
    ):
        found = run(capsys, "ROMEO:", "--greedy", "--max-new-tokens", "20", *more)
        assert found[:2] == plain[:2]


def test_turns_begin_with_a_typed_text_where_none_is_given(capsys, typed):
    typed("To be\n")
    options = ["--interactive", "--greedy", "--max-new-tokens", "5"]
    code, out, err = run(capsys, *options)
    assert code == 0
    assert r"\n is a line break" in err
    typed("")
    assert out == run(capsys, "To be", *options)[1].removeprefix("To be")


def test_the_ids_of_turns_are_those_of_the_whole_text(capsys, typed, monkeypatch):
    """Also where a token stands across a turn's end."""
    read = []
    generate = GPT2LMHeadModel.generate

    def noted(self, ids, **options):
        out = generate(self, ids, **options)
        read.append((ids[0], out[0].tolist()))
        return out

    monkeypatch.setattr(GPT2LMHeadModel, "generate", noted)
    tokenizer = GPT2Tokenizer.from_pretrained("shakespeare-1m")
    typed("ing and\n  so\nth\n")
    code, _, _ = run(capsys, "I", "--interactive", "--greedy", "--max-new-tokens", "3")
    assert code == 0
    for (_, before), (after, _), line in zip(read, read[1:], ("ing and", "  so", "th")):
        assert after == tokenizer.encode(tokenizer.decode(before) + line)


TURNS = st.text(st.sampled_from("ab \n'"), max_size=4) | st.sampled_from(
    ["New", " York", "York ", "<x>", "New York", "<|endoftext|>", " a b", "w", "é"]
)
ADDED = st.builds(
    AddedToken,
    st.sampled_from(["New York", "<x>", "York", " b", "b ", "\n\n", "a b", "w"]),
    single_word=st.booleans(),
    lstrip=st.booleans(),
    rstrip=st.booleans(),
    normalized=st.booleans(),
)


@given(
    added=st.lists(ADDED, max_size=4, unique_by=str),
    first=TURNS.filter(bool),
    lines=st.lists(TURNS, max_size=4),
    flags=st.tuples(*[st.booleans()] * 4),
)
@settings(deadline=None, max_examples=200)
def test_whatever_the_tokenizer_turns_have_the_ids_of_the_whole(
    added, first, lines, flags
):
    names = (
        "add_prefix_space",
        "add_bos_token",
        "add_eos_token",
        "split_special_tokens",
    )
    tokenizer = GPT2Tokenizer.from_pretrained(
        "shakespeare-1m", **dict(zip(names, flags))
    )
    tokenizer.add_tokens(added)
    turns = Turns(tokenizer, first, tokenizer.encode(first))
    for line in lines:
        turns.typed(line)
    assert turns.ids == tokenizer.encode(first + "".join(lines))


def test_what_the_model_wrote_is_kept():
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2", split_special_tokens=True)
    turns = Turns(tokenizer, "a", tokenizer.encode("a"))
    turns.generated([50256, *tokenizer.encode(" b")])
    turns.typed("")
    assert turns.ids == [64, 50256, 275]
    turns.typed("ee")
    assert turns.ids == [64, 50256, *tokenizer.encode(" bee")]
    half = tokenizer.encode("😀")[:1]
    turns.generated(half)
    before = turns.ids
    turns.typed("ee")
    assert turns.ids == before + tokenizer.encode("ee")
    turns.keep(2)
    turns.typed("s")
    assert turns.ids == before[-1:] + tokenizer.encode("ee") + tokenizer.encode("s")


def test_a_progress_bar_is_shown_on_a_terminal_only(capsys, tmp_path, monkeypatch):
    path = tmp_path / "prompts"
    path.write_text("O\n" * 9)
    assert run(capsys, "--prompts", str(path), *OPTIONS)[2] == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "1/2" in run(capsys, "--prompts", str(path), *OPTIONS)[2]


def test_turns_continue_one_text_and_read_only_what_is_new(capsys, typed, monkeypatch):
    read = []
    forward = GPT2LMHeadModel.forward

    def counted(self, ids, *args, **more):
        read.append(np.shape(ids)[1])
        return forward(self, ids, *args, **more)

    monkeypatch.setattr(GPT2LMHeadModel, "forward", counted)
    typed(" and\\nthen\n\n")
    code, out, _ = run(
        capsys, "To be", "--interactive", "--greedy", "--max-new-tokens", "6"
    )
    assert code == 0
    pieces = out.split("\n")
    assert out.startswith("To be")
    assert len(pieces) >= 4
    tokenizer = GPT2Tokenizer.from_pretrained("shakespeare-1m")
    typed_ids = len(tokenizer.encode(" and\nthen"))
    # the prompt; then what was typed and the last id of the turn before; then that id
    assert [n for n in read if n > 1] == [
        len(tokenizer.encode("To be")),
        typed_ids + 1,
    ]
    assert len(read) == 18


def test_turns_outlast_the_context(capsys, typed):
    typed("\n" * 3)
    code, out, err = run(
        capsys, "To be", "--interactive", "--greedy", "--max-new-tokens", "100"
    )
    assert code == 0
    assert "the context is full" in err


@pytest.mark.parametrize(
    "options",
    [
        ["--greedy", "--stop", "I am", "--max-new-tokens", "40"],
        ["--greedy", "--sliding-window", "50", "--max-new-tokens", "300"],
        ["--num-beams", "3", "--num-return-sequences", "2", "--max-new-tokens", "5"],
        ["--prompt-lookup-num-tokens", "5", "--seed", "1", "--max-new-tokens", "30"],
    ],
)
def test_options_reach_the_model(capsys, options):
    code, out, _ = run(capsys, "ROMEO:", "--json", *options)
    assert code == 0
    results = [json.loads(line) for line in out.splitlines()]
    if "--stop" in options:
        assert results[0]["text"].rstrip().endswith("I am")
    if "--sliding-window" in options:
        assert len(results[0]["ids"]) == 300
        assert len(results[0]["logprobs"]) == 300
    if "--num-beams" in options:
        assert len({result["text"] for result in results}) == 2
    if "--seed" in options:
        plain = run(capsys, "ROMEO:", "--json", "--seed", "1", "--max-new-tokens", "30")
        assert json.loads(plain[1])["ids"] == results[0]["ids"]


def test_what_excludes_one_another_is_said(capsys):
    assert run(capsys, "a", "--interactive", "--json")[0] == 1
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "a", "--prompts", "b")


def test_greedy_is_greedy_whatever_the_folders_file_says(tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(hub.model_folder(hub.EMBEDDED_MODEL), folder)
    arguments = ["ROMEO:", "--greedy", "--max-new-tokens", "12", "--model"]
    plain = run(capsys, *arguments, hub.EMBEDDED_MODEL)
    (folder / "generation_config.json").write_text('{"do_sample": true}')
    assert run(capsys, *arguments, str(folder)) == plain
