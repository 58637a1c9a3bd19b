"""How well a model predicts a text: log-probabilities, perplexity, bits per byte.

A text longer than the model's context length is read through a window of W ids, which
moves on by a stride of S. Each window gives the log-probabilities of the ids that no
window before it has given. So every id but the first counts once, with at least W - S
ids before it (at the beginning of the text, with all there are):

    ids      0 1 2 3 4 5 6 7 8 9        W = 6, S = 2; the ids that count in brackets
    window   0[1 2 3 4 5]
                 2 3 4 5[6 7]
                     4 5 6 7[8 9]

S = W is the quickest, but the first id of each window does not count. A small S puts more
ids before each one and takes W / S times as long.

Perplexity is exp of the mean of -log p over these ids. This is the recipe of
transformers' documentation ("Perplexity of fixed-length models") without its slip: if
S < W, that recipe gives each window after the first a weight of one id too few.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from ..model.gpt2 import GPT2LMHeadModel
    from ..tokenizer import GPT2Tokenizer

ROWS = 128  # positions whose logits are in memory at a time
LONGEST_WORD = 2**24  # characters without a space that may have to be kept


@dataclass
class TextScore:
    """Sums over the ids of a text that count. `a + b` has those of both texts."""

    tokens: int = 0
    bytes: int = 0
    characters: int = 0
    nats: float = 0.0  # the sum of -log p

    @property
    def loss(self) -> float:
        """Nats per token; NaN if there is no token."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss)"""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of UTF-8, which can be compared between vocabularies."""
        return self.nats / math.log(2) / self.bytes if self.bytes else math.nan

    @property
    def bits_per_character(self) -> float:
        """Bits per character, which can be compared between vocabularies too."""
        bits = self.nats / math.log(2)
        return bits / self.characters if self.characters else math.nan

    def __add__(self, other: TextScore) -> TextScore:
        return TextScore(
            self.tokens + other.tokens,
            self.bytes + other.bytes,
            self.characters + other.characters,
            self.nats + other.nats,
        )


class LogProbs(NamedTuple):
    """Neighboring ids of a sequence and their log-probabilities."""

    position: int  # of the first of these ids in the sequence
    ids: np.ndarray  # [n]
    log_probs: np.ndarray  # [n] float64, natural: log p of each id after all before it


def score_text(
    model: GPT2LMHeadModel,
    tokenizer: GPT2Tokenizer,
    text: str | Iterable[str],
    window: int | None = None,
    stride: int | None = None,
    bos: bool = False,
) -> TextScore:
    """Return how well the model predicts a text.

    Args:
        text: an iterable of strings is one text that comes in parts. It is read in
            bounded memory.
        window: ids that the model sees at a time, 2 to n_positions; None is n_positions.
        stride: ids that the window moves on by, 1 to window; None is half of it.
        bos: begin with bos_token_id, so that the first id counts as well.

    Raises:
        ValueError: a window or stride out of range, or ids that the model does not have.
    """
    return add_up(
        iter_log_probs(model, tokenizer, text, window, stride, bos), tokenizer
    )


def add_up(windows: Iterable[LogProbs], tokenizer: GPT2Tokenizer) -> TextScore:
    """Return the sums over what `iter_log_probs` yields."""
    total = TextScore()
    for _, ids, log_probs in windows:
        text_bytes = tokenizer.bpe.decode(ids)
        starts = sum(byte & 0xC0 != 0x80 for byte in text_bytes)  # of characters
        nats = -float(log_probs.sum())
        total += TextScore(len(ids), len(text_bytes), starts, nats)
    return total


def iter_log_probs(
    model: GPT2LMHeadModel,
    tokenizer: GPT2Tokenizer,
    text: str | Iterable[str],
    window: int | None = None,
    stride: int | None = None,
    bos: bool = False,
) -> Iterator[LogProbs]:
    """Yield the log-probabilities of a text's ids, window by window.

    The arguments are those of `score_text`.
    """
    ids = iter_ids(tokenizer, [text] if isinstance(text, str) else text)
    if bos:
        ids = chain([tokenizer.bos_token_id], ids)
    yield from token_log_probs(model, ids, window, stride)


def token_log_probs(
    model: GPT2LMHeadModel,
    ids: Iterable[int],
    window: int | None = None,
    stride: int | None = None,
    *,
    start: int = 1,
) -> Iterator[LogProbs]:
    """Yield the log-probability of each id after those before it, window by window.

    Whatever shows log-probabilities of ids takes them from here. If the ids fit into one
    window, there is one item at most.

    Args:
        ids: one sequence of any length; no more than a window of it is kept.
        window: ids that the model sees at a time, 2 to n_positions; None is n_positions.
        stride: ids that the window moves on by, 1 to window; None is half of it.
        start: the position of the first id that counts, such as a prompt's length.

    Raises:
        ValueError: a window or stride out of range, or ids that the model does not have.
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
    seen: list[int] = []  # the ids from position `begin` on
    begin = held = 0
    while new := list(islice(ids, window - held)):
        seen += new
        end = begin + len(seen)
        # (The first id of all has nothing before it.)
        count = min(len(new), len(seen) - 1, end - start)
        if count > 0:
            log_probs = _last_log_probs(model, seen, count)
            yield LogProbs(end - count, np.array(seen[-count:]), log_probs)
        seen = seen[stride:]
        begin, held = begin + stride, len(seen)


def _last_log_probs(model: GPT2LMHeadModel, ids: list[int], count: int) -> np.ndarray:
    """Return the log-probabilities [count] of the last ids, each after all before it."""
    inputs = np.array([ids[:-1]])
    hidden = model.transformer(inputs, use_cache=False).last_hidden_state[:, -count:]
    targets = np.array(ids[-count:])
    log_probs = np.empty(count)
    for start in range(0, count, ROWS):  # logits of a whole window are 200 MB
        rows = slice(start, start + ROWS)
        logits = model.lm_head(hidden[:, rows])[0]  # [ROWS, V]
        log_probs[rows] = log_probs_of(logits, targets[rows])
    return log_probs


def log_probs_of(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """log softmax(logits)[id]: logits [..., V], ids [...] -> [...], in float64.

    The sum over the vocabulary is in float64, which ops.log_softmax's is not.
    """
    top = logits.max(-1)
    total = np.exp(logits - top[..., None]).sum(-1, dtype=np.float64)
    chosen = np.take_along_axis(logits, ids[..., None], -1)[..., 0]
    return (chosen - top) - np.log(total)


def iter_ids(tokenizer: GPT2Tokenizer, texts: Iterable[str]) -> Iterator[int]:
    """Yield the ids of one text that comes in parts, in bounded memory.

    They are what `encode` gives for the whole text, whatever the tokenizer's settings.
    See `_last_cut` for the places where the text is cut.

    Raises:
        ValueError: 16 million characters without a place to cut.
    """
    added = list(tokenizer.get_added_vocab())
    before, after = _around(tokenizer)
    # A part that begins with a space gets no other from add_prefix_space.
    beginnings = " " if tokenizer.add_prefix_space else " \n"
    yield from before
    waiting = ""
    for text in texts:
        waiting += text
        cut = _last_cut(waiting, len(text), added, beginnings)
        if cut:
            yield from _plain_ids(tokenizer, waiting[:cut])
            waiting = waiting[cut:]
        elif len(waiting) > LONGEST_WORD:
            raise ValueError(
                f"{LONGEST_WORD:,} characters without a space: this is no text"
            )
    yield from _plain_ids(tokenizer, waiting)
    yield from after


def _plain_ids(tokenizer: GPT2Tokenizer, text: str) -> list[int]:
    # (verbose=False: that a text is longer than the model takes is no reason to warn.)
    return tokenizer.encode(text, add_special_tokens=False, verbose=False)


def _around(tokenizer: GPT2Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids that `encode` puts before and behind those of a text."""
    whole = tokenizer.build_inputs_with_special_tokens([-1])
    place = whole.index(-1)
    return whole[:place], whole[place + 1 :]


def _last_cut(text: str, new: int, added: list[str], beginnings: str) -> int:
    """Return the last place to cut a text whose last `new` characters are new, or 0.

    That is before one of the `beginnings`, a space or a newline, that follows something
    else: no piece of the pattern goes across such a place (see bpe.py). No added token
    may stand across it, nor touch it, for it might take the white space beside it
    (lstrip, rstrip), or look at what is beside it (single_word); and one that the end of
    the text breaks off is not known yet.
    """
    longest = max(map(len, added), default=1)
    first = max(len(text) - new - longest, longest)
    for i in range(len(text) - longest, first - 1, -1):
        if text[i] in beginnings and not text[i - 1].isspace():
            touching = (text.find(t, i - len(t), i + len(t)) >= 0 for t in added)
            if not any(touching):
                return i
    return 0
