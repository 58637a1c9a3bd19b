"""What an installation holds, and what importing it costs."""

import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

import minigpt2


def python(code, cwd):
    """Run code in a fresh interpreter, in another folder; return what it prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=True
    ).stdout


def test_the_core_needs_numpy_and_regex_and_nothing_more():
    core = [line for line in requires("minigpt2") if "extra ==" not in line]
    assert sorted(line.split(">")[0] for line in core) == ["numpy", "regex"]


def test_importing_minigpt2_imports_nothing_heavy(tmp_path):
    heavy = "numpy regex numba torch tensorflow huggingface_hub transformers".split()
    code = f"import sys, minigpt2; print([m for m in {heavy} if m in sys.modules])"
    assert python(code, tmp_path).strip() == "[]"


def test_a_model_imports_only_what_it_always_needs(tmp_path):
    seldom = (
        "numpy.random urllib.request http.client secrets hashlib numba regex".split()
    )
    code = (
        "import sys; from minigpt2 import GPT2LMHeadModel; "
        f"print([m for m in {seldom} if m in sys.modules])"
    )
    assert python(code, tmp_path).strip() == "[]"


def test_making_text_imports_no_extra(tmp_path):
    code = """
import sys
from minigpt2.cli import main
main(["generate", "To be", "--greedy", "--max-new-tokens", "2"])
heavy = ["numba", "torch", "tensorflow", "huggingface_hub", "transformers"]
print([m for m in heavy if m in sys.modules])
"""
    assert python(code, tmp_path).splitlines()[-1] == "[]"


def test_kernels_are_importable_from_any_folder(tmp_path):
    code = "import minigpt2.kernels as k; print(k.__name__, callable(k.attention))"
    assert python(code, tmp_path).strip() == "minigpt2.kernels True"


@pytest.mark.parametrize("name", minigpt2.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(minigpt2, name).__doc__
    assert name in dir(minigpt2)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'GPT3'"):
        _ = minigpt2.GPT3


def test_the_vocabulary_ships_with_its_licence():
    folder = Path(minigpt2.__file__).parent / "data" / "gpt2"
    assert (folder / "vocab.bpe").stat().st_size == 456_318
    assert "OpenAI" in (folder / "LICENSE").read_text(encoding="utf-8")
