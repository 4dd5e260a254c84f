"""Whether the questions of a test and the claims under them make sense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from pageherd.litmus import limits
from pageherd.litmus.claims import named_kernels, strongest_claims
from pageherd.litmus.source import Source
from pageherd.litmus.syntax import (
    Claim,
    Comparison,
    Condition,
    Not,
    Outcome,
    Place,
    Question,
    Test,
)
from pageherd.litmus.words import did_you_mean
from pageherd.machine.verbs import STATE_WORDS, STATUS_WORDS, Result

_FAILURES: Final = tuple(word for word in STATUS_WORDS if word != "ok")
_WORDS: Final = {
    Result.STATUS: STATUS_WORDS,
    Result.VALUE: _FAILURES,
    Result.STATE: STATE_WORDS,
}
_ELSEWHERE = "any other kernel"  # stands for the kernels that no claim names

Bound = Mapping[str, Mapping[str, Result]]  # variant -> name -> what it is bound to


def check_questions(
    test: Test, bound: Bound, source: Source, kernels: Sequence[str] | None
) -> None:
    """Raise LitmusError at the first question or claim that cannot be."""
    if len(test.questions) > limits.MAX_QUESTIONS:
        place = test.questions[limits.MAX_QUESTIONS].place
        raise source.error(place, f"a test has at most {limits.MAX_QUESTIONS} questions")
    asked: dict[Question, int] = {}
    for question in test.questions:
        bare = replace(question, claims=())
        if bare in asked:
            raise source.error(
                question.place, "this is asked twice", f"first in line {asked[bare]}"
            )
        asked[bare] = question.place.line
        if isinstance(question, Outcome):
            for comparison in comparisons(question.condition):
                _check_comparison(comparison, bound, source)
        _check_claims(test, question, source, kernels)


def comparisons(condition: Condition) -> Iterator[Comparison]:
    """All comparisons of a condition, from left to right."""
    if isinstance(condition, Comparison):
        yield condition
    elif isinstance(condition, Not):
        yield from comparisons(condition.part)
    else:
        for part in condition.parts:
            yield from comparisons(part)


# conditions


def _check_comparison(comparison: Comparison, bound: Bound, source: Source) -> None:
    left = replace(comparison, right=comparison.register, right_place=comparison.place)
    kind = _register(left, bound, source)
    right = comparison.right
    if isinstance(right, int):
        if kind is not Result.VALUE:
            words = " ".join(_WORDS[kind])
            raise source.error(
                comparison.right_place,
                f"'{comparison.register}' is never a number",
                f"it is one of: {words}",
            )
    elif right in STATUS_WORDS or right in STATE_WORDS:
        if right not in _WORDS[kind]:
            words = " ".join(_WORDS[kind])
            also = "a number or " if kind is Result.VALUE else ""
            raise source.error(
                comparison.right_place,
                f"'{comparison.register}' is never '{right}'",
                f"it is {also}one of: {words}",
            )
    elif _register(comparison, bound, source) is not kind:
        raise source.error(
            comparison.right_place,
            f"'{comparison.register}' and '{right}' are never equal: "
            f"one is a {kind.value}, the other is not",
        )


def _register(comparison: Comparison, bound: Bound, source: Source) -> Result:
    """What the right side of a comparison, a register, is bound to in all variants."""
    name, place = str(comparison.right), comparison.right_place
    kinds = {variant: names.get(name) for variant, names in bound.items()}
    for variant, kind in kinds.items():
        if kind is None:
            if any(kinds.values()):
                raise source.error(place, f"register '{name}' is not bound in variant '{variant}'")
            registers = {
                known: None
                for names in bound.values()
                for known, what in names.items()
                if what is not Result.REFERENCE
            }
            raise source.error(place, f"no register named '{name}'", did_you_mean(name, registers))
        if kind is Result.REFERENCE:
            raise source.error(
                place,
                f"'{name}' is a reference, not a register",
                f"compare what is read through it, as in: x = read_ref {name}",
            )
    different = set(kinds.values())
    if len(different) > 1:
        raise source.error(place, f"'{name}' is of another kind in each variant")
    return next(kind for kind in different if kind is not None)


# claims


def _check_claims(
    test: Test, question: Question, source: Source, kernels: Sequence[str] | None
) -> None:
    if len(question.claims) > limits.MAX_CLAIMS:
        place = question.claims[limits.MAX_CLAIMS].place
        raise source.error(place, f"a question has at most {limits.MAX_CLAIMS} claims")
    for claim in question.claims:
        _check_variants(test, claim, source)
        if kernels is not None:
            _check_kernels(claim, source, kernels)
    _check_agreement(test, question.claims, source, kernels or ())


def _check_variants(test: Test, claim: Claim, source: Source) -> None:
    for name, place in zip(claim.variants, claim.variant_places, strict=False):
        if not test.variants:
            raise source.error(place, "this test has no variants", "leave 'in' out")
        if name not in test.variant_names:
            raise source.error(
                place, f"no variant named '{name}'", did_you_mean(name, test.variant_names)
            )


def _check_kernels(claim: Claim, source: Source, kernels: Sequence[str]) -> None:
    for one in claim.kernels:
        line, column, _ = one.place
        ends = [(one.first, column)]
        if one.last is not None:
            ends.append((one.last, column + len(one.first) + len("..")))
        for name, begin in ends:
            if name not in kernels:
                place = Place(line, begin, len(name))
                hint = did_you_mean(name, kernels)
                raise source.error(place, f"no kernel named '{name}'", hint)
        if one.last is not None and kernels.index(one.first) > kernels.index(one.last):
            message = f"'{one.first}' comes after '{one.last}'"
            raise source.error(one.place, message, f"write: {one.last}..{one.first}")


def _check_agreement(
    test: Test, claims: Sequence[Claim], source: Source, table: Sequence[str]
) -> None:
    for kernel in table or (*named_kernels(claims), _ELSEWHERE):
        for variant in test.variant_names:
            strongest = strongest_claims(claims, variant, kernel, table)
            for claim in strongest[1:]:
                if claim.verdict != strongest[0].verdict:
                    first = strongest[0]
                    where = f"on {kernel}" + (f" in '{variant}'" if test.variants else "")
                    raise source.error(
                        claim.place,
                        f"this contradicts the claim '{first.verdict}' for the same case, {where}",
                        f"that one is in line {first.place.line}; name kernels or variants in "
                        "one of them to make it the exception",
                    )
