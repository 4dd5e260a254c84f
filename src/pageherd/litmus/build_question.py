"""Reading a question and the claims under it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from pageherd.litmus.limits import MAX_NESTING, MAX_VALUE
from pageherd.litmus.reader import Reader, place_of
from pageherd.litmus.syntax import (
    And,
    Claim,
    Comparison,
    Condition,
    Copies,
    Keeps,
    KernelRange,
    Not,
    Operator,
    Or,
    Outcome,
    Place,
    Polarity,
    Question,
    Verdict,
)
from pageherd.litmus.words import PAGE_NAME, PROMISES, RESERVED_PROMISES
from pageherd.machine.verbs import STATE_WORDS, STATUS_WORDS

if TYPE_CHECKING:
    from lark import Token, Tree

    Node: TypeAlias = Tree[Token]

_KERNEL_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")


def read_question(reader: Reader, children: list[Any]) -> Question:
    """The question that a line and the claims below it stand for."""
    asked, *claim_nodes = children
    claims = tuple(_claim(reader, node.children) for node in claim_nodes)
    parts = asked.children
    place = place_of(parts[0])
    if asked.data == "outcome":
        condition = _condition(reader, parts[1], 0)
        return Outcome(cast("Polarity", str(parts[0])), condition, claims, place)
    if asked.data == "keeps":
        return Keeps(_promise(reader, parts[1]), claims, place)
    if asked.data == "no_copy":
        return Copies("=", 0, claims, place)
    number = reader.number(parts[2], MAX_VALUE, "a number of copies")
    return Copies(cast("Operator", str(parts[1])), number, claims, place)


def _promise(reader: Reader, name: Token) -> str:
    if name in RESERVED_PROMISES:
        raise reader.error(name, f"promise '{name}' is not checked yet", "leave this line out")
    if name not in PROMISES:
        raise reader.unknown(name, "promise", PROMISES)
    return str(name)


def _condition(reader: Reader, node: Node, depth: int) -> Condition:
    children = cast("list[Any]", node.children)
    if node.data == "comparison":
        return _comparison(reader, children)
    if depth == MAX_NESTING:
        place = _first_place(node)
        raise reader.source.error(place, f"a condition nests at most {MAX_NESTING} deep")
    if node.data == "not_condition":
        return Not(_condition(reader, children[1], depth + 1))
    kind = And if node.data == "and_condition" else Or
    parts: list[Condition] = []
    for child in children:
        part = _condition(reader, child, depth + 1)
        parts += part.parts if isinstance(part, kind) else (part,)
    return kind(tuple(parts))


def _first_place(node: Node) -> Place:
    while not hasattr(node.children[0], "line"):
        node = node.children[0]
    return place_of(cast("Token", node.children[0]))


def _comparison(reader: Reader, children: list[Any]) -> Comparison:
    register, operator, right = children
    if not PAGE_NAME.fullmatch(register):
        hint = "the register stands on the left, as in: x = 1"
        raise reader.error(register, f"'{register}' is no name of a register", hint)
    value: int | str = str(right)
    if right[0].isdigit():
        value = reader.number(right, MAX_VALUE, "a value")
    elif right not in STATUS_WORDS and right not in STATE_WORDS:
        reader.page_name(right, "register")
    return Comparison(str(register), operator.value, value, place_of(register), place_of(right))


def _claim(reader: Reader, children: list[Any]) -> Claim:
    verdict, *where, variants, source = children
    kernels = where[0].children if where else []
    names = variants.children if variants else []
    return Claim(
        cast("Verdict", str(verdict)),
        tuple(_kernel_range(reader, word) for word in kernels),
        tuple(str(name) for name in names),
        reader.string(source) if source else None,
        place_of(verdict),
        tuple(place_of(name) for name in names),
    )


def _kernel_range(reader: Reader, word: Token) -> KernelRange:
    first, dots, last = str(word).partition("..")
    for name in (first, last) if dots else (first,):
        if not _KERNEL_NAME.fullmatch(name):
            hint = "write a kernel as linux-6.1 and a range as linux-5.8..linux-6.1"
            raise reader.error(word, f"'{word}' is no kernel and no range of kernels", hint)
    return KernelRange(first, last or None, place_of(word))
