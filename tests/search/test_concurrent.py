"""`concurrent by operation` is exact: orders and outcomes are counted by hand."""

from __future__ import annotations

import pytest

from pageherd.litmus import parse
from pageherd.rules.choose import choose, record
from pageherd.search.explore import explore_program
from pageherd.search.program import program_of

HEAD = "test t\nprocesses P C\npages a\n\nP: mmap a\nP: write a = 1\nP: fork C\n"


def outcomes(body: str) -> tuple[set[tuple[tuple[str, int], ...]], int, int]:
    program = program_of(parse(HEAD + body), "base")
    found = explore_program(program, record(choose("linux-6.1")))
    ends = {tuple(sorted(outcome.registers.items())) for outcome in found.outcomes}
    return ends, found.states, found.transitions


def test_two_writers_and_a_reader() -> None:
    # P writes 2 then 3; C reads P's page by process_vm_readv: before, between or after
    ends, _, _ = outcomes(
        "concurrent by operation {\n  P: write a = 2\n  P: write a = 3\n"
        "  C: x = process_vm_readv P.a\n}\n"
    )
    assert ends == {(("x", 1),), (("x", 2),), (("x", 3),)}


def test_private_memory_never_mixes() -> None:
    ends, _, _ = outcomes(
        "concurrent by operation {\n  P: write a = 2\n  C: write a = 3\n  P: x = read a\n"
        "  C: y = read a\n}\n"
    )
    assert ends == {(("x", 2), ("y", 3))}


@pytest.mark.parametrize(
    ("writes", "reads", "orders"),
    [(1, 1, 2), (2, 1, 3), (2, 2, 6), (3, 2, 10), (3, 3, 20), (4, 3, 35)],
)
def test_every_order_is_run(writes: int, reads: int, orders: int) -> None:
    """What the reader saw tells each order from all others: (writes + reads) over reads."""
    body = "concurrent by operation {\n"
    body += "".join(f"  P: write a = {n + 2}\n" for n in range(writes))
    body += "".join(f"  C: x{n} = process_vm_readv P.a\n" for n in range(reads))
    ends, _, _ = outcomes(body + "}\n")
    assert len(ends) == orders


def test_two_readers_do_not_disturb_each_other() -> None:
    """Three orders for each reader against two writes, independent of each other: 3 * 3."""
    body = "concurrent by operation {\n  P: write a = 2\n  P: write a = 3\n"
    body += "  C: x = process_vm_readv P.a\n  T: y = process_vm_readv P.a\n}\n"
    program = program_of(parse(HEAD.replace("pages", "threads T of C\npages") + body), "base")
    found = explore_program(program, record(choose("linux-6.1")))
    assert len({(o.registers["x"], o.registers["y"]) for o in found.outcomes}) == 9


def test_maybe_explores_both_and_prefers_less() -> None:
    ends, states, transitions = outcomes("P: maybe write a = 2\nP: x = read a\n")
    assert ends == {(("x", 1),), (("x", 2),)}
    # 3 operations of the head, both ways of the fourth, then one read each
    assert (states, transitions) == (1 + 3 + 2 + 2, 3 + 2 + 2)


def test_by_step_is_refused() -> None:
    with pytest.raises(Exception, match="by operation"):
        parse(HEAD + "concurrent by step {\n  P: write a = 2\n  C: write a = 3\n}\n")
