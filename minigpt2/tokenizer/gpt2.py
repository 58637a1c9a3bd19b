"""GPT2Tokenizer: GPT-2's tokenizer, from its files and back into files."""

from dataclasses import asdict

from ..bpe import read_ids, read_merges
from ..hub import options_of, tokenizer_folder
from ..runtime.files import write_whole
from .fast_bpe import FastBPE
from .files import path_in, read_folder, write_json
from .pretrained import PreTrainedTokenizer

END_OF_TEXT = "<|endoftext|>"
# The settings that are saved by the names of PreTrainedTokenizer's arguments.
SETTINGS = (
    "errors",
    "add_prefix_space",
    "add_bos_token",
    "split_special_tokens",
    "model_max_length",
    "padding_side",
    "truncation_side",
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
        **options,
    ):
        if merges_file is None:
            raise TypeError(
                "merges_file (vocab.bpe or merges.txt) is missing; GPT-2's own comes "
                'with GPT2Tokenizer.from_pretrained("gpt2")'
            )
        merges, ids, source = merges_file, vocab_file, "merges"
        if not isinstance(merges, list):
            merges, source = read_merges(merges_file), merges_file
        if ids is not None and not isinstance(ids, dict):
            ids = read_ids(vocab_file)
        bpe = FastBPE(merges, ids, source)
        if ids is None:
            bpe.ids[END_OF_TEXT] = len(bpe.ids)
            bpe.add(bpe.ids[END_OF_TEXT], END_OF_TEXT)
        super().__init__(
            bpe,
            errors=errors,
            unk_token=unk_token,
            bos_token=bos_token,
            eos_token=eos_token,
            add_prefix_space=add_prefix_space,
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
        settings |= {"name_or_path": name_or_path} | options
        try:
            return cls(vocab, merges, **settings)
        except ValueError as error:
            if str(folder) in str(error):
                raise
            raise ValueError(f"{folder}: {error}") from None

    def save_vocabulary(self, save_directory, filename_prefix=None):
        """Write vocab.json and merges.txt into a folder, which is made if it is not
        there. Returns their paths, as str."""
        vocab_file = path_in(save_directory, "vocab.json", filename_prefix)
        merges_file = path_in(save_directory, "merges.txt", filename_prefix)
        write_json(vocab_file, self.bpe.ids)
        lines = ["#version: 0.2", *self.bpe.written_merges(), ""]
        write_whole(merges_file, "\n".join(lines).encode("utf-8"))
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
                if token.content not in self.bpe.ids
            },
        }
        paths = []
        for name, content in files.items():
            paths.append(path_in(save_directory, name, filename_prefix))
            write_json(paths[-1], content)
        return *map(str, paths), *self.save_vocabulary(save_directory, filename_prefix)


GPT2TokenizerFast = GPT2Tokenizer  # transformers' name for the one written in Rust
