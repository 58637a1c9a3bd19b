"""Fetch a model into a folder, whole or not at all.

`from_openai` fetches the seven files that OpenAI published for each size, and checks
each of them:

    checkpoint, model.ckpt.meta    which checkpoint it is; its graph, which nobody reads
    hparams.json                   the sizes                     compared with the model's
    encoder.json, vocab.bpe        the vocabulary                SHA-256, as published
    model.ckpt.index               what tensors there are        checksums inside
    model.ckpt.data-00000-of-00001 the tensors                   size; a checksum a tensor

`from_hub` fetches what `minigpt2.hub` would put into the cache.

The files gather in a folder beside the target that ends in `.part`. It takes the
target's name when all files are there and right. Until then a second attempt goes on
where the first one stopped.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from ..checkpoints.tf_bundle import TFBundle, data_sizes, find_prefix
from ..runtime.files import read_json, sha256
from .archive import (
    GPT2_SIZES,
    HPARAMS_NAME,
    INDEX,
    META,
    OPENAI,
    OPENAI_FILES,
    OPENAI_FOLDERS,
    OPENAI_NAMES,
    TENSORS,
    TENSORS_SIZES,
    VOCABULARY,
)
from .folders import whole_folder
from .transfer import fetch


def from_openai(
    name: str, folder: str | os.PathLike | None = None, base_url: str = OPENAI
) -> Path:
    """Fetch OpenAI's original files of a size; return their folder.

    Args:
        name: "124M", "355M", "774M" or "1558M", or Hugging Face's name of it ("gpt2").
        folder: where to; None is one of OpenAI's name in the current folder. If all
            files are there and right already, nothing is fetched.
        base_url: the address of a mirror, to which `/124M/vocab.bpe` is added.

    Raises:
        ValueError: for an unknown name.
        FileExistsError: if the folder holds something else.
        OSError: if a file can't be fetched, or is not the right one: which, and why.
    """
    size = OPENAI_NAMES.get(name, name)
    if size not in GPT2_SIZES:
        known = ", ".join([*GPT2_SIZES, *OPENAI_NAMES])
        raise ValueError(f"OpenAI published no {name!r}; there are {known}")
    folder = Path(folder or OPENAI_FOLDERS[size])
    if _occupied(folder):
        try:
            for file in OPENAI_FILES:
                check(folder / file, size)
        except OSError as error:
            raise FileExistsError(
                f"{folder} is there, and is no whole copy of {size}: {error}"
            ) from error
        return folder
    with _part(folder) as part:
        _gather(part, size, base_url)
        _take_name(part, folder)
    return folder


def _gather(part: Path, size: str, base_url: str) -> None:
    """Fetch the files of a size into a folder, and check each."""
    for file in OPENAI_FILES:
        path = part / file
        if path.exists():  # an earlier attempt has fetched and checked it
            continue
        url = f"{base_url.rstrip('/')}/{OPENAI_FOLDERS[size]}/{file}"
        unfinished = path.with_name(f"{file}.incomplete")
        fetch(url, unfinished, TENSORS_SIZES[size] if file == TENSORS else None)
        os.replace(unfinished, path)
        try:
            check(path, size)
        except OSError as error:
            path.unlink()
            raise OSError(f"{url} sent something else: {error}") from error


def from_hub(
    name: str,
    folder: str | os.PathLike,
    revision: str | None = None,
    token: str | bool | None = None,
) -> Path:
    """Fetch a model and its tokenizer from the Hugging Face Hub into a folder.

    Args:
        name, revision, token: as in `minigpt2.hub`.
        folder: must not be there, or be empty; is returned.

    Raises:
        FileExistsError: if there is something in the folder.
        ValueError: if the name is that of a folder, or of the package's own model.
        OSError, ImportError: as `minigpt2.hub` does.
    """
    folder = Path(folder)
    if _occupied(folder):
        raise FileExistsError(f"{folder} is there already, and is not empty")
    with _part(folder) as part:
        cache = part / ".cache"  # huggingface_hub writes whole files, into a cache
        found = whole_folder(name, cache_dir=cache, revision=revision, token=token)
        if not found.is_relative_to(cache):
            raise ValueError(f"{name} is here already, in {found}: copy that folder")
        for path in found.iterdir():
            shutil.move(path.resolve(), part / path.name)
        shutil.rmtree(cache)
        _take_name(part, folder)
    return folder


def check(path: Path, size: str) -> None:
    """Raise OSError, saying why, if a file is not what OpenAI published for a size.

    Args:
        path: the file; its name says which of OPENAI_FILES it is.
        size: a name of GPT2_SIZES.
    """
    try:
        _check(path, size)
    except ValueError as error:  # CheckpointError, bad JSON
        with open(path, "rb") as file:
            beginning = file.read(24)
        raise OSError(
            f"{path} is wrong: {error} (it begins with {beginning!r})"
        ) from error


def _check(path: Path, size: str) -> None:
    if path.name in VOCABULARY:
        published, here = VOCABULARY[path.name], (path.stat().st_size, sha256(path))
        if here != published:
            raise ValueError(f"bytes and SHA-256 are {here}, not {published}")
    elif path.name == HPARAMS_NAME:
        hparams = read_json(path)
        sizes = {field: hparams.get(field) for field in GPT2_SIZES[size]}
        if sizes != GPT2_SIZES[size]:
            raise ValueError(f"{sizes} are not the sizes of {size}")
    elif path.name == "checkpoint":
        if find_prefix(path).name != INDEX.removesuffix(".index"):
            raise ValueError("it names another checkpoint")
    elif path.name == META:
        if path.read_bytes()[:1] != b"\x0a":  # MetaGraphDef's first field: 1, a message
            raise ValueError("it is no graph of TensorFlow's")
    elif path.name == INDEX:
        wanted = data_sizes(path)
        if wanted != {0: TENSORS_SIZES[size]}:
            raise ValueError(
                f"it wants data files of {wanted} bytes, not {TENSORS_SIZES[size]}"
            )
    else:
        tensors = TFBundle(path)
        for name in tensors:
            tensors[name]  # reading a tensor verifies its checksum


def _occupied(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


@contextlib.contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """Make the folder in which a download gathers; what is in it stays, if anything is.

    It is one process's at a time: two would write the same files.
    """
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    with _locked(part):
        try:
            yield part
        except BaseException:  # Ctrl-C, too: what has come is for the next attempt
            files = [path for path in part.rglob("*") if path.is_file()]
            if not any(path.stat().st_size for path in files):
                shutil.rmtree(part)
            raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder, where the system can, until the block or the process ends."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(
                f"another process is downloading into {folder}: wait for it, or name "
                "another folder"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _take_name(part: Path, folder: Path) -> None:
    if folder.exists():
        folder.rmdir()  # it is empty; Windows renames nothing onto it
    os.replace(part, folder)
