"""The tokenizer: text <-> ids, with special tokens, in batches, from files.

The merging is in `minigpt2.bpe` and, fast, in fast_bpe.py. Upon it stand four classes,
each on the one before:

    vocabulary.py   Vocabulary           tokens and ids; special and added tokens
    text.py         TextTokenizer        one text -> ids -> text
    pretrained.py   PreTrainedTokenizer  pairs and batches, padding, truncation
    gpt2.py         GPT2Tokenizer        GPT-2's vocabulary, from files and into files

Beside them: added_tokens.py finds added tokens in text, templates.py puts special tokens
around it, arguments.py says what callers may give, batches.py and encodings.py what they
get; files.py and tokenizer_json.py read folders.

"<|endoftext|>" within a text is its id, 50256, as in transformers. For strangers' texts
`split_special_tokens=True`, in `__init__` or a call, reads it as the 13 characters that
it is, as tiktoken's `encode_ordinary` does.

Names and arguments are those of transformers 4.57's GPT2Tokenizer (the one in Python), and
so are results, but for these differences, which are on purpose.

As transformers 5 has it:

- `decode` puts no spaces around added tokens (spaces_between_special_tokens=False), so
  it returns the text that was encoded.
- skip_special_tokens leaves out every special added token, with a role or without; one
  that is in additional_special_tokens no more is special still.
- Added tokens that are `normalized` are looked for in what the others have left.
  `single_word` looks for letters and digits beside a token, not for anything but a
  space; split_special_tokens leaves added tokens whole that are not special.
- add_prefix_space puts a space before each part of a text between added tokens, unless
  the part begins with one. 4.57 puts one before the text, whatever it begins with.
- An empty word of is_split_into_words has no ids. (The space before each word is 4.57's.)
- Offsets, word_ids, char_to_token and their like work, and is_fast is True.
- add_eos_token works. extra_special_tokens is a list, or gives roles of one's own.
- tokenizer.json goes before vocab.json and merges.txt, and its post_processor before
  add_bos_token and add_eos_token in tokenizer_config.json.

As neither has it:

- Text is a str, tokens and words are lists of str, ids a list or an array of int from 0
  on. What is none of these (dict, set, range, generator, bytes) is refused.
- Lone surrogates and ids that are not in the vocabulary raise ValueError; so do texts
  that truncation cannot cut to max_length, where 4.57 returned them too long.
- Rows of different lengths with return_tensors raise ValueError, and so do values that
  are no numbers: no arrays of objects or of text.
- What truncation takes off is in overflowing_tokens, as in 4.57; 5 makes rows of it.
- What tokenizer.json says and GPT-2's byte-level BPE cannot do is refused by name. Its
  add_prefix_space counts where tokenizer_config.json says nothing.
- add_tokens(["é"]) adds a token. 4.57 takes it for the byte that files write so, and
  spoils the decoding of other characters. A new id is the largest plus one. An added
  token cannot have another token's id.
- token_type_ids are as many as input_ids with cls_token or bos_token too, and allowed
  with add_special_tokens=False.
- num_truncated_tokens is never below 0; length does not count padding; an empty text is
  padded, and an empty batch encoded.
- Padding asks for a padding token only where a row needs one, which rows of one length
  do not: the documented example pads without a padding token.
- model_max_length is the model's n_positions where no file says otherwise.
- An argument of a call that is not known is a TypeError. GPT-2 has no chat template: a
  folder's is kept and saved, not applied.
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
