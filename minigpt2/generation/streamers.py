"""Streamers, which `generate` tells of each step, and `stream`, which yields it."""

from __future__ import annotations

import queue
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import numpy as np

from .. import ops
from .job import Job
from .loop import Loop, Step
from .outputs import Record
from .sampling import best_of

if TYPE_CHECKING:
    from ..tokenizer import DecodeStream, GPT2Tokenizer


class Streamer(Protocol):
    """What `generate` takes as its streamer."""

    def put(self, ids: np.ndarray) -> object:
        """Take the ids of the prompts [B, T], and then those of each step [R].

        Speculative decoding continues one row after another: it puts [1] at a time.
        """

    def end(self) -> object:
        """Learn that there are no more."""


class TextStreamer:
    """A streamer that writes the text of one row as it comes, never half a character.

    Args:
        skip_prompt: write only what is new.
        file: where to, by default standard output; it is flushed after each piece.
        decode_kwargs: of the tokenizer's `decode_stream`, such as
            skip_special_tokens=True. As in transformers, special tokens are written
            unless it says so.
    """

    def __init__(
        self,
        tokenizer: GPT2Tokenizer,
        skip_prompt: bool = False,
        file: TextIO | None = None,
        **decode_kwargs: Any,
    ):
        self._decoder = tokenizer.decode_stream(**decode_kwargs)
        self._skip = skip_prompt
        self._file = file

    def put(self, ids: np.ndarray) -> None:
        """Take the prompt's ids [1, T], or a step's [1]."""
        if ids.shape[0] != 1:
            raise ValueError("TextStreamer writes one row; this is a batch")
        text = "".join(piece(self._decoder, int(i)) for i in ids.reshape(-1))
        if ids.ndim == 1 or not self._skip:
            self._write(text)

    def end(self) -> None:
        """Write what is left: the bytes of an unfinished character, as errors= says."""
        self._write(self._decoder.end() + "\n")

    def _write(self, text: str) -> None:
        print(text, end="", file=self._file or sys.stdout, flush=True)


class TextIteratorStreamer(TextStreamer):
    """A streamer to iterate over: pieces of text, as `generate` makes them in a thread.

    For a loop in one thread, `model.stream` does without.

    Args:
        skip_prompt: give only what is new.
        timeout: how many seconds to wait for a piece; queue.Empty is raised then. None
            waits for ever.
        decode_kwargs: as for TextStreamer.
    """

    def __init__(
        self,
        tokenizer: GPT2Tokenizer,
        skip_prompt: bool = False,
        timeout: float | None = None,
        **decode_kwargs: Any,
    ):
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.timeout = timeout
        self._pieces: queue.Queue[str | None] = queue.Queue()  # None: no more

    def end(self) -> None:
        """Give what is left, and end the iteration."""
        self._write(self._decoder.end())
        self._pieces.put(None)

    def _write(self, text: str) -> None:
        if text:
            self._pieces.put(text)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        text = self._pieces.get(timeout=self.timeout)
        if text is None:
            raise StopIteration
        return text


def piece(decoder: DecodeStream, id: int) -> str:
    """Return the text that is certain now; none for an id that the tokenizer lacks."""
    try:
        return decoder.put(id)
    except (ValueError, LookupError):
        return ""


@dataclass
class StreamedToken:
    """One step of `stream`.

    The last two fields are None if they were not asked for. They are of the model's own
    distribution (with guidance, the mixture), before processors and sampling.

    - id.
    - text: what is certain since the last token, never half a character: "" within one.
      None without a tokenizer. The pieces joined are the new text.
    - logprob: the log-probability of the id, in nats.
    - alternatives: the likeliest ids with theirs, [(id, logprob), ...], likeliest first.
    """

    id: int
    text: str | None = None
    logprob: float | None = None
    alternatives: list[tuple[int, float]] | None = None


def stream(
    job: Job, tokenizer: GPT2Tokenizer | None, logprobs: int | None
) -> Iterator[StreamedToken]:
    """Yield a StreamedToken for each new id; see GenerationMixin.stream."""
    decoder = None
    if tokenizer is not None:
        decoder = tokenizer.decode_stream(skip_special_tokens=True)
        for id in job.prompt.row(0).sequences[0]:  # it may end within a character
            piece(decoder, int(id))
    loop = Loop(job, Record(job.options))
    try:
        for step in loop:
            yield token_of(step, decoder, logprobs)
    finally:  # also when the caller has had enough
        prefix_cache, cache = job.call.prefix_cache, loop.state.cache
        if prefix_cache is not None and cache is not None:
            prefix_cache.keep(loop.sequences.ids[0], cache)


def token_of(
    step: Step, decoder: DecodeStream | None, logprobs: int | None
) -> StreamedToken:
    """Return the StreamedToken of a step of one row."""
    id = int(step.ids[0])
    token = StreamedToken(id)
    if decoder is not None:
        token.text = piece(decoder, id) + (decoder.end() if step.last else "")
    if logprobs is not None:
        logs = ops.log_softmax(step.logits[0])
        token.logprob = float(logs[id])
        likeliest = best_of(logs, logprobs).tolist() if logprobs else []
        token.alternatives = [(i, float(logs[i])) for i in likeliest]
    return token
