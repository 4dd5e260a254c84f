"""Reading a step: its verb says what its words are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from pageherd.errors import LitmusError
from pageherd.litmus.limits import MAX_CPUS, MAX_VALUE
from pageherd.litmus.reader import Reader, place_of
from pageherd.litmus.syntax import KERNEL, Argument, PageOf, Place, Step
from pageherd.litmus.words import PAGE_NAME, PROCESS_NAME
from pageherd.machine.verbs import LISTS, PROT_WORDS, VERBS, Kind, Verb

if TYPE_CHECKING:
    from lark import Token, Tree

    Node: TypeAlias = Tree[Token]

_EXAMPLES: Final = {
    Kind.PAGE: "a",
    Kind.HUGE: "h",
    Kind.REMOTE: "C.a",
    Kind.FRAME: "P.a",
    Kind.REFERENCE: "r",
    Kind.PROCESS: "C",
    Kind.PROT: "rw",
    Kind.NUMBER: "1",
}


def read_step(reader: Reader, node: Node) -> Step:
    """The step that a line stands for."""
    thread, maybe, result, name, words = cast("list[Any]", node.children)
    verb = VERBS.get(name)
    if verb is None:
        raise _no_verb(reader, name, result)
    arguments = list(words.children)
    value = arguments.pop() if arguments else None
    built, places = _arguments(reader, verb, name, arguments, value)
    return Step(
        str(thread),
        verb.name,
        tuple(built),
        None if result is None else reader.page_name(result, "result"),
        maybe is not None,
        place_of(thread),
        place_of(name),
        place_of(name if result is None else result),
        tuple(places),
    )


def _no_verb(reader: Reader, name: Token, result: Token | None) -> LitmusError:
    if result is not None and result in VERBS:
        form = usage(VERBS[result])
        return reader.error(result, f"'{result}' is a verb, not a name", f"write: {form}")
    return reader.unknown(name, "verb", VERBS)


def _arguments(
    reader: Reader, verb: Verb, name: Token, words: list[Token], value: Token | None
) -> tuple[list[Argument], list[Place]]:
    """The arguments of a step, each read as its kind."""
    built: list[Argument] = []
    places: list[Place] = []
    required = len(verb.arguments) - verb.optional
    for position, kind in enumerate(verb.arguments):
        if kind in LISTS:
            built.append(_words(reader, words, kind))
            places.append(place_of(words[0] if words else name))
            words = []
        elif kind is Kind.VALUE:
            if value is None:
                last = words[0] if words else name
                raise reader.error(last, f"'{verb.name}' needs a value", f"write: {usage(verb)}")
            built.append(reader.number(value, MAX_VALUE, "a value"))
            places.append(place_of(value))
        elif words:
            word = words.pop(0)
            built.append(_argument(reader, verb, kind, word))
            places.append(place_of(word))
        elif position < required:
            missing = f"'{verb.name}' needs a {kind.value}"
            raise reader.error(name, missing, f"write: {usage(verb)}")
    if words:
        raise reader.error(
            words[0], f"one argument too many for '{verb.name}'", f"write: {usage(verb)}"
        )
    if value is not None and Kind.VALUE not in verb.arguments:
        raise reader.error(value, f"'{verb.name}' stores no value", f"write: {usage(verb)}")
    return built, places


def _argument(reader: Reader, verb: Verb, kind: Kind, word: Token) -> Argument:
    if kind is Kind.NUMBER:
        if verb.name == "drain":
            return reader.number(word, MAX_CPUS - 1, "a CPU")
        return reader.number(word, MAX_VALUE, "a count", 1)
    if kind is Kind.PROT:
        if word not in PROT_WORDS:
            raise reader.unknown(word, "protection", PROT_WORDS)
        return str(word)
    if kind is Kind.REMOTE or (kind is Kind.FRAME and "." in word):
        process, dot, page = word.partition(".")
        if not dot:
            message = f"'{verb.name}' needs the page of a process, as in C.a"
            raise reader.error(word, message, f"write: {usage(verb)}")
        if not PROCESS_NAME.fullmatch(process) or not PAGE_NAME.fullmatch(page):
            raise reader.error(word, f"'{word}' is no page of a process", "write it as in: C.a")
        return PageOf(process, page)
    if "." in word:
        message = f"'{verb.name}' needs a {kind.value}, not the page of a process"
        raise reader.error(word, message, f"write: {usage(verb)}")
    return str(word)


def _words(reader: Reader, words: list[Token], kind: Kind) -> tuple[str, ...]:
    what = kind.value.removesuffix("s")
    for position, word in enumerate(words):
        if word not in LISTS[kind]:
            raise reader.unknown(word, what, LISTS[kind])
        if word in words[:position]:
            raise reader.error(word, f"{what} '{word}' is given twice")
    return tuple(word for word in LISTS[kind] if word in words)


def usage(verb: Verb) -> str:
    """An example of a step with this verb."""
    actor = KERNEL if verb.actor.value == KERNEL else "P"
    words: list[str] = []
    pages = iter("ab")
    for kind in verb.arguments:
        if kind is Kind.PAGE:
            words.append(next(pages))
        elif kind in _EXAMPLES:
            words.append(_EXAMPLES[kind])
    bound = {"reference": "r = ", "value": "x = ", "state": "x = "}.get(verb.result.value, "")
    value = " = 1" if Kind.VALUE in verb.arguments else ""
    return f"{actor}: {bound}{' '.join([verb.name, *words])}{value}"
