"""The command, run as a user runs it: arguments in, text and an exit code out."""

import errno
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from importlib import metadata

import pytest

from minigpt2 import commands
from minigpt2.cli import main, with_options
from minigpt2.model import backends
from minigpt2.quantization import policy
from minigpt2.runtime import installation, progress
from minigpt2.runtime.files import open_whole
from minigpt2.tasks import convert
from minigpt2.tracing import golden

PROMPT = "To be, or not to be: that is the question:"


def run(capsys, *arguments):
    """Run the command in this process; return its exit code, output and errors."""
    try:
        code = main(list(arguments))
    except SystemExit as stop:  # argparse's own way out
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def test_greedy_text_is_transformers(capsys, shakespeare):
    expected = shakespeare.expected["prompts"][0]["greedy_60_text"]
    code, out, err = run(
        capsys, "generate", PROMPT, "--greedy", "--max-new-tokens", "60"
    )
    assert (code, out, err) == (0, expected + "\n", "")


def test_openais_folder_gives_the_same_text(capsys, shakespeare):
    options = ["generate", PROMPT, "--greedy", "--max-new-tokens", "9"]
    folder = str(shakespeare.folder)
    assert run(capsys, *options) == run(capsys, *options, "--model", folder)


def test_a_drawn_seed_is_told_and_gives_the_same_text_again(capsys):
    code, out, err = run(capsys, "generate", "ROMEO:", "--max-new-tokens", "20")
    assert code == 0
    name, seed = err.split()
    assert name == "seed"
    options = ["--max-new-tokens", "20", "--seed", seed]
    assert run(capsys, "generate", "ROMEO:", *options) == (0, out, "")
    assert run(capsys, "generate", "ROMEO:", *options, "--seed", "x")[0] == 2


def test_several_results_are_set_apart(capsys):
    code, out, _ = run(
        capsys, "generate", "KING", "--num-return-sequences", "3", "--seed", "1",
        "--max-new-tokens", "5", "--temperature", "2", "--top-p", "0.9",
    )  # fmt: skip
    assert code == 0
    texts = out.split("---\n")
    assert len(set(texts)) == 3
    assert all(text.startswith("KING") for text in texts)


def test_standard_input_is_a_prompt(capsys, monkeypatch):
    text = "Ælfric → 王"
    stdin = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)
    code, out, _ = run(capsys, "generate", "-", "--greedy", "--max-new-tokens", "2")
    assert code == 0
    assert out.startswith(text)


def test_without_a_number_it_fills_what_the_context_leaves(capsys):
    prompt = "the " * 240  # 240 ids or a few more, of 256
    code, out, _ = run(capsys, "generate", prompt, "--greedy")
    assert code == 0
    assert out.startswith(prompt)


def test_ids_and_pieces_of_a_text(capsys):
    assert run(capsys, "tokenize", "Hello world", "--ids") == (0, "15496 995\n", "")
    assert run(capsys, "tokenize", "Hello world", "--pieces")[1] == "Hello\nĠworld\n"
    code, out, _ = run(capsys, "tokenize", "Hello world", "--model", "gpt2")
    assert out.split() == ["15496", "Hello", "995", "Ġworld"]
    own = run(capsys, "tokenize", PROMPT, "--ids", "--model", "shakespeare-1m")[1]
    assert own.split()[:3] == ["407", "304", "11"]


def test_info_tells_format_sizes_tensors_and_checksums(capsys, shakespeare):
    code, out, err = run(capsys, "info", str(shakespeare.folder))
    assert (code, err) == (0, "")
    for told in (
        "OpenAI (TensorFlow)",
        "4,353,024  model.ckpt.data-00000-of-00001",
        "  be8a5623c8ffba1cc806c0376cb402aa1b78a7efef9907c57ea1fdfbb4fc450c",
        "float32  (1, 128, 384)    model/h0/attn/c_attn/w",
        "52 tensors of 1,088,256 numbers; all checksums hold",
        "n_layer=4, n_embd=128",
    ):
        assert told in out
    small = run(capsys, "info", "shakespeare-1m")[1]
    assert "float16" in small
    assert "backend='auto' is 'numpy'" in small
    for told in ("Project Gutenberg", "public domain", "Recipe:", "License:"):
        assert told in small
    assert max(map(len, small.splitlines()[1:])) <= 80  # the first names the folder
    said = json.loads(run(capsys, "info", str(shakespeare.folder), "--json")[1])
    assert said["format"] == "OpenAI (TensorFlow)"
    assert said["config"]["n_embd"] == 128
    assert sum(math.prod(t["shape"]) for t in said["tensors"]) == said["numbers"]


def test_tokenize_says_whose_vocabulary_it_takes_where_nobody_did(capsys):
    assert "gpt2's vocabulary" in run(capsys, "tokenize", "a")[2]
    assert run(capsys, "tokenize", "a", "--model", "gpt2")[2] == ""


def test_ids_become_text_again(capsys):
    text = "déjà vu ,  ok\n"
    ids = run(capsys, "tokenize", text, "--ids")[1]
    assert run(capsys, "tokenize", ids, "--decode") == (0, text + "\n", "")
    result = json.loads(run(capsys, "tokenize", text, "--json")[1])
    assert result["ids"] == list(map(int, ids.split()))
    assert run(capsys, "tokenize", str(result["ids"]), "--decode")[1] == text + "\n"
    assert "not 'x'" in run(capsys, "tokenize", "1 x", "--decode")[2]
    assert run(capsys, "tokenize", "50257", "--decode")[0] == 1


def test_a_progress_line_fits_the_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "columns", lambda file: 50)
    with progress.Progress("converting", 3) as bar:
        bar.step("transformer.h.0." + "x" * 99)
    line = capsys.readouterr().err.split("\x1b[K")[1]
    assert len(line.rstrip("\r")) == 49


def test_kernels_are_compiled_ahead_of_time(capsys):
    pytest.importorskip("numba")
    code, out, _ = run(capsys, "warm")
    assert (code, out) == (0, "kernels for float32 weights are ready\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["generate", "x", "--model", "nowhere"], 1, "there is no folder 'nowhere'"),
        (["generate", "x" * 3000], 1, "shorten the prompt"),
        (["generate", "x", "--max-new-tokens", "999"], 1, "n_positions=256"),
        (
            ["generate", "x", "--temperature", "0"],
            1,
            "--temperature must be above 0; --greedy",
        ),
        (["generate", "hello", "world"], 2, "put quotes around a PROMPT"),
        (["tokenize", "hello", "world"], 2, "put quotes around a TEXT"),
        (["generate", "x", "--thread", "0"], 1, "from 1 to"),
        (["generate", "x", "--top-p", "1.5"], 1, "--top-p must be"),
        (["generate", "\udcff"], 1, "lone surrogate"),
        (["generate", "x", "--num-beams", f"{2**53}"], 1, "error: not enough memory: "),
        (["generate"], 2, "PROMPT --prompts is required"),
        (["generate", "x", "--top-k", "many"], 2, "invalid int value"),
        (["transmogrify"], 2, "invalid choice"),
        ([], 2, "required: COMMAND"),
    ],
)
def test_a_mistake_gives_one_line_and_its_exit_code(capsys, arguments, code, message):
    got, out, err = run(capsys, *arguments)
    assert (got, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("window=257: this model takes 256", "--window 257: this model takes 256"),
        ("top_p must be below 1, not 2", "--top-p must be below 1, not 2"),
        ("give weights='float32'", "give --weights float32"),
        ("a window of ids, n_top_p", "a window of ids, n_top_p"),
        ("stop_strings must be text", "--stop must be text"),
        ("no such file: 'top_p'", "no such file: 'top_p'"),
        ("no such file: /a/top_p.txt", "no such file: /a/top_p.txt"),
    ],
)
def test_messages_of_the_library_are_said_in_options(message, said):
    options = {name: f"--{name.replace('_', '-')}" for name in ("window", "top_p")}
    options |= {"weights": "--weights", "stop_strings": "--stop"}
    assert with_options(message, options) == said


def test_the_messages_options_are_those_of_the_command(capsys):
    code, _, err = run(capsys, "score", __file__, "--window", "257")
    assert (code, err) == (
        1, "minigpt2: error: --window 257: this model takes 2 to 256 ids at a time\n"
    )  # fmt: skip
    target = ["convert", "shakespeare-1m", "nowhere", "--weights", "int8"]
    code, _, err = run(capsys, *target, "--format", "npz")
    assert "--weights int8 goes with --format safetensors, and without dtype" in err


def test_the_choices_are_those_of_the_library():
    assert commands.WEIGHT_FORMATS == policy.WEIGHT_FORMATS
    assert (*backends.BACKENDS, "auto") == commands.BACKENDS
    assert commands.convert.FORMATS == convert.FORMATS
    assert commands.convert.DTYPES == convert.DTYPES
    assert commands.golden.FORMATS == golden.FORMATS


def test_a_damaged_folder_is_an_error_line(capsys, tmp_path, shakespeare):
    for path in shakespeare.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    broken = bytearray(data.read_bytes())
    broken[100_000] ^= 1
    data.write_bytes(broken)
    code, _, err = run(capsys, "generate", "x", "--model", str(tmp_path))
    assert code == 1
    assert "tensor 'model/h0/" in err
    assert "Traceback" not in err


def test_help_is_everywhere(capsys):
    code, out, _ = run(capsys, "--help")
    assert (code, out.split()[:2]) == (0, ["usage:", "minigpt2"])
    names = "generate tokenize score info verify golden convert download warm".split()
    for name in names:
        assert name in out
        code, own, _ = run(capsys, name, "--help")
        assert (code, own.split()[:3]) == (0, ["usage:", "minigpt2", name])


def start(*arguments, **options):
    command = [sys.executable, "-m", "minigpt2", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_ctrl_c_leaves_cleanly():
    with start("generate", "x", "--max-new-tokens", "250", "--seed", "1") as process:
        process.stdout.read(1)  # the text has begun
        time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 130)  # 0 if it was done before the signal
    assert b"Traceback" not in err


def test_a_reader_that_goes_away_is_no_error():
    with start("generate", "x", "--max-new-tokens", "200", "--seed", "1") as process:
        process.stdout.read(1)
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 0
    assert err == b""


def run_with(*arguments, **environment):
    """Run the command in a process of its own; return (exit code, output, errors)."""
    done = subprocess.run(
        [sys.executable, "-m", "minigpt2", *arguments],
        capture_output=True,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "shift_jis"])
def test_what_an_encoding_lacks_is_escaped_and_said_once(encoding):
    command = ["generate", "Hi ⇝ 🙂⇝", "--greedy", "--max-new-tokens", "3"]
    code, out, err = run_with(*command, PYTHONIOENCODING=encoding)
    assert code == 0
    assert out.startswith(rb"Hi \u21dd \U0001f642\u21dd")
    assert out.endswith(b"\n")
    assert err.count(b"lacks") == 1
    assert err.count(b"\n") == 1


needs_a_shell = pytest.mark.skipif(os.name == "nt", reason="a shell closes the streams")


@needs_a_shell
@pytest.mark.parametrize(
    ("redirection", "says"),
    [
        (">&-", "standard output is closed"),
        ("<&-", "standard input is closed"),
        ("> /dev/full", "standard output: No space left on device"),
    ],
)
def test_streams_that_are_not_there_are_named(redirection, says):
    if "/dev/full" in redirection and not os.path.exists("/dev/full"):
        pytest.skip("only Linux has /dev/full")
    command = f'"$1" -m minigpt2 tokenize --ids - {redirection}'
    done = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable],
        input=None if "<" in redirection else b"x",
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert says in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


@needs_a_shell
def test_without_a_stream_for_errors_results_are_alone():
    command = '"$1" -m minigpt2 generate x --seed 1 --max-new-tokens 2 2>&-'
    done = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable], capture_output=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"x")
    assert b"seed" not in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_ctrl_c_at_any_time_gives_no_traceback():
    for delay in (0.1, 0.2, 0.3, 0.5, 0.8):
        with start(
            "generate", "x", "--seed", "1", "--max-new-tokens", "250"
        ) as process:
            process.stdout.close()
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            err = process.stderr.read()
        if b"import site" in err or b"<frozen" in err:
            continue  # Python itself had not begun
        assert b"Traceback" not in err, (delay, err)


def test_a_seed_is_told_with_a_result_only(capsys):
    code, _, err = run(capsys, "generate", "x" * 3000)
    assert code == 1
    assert "seed" not in err


def test_merges_are_shown_as_they_happen(capsys):
    code, out, _ = run(capsys, "tokenize", "--show-merges", "Hi world<|endoftext|>")
    assert code == 0
    assert out.splitlines() == [
        "'Hi'",
        "  UTF-8  48 69",
        "written                          H i",
        "  16994  H + i                   Hi",
        "     id  17250",
        "' world'",
        "  UTF-8  20 77 6f 72 6c 64",
        "written                          Ġ w o r l d",
        "     10  Ġ + w                   Ġw o r l d",
        "     17  o + r                   Ġw or l d",
        "     79  l + d                   Ġw or ld",
        "    220  Ġw + or                 Ġwor ld",
        "    739  Ġwor + ld               Ġworld",
        "     id  995",
        "'<|endoftext|>'",
        "     id  50256, an added token",
    ]
    # What a merge makes has the id 256 + its rank, so the last of " world" was this one.
    assert 256 + 739 == 995
    long = run(capsys, "tokenize", "--show-merges", "é" * 60 + " " + "x" * 200)[1]
    assert max(map(len, long.splitlines())) <= 80


def test_the_ids_of_shown_merges_are_those_of_encode(capsys):
    from minigpt2.commands.tokenize import show_merges
    from minigpt2.tokenizer import GPT2Tokenizer

    text = "Hello  world, déjà vu!\n\n it's<|endoftext|>"
    for prefix in (False, True):
        tokenizer = GPT2Tokenizer.from_pretrained("gpt2", add_prefix_space=prefix)
        show_merges(tokenizer, text)
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        ids = [row[1:] for row in rows if row and row[0] in ("id", "ids")]
        shown = [int(id.rstrip(",")) for row in ids for id in row if id[0].isdigit()]
        assert shown == tokenizer.encode(text)


def test_a_file_that_cannot_be_written_is_named(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    target = str(tmp_path / "file" / "new")
    code, _, err = run(capsys, "convert", "shakespeare-1m", target)
    assert code == 1
    assert str(tmp_path / "file") in err


def test_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(OSError, match="No space left") as caught:  # noqa: SIM117
        with open_whole(path):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
def test_sigterm_leaves_no_temporary_file(tmp_path):
    """While a checkpoint is under way, which begins with a folder."""
    target = tmp_path / "new"
    with start("convert", "shakespeare-1m", str(target)) as process:
        while not list(tmp_path.iterdir()) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        err = process.stderr.read()
    assert b"Traceback" not in err
    if process.returncode:  # else it was done before
        assert process.returncode == 143
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "file:///home/me/my%20code/minigpt2",
            "pip install '/home/me/my code/minigpt2",
        ),
        ("https://example.org/minigpt2.whl", 'pip install "minigpt2[hub]"'),
        (None, 'pip install "minigpt2[hub]"'),
    ],
)
def test_a_message_installs_from_where_the_package_came(monkeypatch, url, says):
    class Distribution:
        def read_text(self, name):
            assert name == "direct_url.json"
            return url and json.dumps({"url": url, "dir_info": {}})

    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    assert installation.pip_install("hub").startswith(says)
