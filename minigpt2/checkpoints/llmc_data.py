"""llm.c's tokenizer and token files <-> bytes of tokens, and ids.

    tokenizer (`gpt2_tokenizer.bin`)
        header    256 int32: 20240328, version, n, and in version 2 the id that ends a
                  text; zeros
        tokens    n times: a byte, the length, and as many bytes
    tokens (`tiny_shakespeare_val.bin`)
        header    256 int32: 20240520, 1, n, and zeros
        ids       n times uint16

All is little-endian. Sources: github.com/karpathy/llm.c, train_gpt2.py (write_tokenizer)
and dev/data/data_common.py (write_datafile).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..runtime.files import open_whole
from . import CheckpointError
from .llmc_file import HEADER, TOKENIZER, TOKENS, header_of, write_header
from .tensor_file import as_array, map_file

LONGEST = 255  # bytes in a token


def save_token_bytes(
    path: str | os.PathLike, tokens: Sequence[bytes], end_of_text: int
) -> None:
    """Write a tokenizer file of the bytes of each id, whole or not at all."""
    if too_long := [token for token in tokens if len(token) > LONGEST]:
        raise ValueError(
            f"llm.c's tokens have {LONGEST} bytes at most: {too_long[0][:20]!r}..."
        )
    with open_whole(path) as file:
        write_header(file, [TOKENIZER, 2, len(tokens), end_of_text])
        file.write(b"".join(bytes([len(token)]) + token for token in tokens))


def read_token_bytes(path: str | os.PathLike) -> tuple[list[bytes], int | None]:
    """Return the bytes of each id, and the id that ends a text (None in version 1).

    Raises:
        CheckpointError: the file is missing, truncated, or something else.
    """
    path = Path(path)
    file = map_file(path)
    try:
        _, version, count, end_of_text, *_ = header_of(file, TOKENIZER)
        if version not in (1, 2) or not 0 <= count <= len(file):
            raise CheckpointError(f"it is version {version}, of {count} tokens")
        data, at, tokens = file[HEADER:].tobytes(), 0, []
        for id in range(count):
            stop = at + 1 + (data[at] if at < len(data) else 0)
            if stop > len(data) or at == len(data):
                raise CheckpointError(f"it ends within token {id} of {count}")
            tokens.append(data[at + 1 : stop])
            at = stop
        if at != len(data):
            raise CheckpointError(f"{len(data) - at} bytes follow its last token")
        if version == 2 and not 0 <= end_of_text < max(count, 1):
            raise CheckpointError(f"{end_of_text} ends a text, and is no id")
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} is no sound tokenizer file of llm.c: {error}"
        ) from None
    return tokens, end_of_text if version == 2 else None


def save_tokens(path: str | os.PathLike, ids: npt.ArrayLike) -> None:
    """Write a file of ids [n], whole or not at all; ValueError if one is over 65535."""
    array = np.asarray(ids)
    if array.ndim != 1 or array.dtype.kind not in "iu" or not array.size:
        raise ValueError(
            f"ids must be whole numbers [n], not {array.dtype} {array.shape}"
        )
    if array.min() < 0 or array.max() > 0xFFFF or array.size >= 2**31:
        raise ValueError(
            f"llm.c's token files have ids from 0 to 65535, not {array.min()} to "
            f"{array.max()}, and fewer than 2**31"
        )
    with open_whole(path) as file:
        write_header(file, [TOKENS, 1, array.size])
        file.write(array.astype("<u2").data)


def read_tokens(path: str | os.PathLike) -> np.ndarray:
    """Return the ids [n] (uint16), a read-only view of the mapped file.

    Raises:
        CheckpointError: the file is missing, truncated, or something else.
    """
    path = Path(path)
    file = map_file(path)
    try:
        _, version, count, *_ = header_of(file, TOKENS)
        if version != 1 or len(file) != HEADER + 2 * count:
            raise CheckpointError(
                f"it is version {version}, of {count} ids, in {len(file)} bytes"
            )
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} is no sound token file of llm.c: {error}"
        ) from None
    return as_array(file[HEADER:], "uint16", (count,))
