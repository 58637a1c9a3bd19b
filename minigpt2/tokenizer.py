"""GPT2Tokenizer: text <-> ids, with special tokens.

`bpe.py` does the work on ordinary text. Here the text is first cut around special
tokens, of which GPT-2 has one: "<|endoftext|>", written between documents, is a single
id wherever it stands in a text. A text from strangers may hold it too:
`split_special_tokens=True` reads it as the thirteen characters that it is.
"""

import codecs
import re

from minigpt2.bpe import BPE, disguise, read_ids, read_merges, undisguise
from minigpt2.hub import tokenizer_folder

END_OF_TEXT = "<|endoftext|>"
# Hugging Face's names first, then OpenAI's.
VOCAB_FILES = ("vocab.json", "encoder.json")
MERGES_FILES = ("merges.txt", "vocab.bpe")
HUB_OPTIONS = ("cache_dir", "revision", "local_files_only", "force_download", "token")


class GPT2Tokenizer:
    """The tokenizer of one vocabulary.

    vocab_file: encoder.json or vocab.json, or None: the ids that follow from the merges
        (the 256 bytes, then the merges in order, then <|endoftext|>), as in GPT-2.
    merges_file: vocab.bpe or merges.txt.
    errors: what `decode` does with bytes that are no UTF-8: "replace", "ignore" or
        "strict".
    unk_token: stands for tokens that have no id; GPT-2's vocabulary has no such.
    add_prefix_space: put a space before each text: its first word is then like others.
    split_special_tokens: read special tokens within a text as ordinary characters.
    """

    def __init__(
        self,
        vocab_file=None,
        merges_file=None,
        errors="replace",
        unk_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        add_prefix_space=False,
        *,
        pad_token=None,
        split_special_tokens=False,
    ):
        if merges_file is None:
            raise TypeError(
                "merges_file (vocab.bpe or merges.txt) is missing; GPT-2's own comes "
                'with GPT2Tokenizer.from_pretrained("gpt2")'
            )
        codecs.lookup_error(errors)  # LookupError now rather than at the first bad byte
        ranks, tokens = read_merges(merges_file)
        if vocab_file is None:
            ids = {token: id for id, token in enumerate(tokens.values())}
            ids[END_OF_TEXT.encode()] = len(ids)
        else:
            ids = {
                tokens.get(written) or undisguise(written): id
                for written, id in read_ids(vocab_file).items()
            }
        self.bpe = BPE(ranks, ids)
        self.errors = errors
        self.add_prefix_space = add_prefix_space
        self.split_special_tokens = split_special_tokens
        self.unk_token, self.pad_token = unk_token, pad_token
        self.bos_token, self.eos_token = bos_token, eos_token
        self.special_ids = {}  # content -> id
        for token in self.all_special_tokens:
            id = ids.get(token.encode(), len(self))
            self.special_ids[token] = id
            self.bpe.bytes_of[id] = token.encode()
        self.bpe.unknown_id = self.unk_token_id
        longest_first = sorted(self.special_ids, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    @classmethod
    def from_pretrained(cls, name_or_path, **kwargs):
        """The tokenizer of a model, by name ("gpt2", offline) or from a folder with
        OpenAI's files (encoder.json, vocab.bpe) or Hugging Face's (vocab.json,
        merges.txt); without the first of them the ids follow from the second.
        """
        hub = {key: kwargs.pop(key) for key in HUB_OPTIONS if key in kwargs}
        folder = tokenizer_folder(name_or_path, **hub)

        def find(names):
            return next((folder / n for n in names if (folder / n).is_file()), None)

        if (merges_file := find(MERGES_FILES)) is None:
            raise FileNotFoundError(
                f"{folder} has no merges.txt and no vocab.bpe, so no tokenizer can be "
                'made from it; GPT-2\'s own is GPT2Tokenizer.from_pretrained("gpt2")'
            )
        return cls(find(VOCAB_FILES), merges_file, **kwargs)

    def __len__(self):
        return len(self.bpe.bytes_of)

    @property
    def vocab_size(self):
        """The number of tokens in the vocabulary's file, added ones not counted."""
        return len(self.bpe.ids)

    @property
    def all_special_tokens(self):
        named = [self.bos_token, self.eos_token, self.unk_token, self.pad_token]
        return list(dict.fromkeys(token for token in named if token is not None))

    @property
    def all_special_ids(self):
        return [self.special_ids[token] for token in self.all_special_tokens]

    bos_token_id = property(lambda self: self.special_ids.get(self.bos_token))
    eos_token_id = property(lambda self: self.special_ids.get(self.eos_token))
    unk_token_id = property(lambda self: self.special_ids.get(self.unk_token))
    pad_token_id = property(lambda self: self.special_ids.get(self.pad_token))

    def tokenize(self, text, *, split_special_tokens=None):
        """The tokens of `text` as vocabulary files write them, a list of str.

        >>> GPT2Tokenizer.from_pretrained("gpt2").tokenize("Hello, world")
        ['Hello', ',', 'Ġworld']
        """
        tokens = []
        for part, special in self._parts(text, split_special_tokens):
            tokens += [part] if special else map(disguise, self.bpe.tokens(part))
        return tokens

    def encode(
        self,
        text,
        add_special_tokens=True,
        *,
        return_tensors=None,
        split_special_tokens=None,
    ):
        """The ids of `text`: a list of int, or with return_tensors="np" an int64 array
        of shape (1, T).

        GPT-2 puts no special tokens around a text: add_special_tokens changes nothing.
        """
        ids = []
        for part, special in self._parts(text, split_special_tokens):
            ids += [self.special_ids[part]] if special else self.bpe.encode(part)
        if return_tensors is None:
            return ids
        if return_tensors != "np":
            raise ValueError(
                f"return_tensors={return_tensors!r}: 'np' or None is possible"
            )
        import numpy as np

        return np.array([ids], dtype=np.int64)

    def _parts(self, text, split_special_tokens):
        """Cut text around special tokens: (part, whether it is a special token)."""
        if split_special_tokens is None:
            split_special_tokens = self.split_special_tokens
        if self.add_prefix_space:
            text = " " + text
        if split_special_tokens or not isinstance(text, str):
            return [(text, False)]
        parts = self._special.split(text)  # every second one is a special token
        return [(part, i % 2 == 1) for i, part in enumerate(parts) if part]

    def decode(self, token_ids, skip_special_tokens=False):
        """The text of ids: an int, a list of int or an array of shape (T,).

        decode(encode(text)) == text. Ids that begin or end within a character give what
        `errors` says. ValueError if an id is not in the vocabulary.
        """
        ids = _as_list(token_ids)
        if skip_special_tokens:
            skipped = set(self.all_special_ids)
            ids = [id for id in ids if id not in skipped]
        return self.bpe.decode(ids).decode("utf-8", self.errors)

    def decode_stream(self, skip_special_tokens=False):
        """A TextStream, which decodes ids one by one."""
        return TextStream(self, skip_special_tokens)

    def convert_tokens_to_ids(self, tokens):
        """The id of a token as `tokenize` writes it, or a list of ids of a list; of a
        token that is not in the vocabulary, that of unk_token."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        if tokens in self.special_ids:
            return self.special_ids[tokens]
        try:
            return self.bpe.ids[undisguise(tokens)]
        except KeyError:
            return self.unk_token_id

    def convert_ids_to_tokens(self, ids, skip_special_tokens=False):
        """The token of an id as `tokenize` writes it, or a list of tokens of a list.

        ValueError if an id is not in the vocabulary.
        """
        content = {id: token for token, id in self.special_ids.items()}

        def written(id):
            return content[id] if id in content else disguise(self.bpe.decode([id]))

        if isinstance(ids, int):
            return written(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else ()
        return [written(id) for id in _as_list(ids) if id not in skipped]

    def convert_tokens_to_string(self, tokens):
        """The text of tokens as `tokenize` writes them."""
        written = (
            token.encode() if token in self.special_ids else undisguise(token)
            for token in tokens
        )
        return b"".join(written).decode("utf-8", self.errors)


class TextStream:
    """Ids in, text out, as it comes: never half a character.

    All that `put` returns, and `end` last, joined, is what the tokenizer's `decode`
    returns for all the ids.
    """

    def __init__(self, tokenizer, skip_special_tokens=False):
        self._bpe = tokenizer.bpe
        self._skipped = set(tokenizer.all_special_ids) if skip_special_tokens else ()
        self._utf8 = codecs.getincrementaldecoder("utf-8")(tokenizer.errors)

    def put(self, id):
        """Take one id, return the text that is certain now: "" within a character.

        ValueError if the id is not in the vocabulary.
        """
        if id in self._skipped:
            return ""
        return self._utf8.decode(self._bpe.decode([id]))

    def end(self):
        """Return what is left: "", or what stands for an unfinished character."""
        return self._utf8.decode(b"", final=True)


def _as_list(ids):
    """A list of int of an int, a sequence of int or an array of shape () or (T,)."""
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    ids = [ids] if isinstance(ids, int) else list(ids)
    if ids and not isinstance(ids[0], int) and hasattr(ids[0], "__len__"):
        raise ValueError(
            "expected the ids of one text, not a batch: decode its rows one by one, "
            "or all with batch_decode"
        )
    return ids
