"""Streamers: objects with `put(ids)` and `end()` that `generate` tells of each step."""

import sys


class TextStreamer:
    """Writes the text of one row as it comes, never half a character.

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
        if ids.ndim == 2 and self._skip:
            return
        self._write("".join(self._text.put(int(i)) for i in ids.reshape(-1)))

    def end(self):
        """Write what is left: the bytes of an unfinished character, as errors= says."""
        self._write(self._text.end() + "\n")

    def _write(self, text):
        print(text, end="", file=self._file or sys.stdout, flush=True)
