"""The tokenizer: text <-> ids, with special tokens, in batches, from files.

The merging is in `minigpt2.bpe`. Upon it stand four classes, each on the one before:

    vocabulary.py   Vocabulary           tokens and ids; special and added tokens
    text.py         TextTokenizer        one text -> ids -> text
    pretrained.py   PreTrainedTokenizer  pairs and batches, padding, truncation
    gpt2.py         GPT2Tokenizer        GPT-2's vocabulary, from files and into files

"<|endoftext|>" within a text is its id, 50256, as in transformers. For strangers' texts
`split_special_tokens=True`, in `__init__` or a call, reads it as the 13 characters that
it is, as tiktoken's `encode_ordinary` does.

Names, arguments and results are those of transformers 4.57's GPT2Tokenizer (the one in
Python), but for these differences, which are on purpose:

- `decode` puts no spaces around added tokens (spaces_between_special_tokens=False), so
  it returns the text that was encoded. transformers 5 agrees.
- Lone surrogates and ids that are not in the vocabulary raise ValueError; so do texts
  that truncation cannot cut to max_length, where 4.57 returned them too long.
- Rows of different lengths with return_tensors raise ValueError: no arrays of objects.
- return_offsets_mapping works, as in transformers 5.
- `single_word` looks for letters and digits beside a token, not for anything but a
  space; split_special_tokens leaves added tokens whole that are not special. So it is
  in transformers 5.
- add_tokens(["é"]) adds a token. 4.57 takes it for the byte that files write so, and
  spoils the decoding of other characters. A new id is the largest plus one.
- token_type_ids are as many as input_ids with cls_token or bos_token too, and allowed
  with add_special_tokens=False.
- num_truncated_tokens is never below 0; length does not count padding; an empty text is
  padded, and an empty batch encoded.
- Padding asks for a padding token only where a row needs one, which rows of one length
  do not: the documented example pads without a padding token.
- model_max_length is the model's n_positions where no file says otherwise.
- An argument that is not known is a TypeError. Chat templates are kept and saved, not
  applied.
"""

from .added_tokens import AddedToken
from .batches import BatchEncoding, EncodingOptions
from .gpt2 import GPT2Tokenizer, GPT2TokenizerFast
from .pretrained import PreTrainedTokenizer
from .text import DecodeStream

__all__ = [
    "AddedToken",
    "BatchEncoding",
    "DecodeStream",
    "EncodingOptions",
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "PreTrainedTokenizer",
]
