"""`concurrent by operation` is exact: orders and outcomes are counted by hand."""

from __future__ import annotations

import pytest

from pageherd.litmus import parse
from pageherd.rules.choose import choose, record
from pageherd.search.explore import Exploration, explore_program
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


STEPS = "test t\nprocesses P C\nthreads T of P\npages a\n\nP: mmap a\nP: write a = 1\n"


def search(text: str, kernel: str = "linux-6.1") -> Exploration:
    return explore_program(program_of(parse(text), "base"), record(choose(kernel)))


def ends_of(found: Exploration) -> set[tuple[tuple[str, int], ...]]:
    return {tuple(sorted(outcome.registers.items())) for outcome in found.outcomes}


@pytest.mark.parametrize("body", ["P: write a = 2\nT: x = read a", "P: fork C\nT: write a = 2"])
def test_by_step_finds_what_by_operation_finds(body: str) -> None:
    whole, insides = (
        search(f"{STEPS}concurrent by {how} {{\n{body}\n}}\nP: y = read a\n")
        for how in ("operation", "step")
    )
    assert ends_of(whole) == ends_of(insides)
    assert whole.broken == insides.broken == {}
    assert insides.complete
    assert insides.states >= whole.states
    assert whole.steps_reached <= insides.steps_reached


def test_by_step_one_thread_alone_does_what_it_does() -> None:
    """No other thread: one state after each step, and the end that the whole path has."""
    lone = search(f"{STEPS}concurrent by step {{\nP: fork C\n}}\nC: x = read a\n")
    assert ends_of(lone) == {(("x", 1),)}
    assert lone.transitions == lone.states - 1


def test_a_thread_that_has_begun_is_not_left_out() -> None:
    found = search(
        f"{STEPS}concurrent by step {{\nT: maybe write a = 2\nP: fork C\n}}\nP: x = read a\n"
    )
    assert ends_of(found) == {(("x", 1),), (("x", 2),)}
    assert found.broken == {}


def test_threads_that_wait_for_ever_break_progress() -> None:
    """Nobody gives the mmap_lock back, so that the fork waits for it."""
    text = "test t\nprocesses P C\npages a\n\nconcurrent by step {\nP: fork C\n}\n"
    program = program_of(parse(text), "base")
    program.first["mm_readers"][0, 0] = 1
    found = explore_program(program, record(choose("linux-6.1")))
    assert set(found.broken) == {"progress"}
    assert found.outcomes == ()


def test_a_group_that_never_ends_breaks_progress() -> None:
    """The long-term pin of huge-memfd-ro-longterm goes round in circles, whatever T does."""
    text = (
        "test t\nprocesses P\nthreads T of P\npages a b\nhuge h = a b\n\nP: mmap_file h\n"
        "P: hugepage h\nP: x = read a\n"
        "concurrent by step {\nP: r = pin a longterm\nT: y = read b\n}\n"
    )
    assert set(search(text, "linux-7.3").broken) == {"progress"}
    assert search(text, "linux-6.1").broken == {}


def test_an_order_that_never_ends_breaks_progress() -> None:
    """The same pin ends where a page table is; T maps the file anew, which takes it away."""
    text = (
        "test t\nprocesses P\nthreads T of P\npages a b\nhuge h = a b\n\nP: mmap_file h\n"
        "P: hugepage h\nP: write b = 1\n"
        "concurrent by step {\nP: r = pin a longterm\nT: mmap_file h\n}\n"
    )
    found = search(text, "linux-7.3")
    assert set(found.broken) == {"progress"}
    assert found.outcomes != ()
    assert search(text, "linux-6.1").broken == {}
    first = text.replace("mmap_file h\n}", "read b\n}")
    assert search(first, "linux-7.3").broken == {}


@pytest.mark.parametrize("kernel", ["linux-4.19.y", "linux-5.8", "linux-5.10"])
def test_a_pmd_entry_that_nobody_splits_stops_a_forced_copy(kernel: str) -> None:
    """As reported of 5.4.y; a kernel that breaks no COW for a load just takes the page."""
    from pageherd.search.check import Checker, find_one

    spec = f"{kernel}:huge-file-cow=left-to-filesystem"
    found = Checker().check(find_one("thp-ro-filethp-54"), spec).exploration
    assert set(found.broken) == (set() if kernel == "linux-5.10" else {"progress"})


def test_a_trace_tells_the_stretches_of_a_race() -> None:
    """Dirty COW by the rule of v4.8: the discard comes in the middle of the forced write."""
    from pageherd.search.check import Checker, find_one

    checker, chosen = Checker(), find_one("dirtycow-2016")
    spec = "linux-4.19:force-retry=as-read"
    verdict = checker.check(chosen, spec)
    assert verdict.verdict == "broken"
    assert "private" in verdict.exploration.broken
    answer = next(answer for answer in verdict.answers if answer.verdict == "broken")
    told = checker.explain(chosen, spec, answer)
    assert told is not None
    poke = [line for line in told.listing if "ptrace_poke" in line]
    assert poke[0].endswith("# not to its end")
    assert poke[-1].endswith("# goes on")
    last = next(one for one in told.operations if one.text.startswith("P: file"))
    assert last.result == 1
