"""How well a model predicts a text: log-probabilities, perplexity, bits a byte.

A text longer than the model's context is read through a window of W ids, which moves on
by a stride of S. Each window gives the log-probabilities of the ids that no window
before has given, so every id but the first is counted once, with at least W - S ids
before it (at the beginning of the text, with all there are):

    ids      0 1 2 3 4 5 6 7 8 9        W = 6, S = 2; scored ids in brackets
    window   0[1 2 3 4 5]
                 2 3 4 5[6 7]
                     4 5 6 7[8 9]

S = W is the quickest, and passes over the first id of each window; a small S gives each
id more context and takes W / S times as long.

Perplexity is exp of the mean of -log p over these ids. This is the recipe of
transformers' documentation ("Perplexity of fixed-length models"), but for a slip in how
that weighs the windows after the first: by one id fewer than they score, if S < W.
"""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

ROWS = 128  # positions whose scores over the vocabulary are in memory at a time
LONGEST_WORD = 2**24  # characters without a space that may have to be kept


@dataclass
class Score:
    """What the scored ids of a text add up to. `score + score` is that of both texts."""

    tokens: int = 0
    bytes: int = 0
    characters: int = 0
    nats: float = 0.0  # the sum of -log p

    @property
    def loss(self):
        """Nats a token; NaN if no token was scored."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self):
        """exp(loss)."""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self):
        """Bits a byte of UTF-8, comparable between vocabularies."""
        return self.nats / math.log(2) / self.bytes if self.bytes else math.nan

    @property
    def bits_per_character(self):
        """Bits a character."""
        bits = self.nats / math.log(2)
        return bits / self.characters if self.characters else math.nan

    def __add__(self, other):
        return Score(
            self.tokens + other.tokens,
            self.bytes + other.bytes,
            self.characters + other.characters,
            self.nats + other.nats,
        )


def score(model, tokenizer, text, window=None, stride=None, bos=False):
    """Score a text; return its Score.

    - model (GPT2LMHeadModel), tokenizer (GPT2Tokenizer).
    - text (str, or iterable of str): an iterable is read as one text, part by part, in
      bounded memory.
    - window (int): ids that the model sees at a time, 2 to n_positions; None is that.
    - stride (int): 1 to window; None is half of it.
    - bos (bool): begin with bos_token_id, so that the first id is scored as well.

    Raises ValueError for a window or stride out of range, and for ids that the model
    does not have.
    """
    windows = scored(model, tokenizer, text, window, stride, bos)
    return add_up(windows, tokenizer)


def add_up(windows, tokenizer):
    """Return the Score of what `scored` yields."""
    total = Score()
    for _, ids, log_probs in windows:
        text_bytes = tokenizer.bpe.decode(ids)
        starts = sum(byte & 0xC0 != 0x80 for byte in text_bytes)  # of characters
        nats = -float(log_probs.sum())
        total += Score(len(ids), len(text_bytes), starts, nats)
    return total


def scored(model, tokenizer, text, window=None, stride=None, bos=False):
    """Score a text window by window: yield (position, ids, log-probabilities).

    Arguments as for `score`; the arrays are [n], the log-probabilities (natural) of the
    ids at `position` and after it, float64.
    """
    ids = encoded(tokenizer, [text] if isinstance(text, str) else text)
    if bos:
        ids = chain([tokenizer.bos_token_id], ids)
    yield from token_log_probs(model, ids, window, stride)


def token_log_probs(model, ids, window=None, stride=None) -> Iterator[tuple]:
    """Score ids window by window: yield (position, ids, log-probabilities).

    - ids (iterable of int): of any length; no more than a window of them is kept.
    - the rest as for `scored`.
    """
    longest = model.config.n_positions
    window = longest if window is None else window
    if not 2 <= window <= longest:
        raise ValueError(
            f"window={window}: this model takes 2 to {longest} ids at a time"
        )
    stride = max(1, window // 2) if stride is None else stride
    if not 1 <= stride <= window:
        raise ValueError(f"stride={stride} must be 1 to window, {window}")
    ids = iter(ids)
    begin, seen, held = 0, [], 0  # `seen` are the ids from position `begin` on
    while new := list(islice(ids, window - held)):
        seen += new
        count = min(len(new), len(seen) - 1)  # the first has nothing before it
        if count:
            log_probs = _last_log_probs(model, seen, count)
            yield begin + len(seen) - count, np.array(seen[-count:]), log_probs
        seen = seen[stride:]
        begin, held = begin + stride, len(seen)


def _last_log_probs(model, ids, count):
    """Return the log-probabilities [count] of the last ids, each after all before it."""
    inputs = np.array([ids[:-1]])
    hidden = model.transformer(inputs, use_cache=False).last_hidden_state[:, -count:]
    targets = np.array(ids[-count:])
    log_probs = np.empty(count)
    for start in range(0, count, ROWS):  # scores of a whole window are 200 MB
        rows = slice(start, start + ROWS)
        logits = model.lm_head(hidden[:, rows])[0]  # [ROWS, V]
        top = logits.max(-1)
        total = np.exp(logits - top[:, None]).sum(-1, dtype=np.float64)
        chosen = np.take_along_axis(logits, targets[rows, None], -1)[:, 0]
        log_probs[rows] = (chosen - top) - np.log(total)
    return log_probs


def encoded(tokenizer, texts: Iterable[str]) -> Iterator[int]:
    """The ids of one text that comes in parts: those of the whole, in bounded memory.

    The text is cut where a space or a newline follows something else: no piece of the
    pattern goes across such a place (see bpe.py), nor does a special token without
    white space. ValueError if 16 million characters have none.
    """
    waiting = ""
    for text in texts:
        waiting += text
        cut = _last_cut(waiting, len(text))
        if cut:
            yield from tokenizer.encode(waiting[:cut], verbose=False)
            waiting = waiting[cut:]
            tokenizer = _without_prefix_space(tokenizer)
        elif len(waiting) > LONGEST_WORD:
            raise ValueError(
                f"{LONGEST_WORD:,} characters without a space: this is no text"
            )
    if waiting:
        yield from tokenizer.encode(waiting, verbose=False)  # longer than a window


def _last_cut(text, new):
    """Return the last place of a cut, or 0. Before the `new` characters there is none."""
    for i in range(len(text) - 1, max(0, len(text) - new - 1), -1):
        if text[i] in " \n" and not text[i - 1].isspace():
            return i
    return 0


def _without_prefix_space(tokenizer):
    """Return a tokenizer for what is not the beginning of a text."""
    if tokenizer.add_prefix_space:
        tokenizer = copy.copy(tokenizer)
        tokenizer.add_prefix_space = False
    return tokenizer
