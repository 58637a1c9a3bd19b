"""The tokens of a tokenizer: those of its byte-pair encoding, and the added tokens.

Seven special tokens have a role and are attributes: bos_token, eos_token, unk_token,
sep_token, pad_token, cls_token, mask_token. Each has an id: pad_token_id, ... GPT-2
uses one token for the first three and leaves the other four to its users.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast, overload

from .added_tokens import AddedToken, AddedTokens
from .fast_bpe import FastBPE

if TYPE_CHECKING:
    import numpy as np

    Token = str | AddedToken | Mapping  # a mapping as files have it
    Ids = int | Iterable[int] | np.ndarray  # the ids of one text

logger = logging.getLogger("minigpt2.tokenizer")

ROLES = tuple(
    f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)


def _role(name: str) -> tuple[property, property]:
    """Return the attributes `pad_token` and `pad_token_id` of the role "pad_token"."""

    def set_id(self: Vocabulary, id: int | None) -> None:
        setattr(self, name, None if id is None else self.convert_ids_to_tokens(id))

    token = property(
        lambda self: self._roles[name],
        lambda self, token: self._set_role(name, token),
        doc=f"The {name}, or None.",
    )
    id = property(
        lambda self: self.convert_tokens_to_ids(self._roles[name]),
        set_id,
        doc=f"The id of the {name}, or None.",
    )
    return token, id


class Vocabulary:
    """The tokens and their ids.

    A token is a str or an AddedToken. Special tokens that the vocabulary lacks get the
    next ids.

    Args:
        bpe: the byte-pair encoding, whose tokens are the vocabulary proper.
        roles: {"pad_token": token or None, ...} for all seven.
        additional_special_tokens: special tokens that have no role.
        added_tokens: {id: token} of added tokens whose ids are settled.
    """

    bos_token, bos_token_id = _role("bos_token")
    eos_token, eos_token_id = _role("eos_token")
    unk_token, unk_token_id = _role("unk_token")
    sep_token, sep_token_id = _role("sep_token")
    pad_token, pad_token_id = _role("pad_token")
    cls_token, cls_token_id = _role("cls_token")
    mask_token, mask_token_id = _role("mask_token")

    def __init__(
        self,
        bpe: FastBPE,
        roles: Mapping[str, Token | None],
        additional_special_tokens: Iterable[Token],
        added_tokens: Mapping[int, Token],
    ):
        self.bpe = bpe
        self._added = AddedTokens()
        for id, token in added_tokens.items():
            self._register(int(id), AddedToken.of(token))
        taken = {role: AddedToken.of(t, True) for role, t in roles.items() if t}
        more = [AddedToken.of(token, True) for token in additional_special_tokens]
        self._roles: dict[str, str | None] = {role: None for role in ROLES}
        self._roles |= {role: token.content for role, token in taken.items()}
        self.additional_special_tokens = [token.content for token in more]
        for new in [*taken.values(), *more]:
            if new.content not in self._added.ids:
                self.add_tokens(new)

    # Sizes and listings

    @property
    def encoder(self) -> dict[str, int]:
        """{token as files write it: id} of the vocabulary proper."""
        return self.bpe.ids

    @property
    def decoder(self) -> dict[int, str]:
        """{id: token as files write it} of the vocabulary proper."""
        return {id: token for token, id in self.bpe.ids.items()}

    @property
    def vocab_size(self) -> int:
        """The number of tokens of the vocabulary proper, without added tokens."""
        return len(self.bpe.ids)

    def __len__(self) -> int:
        """Return the number of all tokens: the rows that a model's embedding needs."""
        return len(self.bpe.written_of)

    def get_vocab(self) -> dict[str, int]:
        """Return all tokens as files write them, with their ids: {"Ġworld": 995, ...}."""
        return self.bpe.ids | self._added.ids

    def get_added_vocab(self) -> dict[str, int]:
        """Return the added tokens with their ids: {"<|endoftext|>": 50256, ...}."""
        return self.added_tokens_encoder

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """{content: id} of the added tokens, in the order of the ids."""
        return {str(token): id for id, token in self.added_tokens_decoder.items()}

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """{id: AddedToken} of the added tokens, in the order of the ids."""
        return dict(sorted(self._added.tokens.items()))

    @property
    def special_tokens_map(self) -> dict[str, str | list[str]]:
        """{role: token} of the roles that are taken, and additional_special_tokens."""
        taken: dict[str, str | list[str]]
        taken = {role: token for role, token in self._roles.items() if token}
        if self.additional_special_tokens:
            taken["additional_special_tokens"] = self.additional_special_tokens
        return taken

    @property
    def all_special_tokens(self) -> list[str]:
        """The special tokens, each once: first those that have a role."""
        with_role = [token for token in self._roles.values() if token is not None]
        return list(dict.fromkeys([*with_role, *self.additional_special_tokens]))

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of all_special_tokens."""
        return self.convert_tokens_to_ids(self.all_special_tokens)

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        """The ids of additional_special_tokens."""
        return self.convert_tokens_to_ids(self.additional_special_tokens)

    # Adding

    def add_tokens(
        self, new_tokens: Token | Sequence[Token], special_tokens: bool = False
    ) -> int:
        """Add a token or a list of tokens; return how many are new.

        Each new one gets the next id after the largest. Resize the model's embedding
        then: `model.resize_token_embeddings(len(tokenizer))`. A token that the vocabulary
        has keeps its id, and is never split from now on.

        Args:
            special_tokens: they are special tokens.
        """
        next_id = max(self.bpe.written_of) + 1
        size = len(self)
        several = isinstance(new_tokens, list | tuple)
        for given in cast("Sequence[Token]", new_tokens if several else [new_tokens]):
            if given == "" or (isinstance(given, str) and given in self._added.ids):
                continue
            special = special_tokens or str(given) in self.all_special_tokens
            token = AddedToken.of(given, special)
            id = self._id_of(token.content)
            # "é" is how files write the lone byte E9, which is another token.
            if id is None or self.bpe.bytes_of[id] != token.content.encode("utf-8"):
                id, next_id = next_id, next_id + 1
            self._register(id, token)
            if token.special and token.content not in self.all_special_tokens:
                self.additional_special_tokens.append(token.content)
        return len(self) - size

    def add_special_tokens(
        self,
        special_tokens_dict: Mapping[str, Token | Sequence[Token]],
        replace_additional_special_tokens: bool = True,
    ) -> int:
        """Give tokens their roles, and add those that are not in the vocabulary.

        Args:
            special_tokens_dict: {"pad_token": "<pad>", "additional_special_tokens":
                ["<a>", "<b>"]}.
            replace_additional_special_tokens: forget the earlier ones, which stay added
                tokens but are special no more.

        Returns:
            How many tokens are new.
        """
        new: list[Token] = []
        for role, value in special_tokens_dict.items():
            if role == "additional_special_tokens":
                if not isinstance(value, list | tuple):
                    raise ValueError(f"{role} must be a list of tokens, not {value!r}")
                kept = self.additional_special_tokens
                if replace_additional_special_tokens and value:
                    kept = []
                self.additional_special_tokens = list(
                    dict.fromkeys([*kept, *map(str, value)])
                )
                new += value
            elif role in ROLES:
                self._roles[role] = str(AddedToken.of(value))
                new.append(value)  # type: ignore[arg-type]  # AddedToken.of has checked
            else:
                raise ValueError(
                    f"{role!r} is no role of a special token; those are "
                    f"{', '.join(ROLES)}, additional_special_tokens"
                )
        return self.add_tokens(new, special_tokens=True)

    def _register(self, id: int, token: AddedToken) -> None:
        self._added.add(id, token)
        self.bpe.add(id, token.content)

    def _set_role(self, role: str, token: Token | None) -> None:
        content = None if token is None else str(AddedToken.of(token))
        if content is not None and self._id_of(content) is None:
            logger.warning(
                "%s %r is not in the vocabulary, so its id is that of unk_token; "
                "add_special_tokens({%r: %r}) would add it",
                *(role, content, role, content),
            )
        self._roles[role] = content

    # Tokens <-> ids

    def _id_of(self, token: str) -> int | None:
        """Return the id of a token as files write it, or None."""
        return self._added.ids.get(token, self.bpe.ids.get(token))

    @overload
    def convert_tokens_to_ids(  # type: ignore[overload-overlap]
        self, tokens: str | None
    ) -> int | None: ...
    @overload
    def convert_tokens_to_ids(self, tokens: Iterable[str]) -> list[int]: ...
    def convert_tokens_to_ids(self, tokens: str | Iterable[str] | None) -> object:
        """Return the id of a token as `tokenize` gives it, or the ids of a list.

        A token that is not in the vocabulary has the id of unk_token, or None if there is
        no unk_token. None has the id None.
        """
        if tokens is None:
            return None
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        id = self._id_of(tokens)
        return self._id_of(self.unk_token or "") if id is None else id

    @overload
    def convert_ids_to_tokens(
        self, ids: int, skip_special_tokens: bool = ...
    ) -> str: ...
    @overload
    def convert_ids_to_tokens(
        self, ids: Sequence[int] | np.ndarray, skip_special_tokens: bool = ...
    ) -> list[str]: ...
    def convert_ids_to_tokens(
        self, ids: Ids, skip_special_tokens: bool = False
    ) -> str | list[str]:
        """Return the token of an id as `tokenize` gives it, or the tokens of a list.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        if isinstance(ids, int) or getattr(ids, "shape", None) == ():
            return self._written(int(ids))  # type: ignore[arg-type]
        skipped = set(self.all_special_ids) if skip_special_tokens else ()
        return [self._written(id) for id in as_list(ids) if id not in skipped]

    def _written(self, id: int) -> str:
        if id not in self.bpe.written_of:
            self.bpe.decode([id])  # raises: it is not in the vocabulary
        return self.bpe.written_of[id]


def as_list(ids: Ids) -> list[int]:
    """Return the list of an int, of a sequence of int, or of an array [] or [T]."""
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    ids = [ids] if isinstance(ids, int) else list(ids)
    if ids and hasattr(ids[0], "__len__"):
        raise ValueError(
            "expected the ids of one text, not a batch: batch_decode takes a batch"
        )
    return ids
