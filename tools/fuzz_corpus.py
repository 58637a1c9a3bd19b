"""Faults made smaller, and kept: tests/corpus, which tests/test_fuzz.py replays.

A kept input is a JSON file of one line for each of its files: their text, or {"base": n}
where the file is that of the format's base n, or their bytes, compressed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fuzz_judge import verdict_of

if TYPE_CHECKING:
    from fuzz_formats import Files, Format

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "corpus"
SHORT = 2000  # characters: longer texts are compressed


def keep(format: Format, key: str, files: Files, folder: Path = CORPUS) -> Path:
    """Write an input into the corpus, with the key of its fault; return its path."""
    lines = [f'"format": {json.dumps(format.name)}', f'"was": {json.dumps(key)}']
    for name, data in sorted(files.items()):
        lines.append(f"{json.dumps(name)}: {json.dumps(_kept(format, name, data))}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    name = "".join(c if c.isalnum() else "-" for c in format.name)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    path.write_text(text, "utf-8")
    return path


def _kept(format: Format, name: str, data: bytes) -> str | dict[str, int | str]:
    for number, base in enumerate(format.bases):
        if base.files.get(name) == data:
            return {"base": number}
    with contextlib.suppress(UnicodeDecodeError):
        text = data.decode()
        if len(text) < SHORT and all(c.isprintable() or c in "\n\t" for c in text):
            return text
    return {"zlib": base64.b64encode(zlib.compress(data, 9)).decode()}


def load_kept(path: Path, formats: dict[str, Format]) -> tuple[Format, Files]:
    """Return the format and the input that a file of the corpus holds."""
    content = json.loads(path.read_text("utf-8"))
    format, _ = formats[content.pop("format")], content.pop("was")
    files = {}
    for name, data in content.items():
        match data:
            case str():
                files[name] = data.encode()
            case {"base": number}:
                files[name] = format.bases[number].files[name]
            case {"zlib": text}:
                files[name] = zlib.decompress(base64.b64decode(text))
    return format, files


def reduced(format: Format, key: str, files: Files, seconds: float = 20.0) -> Files:
    """Return a smaller input with the same fault, as far as the seconds allow.

    Its files are as in the base where that does; of the others, JSON loses parts, and
    bytes become those of the base or are cut out.
    """
    end = time.monotonic() + seconds

    def still(files: Files) -> bool:
        return time.monotonic() < end and verdict_of(format, files).key == key

    base = min(
        (b.files for b in format.bases),
        key=lambda base: sum(base.get(name) != data for name, data in files.items()),
    )
    for name, data in list(files.items()):
        others = {n: d for n, d in files.items() if n != name}
        smaller = others | {name: base[name]} if name in base else others
        if data != base.get(name) and still(smaller):
            files = smaller
    for name in [n for n, data in files.items() if data != base.get(n)]:
        candidates = _smaller_json if name.endswith(".json") else _smaller_bytes
        progress = True
        while progress:
            progress = False
            for data in candidates(files[name], base.get(name, b"")):
                if still(files | {name: data}):
                    files, progress = files | {name: data}, True
                    break
    return files


def _smaller_json(data: bytes, _: bytes) -> Iterator[bytes]:
    """Yield JSON without one of its parts, the larger ones first."""
    try:
        waiting: list[list] = [[]]
        while waiting:
            path = waiting.pop(0)
            node = _at(json.loads(data), path)
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                tree = json.loads(data)
                del _at(tree, path)[key]
                yield json.dumps(tree).encode()
                if isinstance(node[key], dict | list):
                    waiting.append([*path, key])
    except (ValueError, TypeError, RecursionError):  # no JSON, or nothing in it
        return


def _at(tree: dict | list, path: list) -> dict | list:
    for key in path:
        tree = tree[key]
    return tree


def _smaller_bytes(data: bytes, base: bytes) -> Iterator[bytes]:
    """Yield data with a stretch as in the base, or without one, the longer ones first."""
    differing = [n for n, (a, b) in enumerate(zip(data, base)) if a != b]
    size = len(differing) // 2 if len(data) == len(base) else 0
    while size:
        for start in range(0, len(differing), size):
            restored = bytearray(data)
            for n in differing[start : start + size]:
                restored[n] = base[n]
            yield bytes(restored)
        size //= 2
    length = len(data) // 2
    while length:
        for start in range(0, len(data), length):
            yield data[:start] + data[start + length :]
        length //= 4
