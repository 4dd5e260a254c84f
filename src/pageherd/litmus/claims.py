"""What a test says is known: looking claims up, and finding those that contradict each other.

A claim with `in` overrides one without, and a claim that names kernels overrides `everywhere`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pageherd.litmus.syntax import Claim, KernelRange, Question, Test, Verdict


def expected(test: Test, question: Question, variant: str, kernel: str) -> Verdict | None:
    """The verdict that the test claims for a question, or None if it claims none."""
    claim = expected_claim(test, question, variant, kernel)
    return None if claim is None else claim.verdict


def expected_claim(test: Test, question: Question, variant: str, kernel: str) -> Claim | None:
    """The claim that holds for a question, a variant and a kernel: the most particular one."""
    strongest = strongest_claims(question.claims, variant, kernel, test.kernels)
    return strongest[0] if strongest else None


def strongest_claims(
    claims: Iterable[Claim], variant: str, kernel: str, table: Sequence[str]
) -> list[Claim]:
    """The claims about a variant and a kernel that no other one overrides, in order."""
    about = [
        claim
        for claim in claims
        if (not claim.variants or variant in claim.variants)
        and covers(claim.kernels, kernel, table)
    ]
    return [claim for claim in about if not any(_overrides(other, claim) for other in about)]


def covers(ranges: Sequence[KernelRange], kernel: str, table: Sequence[str]) -> bool:
    """Whether a kernel is among those named; no name at all means everywhere."""
    return not ranges or any(_in_range(kernel, one, table) for one in ranges)


def named_kernels(claims: Iterable[Claim]) -> list[str]:
    """All kernels that claims name, in order, each once."""
    names = [
        name
        for claim in claims
        for one in claim.kernels
        for name in (one.first, one.last)
        if name is not None
    ]
    return list(dict.fromkeys(names))


def _in_range(kernel: str, one: KernelRange, table: Sequence[str]) -> bool:
    if one.last is None:
        return kernel == one.first
    if kernel in table and one.first in table and one.last in table:
        return table.index(one.first) <= table.index(kernel) <= table.index(one.last)
    return kernel in (one.first, one.last)


def _overrides(strong: Claim, weak: Claim) -> bool:
    more = (bool(strong.variants), bool(strong.kernels))
    less = (bool(weak.variants), bool(weak.kernels))
    return more != less and more[0] >= less[0] and more[1] >= less[1]
