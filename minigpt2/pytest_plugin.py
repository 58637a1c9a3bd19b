"""A plugin of pytest: fixtures with tiny models and golden files, for other ports' tests.

pytest loads it by the entry point `minigpt2` wherever this package is installed. So it
imports nothing before a test asks for one of its fixtures, whose names all begin with
`minigpt2_`. See minigpt2/testing/dumping.py for a worked example, and
minigpt2.testing.assert_matches and assert_logits_close, which go with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .model.gpt2 import GPT2LMHeadModel
    from .testing import TinyInputs
    from .tracing.golden import Golden

EACH = "minigpt2_each_tiny_model"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes minigpt2_each_tiny_model once for each of them."""
    if EACH in metafunc.fixturenames:
        from .testing import TINY_MODELS

        metafunc.parametrize(EACH, list(TINY_MODELS), indirect=True, scope="session")


@pytest.fixture(scope="session")
def minigpt2_each_tiny_model(request: pytest.FixtureRequest) -> GPT2LMHeadModel:
    """Each of the tiny models in turn."""
    from .testing import tiny_model

    return tiny_model(request.param)


@pytest.fixture(scope="session")
def minigpt2_tiny_model() -> Callable[..., GPT2LMHeadModel]:
    """minigpt2.testing.tiny_model: a function of the name, or seed, and the options."""
    from .testing import tiny_model

    return tiny_model


@pytest.fixture(scope="session")
def minigpt2_tiny_inputs() -> Callable[..., TinyInputs]:
    """minigpt2.testing.tiny_inputs: a function of the name, or seed."""
    from .testing import tiny_inputs

    return tiny_inputs


@pytest.fixture(scope="session")
def minigpt2_tiny_folder(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str | int], Path]:
    """A function of a tiny model's name, or seed: the folder that it is saved in.

    It has config.json and model.safetensors, in Hugging Face's layout, for the port to
    load.
    """
    folders: dict[str | int, Path] = {}

    def folder_of(name: str | int = "tiny") -> Path:
        from .testing import tiny_model

        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(f"minigpt2-{name}")
            tiny_model(name).save_pretrained(folders[name])
        return folders[name]

    return folder_of


@pytest.fixture(scope="session")
def minigpt2_tiny_golden() -> Callable[..., Golden]:
    """A function of a tiny model's name, or seed: the golden of its inputs.

    Further arguments are `dtype`, and `names`: a pattern of the steps to keep.
    """
    import functools

    @functools.cache
    def made(name: str | int, dtype: str, names: str) -> Golden:
        from .testing import tiny_inputs, tiny_model
        from .tracing.golden import make_golden

        inputs: dict[str, Any] = dict(tiny_inputs(name).arguments())
        return make_golden(tiny_model(name, dtype=dtype), names=names, **inputs)

    def golden_of(
        name: str | int = "tiny", dtype: str = "float32", names: str = "*"
    ) -> Golden:
        return made(name, dtype, names)

    return golden_of


@pytest.fixture(scope="session")
def minigpt2_golden() -> Callable[[str | Path], Golden]:
    """A function of a golden file's path: what is in it."""
    from .tracing.golden import read_golden

    return read_golden
