"""`minigpt2 generate` beyond one text: files of prompts, JSON, turns, stop strings."""

import io
import json
import sys

import numpy as np
import pytest

from minigpt2 import GPT2LMHeadModel, GPT2Tokenizer, ops
from minigpt2.cli import main


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
