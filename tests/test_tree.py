"""The tree of the source: imports point down, and the package lists are complete."""

import ast
import configparser
import fnmatch
from collections.abc import Iterator
from pathlib import Path

import pytest

import minigpt2
from minigpt2.contributing import ROOMS
from minigpt2.model.backends import BACKENDS

ROOT = Path(__file__).parents[1]
FOLDERS = {"minigpt2": ROOT / "minigpt2", "minigpt2.kernels": ROOT / "kernels"}

# Imports that may point up: {(file, what it imports)}.
ALLOWED = {("minigpt2/model/gpt2.py", "minigpt2.generation.mixin")}
# Modules that are imported by a computed name: {file: the names that it can be}.
TABLES = {
    "minigpt2/__init__.py": [f"minigpt2.{home}" for home in minigpt2._HOMES.values()],
    "minigpt2/model/backends.py": list(BACKENDS.values()),
    "minigpt2/model/layers.py": list(BACKENDS.values()),
}


def modules() -> dict[str, Path]:
    """{dotted name: file} of all modules."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *parts]).removesuffix(".__init__")
            found[name] = path
    return found


MODULES = modules()


def imports_of(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Yield the modules of minigpt2 that a source imports, wherever the statement is.

    A module that is imported by a computed name is "?".
    """
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(base, names, level):
                found = imported_from(absolute(base, level, module, is_package), names)
            case ast.Call(func=function, args=[argument, *_]) if ast.unparse(
                function
            ).endswith(("import_module", "__import__")):
                name = getattr(argument, "value", None)
                if isinstance(name, str):
                    level = len(name) - len(name.lstrip("."))
                    found = [absolute(name[level:], level, module, is_package)]
                else:
                    found = ["?"]
            case _:
                continue
        for name in found:
            if name == "?" or name.split(".")[0] == "minigpt2":
                yield name


def absolute(base: str | None, level: int, module: str, is_package: bool) -> str:
    """Resolve `from ...base import`, with as many dots as `level`, in a module."""
    if not level:
        return base or ""
    parts = module.split(".")
    parts = parts[: len(parts) - level + is_package]
    return ".".join([*parts, *([base] if base else [])])


def imported_from(base: str, names: list[ast.alias]) -> list[str]:
    """Return what `from base import names` imports: modules, or a name's module."""
    found = []
    for alias in names:
        full = f"{base}.{alias.name}"
        if base == "minigpt2" and alias.name in minigpt2._HOMES:
            full = f"minigpt2.{minigpt2._HOMES[alias.name]}"
        found.append(full if full in MODULES else base)
    return found


def room_of(module: str) -> str | None:
    """Return the room of a module; None for the package itself."""
    return module.split(".")[1] if "." in module else None


def every_import() -> Iterator[tuple[str, str, str]]:
    """Yield (file, module, what it imports); "?" is followed by what it can be."""
    for module, path in sorted(MODULES.items()):
        file = path.relative_to(ROOT).as_posix()
        is_package = path.name == "__init__.py"
        for target in imports_of(path.read_text("utf-8"), module, is_package):
            yield file, module, target
            if target == "?":
                for name in TABLES.get(file, ()):
                    yield file, module, name


def test_imports_point_down():
    order = {room: height for height, room in enumerate((*ROOMS, "__main__"))}
    up, computed = set(), set()
    for file, module, target in every_import():
        if target == "?":
            computed.add(file)
            continue
        importer, imported = room_of(module), room_of(target)
        # The package itself is a map of names, and holds nothing but the version.
        if importer is None or imported is None or importer == imported:
            continue
        assert {importer, imported} <= set(order), f"{file}: a room that isn't in ROOMS"
        if order[imported] > order[importer]:
            up.add((file, target))
    assert up == ALLOWED
    assert computed == set(TABLES)


def test_every_room_is_there():
    rooms = {room_of(module) for module in MODULES if room_of(module)}
    assert set(ROOMS) <= rooms
    assert rooms - set(ROOMS) == {"__main__", "contributing"}


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("a.b", "import os, numpy as np", []),
        ("a.b", "import minigpt2.model.gpt2 as g", ["minigpt2.model.gpt2"]),
        ("a.b", "from minigpt2 import ops, GPT2Config",
         ["minigpt2.ops", "minigpt2.config"]),
        ("a.b", "from minigpt2 import __version__", ["minigpt2"]),
        ("model.gpt2", "from .. import hub", ["minigpt2.hub"]),
        ("model.gpt2", "from ..config import GPT2Config", ["minigpt2.config"]),
        ("model.gpt2", "from . import inputs, names", ["minigpt2.model.inputs",
                                                       "minigpt2.model"]),
        ("model", "from .gpt2 import GPT2Model", ["minigpt2.model.gpt2"]),
        ("model", "from .. import ops", ["minigpt2.ops"]),
        ("kernels.jit", "from ..ops import gelu", ["minigpt2.ops"]),
        ("ops", "def f():\n    from .hub import folders", ["minigpt2.hub.folders"]),
        ("ops", "if TYPE_CHECKING:\n    from .config import A", ["minigpt2.config"]),
        ("ops", "importlib.import_module('minigpt2.hub')", ["minigpt2.hub"]),
        ("model.auto", "import_module('..hub', __package__)", ["minigpt2.hub"]),
        ("model.auto", "import_module(f'.{x}', __name__)", ["?"]),
        ("model.auto", "__import__('minigpt2.cli')", ["minigpt2.cli"]),
    ],
)  # fmt: skip
def test_every_way_to_import_is_seen(module, source, found):
    is_package = module == "model"
    assert list(imports_of(source, f"minigpt2.{module}", is_package)) == found


def options() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", "utf-8")
    return parser


def test_setup_cfg_lists_the_packages_that_are_there():
    packages = options()["options"]["packages"].split()
    there = [name for name, path in MODULES.items() if path.name == "__init__.py"]
    assert packages == sorted(there)
    folders = {path.parent for path in MODULES.values()}
    assert folders == {MODULES[name].parent for name in packages}


def test_setup_cfg_lists_the_data_that_is_there():
    patterns = options()["options.package_data"]["minigpt2"].split()
    folder = FOLDERS["minigpt2"]
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            assert any(
                fnmatch.fnmatch(name, pattern) and name.count("/") == pattern.count("/")
                for pattern in patterns
            ), f"{name} would not be installed"


def test_type_checkers_see_the_public_names():
    """The names under `if TYPE_CHECKING` are those of the table, from the same homes."""
    tree = ast.parse((ROOT / "minigpt2" / "__init__.py").read_text("utf-8"))
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    seen = {}
    for statement in block.body:
        for alias in statement.names:
            assert alias.asname == alias.name  # so that it counts as public
            seen[alias.name] = statement.module
    assert seen == minigpt2._HOMES
