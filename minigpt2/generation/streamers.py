"""Streamers, which `generate` tells of each step, and `stream`, which yields it."""

import sys
from dataclasses import dataclass

from .. import ops
from .beams import best_of
from .loop import Loop
from .outputs import Record


class TextStreamer:
    """Writes the text of one row as it comes, never half a character.

    A streamer is any object with `put(ids)`, which is given the prompt [1, T] and then
    each step's ids [1], and `end()`.

    tokenizer: a GPT2Tokenizer. skip_prompt (bool): write only what is new. file: where
    to, by default standard output; it is flushed after each piece.
    """

    def __init__(self, tokenizer, skip_prompt=False, file=None):
        self._text = tokenizer.decode_stream(skip_special_tokens=True)
        self._skip = skip_prompt
        self._file = file

    def put(self, ids):
        """Take the prompt's ids [1, T], or a step's [1]."""
        if ids.shape[0] != 1:
            raise ValueError("TextStreamer writes one row; this is a batch")
        text = "".join(self._text.put(int(i)) for i in ids.reshape(-1))
        if ids.ndim == 1 or not self._skip:
            self._write(text)

    def end(self):
        """Write what is left: the bytes of an unfinished character, as errors= says."""
        self._write(self._text.end() + "\n")

    def _write(self, text):
        print(text, end="", file=self._file or sys.stdout, flush=True)


@dataclass
class StreamedToken:
    """One step of `stream`.

    - id (int).
    - text (str): the text that is certain since the last token, never half a character:
      "" within one. None without a tokenizer. The pieces joined are the new text.
    - logprob (float): log-probability of the id under the model, in nats.
    - alternatives: the likeliest ids with theirs, [(id, logprob), ...], likeliest first.

    The last two are those of the model's own distribution (with guidance, the mixture),
    before processors and sampling; None if they were not asked for.
    """

    id: int
    text: str | None = None
    logprob: float | None = None
    alternatives: list | None = None


def stream(job, tokenizer, logprobs):
    """Yield a StreamedToken for each new id; see GenerationMixin.stream."""
    text = None
    if tokenizer is not None:
        text = tokenizer.decode_stream(skip_special_tokens=True)
        for id in job.prompt.row(0).text[0]:  # it may end within a character
            text.put(int(id))
    loop = Loop(job, Record(job.options))
    try:
        for step in loop:
            yield token_of(step, text, logprobs)
    finally:  # also when the caller has had enough
        if job.prefix_cache is not None and loop.context.cache is not None:
            job.prefix_cache.keep(loop.texts.so_far[0], loop.context.cache)


def token_of(step, text, logprobs):
    """Return the StreamedToken of a step of one row."""
    id = int(step.ids[0])
    token = StreamedToken(id)
    if text is not None:
        token.text = text.put(id) + (text.end() if step.last else "")
    if logprobs is not None:
        logs = ops.log_softmax(step.logits[0])
        token.logprob = float(logs[id])
        likeliest = best_of(logs, logprobs) if logprobs else []
        token.alternatives = [(int(i), float(logs[i])) for i in likeliest]
    return token
