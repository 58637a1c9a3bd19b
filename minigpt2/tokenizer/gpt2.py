"""GPT2Tokenizer: GPT-2's tokenizer, from its files and back into files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from ..bpe import read_ids, read_merges
from ..hub import options_of, tokenizer_folder
from ..hub.archive import GPT2_SIZES
from ..runtime.files import write_whole
from .fast_bpe import FastBPE
from .files import path_in, read_folder, write_json
from .pretrained import PreTrainedTokenizer
from .tokenizer_json import whole_of
from .vocabulary import ROLES

if TYPE_CHECKING:
    from .vocabulary import Token

END_OF_TEXT = "<|endoftext|>"
# The settings that are saved by the names of PreTrainedTokenizer's arguments.
SETTINGS = (
    "errors",
    "add_prefix_space",
    "add_bos_token",
    "add_eos_token",
    "split_special_tokens",
    "model_max_length",
    "padding_side",
    "truncation_side",
    "clean_up_tokenization_spaces",
)


# {a keyword: the settings of files that it replaces beside its own}
INSTEAD = {
    "max_len": ["model_max_length"],
    "model_max_length": ["max_len"],
    "additional_special_tokens": ["extra_special_tokens"],
    "extra_special_tokens": ["additional_special_tokens"],
    "add_bos_token": ["post_processor"],
    "add_eos_token": ["post_processor"],
}


class GPT2Tokenizer(PreTrainedTokenizer):
    """GPT-2's tokenizer: byte-level BPE, and <|endoftext|> for whatever is special.

    Args:
        vocab_file: encoder.json or vocab.json: a path, or {token: id}. None stands for
            the ids that follow from the merges, which are GPT-2's own: the 256 bytes,
            then the merges, then <|endoftext|>.
        merges_file: vocab.bpe or merges.txt: a path, or a list of "left right".
        **options: as for PreTrainedTokenizer, like all the others. `vocab` and `merges`
            are the names of the first two in transformers 5.
    """

    max_model_input_sizes = dict.fromkeys(GPT2_SIZES, 1024)  # (of transformers 1 to 4)

    def __init__(
        self,
        vocab_file: str | os.PathLike | Mapping[str, int] | None = None,
        merges_file: str | os.PathLike | list[str] | None = None,
        errors: str = "replace",
        unk_token: Token | None = END_OF_TEXT,
        bos_token: Token | None = END_OF_TEXT,
        eos_token: Token | None = END_OF_TEXT,
        add_prefix_space: bool = False,
        **options: Any,
    ):
        vocab_file = options.pop("vocab", vocab_file)
        merges_file = options.pop("merges", merges_file)
        if merges_file is None:
            raise TypeError(
                "merges_file (vocab.bpe or merges.txt) is missing; GPT-2's own comes "
                'with GPT2Tokenizer.from_pretrained("gpt2")'
            )
        source: object = "merges"
        if isinstance(merges_file, list):
            merges = merges_file
        else:
            merges, source = read_merges(merges_file), merges_file
        ids = vocab_file
        if ids is not None and not isinstance(ids, Mapping):
            ids = read_ids(ids)
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
    def from_pretrained(cls, name_or_path: str | os.PathLike, **options: Any) -> Self:
        """Return the tokenizer of a model.

        Args:
            name_or_path: a folder (files.py says what it may hold), or a name. Those of
                the four released sizes, such as "gpt2", need no network.
            **options: keywords of `__init__`, which override what the files say, and
                options of minigpt2.hub (cache_dir, revision, local_files_only, ...).
        """
        folder = tokenizer_folder(name_or_path, **options_of(options))
        vocab, merges, settings = read_folder(folder)
        for name in settings:
            if callable(getattr(cls, name, None)):
                raise ValueError(
                    f"{folder / 'tokenizer_config.json'}: {name} must be left out: it is "
                    f"a method of {cls.__name__}"
                )
        # What the caller says goes before the file's, by whatever name.
        for name, others in INSTEAD.items():
            if name in options:
                for other in others:
                    settings.pop(other, None)
        settings |= {"name_or_path": name_or_path} | options
        try:
            return cls(vocab, merges, **settings)
        except ValueError as error:
            if str(folder) in str(error):
                raise
            raise ValueError(f"{folder}: {error}") from None

    def save_vocabulary(
        self, save_directory: str | os.PathLike, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write vocab.json and merges.txt into a folder; return their paths.

        The folder is made if it isn't there.
        """
        vocab_file = path_in(save_directory, "vocab.json", filename_prefix)
        merges_file = path_in(save_directory, "merges.txt", filename_prefix)
        write_json(vocab_file, self.bpe.ids)
        lines = ["#version: 0.2", *self.bpe.written_merges(), ""]
        write_whole(merges_file, "\n".join(lines).encode("utf-8"))
        return str(vocab_file), str(merges_file)

    def save_pretrained(
        self, save_directory: str | os.PathLike, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write what `from_pretrained`, also transformers', needs to make this tokenizer.

        The folder is made if it isn't there. Return the paths of the files.
        """
        added = self.added_tokens_decoder
        special = self.special_tokens_map
        own = {
            role: special.pop(role) for role in list(special) if role in self._named()
        }
        files: dict[str, Any] = {
            "tokenizer_config.json": {
                **self.init_kwargs,
                **{name: getattr(self, name) for name in SETTINGS},
                # (By default these three are taken.)
                **dict.fromkeys(("bos_token", "eos_token", "unk_token")),
                **special,
                **({"extra_special_tokens": own} if own else {}),
                "added_tokens_decoder": {id: asdict(t) for id, t in added.items()},
                "tokenizer_class": "GPT2Tokenizer",
            },
            "special_tokens_map.json": {
                name: self._described(token) for name, token in (special | own).items()
            },
            "added_tokens.json": {
                token.content: id
                for id, token in added.items()
                if token.content not in self.bpe.ids
            },
        }
        whole = path_in(save_directory, "tokenizer.json", filename_prefix)
        if self.post_processor is not None or whole.exists():
            # The other files have no word for a post-processor, and an old tokenizer.json
            # would say something else.
            files["tokenizer.json"] = whole_of(self)
        paths = []
        for name, content in files.items():
            paths.append(path_in(save_directory, name, filename_prefix))
            write_json(paths[-1], content)
        return *map(str, paths), *self.save_vocabulary(save_directory, filename_prefix)

    def _named(self) -> set[str]:
        """Return the roles that only this tokenizer has."""
        return {role for role in self._roles if role not in ROLES}

    def _described(self, token: str | list[str]) -> Any:
        """Return a token as files have it: its text, or an object if it has flags."""
        if isinstance(token, list):
            return list(map(self._described, token))
        known = self._added.tokens.get(self._added.ids.get(token, -1))
        fields = asdict(known) if known else {}
        if not any(fields.get(flag) for flag in ("single_word", "lstrip", "rstrip")):
            return token
        return {name: value for name, value in fields.items() if name != "special"}


GPT2TokenizerFast = GPT2Tokenizer  # transformers' name for the one written in Rust
