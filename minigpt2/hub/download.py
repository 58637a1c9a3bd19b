"""Fetch a model into a folder, whole or not at all.

`from_openai` fetches the seven files that OpenAI published for each size:

    checkpoint, model.ckpt.meta    which checkpoint it is; its graph, which nobody reads
    hparams.json                   the sizes                     compared with the model's
    encoder.json, vocab.bpe        the vocabulary                SHA-256, as published
    model.ckpt.index               what tensors there are        checksums inside
    model.ckpt.data-00000-of-00001 the tensors                   size; a checksum a tensor

`from_hub` fetches what `minigpt2.hub` would put into the cache.

The files gather in a folder beside the target that ends in `.part`, which takes the
target's name when all are there and right. Until then a second attempt goes on where
the first one stopped. The transfers are huggingface_hub's (the extra `hub`): it retries
and resumes broken ones, shows progress on a terminal, and obeys HTTPS_PROXY.
"""

import hashlib
import os
import shutil
import time
from pathlib import Path

from ..checkpoints.tf_bundle import TFBundle, data_sizes, find_prefix
from ..config import GPT2_SIZES, HPARAMS_NAME
from ..runtime.files import read_json
from . import folders as hub

OPENAI = "https://openaipublic.blob.core.windows.net/gpt-2/models"
OPENAI_FOLDERS = dict(zip(GPT2_SIZES, ("124M", "355M", "774M", "1558M")))
OPENAI_ONLY = {  # OpenAI's names of the sizes; the first two were miscounted
    "117M": "gpt2",
    "345M": "gpt2-medium",
    **{folder: name for name, folder in OPENAI_FOLDERS.items()},
}
OPENAI_NAMES = {**{name: name for name in OPENAI_FOLDERS}, **OPENAI_ONLY}
DATA_SIZES = {  # bytes of the published data files: four a parameter
    "gpt2": 497_759_232,
    "gpt2-medium": 1_419_292_672,
    "gpt2-large": 3_096_120_320,
    "gpt2-xl": 6_230_444_800,
}
VOCABULARY = {  # published by tiktoken too: bytes, SHA-256
    "encoder.json": (
        1_042_301,
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    ),
    "vocab.bpe": (
        456_318,
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    ),
}
INDEX, META = "model.ckpt.index", "model.ckpt.meta"
TENSORS = "model.ckpt.data-00000-of-00001"
FILES = ("checkpoint", HPARAMS_NAME, *VOCABULARY, INDEX, META, TENSORS)
SMALL = 2**26  # bytes; no file but the tensors' comes near (meta of 1558M: about 2 MB)


def from_openai(name, folder=None, base_url=OPENAI):
    """Fetch OpenAI's original files of a size; return their folder.

    - name: "124M", "355M", "774M" or "1558M", or Hugging Face's name of it ("gpt2").
    - folder (path): where to; None is one of OpenAI's name in the current folder. If
      all files are there and right already, nothing is fetched.
    - base_url (str): the address of a mirror, to which `/124M/vocab.bpe` is added.

    Raises ValueError for an unknown name, ImportError without huggingface_hub,
    FileExistsError if the folder holds something else, and OSError, saying what is
    wrong with which file, if one can't be fetched or is not the right one.
    """
    if name not in OPENAI_NAMES:
        raise ValueError(
            f"OpenAI published no {name!r}; there are {', '.join(OPENAI_NAMES)}"
        )
    size = OPENAI_NAMES[name]
    hub.require_huggingface_hub(f"a download from {base_url}")
    folder = Path(folder or OPENAI_FOLDERS[size])
    if _occupied(folder):
        try:
            for file in FILES:
                check(folder / file, size)
        except OSError as error:
            raise FileExistsError(
                f"{folder} is there, and is no whole copy of {size}: {error}"
            ) from error
        return folder
    part = _part(folder)
    for file in FILES:
        path = part / file
        if path.exists():  # of an earlier attempt, which checked it
            continue
        url = f"{base_url.rstrip('/')}/{OPENAI_FOLDERS[size]}/{file}"
        unfinished = path.with_name(f"{file}.incomplete")
        fetch(url, unfinished, DATA_SIZES[size] if file == TENSORS else None)
        os.replace(unfinished, path)
        try:
            check(path, size)
        except OSError as error:
            path.unlink()
            raise OSError(f"{url} sent something else: {error}") from error
    _take_name(part, folder)
    return folder


def from_hub(name, folder, revision=None, token=None):
    """Fetch a model and its tokenizer from the Hugging Face Hub into a folder.

    - name, revision, token: as in `minigpt2.hub`.
    - folder (path): must not be there, or be empty.

    Raises as `minigpt2.hub` does, and FileExistsError. Returns the folder.
    """
    folder = Path(folder)
    if _occupied(folder):
        raise FileExistsError(f"{folder} is there already, and is not empty")
    part = _part(folder)
    cache = part / ".cache"  # the Hub's library writes whole files, into a cache
    found = hub.whole_folder(name, cache_dir=cache, revision=revision, token=token)
    for path in found.iterdir():
        shutil.move(path.resolve(), part / path.name)
    shutil.rmtree(cache)
    _take_name(part, folder)
    return folder


def fetch(url, path, size=None):
    """Fetch an address into a file, whose bytes may be left of an earlier attempt.

    - size: the bytes that the file must have. Without it the file is fetched from the
      start, and may have 64 MB.

    OSError, which names the address, if the server refuses, breaks off and then sends
    nothing more, or sends fewer or more bytes than it must.
    """
    from huggingface_hub.file_download import http_get  # transformers uses it as well

    # Compressed, the bytes that a resumed transfer counts would be others.
    headers = {"Accept-Encoding": "identity"}
    with open(path, "ab") as file:
        if size is None or file.tell() > size:
            file.truncate(0)
        while True:
            had = file.tell()
            try:
                http_get(
                    url,
                    Bounded(file, SMALL if size is None else size),
                    resume_size=had,
                    headers=headers,
                    expected_size=size,
                    displayed_filename=url.rpartition("/")[2],
                )
                return
            except hub.network_errors() as error:
                if type(error) is OSError and error.errno is None:
                    file.truncate(0)  # the answer was complete, and not the file
                elif size is not None and file.tell() > had:
                    time.sleep(1)
                    continue
                raise OSError(
                    f"{url} could not be fetched: {_reason(error)}"
                ) from error


def _reason(error):
    reason = f"{type(error).__name__}: " + str(error).strip().partition("\n")[0]
    response = getattr(error, "response", None)
    if response is not None and response.status_code < 500:
        return f"{reason} (--base-url names a mirror, --from another source)"
    return f"{reason} (try again, and it goes on where it stopped)"


class Bounded:
    """A file that refuses to grow beyond a limit, whatever a server sends."""

    def __init__(self, file, limit):
        self.file, self.limit = file, limit

    def write(self, data):
        if self.file.tell() + len(data) > self.limit:
            raise OSError(f"more than the {self.limit:,} bytes that it should have")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def check(path, size):
    """Raise OSError, saying why, if a file is not what OpenAI published for a size.

    - path: the file; its name says which of FILES it is.
    - size: a name of GPT2_SIZES.
    """
    try:
        _check(path, size)
    except ValueError as error:  # CheckpointError, bad JSON
        with open(path, "rb") as file:
            beginning = file.read(24)
        raise OSError(
            f"{path} is wrong: {error} (it begins with {beginning!r})"
        ) from error


def _check(path, size):
    if path.name in VOCABULARY:
        expected, found = VOCABULARY[path.name], (path.stat().st_size, sha256(path))
        if found != expected:
            raise ValueError(f"bytes and SHA-256 are {found}, not {expected}")
    elif path.name == HPARAMS_NAME:
        hparams = read_json(path)
        found = {field: hparams.get(field) for field in GPT2_SIZES[size]}
        if found != GPT2_SIZES[size]:
            raise ValueError(f"{found} are not the sizes of {size}")
    elif path.name == "checkpoint":
        if find_prefix(path).name != INDEX.removesuffix(".index"):
            raise ValueError("it names another checkpoint")
    elif path.name == META:
        if path.read_bytes()[:1] != b"\x0a":  # MetaGraphDef's first field: 1, a message
            raise ValueError("it is no graph of TensorFlow's")
    elif path.name == INDEX:
        expected, found = {0: DATA_SIZES[size]}, data_sizes(path)
        if found != expected:
            raise ValueError(f"it wants data files of {found} bytes, not {expected}")
    else:
        tensors = TFBundle(path)
        for name in tensors:
            tensors[name]  # reading a tensor verifies its checksum


def sha256(path):
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _occupied(folder):
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def _part(folder):
    """Make the folder in which a download gathers; what is in it stays."""
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    return part


def _take_name(part, folder):
    if folder.exists():
        folder.rmdir()  # it is empty; Windows renames nothing onto it
    os.replace(part, folder)
