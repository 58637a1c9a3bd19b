"""GPT2Tokenizer: GPT-2's tokenizer, from its files and back into files."""

from dataclasses import asdict

from ..bpe import BPE, disguise, learn, read_ids, read_merges, undisguise
from ..files import write_whole
from ..hub import options_of, tokenizer_folder
from .added_tokens import AddedToken
from .files import path_in, read_folder, write_json
from .pretrained import PreTrainedTokenizer

END_OF_TEXT = "<|endoftext|>"
# The settings that are saved by the names of PreTrainedTokenizer's arguments.
SETTINGS = (
    *("errors", "add_prefix_space", "add_bos_token", "split_special_tokens"),
    *("model_max_length", "padding_side", "truncation_side"),
    "clean_up_tokenization_spaces",
)


class GPT2Tokenizer(PreTrainedTokenizer):
    """GPT-2's tokenizer: byte-level BPE, and <|endoftext|> for whatever is special.

    vocab_file: encoder.json or vocab.json, a path or {token: id}. None: the ids that
        follow from the merges (the 256 bytes, then the merges, then <|endoftext|>),
        which are GPT-2's own.
    merges_file: vocab.bpe or merges.txt, a path or a list of "left right".

    Everything else is as in PreTrainedTokenizer.
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
        added_tokens_decoder=None,
        **options,
    ):
        if merges_file is None:
            raise TypeError(
                "merges_file (vocab.bpe or merges.txt) is missing; GPT-2's own comes "
                'with GPT2Tokenizer.from_pretrained("gpt2")'
            )
        if isinstance(merges_file, list):
            ranks, tokens = learn(merges_file)
        else:
            ranks, tokens = learn(read_merges(merges_file), source=merges_file)
        if vocab_file is None:
            ids = {token: id for id, token in enumerate(tokens.values())}
            ids[END_OF_TEXT.encode()] = len(ids)
            others = {}
        else:
            ids, others = _ids_of_tokens(vocab_file, tokens)
        super().__init__(
            BPE(ranks, ids),
            errors=errors,
            unk_token=unk_token,
            bos_token=bos_token,
            eos_token=eos_token,
            add_prefix_space=add_prefix_space,
            added_tokens_decoder=others | (added_tokens_decoder or {}),
            **options,
        )

    @classmethod
    def from_pretrained(cls, name_or_path, **options):
        """The tokenizer of a model: by name, such as "gpt2" (of the four released
        sizes, offline), or from a folder; see files.py for what a folder may have.

        options: keywords of `__init__`, which go before what the files say; and
        those of hub.py (cache_dir, revision, local_files_only, ...).
        """
        folder = tokenizer_folder(name_or_path, **options_of(options))
        vocab, merges, settings = read_folder(folder)
        return cls(vocab, merges, **settings | {"name_or_path": name_or_path} | options)

    def save_vocabulary(self, save_directory, filename_prefix=None):
        """Write vocab.json and merges.txt into a folder, which is made if it is not
        there. Returns their paths, as str."""
        vocab_file = path_in(save_directory, "vocab.json", filename_prefix)
        merges_file = path_in(save_directory, "merges.txt", filename_prefix)
        write_json(vocab_file, {disguise(t): id for t, id in self.bpe.ids.items()})
        pairs = sorted(self.bpe.ranks, key=self.bpe.ranks.get)
        lines = [f"{disguise(left)} {disguise(right)}\n" for left, right in pairs]
        write_whole(merges_file, "".join(["#version: 0.2\n", *lines]).encode())
        return str(vocab_file), str(merges_file)

    def save_pretrained(self, save_directory, filename_prefix=None):
        """Write into a folder all that `from_pretrained`, also that of transformers,
        needs to make this tokenizer again. Returns the files' paths, as str."""
        added = self.added_tokens_decoder
        files = {
            "tokenizer_config.json": {
                **self.init_kwargs,
                **{name: getattr(self, name) for name in SETTINGS},
                **self.special_tokens_map,
                "added_tokens_decoder": {id: asdict(t) for id, t in added.items()},
                "tokenizer_class": "GPT2Tokenizer",
            },
            "special_tokens_map.json": self.special_tokens_map,
            "added_tokens.json": {
                token.content: id
                for id, token in added.items()
                if token.content.encode("utf-8") not in self.bpe.ids
            },
        }
        paths = []
        for name, content in files.items():
            paths.append(path_in(save_directory, name, filename_prefix))
            write_json(paths[-1], content)
        return *map(str, paths), *self.save_vocabulary(save_directory, filename_prefix)

    @property
    def encoder(self):
        """{token as files write it: id} of the vocabulary proper."""
        return {disguise(token): id for token, id in self.bpe.ids.items()}

    @property
    def decoder(self):
        """{id: token as files write it} of the vocabulary proper."""
        return {id: disguise(token) for token, id in self.bpe.ids.items()}


GPT2TokenizerFast = GPT2Tokenizer  # transformers' name for the one written in Rust


def _ids_of_tokens(vocab, tokens):
    """Split what a vocabulary file says: {token: id}, and {id: AddedToken} of the
    entries that are not written as bytes are, which must be added tokens.

    tokens: {written: token}, those that merges can make.
    """
    written_ids = vocab if isinstance(vocab, dict) else read_ids(vocab)
    if len(set(written_ids.values())) < len(written_ids):
        raise ValueError(f"{vocab}: two tokens have the same id")
    ids, added = {}, {}
    for written, id in written_ids.items():
        try:
            ids[tokens.get(written) or undisguise(written)] = id
        except KeyError:
            added[id] = AddedToken(written)
    return ids, added
