"""The difference of two kernels: a shortest program that tells them apart, as a test.

`product` finds the path; here it becomes a program, which the checker runs on both kernels.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

from pageherd.litmus.format import format_step
from pageherd.litmus.syntax import Comparison, Copies, Keeps, Outcome, Question, Step, Test
from pageherd.machine.jit import ALARMS
from pageherd.promises.table import DEFAULT, PROMISES
from pageherd.rules.choose import Progress, choose, record
from pageherd.search import checkpoint, counterexample
from pageherd.search import lockstep as ls
from pageherd.search.client import Client
from pageherd.search.keeper import Keeper, keeper, noticing
from pageherd.search.product import MAX_STATES, Observe, Product, Watcher, client_of_both
from pageherd.search.scope import Scope, chosen_verbs, scopes_of
from pageherd.search.why import (
    REGISTER,
    Observer,
    Reason,
    observe_copies,
    observe_counts,
    observe_promise,
    observe_value,
    reasons,
    shows,
)


@dataclass(frozen=True, slots=True)
class Distinction:
    """A shortest program on which two kernels show different things."""

    test: Test
    promise: str  # that one kernel keeps and the other one breaks; else empty
    shows: tuple[str, str]  # what the checker shows on each kernel
    slots: int | None = None  # of swap, if there must be so few; a test cannot say so
    why: tuple[Reason, ...] = ()

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations as lines of a test."""
        return tuple(format_step(step) for step in self.test.body)  # type: ignore[arg-type]

    @property
    def confirmed(self) -> bool:
        """Whether the checker, which knows nothing of symmetry, tells them apart too."""
        return self.shows[0] != self.shows[1]


@dataclass(frozen=True, slots=True)
class Difference:
    """What the comparison of two kernels came to."""

    kernels: tuple[str, str]
    scope: Scope
    observe: tuple[Observe, ...]  # what was compared, one after the other
    programs: tuple[Distinction, ...]  # of the last thing compared
    client: Client
    absent: tuple[str, ...]  # operations left out: one of the kernels has no such call
    states: int
    transitions: int
    seconds: float
    complete: bool  # the scope was exhausted, or a difference was found
    interrupted: bool = False
    checkpoint: Path | None = None  # from which a search that was cut short can go on
    unsaved: str = ""  # why the last checkpoint could not be written
    notes: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """Whether anything differs."""
        return bool(self.programs)


@dataclass(frozen=True, slots=True)
class _Size:
    """How large one search was, and how it ended."""

    states: int
    transitions: int
    seconds: float
    exhausted: bool
    stuck: int  # the alarm of a run that could not go on


# -- from a path to a test -------------------------------------------------------------------------


def _distinctions(product: Product) -> tuple[Distinction, ...]:
    found: list[Distinction] = []
    known: set[tuple[str, tuple[str, ...]]] = set()
    for path, bits in product.differences():
        promises = [p.name for p in PROMISES if bits >> p.number & 1] or [""]
        for promise in promises:
            each = _distinction(product, path, promise)
            if (promise, each.operations) not in known:
                known.add((promise, each.operations))
                found.append(each)
    return tuple(found)


def _observer(observe: Observe, promise: str) -> Observer:
    others: dict[Observe, Observer] = {
        "values": observe_value,
        "copies": observe_copies,
        "counts": observe_counts,
    }
    return observe_promise(promise) if observe == "promises" else others[observe]


def _distinction(product: Product, path: tuple[int, ...], promise: str) -> Distinction:
    """The path as a test, in the first order of processes in which it tells the kernels apart.

    With plenty of swap if that does, else with as many slots as the scope has.
    """
    observer = _observer(product.observe, promise)
    search: Any = product  # all that `test_of` asks of a search
    plain = counterexample.test_of(search, promise or product.observe, path)
    test = _named(product, plain, promise)
    first: Distinction | None = None
    for slots, processes in itertools.product(
        (None, product.scope.slots), permutations(test.processes)
    ):
        candidate = replace(test, processes=processes)
        one, other = (shows(candidate, kernel, observer, slots) for kernel in product.kernels)
        asking = replace(candidate, questions=_questions(product.observe, promise, one, other))
        found = Distinction(asking, promise, (one, other), slots)
        if found.confirmed:
            return found
        first = first or found
    assert first is not None
    return first


def _named(product: Product, test: Test, promise: str) -> Test:
    """With a name and a title; the value read last is put into a register."""
    bases = "-".join(kernel.base for kernel in product.kernels)
    one, other = (kernel.name for kernel in product.kernels)
    body = test.body
    if product.observe == "values":
        last = body[-1]
        assert isinstance(last, Step)
        body = (*body[:-1], replace(last, result=REGISTER))
    what = promise or product.observe
    return replace(
        test,
        name=f"diff-{bases}-{what}".replace(".py", ""),
        title=f"A shortest program that tells {one} from {other} by {what}",
        body=body,
        questions=(),
    )


def _questions(observe: Observe, promise: str, one: str, other: str) -> tuple[Question, ...]:
    """What the test asks: that it be as on the second kernel, where a test can say so."""
    if promise:
        return (Keeps(promise),)
    wanted = other.partition(" = ")[2]
    if not wanted.isdecimal():
        return ()
    if observe == "values":
        return (Outcome("require", Comparison(REGISTER, "=", int(wanted))),)
    return (Copies("=", int(wanted)),) if observe == "copies" else ()


# -- the call --------------------------------------------------------------------------------------


def diff(
    k1: str,
    k2: str,
    scope: str | Scope = "small",
    observe: Observe | Collection[Observe] | None = None,
    *,
    why: bool = False,
    every: bool = False,
    promises: Collection[str] = (),
    ops: Collection[str] = (),
    without: Collection[str] = (),
    max_states: int = MAX_STATES,
    resume: Path | None = None,
    progress: Progress | None = None,
    watch: Watcher | None = None,
) -> Difference:
    """A shortest program in a scope that tells two kernels apart, or none.

    Ctrl-C and SIGTERM end the search early, with a checkpoint.

    Args:
        k1, k2: kernels, as `rules.choose.choose` takes them.
        scope: a name that stands for one scope, or four numbers.
        observe: what to compare; several are tried in turn until one differs. Promises, then
            values, if left out.
        why: also look for the rules that make the difference.
        every: all shortest programs, not only the first.
        promises: only these; those that hold without being asked for if left out.
        ops, without: the only operations, or those to leave out.
        max_states: give up beyond so many pairs of states.
        resume: the checkpoint to go on from, if it exists, and to write; else a file of the cache.
        progress: told while the machine is compiled; watch: told now and then how far it is.

    Raises:
        ScopeError: no such scope or operation.
        RuleError: there is no such kernel, or a user's rule failed.
        ModelError: the machine cannot answer.
        CheckpointError: `resume` is a checkpoint of another search, or none.

    >>> found = diff("linux-4.19", "linux-4.19.y", "2,1,1,0", "promises", why=True,
    ...              ops=("mmap", "write", "fork", "vmsplice", "munmap"))
    >>> found.programs[0].shows
    ('private kept', 'private broken')
    >>> [reason.spec for reason in found.programs[0].why]
    ['linux-4.19:unshare=break-cow', 'linux-4.19.y:unshare=never']
    """
    chosen = (scope,) if isinstance(scope, Scope) else scopes_of(scope)
    wanted = _wanted(observe)
    asked = tuple(promises) or DEFAULT
    kernels = choose(k1), choose(k2)
    layout = chosen[0].layout
    tables = record(kernels[0], layout, progress), record(kernels[1], layout, progress)
    searches = [
        (each, what, client_of_both(each, kernels, tables, chosen_verbs(ops, without, each), what))
        for each in chosen
        for what in wanted
    ]
    modes = {"observe": list(wanted), "every": every}
    clients = [client for _, _, client in searches]
    keeping = keeper(resume, checkpoint.identity_of("diff", kernels, chosen, clients, asked, modes))
    with noticing() as interrupts:
        for each, what, client in searches[len(keeping.done) :]:
            product = Product(each, kernels, tables, client, what, asked, every, max_states)
            over = keeping.run(product, watch, interrupts)
            keeping.done.append(asdict(_size(product)))
            if product.tally[ls.FOUND] or (not over and (interrupts or keeping.named)):
                break
    return _difference(product, wanted, keeping, why=why, interrupted=bool(interrupts and not over))


def _wanted(observe: Observe | Collection[Observe] | None) -> tuple[Observe, ...]:
    if observe is None:
        return "promises", "values"
    return (observe,) if isinstance(observe, str) else tuple(observe)


def _size(product: Product) -> _Size:
    stuck = int(product.tally[ls.STUCK])
    exhausted = product.complete and not stuck and not product.tally[ls.PRUNED]
    transitions = int(product.tally[ls.TRANSITIONS])
    return _Size(product.nr_states, transitions, product.seconds, bool(exhausted), stuck)


def _difference(
    last: Product, wanted: tuple[Observe, ...], keeping: Keeper, *, why: bool, interrupted: bool
) -> Difference:
    """What the last search found, and how large all of them were."""
    programs = _distinctions(last)
    if why:
        programs = tuple(_explained(last, each) if each.confirmed else each for each in programs)
    sizes = [_Size(**each) for each in keeping.done]
    complete = bool(programs) or all(size.exhausted for size in sizes)
    if last.over:
        keeping.forget()
    observed = wanted.index(last.observe) + 1 if programs else len(sizes)
    absent = {verb for kernel in last.kernels for verb in kernel.absent()}
    return Difference(
        kernels=(last.kernels[0].name, last.kernels[1].name),
        scope=last.scope,
        observe=wanted[:observed],
        programs=programs,
        client=last.client,
        absent=tuple(sorted(absent)),
        states=sum(size.states for size in sizes),
        transitions=sum(size.transitions for size in sizes),
        seconds=sum(size.seconds for size in sizes),
        complete=complete and not interrupted,
        interrupted=interrupted,
        checkpoint=None if last.over else keeping.saved(),
        unsaved=keeping.unsaved,
        notes=tuple(ALARMS[size.stuck] for size in sizes if size.stuck),
    )


def _explained(product: Product, each: Distinction) -> Distinction:
    observer = _observer(product.observe, each.promise)
    return replace(each, why=reasons(each.test, *product.kernels, observer, each.slots))
