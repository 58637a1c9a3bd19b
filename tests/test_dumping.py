"""The examples of the page on dumping, run as they stand there."""

import re
import shutil
import subprocess
import textwrap

import numpy as np
import pytest
from test_golden import peer_of

from minigpt2.testing import assert_matches, dumping, tiny_inputs, tiny_model
from minigpt2.tracing import make_golden, read_dump, read_golden, save_golden


def example(heading, number=-1):
    """The indented part of a section, the last one or another."""
    _, _, rest = dumping.__doc__.partition(f"\n{heading}\n{'=' * len(heading)}\n")
    section = re.split(r"\n\S+\n=+\n", rest)[0]
    parts = re.findall(r"(?:^    .*\n|^\n(?=    ))+", section, re.MULTILINE)
    return textwrap.dedent(parts[number])


@pytest.fixture
def golden():
    return make_golden(tiny_model(), **tiny_inputs().arguments())


def program(name):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@pytest.mark.peers
def test_the_page_has_the_command_that_makes_a_golden(tmp_path, monkeypatch):
    from minigpt2.cli import main

    monkeypatch.chdir(tmp_path)
    (line,) = re.findall("minigpt2 golden make (.*)", dumping.__doc__)
    arguments = [part.strip('"') for part in re.findall(r'"[^"]*"|\S+', line)]
    assert main(["golden", "make", *arguments]) == 0
    assert read_golden("golden.safetensors").about["text"] == "To be"


@pytest.mark.peers
def test_pytorch(tmp_path, golden):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    peer = peer_of(tiny_model())
    space = {}
    exec(example("PyTorch"), space)
    save_golden(tmp_path / "golden.safetensors", golden)
    theirs = tmp_path / "theirs.safetensors"
    space["dump_of"](peer, tmp_path / "golden.safetensors", theirs)
    assert_matches(golden, theirs)
    named = {name.rpartition("h.0.")[2] for name in read_dump(theirs)}
    assert named >= {
        "ln_1",
        "attn.c_attn",
        "attn.c_proj",
        "ln_2",
        "mlp.act",
        "mlp.c_fc",
    }

    peer.transformer.h[1].ln_2.eps = 1e-3  # and a port that is wrong does not match
    space["dump_of"](peer, tmp_path / "golden.safetensors", theirs)
    with pytest.raises(AssertionError, match=r"^transformer\.h\.1\.ln_2: \d+ of"):
        assert_matches(golden, theirs)


@pytest.mark.peers
def test_javascript(tmp_path, golden):
    node = program("node")
    save_golden(tmp_path / "golden.json", golden)
    (tmp_path / "port.js").write_text(example("JavaScript"))
    subprocess.run([node, "port.js"], cwd=tmp_path, check=True)
    assert set(read_dump(tmp_path / "theirs.json")) == {
        f"transformer.h.{i}.mlp.act" for i in range(3)
    }
    assert_matches(golden, tmp_path / "theirs.json")
    (tmp_path / "port.js").write_text(
        example("JavaScript").replace("0.044715", "0.0447")
    )
    subprocess.run([node, "port.js"], cwd=tmp_path, check=True)
    with pytest.raises(AssertionError, match=r"^transformer\.h\.0\.mlp\.act: "):
        assert_matches(golden, tmp_path / "theirs.json")


NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3) / 7


@pytest.mark.peers
def test_c(tmp_path):
    main = """
        int main() {
            float a[6], b[1] = {-1.5f};
            for (int i = 0; i < 6; i++) a[i] = i / 7.0f;
            Dump dumps[] = {{"transformer.wte", a, {2, 3}}, {"b", b, {1, 1, 1, 1}}};
            return save_dump("theirs.safetensors", dumps, 2);
        }
    """
    (tmp_path / "dump.c").write_text(example("C") + main)
    command = [program("cc"), "-Wall", "-Werror", "-o", "dump", "dump.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run(["./dump"], cwd=tmp_path, check=True)
    found = read_dump(tmp_path / "theirs.safetensors")
    np.testing.assert_array_equal(found["transformer.wte"], NUMBERS)
    np.testing.assert_array_equal(found["b"], np.full((1, 1, 1, 1), -1.5, np.float32))


@pytest.mark.peers
def test_rust(tmp_path):
    main = """
        fn main() -> std::io::Result<()> {
            let a: Vec<f32> = (0..6).map(|i| i as f32 / 7.0).collect();
            save_dump("theirs.safetensors", &[("transformer.wte", &[2, 3], &a)])
        }
    """
    (tmp_path / "dump.rs").write_text(example("Rust") + main)
    command = [program("rustc"), "--edition", "2021", "-D", "warnings", "dump.rs"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run(["./dump"], cwd=tmp_path, check=True)
    found = read_dump(tmp_path / "theirs.safetensors")
    np.testing.assert_array_equal(found["transformer.wte"], NUMBERS)
