"""Templates: the ids that are put around those of a text or of a pair of texts.

tokenizer.json describes them as its post_processor, in one of several ways; `template_of`
reads them all. GPT-2's own puts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..runtime.declared import is_id

Refusal = Callable[[str], Exception]


class Slot(NamedTuple):
    """A part of a template: a text's place, or special ids.

    Attributes:
        text: 0 for the first text, 1 for the second, None for special ids.
        type: the token type of the ids in this part.
        ids: the special ids.
    """

    text: int | None
    type: int
    ids: tuple[int, ...] = ()


class Template(NamedTuple):
    """What is put around one text, and around a pair."""

    single: tuple[Slot, ...]
    pair: tuple[Slot, ...]

    def ids(self, *texts: list[int]) -> list[int]:
        """Return the ids of a text or of a pair, with those that are put around them."""
        return [id for slot in self._slots(texts) for id in _of(slot, texts)]

    def types(self, *texts: list[int]) -> list[int]:
        """Return the token type of each of `ids`."""
        return [slot.type for slot in self._slots(texts) for _ in _of(slot, texts)]

    def mask(self, *texts: list[int]) -> list[int]:
        """Return 1 for each of `ids` that is put around texts, 0 for those of texts."""
        slots = self._slots(texts)
        return [int(slot.text is None) for slot in slots for _ in _of(slot, texts)]

    def special_ids(self) -> set[int]:
        """Return the ids that are put around texts."""
        return {id for slots in self for slot in slots for id in slot.ids}

    def bare(self) -> Template:
        """Return the template without special ids."""
        single, pair = (
            tuple(slot for slot in slots if slot.text is not None) for slots in self
        )
        return Template(single, pair)

    def _slots(self, texts: Sequence[list[int]]) -> tuple[Slot, ...]:
        return self.single if len(texts) == 1 else self.pair


def _of(slot: Slot, texts: Sequence[list[int]]) -> Sequence[int]:
    return slot.ids if slot.text is None else texts[slot.text]


FIRST, SECOND = Slot(0, 0), Slot(1, 1)
NOTHING = Template((FIRST,), (FIRST, SECOND))


def around(before: Sequence[int], after: Sequence[int]) -> Template:
    """Return the template that puts ids before and after each text."""

    def whole(text: Slot) -> tuple[Slot, ...]:
        slots = (
            Slot(None, text.type, tuple(before)),
            text,
            Slot(None, text.type, tuple(after)),
        )
        return tuple(slot for slot in slots if slot.text is not None or slot.ids)

    return Template(whole(FIRST), whole(FIRST) + whole(SECOND))


# --- tokenizer.json's post_processor ---


def template_of(steps: Sequence[Any], refuse: Refusal) -> Template | None:
    """Return the template that a post_processor describes, None for one that puts nothing.

    Args:
        steps: the steps of the post_processor.
        refuse: makes the error of what is wrong with it.
    """
    found = [_template_of(step, refuse) for step in steps]
    several = [template for template in found if template is not None]
    if len(several) > 1:
        raise refuse("post_processor has several steps that add ids")
    return several[0] if several else None


def _template_of(step: Any, refuse: Refusal) -> Template | None:
    kind = step.get("type") if isinstance(step, dict) else step
    if kind == "ByteLevel":  # it moves offsets, and no ids
        return None
    if kind in ("RobertaProcessing", "BertProcessing"):
        cls, sep = (_special(step.get(name), name, refuse) for name in ("cls", "sep"))
        first = (Slot(None, 0, cls), FIRST, Slot(None, 0, sep))
        if kind == "BertProcessing":
            return Template(first, (*first, SECOND, Slot(None, 1, sep)))
        second = (Slot(None, 0, sep), Slot(1, 0), Slot(None, 0, sep))
        return Template(first, first + second)
    if kind != "TemplateProcessing":
        raise refuse(f"post_processor.type is {kind!r:.100}")
    named = step.get("special_tokens")
    single, pair = (
        tuple(_slot(item, named, refuse) for item in _listed(step, name, refuse))
        for name in ("single", "pair")
    )
    for name, slots, texts in (("single", single, [0]), ("pair", pair, [0, 1])):
        if [slot.text for slot in slots if slot.text is not None] != texts:
            wanted = " and ".join("AB"[text] for text in texts)
            raise refuse(
                f"post_processor.{name} does not hold {wanted}, once, in order"
            )
    return Template(single, pair)


def _special(given: Any, name: str, refuse: Refusal) -> tuple[int]:
    if isinstance(given, list) and len(given) == 2 and is_id(given[1]):
        return (given[1],)
    raise refuse(f"post_processor.{name} is no token with its id")


def _listed(step: Mapping[str, Any], name: str, refuse: Refusal) -> list[Any]:
    items = step.get(name)
    if isinstance(items, list):
        return items
    raise refuse(f"post_processor.{name} is no list")


def _slot(item: Any, named: Any, refuse: Refusal) -> Slot:
    """Return the slot that an item of TemplateProcessing describes."""
    match item:
        case {"Sequence": {"id": "A" | "B" as letter, "type_id": type}}:
            if is_id(type):
                return Slot("AB".index(letter), type)
        case {"SpecialToken": {"id": str(name), "type_id": type}}:
            special = named.get(name) if isinstance(named, dict) else None
            ids = special.get("ids") if isinstance(special, dict) else None
            if is_id(type) and isinstance(ids, list) and all(map(is_id, ids)):
                return Slot(None, type, tuple(ids))
    raise refuse(
        f"post_processor has the item {item!r:.100}, which is none of a template"
    )


def section_of(template: Template, token_of: Callable[[int], str]) -> Mapping[str, Any]:
    """Return the post_processor that describes a template.

    Args:
        token_of: returns the token of an id.
    """
    named = {}

    def item(slot: Slot) -> dict[str, Any]:
        if slot.text is not None:
            return {"Sequence": {"id": "AB"[slot.text], "type_id": slot.type}}
        tokens = list(map(token_of, slot.ids))
        name = " ".join(tokens)
        named[name] = {"id": name, "ids": list(slot.ids), "tokens": tokens}
        return {"SpecialToken": {"id": name, "type_id": slot.type}}

    single, pair = (list(map(item, slots)) for slots in template)
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": named,
    }
