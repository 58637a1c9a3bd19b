"""Files: written whole or not at all, read as JSON with clear errors, and their SHA-256."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


@contextlib.contextmanager
def open_whole(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a binary file for writing that appears at `path` only once it is complete.

    The bytes go to a temporary file beside it, which takes the name when the block
    ends; if the block raises, what was at `path` before is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C, too, must leave nothing behind
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_about(error, temporary):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a folder to fill, which takes the name `path` when the block ends.

    If the block raises, nothing is left of it. FileExistsError if something is at `path`.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} is there already; name a new folder")
    unfinished = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        os.rename(unfinished, path)
    except BaseException:  # Ctrl-C, too, must leave nothing behind
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _is_about(error: OSError, path: Path) -> bool:
    """Say whether an error names a file, or none, as that of a full disk does."""
    return error.errno is not None and error.filename in (None, str(path))


def write_whole(path: str | os.PathLike, data: bytes) -> None:
    """Write the bytes `data` to `path`, whole or not at all."""
    with open_whole(path) as file:
        file.write(data)


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Return the JSON object in a file; ValueError, naming the file, if there is none."""
    try:
        content = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, [[[[...
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a JSON object")
    return content


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    import hashlib  # loads OpenSSL, which is slow, and seldom needed

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
