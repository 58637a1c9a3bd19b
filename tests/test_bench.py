"""tools/bench.py: its figures follow from its samples, and every scenario runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt2 import GPT2Config

TOOLS = Path(__file__).parents[1] / "tools"
SMALL = TOOLS.parent / "minigpt2" / "data" / "shakespeare-1m"
sys.path.insert(0, str(TOOLS))  # a tool's processes import its files by name

from bench_contestants import LlamaCpp, MiniGPT2  # noqa: E402
from bench_report import Report  # noqa: E402
from bench_workers import Failed, take_turns, working  # noqa: E402


@pytest.fixture
def report():
    report = Report({"threads": 1, "rounds": 3})
    report.begin("decode")
    return report


def test_a_ratio_is_the_median_of_the_rounds_ratios(report, capsys):
    """The machine was slow in the second round, for both; the medians mislead."""
    ours, theirs = "minigpt2 numba float32", "peer"
    report.table("Speed", "tokens/s", {ours: [20, 5, 60], theirs: [10, 2, 20]})
    rows = report.tables[0]["rows"]
    assert rows[theirs]["ratios"] == {ours: 2.5}
    assert rows[ours]["median"] / rows[theirs]["median"] == 2
    assert (
        "| peer                   | 10 (2-20)        | 2.50" in capsys.readouterr().out
    )


def test_the_summary_compares_models_of_one_weight_format(report, capsys):
    """q8_0 with our int8, not with our float32."""
    ours, theirs = MiniGPT2("numba", "int8"), LlamaCpp("q8_0")
    samples = {"minigpt2 numba float32": [2.0], ours.name: [6.0], theirs.name: [4.0]}
    report.describe([ours, theirs])
    report.table("Decode", "tokens/s", samples, column="decode")
    report.print_summary()
    assert "| llama.cpp q8_0         | 4 (1.50) |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("contestant", "size"),
    [
        (MiniGPT2("numba"), 497_759_232),  # OpenAI's file of the parameters
        (LlamaCpp("f32"), 497_767_776),  # GGUF files that the bench wrote of 124M
        (LlamaCpp("bf16"), 250_703_712),
        (LlamaCpp("q8_0"), 134_892_448),
        (LlamaCpp("q4_0"), 92_425_120),
    ],
)
def test_the_bytes_of_a_models_parameters_are_those_of_its_file(contestant, size):
    names = 16_000  # of tensors and keys, in a GGUF file
    assert 0 <= size - contestant.weight_bytes(GPT2Config()) < names


def test_the_bytes_of_a_step_count_the_cache_but_not_the_position_embeddings():
    ours, config = MiniGPT2("numba"), GPT2Config()
    positions, cache = 4 * 1024 * 768, 4 * 2 * 12 * 768 * 100
    expected = ours.weight_bytes(config) - positions + cache
    assert ours.step_bytes(config, 100) == expected


class Contestant:
    name, how, weights = "one that works", "", None

    def load(self, path, threads):
        pass

    def turn(self):
        return 1


class Dies(Contestant):
    name = "one that dies"

    def turn(self):
        os._exit(3)


class Raises(Contestant):
    name = "one that raises"

    def load(self, path, threads):
        raise KeyError("weights")


def test_who_fails_drops_out_and_the_others_go_on(report, capfd):
    def turn(worker):
        return worker.call("turn").result

    contestants = [Dies(), Raises(), Contestant()]
    with working(contestants, SMALL, 1, report) as workers:
        results = take_turns(workers, 2, turn, report)
    assert results == {"one that works": [1, 1]}
    assert [entry["name"] for entry in report.dropped] == [Raises.name, Dies.name]
    said = capfd.readouterr().err
    assert "decode goes on without one that raises: KeyError: 'weights'" in said
    assert "its process died in turn (exit code 3)" in said


def test_a_scenario_that_nobody_finishes_fails(report):
    def turn(worker):
        raise Failed("as always")

    with pytest.raises(Failed, match="nobody is left"):
        take_turns([Contestant()], 3, turn, report)


def bench(scenario, tmp_path, *arguments):
    """Run a scenario on the embedded model; return what it wrote as JSON."""
    file = tmp_path / "bench.json"
    command = [sys.executable, TOOLS / "bench.py", scenario, "--folder", SMALL]
    command += ["--rounds", "1", "--threads", "1", "--json", file, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_text("utf-8"))
    assert result["failures"] == []
    assert all(table["title"] in done.stdout for table in result["tables"])
    return result


BOTH = ("--only", "minigpt2 numpy", "minigpt2 numba float32")


def test_decode_compares_two_contexts_in_one_run(tmp_path):
    sizes = ("--context", "8", "64", "--tokens", "4")
    result = bench("decode", tmp_path, *sizes, *BOTH)
    speed, read, *_, kept = result["tables"]
    names = {"minigpt2 numpy float32", "minigpt2 numba float32"}
    assert set(speed["rows"]) == set(kept["rows"]) == names
    assert set(read["rows"]) == names | {"read stream"}
    (agreement,) = result["agreement"]
    assert agreement["difference"] < 1e-5  # of the largest logit


@pytest.mark.parametrize(
    ("scenario", "options"),
    [
        ("prefill", ("--tokens", "32", "--only", "minigpt2 numpy")),
        ("batch", ("--rows", "3", "--tokens", "4", "--only", "minigpt2 numpy")),
        ("memory", ("--only", "minigpt2 numpy")),
        ("startup", ("--only", "minigpt2 numpy")),
        ("lookup", ("--tokens", "60")),
    ],
)
def test_a_scenario_runs(tmp_path, scenario, options):
    result = bench(scenario, tmp_path, *options)
    assert result["dropped"] == []
    for table in result["tables"]:
        for row in table["rows"].values():
            assert len(row["samples"]) == 1
            assert table["unit"] == "ratio" or row["median"] > 0


def test_tokenizer_takes_files(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be: that is the question.\n" * 500, "utf-8")
    result = bench("tokenizer", tmp_path, text, "--only", "minigpt2")
    cold, warm = result["tables"]
    assert list(cold["rows"]) == list(warm["rows"]) == ["minigpt2 tokenizer"]


def test_assisted_counts_what_is_kept(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(
        "KING:\nWhat say you, my lord?\n\nQUEEN:\nNothing.\n\n" * 30, "utf-8"
    )
    sizes = ("--draft", "3", "--prompts", "2", "--tokens", "16", "--kinds", "bfloat16")
    result = bench("assisted", tmp_path, "--text", text, *sizes)
    kept, passes, implied, whole = result["tables"]
    name = "bfloat16, 3 a draft"
    assert 0.5 < kept["rows"][name]["median"] <= 1
    # with such a copy, and costs as they are, the formula stays within its bounds
    assert 0 < implied["rows"][name]["median"] < 4
    assert len(passes["rows"]) == 5
