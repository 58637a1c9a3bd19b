"""A model's name or folder -> the local folder that holds its files.

    a folder                    is taken as it is
    "shakespeare-1m"            the small model inside the package
    "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2", "owner/name"
                                a model on the Hugging Face Hub

The library huggingface_hub (the extra `hub`) fetches only the files that are needed.
The cache is the one that transformers uses, and HF_HOME, HF_ENDPOINT (a mirror),
HF_TOKEN and HF_HUB_OFFLINE mean here what they mean there. The named models and full
commit hashes cannot change: they come from the cache without a request. For any other
model the Hub is asked for the newest files first, and the cache answers where there is
no network. GPT-2's vocabulary is inside the package: the tokenizers of the named models
need no network.

`huggingface_hub.snapshot_download` is not used. Its patterns can't say what is needed:
the first of PARAMETER_FILES that is there, and the files that an index names. It answers
a refusal (a model that is gone or gated) from the cache, and some of its versions (0.36)
take a snapshot that lacks files for a whole one.

Every function takes the same Options. It raises OSError if there is no such folder or
model, or if it can't be fetched, and ImportError if that takes huggingface_hub, which is
not installed. The message says why, and what to do.
"""

import json
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

from ..runtime.files import read_json
from ..runtime.installation import pip_install
from .archive import CKPT_NAME, CONFIG_NAME, HPARAMS_NAME, HUB_IDS

DATA = Path(__file__).parents[1] / "data"
EMBEDDED_MODEL = "shakespeare-1m"


class Options(TypedDict, total=False):
    """The options of all functions here, and of every `from_pretrained`."""

    cache_dir: str | Path | None  # a cache in place of huggingface_hub's own
    revision: str | None  # a branch, tag or commit of the model; None is "main"
    local_files_only: bool  # take what is in the cache, make no request
    force_download: bool  # fetch again what the cache has
    token: str | bool | None  # for private models; None is that of `hf auth login`


OPTIONS = tuple(Options.__annotations__)
REFUSED_OPTIONS = {  # other versions' options, and what to do instead
    "mirror": "set the environment variable HF_ENDPOINT",
    "proxies": "set the environment variable HTTPS_PROXY",
    "subfolder": "download the model and give the folder",
    "use_auth_token": "its name is token",
}
NO_EFFECT = (  # options that cannot change what is found
    "resume_download",  # a download that breaks is always resumed
    "trust_remote_code",  # a model's own code is never run
    "_commit_hash",
    "_from_auto",
    "_from_pipeline",
)
# The first of these that a folder has says what the model is.
CONFIG_FILES = (CONFIG_NAME, HPARAMS_NAME, CKPT_NAME)
# The first of these that a model has holds its parameters. An index lists several files.
PARAMETER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# One of the last two must be there. It is fetched last: if it is there, so are the others.
TOKENIZER_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "tokenizer.json",
    "merges.txt",
)

# (names of a model's files, function that reads a JSON file of the model) -> names of
# those that are needed, or None if the model lacks some of them.
Needed = Callable[[Collection[str], Callable[[str], dict]], list[str] | None]


def model_folder(name_or_path: str | os.PathLike, **options: Unpack[Options]) -> Path:
    """Return the folder of a model: its configuration and its parameters."""
    return _folder(name_or_path, _model_files, options)


def tokenizer_folder(
    name_or_path: str | os.PathLike, **options: Unpack[Options]
) -> Path:
    """Return the folder of a tokenizer: a model's, or GPT-2's own vocabulary."""
    if not Path(name_or_path).is_dir() and _is_named_model(name_or_path):
        return DATA / "gpt2"
    return _folder(name_or_path, _tokenizer_files, options)


def whole_folder(name_or_path: str | os.PathLike, **options: Unpack[Options]) -> Path:
    """Return a folder with the files of a model and of its tokenizer."""
    return _folder(name_or_path, _all_files, options)


def config_file(name_or_path: str | os.PathLike, **options: Unpack[Options]) -> Path:
    """Return the path of a model's config.json, hparams.json or nanoGPT's ckpt.pt.

    A file's path is taken as it is.
    """
    if Path(name_or_path).is_file():
        return Path(name_or_path)
    folder = _folder(name_or_path, _config_files, options)
    for name in CONFIG_FILES:
        if (folder / name).is_file():
            return folder / name
    inside = (path.parent for n in CONFIG_FILES for path in folder.glob(f"*/{n}"))
    hint = next((f"; {path} does: give that folder" for path in sorted(inside)), "")
    raise FileNotFoundError(
        f"{folder} holds none of {', '.join(CONFIG_FILES)}, which say what the model is"
        + hint
    )


def options_of(kwargs: dict[str, Any]) -> Options:
    """Remove the Options from a dict of keywords; return them.

    Raises:
        ValueError: for an option that other versions have and this one lacks, unless
            its value is the one that says nothing.
    """
    for name in NO_EFFECT:
        kwargs.pop(name, None)
    for name, instead in REFUSED_OPTIONS.items():
        if kwargs.pop(name, None) not in (None, False, ""):
            raise ValueError(f"{name} is not an option here: {instead}")
    found = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
    return cast(Options, found)


# --- Which files are needed: functions of the type Needed ---


def _model_files(there: Collection[str], read: Callable) -> list[str] | None:
    parameters = next((name for name in PARAMETER_FILES if name in there), None)
    if CONFIG_NAME not in there or parameters is None:
        return None
    files = [CONFIG_NAME, parameters]
    if parameters.endswith(".index.json"):
        shards = read(parameters).get("weight_map")
        if not isinstance(shards, dict):
            raise ValueError(f"{parameters} has no weight_map, which names its files")
        files += sorted(set(map(str, shards.values())))
    return files + [name for name in ("generation_config.json",) if name in there]


def _tokenizer_files(there: Collection[str], read: Callable) -> list[str] | None:
    found = [name for name in TOKENIZER_FILES if name in there]
    return found if set(TOKENIZER_FILES[-2:]) & set(found) else None


def _all_files(there: Collection[str], read: Callable) -> list[str] | None:
    model, tokenizer = _model_files(there, read), _tokenizer_files(there, read)
    return [*model, *tokenizer] if model and tokenizer else None


def _config_files(there: Collection[str], read: Callable) -> list[str] | None:
    return [CONFIG_NAME] if CONFIG_NAME in there else None


# --- Where they are ---


def _folder(name_or_path: str | os.PathLike, needed: Needed, options: Options) -> Path:
    unknown = set(options) - set(OPTIONS)
    if unknown:
        raise TypeError(
            f"unknown option {', '.join(sorted(unknown))}; there are "
            + ", ".join(OPTIONS)
        )
    path = Path(name_or_path)
    if path.is_dir():
        return path
    if name_or_path == EMBEDDED_MODEL:
        return DATA / EMBEDDED_MODEL
    name = os.fspath(name_or_path)
    is_id = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None
    if isinstance(name_or_path, str) and (name in HUB_IDS or is_id):
        return _hub_folder(name, needed, **options)
    raise FileNotFoundError(
        f"there is no folder {name!r}. A model folder is OpenAI's ({HPARAMS_NAME}, "
        f"model.ckpt.*) or Hugging Face's ({CONFIG_NAME}, {PARAMETER_FILES[0]}); the "
        f"names of models are {EMBEDDED_MODEL} (which comes with the package), "
        f"{', '.join(HUB_IDS)}, and owner/name on the Hugging Face Hub"
    )


def _is_named_model(name_or_path: str | os.PathLike) -> bool:
    """Say whether this is one of the named models, whose files never change."""
    return name_or_path in HUB_IDS or name_or_path in HUB_IDS.values()


def _hub_folder(
    name: str,
    needed: Needed,
    cache_dir: str | Path | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    token: str | bool | None = None,
) -> Path:
    _require_huggingface_hub(name)
    id = HUB_IDS.get(name, name)
    # Until 2024 the named models had no owner, and many caches have them so.
    legacy = [short for short, long in HUB_IDS.items() if long == id]

    def cached() -> Path | None:
        folders = (_cached(i, needed, cache_dir, revision) for i in [id, *legacy])
        return next(filter(None, folders), None)

    if local_files_only and force_download:
        raise ValueError("local_files_only and force_download exclude each other")
    fixed = _is_named_model(name) or re.fullmatch("[0-9a-f]{40}", revision or "")
    if (fixed or local_files_only) and not force_download and (folder := cached()):
        return folder
    if local_files_only:
        raise FileNotFoundError(
            f"{id} is not in the cache, or not all that is needed of it, and "
            "local_files_only=True forbids to fetch it"
        )
    try:
        folder = _fetched(id, needed, cache_dir, revision, force_download, token)
    except _network_errors() as error:
        if _may_pass(error) and not force_download and (folder := cached()):
            return folder
        raise OSError(_explained(error, id, revision)) from error
    if folder is None:
        raise FileNotFoundError(
            f"{id} on the Hugging Face Hub lacks what is needed: {CONFIG_NAME} and "
            f"{' or '.join(PARAMETER_FILES)}; for a tokenizer, merges.txt or "
            "tokenizer.json"
        )
    return folder


def _cached(
    id: str,
    needed: Needed,
    cache_dir: str | Path | None,
    revision: str | None,
) -> Path | None:
    """Return the folder in the cache that has all needed files, or None."""
    from huggingface_hub import try_to_load_from_cache

    for name in (CONFIG_NAME, *TOKENIZER_FILES):
        path = try_to_load_from_cache(
            id, name, cache_dir=cache_dir, revision=revision or "main"
        )
        if isinstance(path, str):
            break
    else:
        return None
    folder = Path(path).parent
    there = [file.name for file in folder.iterdir() if file.is_file()]
    files = needed(there, lambda name: read_json(folder / name))
    return folder if files and set(files) <= set(there) else None


def _fetched(
    id: str,
    needed: Needed,
    cache_dir: str | Path | None,
    revision: str | None,
    force_download: bool,
    token: str | bool | None,
) -> Path | None:
    """Fetch the needed files that the cache lacks; return their folder.

    None stands for a model that lacks some of them.
    """
    from huggingface_hub import HfApi, hf_hub_download

    def fetch(name: str, revision: str | None) -> Path:
        path = hf_hub_download(
            id,
            name,
            cache_dir=cache_dir,
            revision=revision,
            force_download=force_download,
            token=token,
        )
        return Path(path)

    info = HfApi(token=token).model_info(id, revision=revision, timeout=30)
    there = [file.rfilename for file in info.siblings or ()]
    files = needed(there, lambda name: read_json(fetch(name, info.sha)))
    if not files:
        return None
    # The first file is fetched by the revision's name, so that the cache learns which
    # commit it is; the others by that commit: all are of one commit, and what is in the
    # cache takes no request.
    folder = fetch(files[0], revision).parent
    for name in files[1:]:
        fetch(name, folder.name)
    return folder


# --- Errors ---


def _require_huggingface_hub(name: str) -> None:
    """Raise ImportError, which says what needs it, if huggingface_hub is missing."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise ImportError(
            f"there is no folder {name!r}, and a model of this name needs the library "
            f"huggingface_hub: {pip_install('hub')}. Without it, give a folder "
            f"with OpenAI's or Hugging Face's files, or {EMBEDDED_MODEL!r}, the model in "
            "the package (`minigpt2 download 124M` fetches OpenAI's)"
        ) from None


def _network_errors() -> tuple[type[BaseException], ...]:
    """Return the errors that a request can end with: a tuple for `except`.

    huggingface_hub lets through those of the HTTP library that it stands on (requests
    before its version 1, httpx since), and its own errors are of that family. An answer
    that is a web page is no JSON.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, json.JSONDecodeError, *HfHubHTTPError.__bases__)


def _may_pass(error: BaseException) -> bool:
    """Say whether nobody answered, or the server can't answer now (429, 5xx)."""
    response = getattr(error, "response", None)
    return response is None or response.status_code in (408, 429, *range(500, 600))


def _explained(error: BaseException, id: str, revision: str | None) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{constants.ENDPOINT}/{id}"
    if isinstance(error, GatedRepoError):
        return f"{where} is gated: accept its terms there, then give token="
    if isinstance(error, RevisionNotFoundError):
        return f"{where} has no revision {revision!r}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
        return (
            f"there is no folder {id!r} and no model {where}; if it is private, "
            "give token= or run `hf auth login`"
        )
    reason = str(error).strip().partition("\n")[0]
    return (
        f"there is no folder {id!r}, and {where} can't be had, nor is it in the cache: "
        f"{type(error).__name__}: {reason}. (HF_ENDPOINT may name a mirror.)"
    )
