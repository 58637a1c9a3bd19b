"""Tensors as JSON, for readers that have nothing else.

    {"golden": {...}, "tensors": {"wte": {"dtype": "float32", "shape": [1, 2], "data":
    [0.5, "-inf"]}, ...}}

The data are flat, row-major. JSON has no infinities: they are the texts "inf", "-inf" and
"nan". A float is written with as many digits as a float64 needs, so that every number of
either dtype comes back as it was (but for the payload of a NaN). bfloat16 is no dtype
here. A file that has no "golden" is a dump of somebody else's, and read as well.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints import CheckpointError
from ..checkpoints.tensor_file import map_file, stored_size
from ..runtime.files import open_whole

DTYPES = (
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
).split()
NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def save_json(
    path: str | os.PathLike, tensors: Mapping[str, np.ndarray], about: dict[str, Any]
) -> None:
    """Write tensors and what there is to say of them, whole or not at all.

    ValueError for a dtype that is none of DTYPES.
    """
    with open_whole(path) as file:
        for text in _texts(tensors, about):
            file.write(text.encode())


def _texts(tensors: Mapping[str, np.ndarray], about: dict[str, Any]) -> Iterator[str]:
    yield f'{{"golden": {json.dumps(about)},\n"tensors": {{'
    for number, (name, array) in enumerate(tensors.items()):
        array = np.asarray(array)
        if array.dtype.name not in DTYPES:
            raise ValueError(f"tensor {name!r} is {array.dtype}, which JSON has not")
        entry = {
            "dtype": array.dtype.name,
            "shape": array.shape,
            "data": list(map(_written, array.ravel().tolist())),
        }
        yield f"{',' if number else ''}\n{json.dumps(name)}: {json.dumps(entry)}"
    yield "\n}}\n"


def _written(number: float) -> float | str:
    """Return a number as JSON can write it."""
    return number if math.isfinite(number) else str(number)


def read_json_tensors(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """Return a file's tensors and what it says under "golden", or None.

    Raises:
        CheckpointError: the file is missing, no JSON, or holds no such tensors.
    """
    try:
        content = json.loads(map_file(path).tobytes())
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is no JSON: {error!s:.200}") from None
    listed = content.get("tensors") if isinstance(content, dict) else None
    if not isinstance(listed, dict):
        raise CheckpointError(f'{path} has no {{"tensors": {{...}}}}')
    tensors = {}
    for name, entry in listed.items():
        try:
            tensors[name] = _array(entry)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: tensor {name!r:.100}: {error}") from None
    return tensors, content.get("golden")


def _array(entry: Any) -> np.ndarray:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data": [*data]} if (
            dtype in DTYPES and all(type(length) is int for length in shape)
        ):
            pass
        case _:
            raise CheckpointError(f"it is no tensor: {entry!r:.100}")
    size = stored_size(dtype, tuple(shape))
    if size != len(data) * np.dtype(dtype).itemsize:
        raise CheckpointError(
            f"it has {len(data)} numbers, which are not of the shape {shape!s:.100}"
        )
    numbers = [_number(value, dtype) for value in data]
    try:
        with np.errstate(over="raise"):
            array = np.array(numbers, dtype)
    except (OverflowError, FloatingPointError):
        raise CheckpointError(f"a number is too large for {dtype}") from None
    array.flags.writeable = False
    return array.reshape(shape)


def _number(value: Any, dtype: str) -> Any:
    """Return a number of JSON, if it may stand for one of a dtype."""
    if dtype == "bool":
        good = type(value) is bool
    elif "int" in dtype:
        good = type(value) is int
    else:
        if isinstance(value, str) and value in NOT_FINITE:
            return NOT_FINITE[value]
        good = type(value) is int or (type(value) is float and math.isfinite(value))
    if not good:
        raise CheckpointError(f"{value!r:.50} is no {dtype}")
    return value
