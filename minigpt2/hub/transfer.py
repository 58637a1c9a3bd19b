"""An address -> a file, with nothing but the standard library.

A transfer that breaks off goes on where it stopped: HTTP's Range header asks for the
bytes from there on. urllib takes the proxy from HTTPS_PROXY and the certificates from
the system or SSL_CERT_FILE. What the bytes are is for the caller to check.
"""

import http.client
import os
import time
import urllib.error
import urllib.request
from typing import BinaryIO

from ..runtime.progress import Progress

TIMEOUT = 30  # seconds of silence after which an attempt is broken off
ATTEMPTS = 4  # in a row that bring nothing new; between them 1, 2 and 4 seconds
BLOCK = 2**20  # bytes read at a time
SMALL = 2**26  # bytes that a file of unknown size may have


def fetch(url: str, path: str | os.PathLike, size: int | None = None) -> None:
    """Fetch an address into a file, which may hold the first bytes already.

    Args:
        url: an http or https address.
        path: the file. After an error it keeps what has come, for the next attempt;
            but of what can't be the right file nothing is kept.
        size: the bytes that the file must have. Without it, the file is fetched from
            the start, and may have 64 MB.

    Raises:
        OSError: if the server refuses, if it sends nothing new in ATTEMPTS attempts, or
            if it sends fewer or more bytes than it must. The message names the address.
    """
    with (
        open(path, "ab") as file,
        Progress(url.rpartition("/")[2], (size or 0) // BLOCK) as progress,
    ):
        if size is None or file.tell() > size:
            file.truncate(0)
            file.seek(0)
        furthest, failures = file.tell(), 0
        while size is None or file.tell() < size:
            try:
                return _receive(url, file, size, progress)
            except ValueError as error:  # all was sent, and it is not this file
                file.truncate(0)
                raise OSError(f"{url} could not be fetched: {error}") from error
            except (OSError, http.client.HTTPException) as error:
                failures = 0 if file.tell() > furthest else failures + 1
                furthest = max(furthest, file.tell())
                if failures == ATTEMPTS or not _may_pass(error):
                    raise OSError(
                        f"{url} could not be fetched: {_reason(error)}"
                    ) from error
            time.sleep(2**failures / 2)


def _receive(url: str, file: BinaryIO, size: int | None, progress: Progress) -> None:
    """Make one request for the bytes that the file lacks, and append them.

    Raises:
        ValueError: if what was sent, whole, is too short or too long.
        OSError, http.client.HTTPException: if it did not come, or not to its end.
    """
    start = file.tell() if size is not None else 0
    # (A file server may refuse urllib's own User-Agent, as it refuses crawlers.)
    headers = {"User-Agent": "minigpt2"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    opener = urllib.request.build_opener()  # (urlopen keeps its first call's proxies.)
    try:
        response = opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # no byte of it lies beyond `start`
            raise ValueError(f"it has no more than the {start:,} bytes here") from None
        raise
    with response:
        if not start or response.status != 206:  # all of it comes, from the start
            file.truncate(0)
            file.seek(0)
        length = response.headers["Content-Length"]
        promised = None if length is None else file.tell() + int(length)
        limit = SMALL if size is None else size
        while block := response.read(BLOCK):
            if file.tell() + len(block) > limit:
                raise ValueError(f"more than the {limit:,} bytes that it should have")
            file.write(block)
            progress.done = file.tell() // BLOCK
            progress.step("MiB")
    have, expected = file.tell(), size if promised is None else promised
    if expected is not None and have < expected:
        raise ConnectionError(f"broken off after {have:,} of {expected:,} bytes")
    if size is not None and have < size:
        raise ValueError(f"{have:,} bytes, and it should have {size:,}")


def _may_pass(error: Exception) -> bool:
    """Say whether another attempt may do better: not if the server refuses."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (408, 429, *range(500, 600))
    return True


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None)  # URLError only wraps another error
    shown = inner if isinstance(inner, Exception) else error
    said = f"{type(shown).__name__}: " + str(shown).strip().partition("\n")[0]
    if isinstance(error, urllib.error.HTTPError) and error.code < 500:
        return f"{said} (--base-url names a mirror, --from another source)"
    return f"{said} (try again, and it goes on where it stopped)"
