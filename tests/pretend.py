"""A real kernel that is none: it reads the runner's words and prints its lines, by the model.

Everything between a test and a verdict runs as on a real kernel: programs are encoded as words and
decoded here from nothing but those words, and what the machine then holds is printed as pagemap,
kpagecount and kpageflags would show it.  With the rules of another kernel it is a kernel that the
model does not describe.
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pageherd.litmus.syntax import (
    KERNEL,
    Argument,
    FileLine,
    Group,
    Huge,
    PageOf,
    Placement,
    Step,
    Swap,
    Test,
)
from pageherd.litmus.syntax import Thread as ThreadOf
from pageherd.machine import state as st
from pageherd.machine.drive import drive
from pageherd.machine.jit import records
from pageherd.machine.layout import States
from pageherd.machine.operations import encode
from pageherd.machine.verbs import VERBS, Kind, Result
from pageherd.real.choices import ways
from pageherd.real.levers import LEVERS
from pageherd.real.observe import (
    ALONE_BIT,
    KPF_ANON_EXCLUSIVE,
    KPF_DIRTY,
    KPF_KSM,
    KPF_MMAP,
    KPF_NOPAGE,
    KPF_SWAPCACHE,
    KPF_THP,
    KPF_ZERO_PAGE,
    PRESENT_BIT,
    SOFT_DIRTY_BIT,
    SWAPPED_BIT,
    UNTOLD,
    Page,
    model_page,
)
from pageherd.real.results import Probes
from pageherd.real.steer import RANGE_WIDTH, Steered
from pageherd.real.target import Report, Target, Words, sight_of
from pageherd.rules.choose import choose, record
from pageherd.search.program import Program, program_of
from pageherd.search.verdict import plain

DEVICES: Final = {"disk": "/dev/disk", "zram": "/dev/zram"}
BATCH: Final = 15  # pages in an LRU batch that is left alone
FIRST_FRAME: Final = 0x1000
VERB_OF: Final = {lever.step: verb for verb, lever in LEVERS.items()}
PROT_OF: Final = {0: "none", 1: "r", 3: "rw"}
ERRORS: Final = {
    "fault": errno.EFAULT,
    "busy": errno.EBUSY,
    "full": errno.ENOSPC,
    "notified": errno.EFAULT,
}
LEVERS_OWN: Final = ("migrate", "ksm", "ksm_zero")  # of what is mapped; of all there is
SIGHT: Final = ("pagemap", "kpagecount", "kpageflags", "ksm-flag")
PROBES: Final = tuple(sorted({lever.needs for lever in LEVERS.values()} - {""}))


class Impossible(Exception):
    """Words that the runner would refuse."""


@dataclass
class Decoded:
    """A program as the words say it."""

    id: str
    program: Program
    test: Test
    repeat: int
    facts: bool


def decode(text: str) -> Iterator[Decoded]:
    """The programs in a text for the runner, each read from its own words only."""
    device = "none"
    lines: list[list[str]] = []
    for line in text.splitlines():
        word, *rest = line.split(" ")
        if word == "swap":
            (device,) = rest
        elif word == "run":
            yield _decoded(lines, device)
            lines = []
        else:
            lines.append([word, *rest])
    if lines:
        raise Impossible(f"no run after {lines[-1]}")


def _decoded(lines: Sequence[Sequence[str]], device: str) -> Decoded:
    (head, name, *numbers), *rest = lines
    processes, pages, repeat, facts, drained = map(int, numbers)
    owners = [(int(p), int(cpu)) for word, p, cpu in (x for x in rest if x[0] == "thread")]
    files = tuple(FileLine(kind) for word, kind, *_ in rest if word == "file")
    names = [f"P{p}" for p in range(processes)]
    huge = tuple(
        Huge(f"h{first}", tuple(f"g{n}" for n in range(int(first), int(first) + int(count))))
        for word, first, count in (x for x in rest if x[0] == "range")
    )
    threads = [
        names[p] if t < processes else f"T{t}" for t, (p, _) in enumerate(owners)
    ]  # every process has a thread of its own, in this order, before the declared ones
    body: list[Step | Group] = []
    group = 0
    for word, *fields in rest:
        if word in ("thread", "range", "file", "pool"):
            continue
        thread, number = int(fields[0]), int(fields[1])
        step = _step(KERNEL if thread < 0 else threads[thread], fields[2], *map(int, fields[3:]))
        if number and number == group:
            last = body.pop()
            assert isinstance(last, Group)
            body.append(Group("operation", (*last.steps, step)))
        else:
            body.append(Group("operation", (step,)) if number else step)
        group = number
    kinds: dict[str, Any] = {path: kind for kind, path in DEVICES.items()}
    test = Test(
        name,
        tuple(names),
        tuple(body),
        threads=tuple(
            ThreadOf(threads[t], names[p]) for t, (p, _) in enumerate(owners) if t >= processes
        ),
        pages=tuple(f"g{n}" for n in range(pages)),
        cpus=tuple(Placement(threads[t], cpu) for t, (_, cpu) in enumerate(owners) if cpu),
        files=files,
        swap=Swap(kinds.get(device, "none")),
        lru_batches=0 if drained else BATCH,
        hugetlb_pool=next((int(pages) for word, pages, *_ in rest if word == "pool"), None),
        huge=huge,
    )
    if head != "program":
        raise Impossible(head)
    program = program_of(test, "base")
    if huge:
        program.first["rest_pages"] = RANGE_WIDTH + 1 - len(huge[0].pages)
    return Decoded(name, program, test, repeat, bool(facts))


def _step(thread: str, word: str, a: int, b: int, value: int, span: int = 1) -> Step:
    verb = VERBS[VERB_OF[word]]
    arguments: list[Argument] = []
    for place, kind in enumerate(verb.arguments):
        if kind in (Kind.PAGE, Kind.HUGE):
            arguments.append(f"{'h' if span > 1 else 'g'}{b if place else a}")
        elif kind in (Kind.REMOTE, Kind.FRAME):
            arguments.append(PageOf(f"P{a}", f"g{b}"))
        elif kind is Kind.REFERENCE:
            arguments.append(f"r{a}")
        elif kind is Kind.PROCESS:
            arguments.append(f"P{a if verb.name == 'fork' else 0}")  # whoever it is shared with
        elif kind is Kind.PROT:
            arguments.append(PROT_OF[value])
        elif kind is Kind.FEATURES:
            bits = {
                "wp-unpopulated": 1 << 13,
                "wp-async": 1 << 15,
                "rwp": 1 << 17,
                "rwp-async": 1 << 18,
            }
            arguments.append(tuple(word for word, bit in bits.items() if value & bit))
        elif not (verb.name == "drain" and value < 0):
            arguments.append(value)
    result = f"r{b}" if verb.result is Result.REFERENCE else None
    return Step(thread, verb.name, tuple(arguments), result)


def words_of(page: Page) -> str:
    """A page as the three words that the runner prints of it."""
    pagemap = count = flags = 0
    if page.entry == "swapped":
        pagemap = 1 << SWAPPED_BIT | (page.slot or 0) + 1 << 5
    elif page.entry == "zero":
        pagemap, flags = 1 << PRESENT_BIT | 1, 1 << KPF_ZERO_PAGE
    elif page.entry == "present":
        pagemap = 1 << PRESENT_BIT | FIRST_FRAME + (page.frame or 0)
        pagemap |= int(bool(page.alone)) << ALONE_BIT
        count = page.mapcount or 0
        flags = int(bool(page.cached)) << KPF_SWAPCACHE
        flags |= int(bool(page.dirty)) << KPF_DIRTY
        flags |= int(bool(page.exclusive)) << KPF_ANON_EXCLUSIVE
        flags |= int(bool(page.ksm)) << KPF_KSM
        flags |= int(page.dirty is None) << KPF_MMAP  # not KPF_ANON: of a file
        flags |= int(page.mapcount is None) << KPF_NOPAGE  # of a device
    flags |= int(bool(page.large)) << KPF_THP
    pagemap |= int(bool(page.soft_dirty)) << SOFT_DIRTY_BIT
    huge = UNTOLD if page.huge is None and page.large is not None else page.huge
    return f"{pagemap:x} {count} {flags:x}" + ("" if huge is None else f" {huge:d} 0")


@dataclass
class Pretend(Target):
    """A target whose kernel is the model's.

    `rules`: whose; `told`: the release that it pretends to be.  `missing`: probes that fail.
    `hang`: the verb that never returns.  `stop_after`: programs after which it stops, for `reason`.
    """

    rules: str
    told: str = "6.1.0-pretended"
    missing: Sequence[str] = ()
    hang: str = ""
    stop_after: int | None = None
    reason: BaseException | str = ""
    name: str = "pretended"
    runs: int = 0
    programs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.release = self.told
        self.table = record(choose(self.rules))

    def lines(self, programs: Words, cpus: int, report: Report) -> Generator[str]:
        self.runs += 1
        yield f"release {self.told}\n"
        for probe in (*SIGHT, "cpu-1", "cpu-2", "cpu-3", *PROBES):
            if probe != "swap":
                yield f"have {probe} {errno.ENODEV if probe in self.missing else 0}\n"
        for number, decoded in enumerate(decode(programs(DEVICES))):
            if number == self.stop_after:
                if isinstance(self.reason, BaseException):
                    raise self.reason
                report.ended = self.reason
                return
            self.programs.append(decoded.id)
            yield f"swap {-errno.EPERM if 'swap' in self.missing else 0}\n"
            yield f"program {decoded.id}\n"
            for run in range(decoded.repeat):
                if run:
                    yield "again\n"
                yield from self.run_once(decoded, run)
            yield "end\n"

    def run_once(self, decoded: Decoded, run: int) -> Iterator[str]:
        """The steps in order; in every other run the threads of a group in the other order."""
        program = decoded.program
        states = program.first.copy()
        ops = encode(program.operations)
        ops["register"] = 1
        for group in groups(decoded.test, backwards=bool(run % 2)):
            told: dict[int, str] = {}
            for i in group:
                if program.steps[i].verb == self.hang:
                    yield f"hang {i}\n"
                    return
                if program.steps[i].verb in LEVERS_OWN:
                    states = self.by_lever(states, decoded, i)
                else:
                    drive(records(states), 0, records(self.table), records(ops), i, i + 1)
                assert not states["alarm"][0], program.steps[i]
                told[i] = gave(program.steps[i], int(states["reg"][0, 0]))
                states["reg"][0, 0] = st.UNBOUND
            facts = self.facts(states[0], decoded) if decoded.facts else ""
            for i in sorted(group):
                yield f"step {i} {told[i]}{facts}\n"

    def by_lever(self, states: States, decoded: Decoded, i: int) -> States:
        """What the lever makes of a step that the machine has done to other pages."""
        steered = Steered(decoded.id, decoded.test, decoded.program, frozenset())
        step, operation = decoded.program.steps[i], decoded.program.operations[i]
        return next(ways(steered, states, step, operation, self.table))[0]

    def facts(self, state: Any, decoded: Decoded) -> str:
        names = decoded.program.names
        of_head = sight_of(Probes(self.told)).of_head
        return "".join(
            f" | {mm}.{page} {words_of(model_page(state, mm, page, of_head=of_head))}"
            for mm in range(len(names.processes))
            if state["mm_state"][mm] == st.LIVE
            for page in range(len(names.pages))
        )


def gave(step: Step, register: int) -> str:
    """What a step gave as the runner prints it: an error number, and the value read."""
    result, error, seen = plain(register), 0, 0
    if VERBS[step.verb].result is Result.VALUE and isinstance(result, int):
        seen = result
    elif LEVERS[step.verb].returns and VERBS[step.verb].result is not Result.STATE:
        error = ERRORS.get(str(result), 0)
        if result == "notified" and step.verb in ("read", "write"):
            error = errno.ERESTART
    return f"{-error} {seen}"


def groups(test: Test, *, backwards: bool) -> Iterator[list[int]]:
    """The numbers of the steps as they run: one by one, those of a group thread by thread."""
    first = 0
    for part in test.body:
        if isinstance(part, Group):
            threads = list(dict.fromkeys(step.thread for step in part.steps))
            yield [
                first + i
                for thread in (reversed(threads) if backwards else threads)
                for i, step in enumerate(part.steps)
                if step.thread == thread
            ]
            first += len(part.steps)
        else:
            yield [first]
            first += 1
