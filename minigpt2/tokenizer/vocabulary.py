"""The tokens of a tokenizer: those of its byte-pair encoding, and the added tokens.

Seven special tokens have a role and are attributes: bos_token, eos_token, unk_token,
sep_token, pad_token, cls_token, mask_token. Each has an id: pad_token_id, ... GPT-2
uses one token for the first three and leaves the other four to its users. These may name
roles of their own, such as image_token. Other special tokens have no role.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from operator import index
from typing import TYPE_CHECKING, Any, cast, overload

from .added_tokens import AddedToken, AddedTokens
from .fast_bpe import FastBPE

if TYPE_CHECKING:
    import numpy as np

    Token = str | AddedToken | Mapping  # a mapping as files have it
    Ids = int | Iterable[int] | np.ndarray  # the ids of one text

logger = logging.getLogger("minigpt2.tokenizer")

# What can be iterated over, and is no list of ids or tokens.
NO_LISTS = (str, bytes, bytearray, memoryview, Mapping, Set)

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
        roles: {"pad_token": token or None, ...} for all seven, and for others.
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
            self._settle(id, AddedToken.of(token))
        taken = {role: AddedToken.of(t, True) for role, t in roles.items() if t}
        more = [AddedToken.of(token, True) for token in additional_special_tokens]
        self._roles: dict[str, str | None] = {role: None for role in ROLES}
        self._roles |= {role: token.content for role, token in taken.items()}
        self.additional_special_tokens = [token.content for token in more]
        given = [*filter(None, roles.values()), *additional_special_tokens]
        for new, said in zip([*taken.values(), *more], given):
            # A caller's AddedToken has flags to be heeded. What files say of a token in
            # other places does not change what added_tokens_decoder says.
            if new.content not in self._added.ids or not isinstance(
                said, str | Mapping
            ):
                self.add_tokens(new)

    if not TYPE_CHECKING:  # which would take any name then

        def __getattr__(
            self, name: str
        ) -> Any:  # of what is no attribute: a role's name
            roles = self.__dict__.get("_roles", {})
            if name in roles:
                return roles[name]
            if name.removesuffix("_id") in roles:
                return self.convert_tokens_to_ids(roles[name.removesuffix("_id")])
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_roles", ()) and name not in ROLES:
            self._set_role(name, value)
        else:
            super().__setattr__(name, value)

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

    vocab = property(get_vocab)

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
        """The ids of additional_special_tokens. Setting them sets the tokens."""
        return self.convert_tokens_to_ids(self.additional_special_tokens)

    @additional_special_tokens_ids.setter
    def additional_special_tokens_ids(self, ids: Sequence[int]) -> None:
        self.additional_special_tokens = self.convert_ids_to_tokens(ids)

    @property
    def extra_special_tokens(self) -> list[str]:
        """The name of additional_special_tokens in transformers 5."""
        return self.additional_special_tokens

    @extra_special_tokens.setter
    def extra_special_tokens(self, tokens: Sequence[Token]) -> None:
        if not isinstance(tokens, list | tuple):
            raise TypeError(f"expected a list of tokens, not {type(tokens).__name__}")
        self.additional_special_tokens = [str(AddedToken.of(t)) for t in tokens]

    extra_special_tokens_ids = additional_special_tokens_ids

    def _skipped_ids(self, skip_special_tokens: bool) -> set[int | None]:
        """Return the ids of all special tokens, with a role or not, if they are skipped."""
        if not skip_special_tokens:
            return set()
        return {*self.all_special_ids, *self._added.special_ids()}

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
        next_id = max(self.bpe.written_of, default=-1) + 1
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
                ["<a>", "<b>"]}. "extra_special_tokens" is the latter's newer name.
            replace_additional_special_tokens: forget the earlier ones, which stay special
                added tokens but are listed no more.

        Returns:
            How many tokens are new.
        """
        if not isinstance(special_tokens_dict, Mapping):
            raise TypeError(
                'special tokens come as {"pad_token": token, ...}, not as '
                f"{type(special_tokens_dict).__name__}"
            )
        new: list[Token] = []
        for role, value in special_tokens_dict.items():
            if role in ("additional_special_tokens", "extra_special_tokens"):
                if not isinstance(value, list | tuple):
                    raise ValueError(f"{role} must be a list of tokens, not {value!r}")
                kept = self.additional_special_tokens
                if replace_additional_special_tokens and value:
                    kept = []
                self.additional_special_tokens = list(
                    dict.fromkeys([*kept, *map(str, value)])
                )
                new += value
            elif role in self._roles:
                self._roles[role] = str(AddedToken.of(value))
                new.append(value)  # type: ignore[arg-type]  # AddedToken.of has checked
            else:
                raise ValueError(
                    f"{role!r} is no role of a special token; those are "
                    f"{', '.join(self._roles)}, additional_special_tokens"
                )
        return self.add_tokens(new, special_tokens=True)

    def _settle(self, id: object, token: AddedToken) -> None:
        """Add a token whose id is settled, which no other token may have."""
        number = int(id) if _is_digits(id) else whole_number(id)  # type: ignore[call-overload]
        if number is None or number < 0:
            raise ValueError(
                f"added_tokens_decoder: {token.content!r:.50} has the id {id!r:.50}, and "
                "ids are whole numbers from 0 on"
            )
        if self.bpe.written_of.get(number, token.content) != token.content:
            raise ValueError(
                f"added_tokens_decoder: {token.content!r:.50} has the id {number}, which "
                f"is that of {self.bpe.written_of[number]!r:.50}"
            )
        self._register(number, token)

    def _register(self, id: int, token: AddedToken) -> None:
        self._added.add(id, token)
        self.bpe.add(id, token.content)

    def _set_role(self, role: str, token: Token | None) -> None:
        given = None if token is None else AddedToken.of(token, special=True)
        content = None if given is None else given.content
        id = self._id_of(content or "")
        if given is not None and id is not None and not isinstance(token, str):
            self._register(id, given)
        if content is not None and id is None:
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
            return [self.convert_tokens_to_ids(token) for token in list_of_str(tokens)]
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

        Args:
            skip_special_tokens: leave special tokens out, as `decode` does.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        listed = as_list(ids)
        if whole_number(ids) is not None or getattr(ids, "shape", None) == ():
            return self._written(listed[0])
        skipped = self._skipped_ids(skip_special_tokens)
        return [self._written(id) for id in listed if id not in skipped]

    def _written(self, id: int) -> str:
        if id not in self.bpe.written_of:
            self.bpe.decode([id])  # raises: it is not in the vocabulary
        return self.bpe.written_of[id]


def _is_digits(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isdigit()


def list_of_str(tokens: Iterable[str]) -> list[str]:
    """Return the list of tokens. TypeError if it is none, or one of something else."""
    is_list = isinstance(tokens, Iterable) and not isinstance(tokens, NO_LISTS)
    listed: list[Any] = list(tokens) if is_list else [tokens]
    for token in listed:
        if not is_list or not isinstance(token, str):
            raise TypeError(
                "tokens must be a str or a list of str, not "
                f"{type(token).__name__} {token!r:.50}"
            )
    return listed


def whole_number(value: object) -> int | None:
    """Return the int that a value is in any library; bool, which Python has for one, is
    none."""
    if type(value) is int:
        return value
    try:
        return None if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _are_ints(listed: list) -> bool:
    """Say whether all are int, in a tenth of the time that decoding them takes.

    (A bool behind an int is seen as one; a list of bool, such as a mask, is not.)
    """
    try:
        return not listed or (type(listed[0]) is int and type(sum(listed)) is int)
    except TypeError:
        return False


def as_list(ids: Ids) -> list[int]:
    """Return the list of an int, of a sequence or an iterator of int, or of an array.

    Raises:
        TypeError: it is something else, or holds something else.
        ValueError: it is a batch.
    """
    is_array = hasattr(ids, "tolist") and not isinstance(ids, memoryview)
    given: Any = ids.tolist() if is_array else ids  # type: ignore[union-attr]
    if (one := whole_number(given)) is not None:
        return [one]
    if isinstance(given, NO_LISTS) or not isinstance(given, Sequence | Iterator):
        raise TypeError(
            "ids must be an int, or a list or an array [T] of int, not "
            f"{type(ids).__name__}"
        )
    listed = list(given)
    if _are_ints(listed):
        return listed
    numbers = list(map(whole_number, listed))
    if None in numbers:
        wrong = listed[numbers.index(None)]
        if isinstance(wrong, list | tuple) or bool(getattr(wrong, "shape", ())):
            raise ValueError(
                "expected the ids of one text, not a batch: batch_decode takes a batch"
            )
        raise TypeError(f"ids must be int, not {type(wrong).__name__} {wrong!r:.50}")
    return cast("list[int]", numbers)
