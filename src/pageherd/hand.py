"""Driving the machine by hand: processes, pages, references, and the kernel's daemons as calls.

One method for every call that a process can make, which makes the file long.

>>> from pageherd import Machine
>>> m = Machine("linux-4.19")
>>> parent = m.process("P")
>>> a = parent.mmap("a")
>>> parent.write(a, 1)
>>> child = parent.fork("C")
>>> pipe = child.vmsplice(a)
>>> child.munmap(a)
>>> parent.write(a, 255)
>>> pipe.read()
255
>>> m.broken
('private',)
>>> print(m.as_test("leak"), end="")  # doctest: +ELLIPSIS
test leak
...
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from pageherd.errors import ModelError, PageherdError
from pageherd.litmus.format import format_test
from pageherd.litmus.parsing import parse
from pageherd.litmus.syntax import (
    DAX,
    KERNEL,
    MEMFD,
    Argument,
    FileKind,
    FileLine,
    Keeps,
    PageOf,
    Step,
    Swap,
    SwapKind,
    Test,
    Thread,
)
from pageherd.litmus.words import PAGE_NAME, PROCESS_NAME, taken
from pageherd.machine import state as st
from pageherd.machine.describe import Labels, changes, facts
from pageherd.machine.drive import STEP_LIMIT, drive_begin
from pageherd.machine.jit import ALARMS, records
from pageherd.machine.layout import COSTS, TEST
from pageherd.machine.operations import encode
from pageherd.machine.steps import BLOCKED, IDLE
from pageherd.machine.verbs import DAX_VERBS, VERBS, Result
from pageherd.machine.watch import PROGRESS
from pageherd.promises.table import DEFAULT, PROMISES
from pageherd.rules import kernels
from pageherd.rules.choose import choose, record
from pageherd.search.program import FILE_KINDS, SWAP_KINDS, Names, empty_state, operation_of
from pageherd.search.store import leaks, step_checked
from pageherd.search.verdict import plain

Value = int | str
"""What an operation gives: a number read, or a word such as `ok`, `fault`, `swapped`."""


class PromiseBroken(PageherdError):
    """An operation broke a promise, and the machine was told to raise."""

    def __init__(self, promises: tuple[str, ...], operation: str) -> None:
        super().__init__(f"{operation}: breaks {', '.join(promises)}")
        self.promises = promises
        self.operation = operation


class OperationFailed(PageherdError):
    """An operation that has to succeed failed (SIGSEGV, EFAULT, ...)."""


@dataclass(frozen=True, slots=True)
class Page:
    """A virtual page; every process may map something of its own there."""

    name: str
    number: int


class Machine:
    """The system itself: one kernel's rules, and the state that its operations have made.

    Args:
        kernel: a kernel's name, with changes if wanted, or a user's file of rules.
        file: what kind of file there is: `memfd`, `tmpfile` (of a disk file system), `hugetlb` or
            `dax` (of persistent memory; only with the verbs of `DAX_VERBS`).
        swap: the swap device: `disk`, `slow` (write-back ends when told to), `zram`, `none`.
        stable_writes: whether the device needs pages to be stable under write-back.
        lru_batches: how many pages a CPU's LRU batch holds before it drains; 0: none.
        hugetlb_pool: how many hugetlb pages there are; None: as many as it takes.
        on_breach: `collect` broken promises in `broken`, or `raise` PromiseBroken.

    Raises:
        RuleError: there is no such kernel.

    >>> m = Machine("linux-6.1")
    >>> p = m.process("P")
    >>> buffer = p.mmap("buffer")
    >>> p.write(buffer, 7)
    >>> pin = p.pin(buffer, "write", "longterm")
    >>> p.fork("C").read(buffer)
    7
    >>> pin.write(8)
    >>> p.read(buffer), m.copies, m.broken
    (8, 1, ())
    """

    def __init__(
        self,
        kernel: str = "linux-6.1",
        *,
        file: FileKind = MEMFD,
        swap: SwapKind = "disk",
        stable_writes: bool = False,
        lru_batches: int = 0,
        hugetlb_pool: int | None = None,
        on_breach: Literal["collect", "raise"] = "collect",
    ) -> None:
        self.kernel = choose(kernel)
        self._record = record(self.kernel)
        self._file = file
        self._swap = Swap(swap, stable_writes)
        self._batches = lru_batches
        self._pool = hugetlb_pool
        self._on_breach = on_breach
        self._processes: list[Process] = []
        self._threads: list[Process] = []
        self._pages: list[Page] = []
        self._references: list[str] = []
        self._steps: list[Step] = []
        self._broken: dict[str, None] = {}
        self._states = empty_state(TEST, 0, TEST.pages, TEST.slots)
        head = self._states[0]
        head["nr_mms"] = TEST.mms
        head["nr_frames"] = TEST.frames
        head["file_kind"] = FILE_KINDS[file]
        head["swap_kind"] = SWAP_KINDS[swap]
        head["swap_stable_writes"] = int(stable_writes)
        head["batch_limit"] = lru_batches
        if hugetlb_pool is not None:
            head["hugetlb_pool"] = hugetlb_pool + 1
            head["hugetlb_free"] = hugetlb_pool
        if swap == "none":
            head["nr_slots"] = 0

    # -- what there is ---------------------------------------------------------------------------

    def process(self, name: str | None = None) -> Process:
        """A new, independent process; without a name the next of P, Q, R, ...

        Raises:
            OperationFailed: the name is taken or cannot be one, or the machine is full.
        """
        process = self._add_process(name or self._free("PQRSTU"))
        self._states["mm_state"][0, process.number] = st.LIVE
        return process

    def page(self, name: str | None = None) -> Page:
        """The virtual page called `name`, the same address in every process; else a new one.

        Raises:
            OperationFailed: the name cannot be one, or the machine is full.
        """
        for page in self._pages:
            if page.name == name:
                return page
        name = name or self._free("abcdefgh")
        _check_name(name, PAGE_NAME, "a page is named like a, buffer or page_1")
        if len(self._pages) == TEST.pages:
            raise OperationFailed(f"the machine has {TEST.pages} pages")
        self._pages.append(Page(name, len(self._pages)))
        return self._pages[-1]

    @property
    def broken(self) -> tuple[str, ...]:
        """The promises broken so far, in the order in which they broke."""
        return tuple(self._broken)

    @property
    def copies(self) -> int:
        """How many pages were copied (COW, unshare, fork)."""
        return int(self._states["copies"][0])

    @property
    def costs(self) -> dict[str, int]:
        """Running totals: faults, copies, atomics, rmap steps, TLB flushes, reads, writes."""
        return dict(zip(COSTS, self._states["cost"][0].tolist(), strict=True))

    def leaks(self) -> bool:
        """Whether frames or slots would be lost if everything ended now (`no-leak`)."""
        return bool(leaks(records(self._states.copy()), 0, records(self._record)))

    def show(self) -> str:
        """Page tables, frames, swap slots and references, as text.

        >>> m = Machine("linux-6.1")
        >>> p = m.process("P")
        >>> p.write(p.mmap("a"), 5)
        >>> print(m.show())
        P        alive
        P.a      frame 1, writable
        frame 1  holds 5, refcount 1, mapcount 1, anon-exclusive
        """
        hidden = ("free", "no mapping", "0 entries", "not there", "released")
        shown = [(what, how) for what, how in self._facts().items() if how not in hidden]
        width = max((len(what) for what, _ in shown), default=0) + 2
        return "\n".join(f"{what:{width}}{how}" for what, how in shown)

    def as_test(self, name: str, ask: tuple[str, ...] = DEFAULT) -> str:
        """What was done so far as a litmus test, in the standard form.

        Raises:
            LitmusError: the name is not a test's name.
        """
        test = Test(
            name,
            tuple(process.name for process in self._processes),
            tuple(self._steps),
            tuple(Keeps(promise) for promise in ask),
            threads=tuple(Thread(t.thread, t.name) for t in self._threads if t.thread != t.name),
            pages=tuple(page.name for page in self._pages),
            files=() if self._file == MEMFD else (FileLine(self._file),),
            swap=self._swap,
            lru_batches=self._batches,
            hugetlb_pool=self._pool,
        )
        text = format_test(test)
        parse(text, f"{name}.litmus", kernels.names())
        return text

    # -- kernel daemons and choices ----------------------------------------------------------------

    def reclaim(self, target: Reference | tuple[Process, Page]) -> Value:
        """One pass of kswapd over the page of a process, or the page that a reference holds."""
        return self._kernel("reclaim", target)

    def migrate(self, target: Reference | tuple[Process, Page]) -> Value:
        """Compaction moves that page to another frame: `ok`, or `busy` where it stayed."""
        return self._kernel("migrate", target)

    def ksm(self, first: tuple[Process, Page], second: tuple[Process, Page]) -> Value:
        """ksmd at the first page, which finds the second: `ok`, or `busy` where nothing merged."""
        pages = tuple(PageOf(process.name, page.name) for process, page in (first, second))
        return self.do(Step(KERNEL, "ksm", pages))

    def numa_hint(self, process: Process, page: Page) -> Value:
        """NUMA balancing looks at a page: `ok` if the next access is noticed, else `busy`."""
        return self.do(Step(KERNEL, "numa_hint", (PageOf(process.name, page.name),)))

    def khugepaged(self, process: Process, page: Page) -> Value:
        """khugepaged at the huge range that has the page: `ok`, or `busy` where nothing is done."""
        return self.do(Step(KERNEL, "khugepaged", (PageOf(process.name, page.name),)))

    def ksm_zero(self, process: Process, page: Page) -> Value:
        """ksmd with use_zero_pages at a page full of zeros."""
        return self.do(Step(KERNEL, "ksm_zero", (PageOf(process.name, page.name),)))

    def writeback(self, target: Reference | tuple[Process, Page]) -> Value:
        """Let the swap write-back of that page finish (swap `slow`)."""
        return self._kernel("writeback", target)

    def drain(self, cpu: int | None = None) -> None:
        """Drain the LRU batch of one CPU, or of all."""
        self.do(Step(KERNEL, "drain", () if cpu is None else (cpu,)))

    def swapoff(self) -> None:
        """Bring every swapped page back and take the device away."""
        self.do(Step(KERNEL, "swapoff"))

    def _kernel(self, verb: str, target: Reference | tuple[Process, Page]) -> Value:
        if isinstance(target, Reference):
            return self.do(Step(KERNEL, verb, (target.name,)))
        process, page = target
        return self.do(Step(KERNEL, verb, (PageOf(process.name, page.name),)))

    # -- doing -------------------------------------------------------------------------------------

    def do(self, step: Step) -> Value:
        """Run one step to its end; what it gives, in words or as a number.

        Raises:
            PromiseBroken: it broke a promise and the machine was told to raise.
            ModelError: the machine cannot answer.
        """
        thread = self.begin(step)
        for _ in range(STEP_LIMIT):
            if self.step(thread) in (IDLE, BLOCKED):
                return self._result
        self._note(1 << PROGRESS)
        return self._result

    def begin(self, step: Step) -> int:
        """Begin a step without running it; the number of the thread to give to `step()`.

        With several steps begun on different processes, paths run interleaved by hand.
        """
        if self._file == DAX and step.verb not in DAX_VERBS:
            raise OperationFailed(f"'{step.verb}' with a DAX file is not supported")
        if step.result is not None and step.result not in self._references:
            self._add_reference(step.result)
        process = next((t.name for t in self._threads if t.thread == step.thread), None)
        operation = operation_of(self._names(), step, process)
        thread = operation.thread
        self._running = step
        self._steps.append(step)
        self._result: Value = "ok"
        ops = encode([replace(operation, register=1)])
        drive_begin(records(self._states), 0, records(self._record), records(ops), 0)
        return thread

    def step(self, thread: int) -> int:
        """One atomic step of a begun path: IDLE when it has ended, BLOCKED if a lock is taken."""
        states = self._states
        states["broke"][0] = 0
        following = int(step_checked(records(states), 0, records(self._record), thread))
        alarm = int(states["alarm"][0])
        if alarm:
            raise ModelError(ALARMS.get(alarm, "a rule failed"), alarm)
        if following == IDLE:
            number = int(states["reg"][0, 0])
            self._result = plain(number)
            states["reg"][0, 0] = st.UNBOUND
        self._note(int(states["broke"][0]))
        return following

    def explain(self, step: Step) -> list[str]:
        """Run one step and say what changed."""
        before = self._facts()
        self.do(step)
        return changes(before, self._facts())

    def _note(self, bits: int) -> None:
        broke = tuple(p.name for p in PROMISES if bits >> p.number & 1)
        self._broken.update(dict.fromkeys(broke))
        if broke and self._on_breach == "raise":
            raise PromiseBroken(broke, f"{self._running.thread}: {self._running.verb}")

    def _names(self) -> Names:
        processes = tuple(process.name for process in self._processes)
        pages = tuple(page.name for page in self._pages)
        threads = (KERNEL, *(thread.thread for thread in self._threads))
        return Names(processes, threads, pages, tuple(self._references), ())

    def _facts(self) -> dict[str, str]:
        names = self._names()
        labels = Labels(names.processes, names.threads, names.pages, names.references)
        return dict(facts(self._states[0], labels))

    def _free(self, names: str) -> str:
        """The first of these one-letter names that is not taken, or the last."""
        used = {p.name for p in self._processes} | {page.name for page in self._pages}
        return next((name for name in names if name not in used), names[-1])

    def _add_process(self, name: str) -> Process:
        _check_name(name, PROCESS_NAME, "a process is named like P, Child or P1")
        if any(process.name == name for process in self._processes):
            raise OperationFailed(f"there is a process '{name}' already")
        if len(self._processes) == TEST.mms:
            raise OperationFailed(f"the machine has {TEST.mms} processes")
        self._processes.append(self._add_thread(name, name, len(self._processes)))
        return self._processes[-1]

    def _add_thread(self, process: str, thread: str, number: int) -> Process:
        if len(self._threads) + 1 == TEST.threads:
            raise OperationFailed(f"the machine has {TEST.threads - 1} threads")
        self._threads.append(Process(self, process, number, thread))
        self._states["t_home"][0, len(self._threads)] = number  # the kernel's is the first
        return self._threads[-1]

    def _add_reference(self, name: str) -> None:
        if len(self._references) == TEST.refs:
            raise OperationFailed(f"the machine has {TEST.refs} references")
        self._references.append(name)


def _check_name(name: str, form: re.Pattern[str], example: str) -> None:
    """Refuse a name that a litmus test could not have."""
    if not form.fullmatch(name) or taken(name):
        raise OperationFailed(f"'{name}' cannot be a name here; {example}")


class Process:
    """A process, or one more thread of it: its methods are the verbs of the litmus language."""

    def __init__(self, machine: Machine, name: str, number: int, thread: str) -> None:
        self._machine = machine
        self.name = name
        self.number = number
        self.thread = thread

    def __repr__(self) -> str:
        return f"<process {self.name}, thread {self.thread}>"

    def new_thread(self, name: str) -> Process:
        """One more thread of this process."""
        return self._machine._add_thread(self.name, name, self.number)

    def _do(self, verb: str, *arguments: Argument | Page | Process) -> Value:
        plain = tuple(a.name if isinstance(a, (Page, Process)) else a for a in arguments)
        return self._machine.do(Step(self.thread, verb, plain))

    def _must(self, verb: str, *arguments: Argument | Page | Process) -> None:
        result = self._do(verb, *arguments)
        if result != "ok":
            raise OperationFailed(f"{self.name}: {verb}: {result}")

    def read(self, page: Page) -> int:
        """A load.

        Raises:
            OperationFailed: SIGSEGV.
        """
        value = self._do("read", page)
        if not isinstance(value, int):
            raise OperationFailed(f"{self.name}: read {page.name}: {value}")
        return value

    def write(self, page: Page, value: int) -> None:
        """A store.

        Raises:
            OperationFailed: SIGSEGV.
        """
        self._must("write", page, value)

    def write_stale(self, page: Page, value: int) -> None:
        """A store by a processor that has the page's entry in its TLB.

        Raises:
            OperationFailed: SIGSEGV.
        """
        self._must("write_stale", page, value)

    def mmap(self, page: Page | str | None = None) -> Page:
        """A private anonymous mapping, readable and writable, of a page, a name, or a new page."""
        chosen = page if isinstance(page, Page) else self._machine.page(page)
        self._must("mmap", chosen)
        return chosen

    def mmap_file(self, page: Page | str, of: Page | None = None) -> Page:
        """A private mapping of the file's page of that name, or of the page `of`."""
        return self._map("mmap_file", page, of)

    def mmap_shared(self, page: Page | str, of: Page | None = None) -> Page:
        """A shared mapping of the file's page of that name, or of the page `of`."""
        return self._map("mmap_shared", page, of)

    def mmap_hugetlb(self, page: Page | str) -> Page:
        """A private mapping of a hugetlb page."""
        return self._map("mmap_hugetlb", page, None)

    def mmap_droppable(self, page: Page | str) -> Page:
        """A mapping with MAP_DROPPABLE: reclaim may drop its pages, and a child finds none."""
        return self._map("mmap_droppable", page, None)

    def _map(self, verb: str, page: Page | str, of: Page | None) -> Page:
        chosen = self._machine.page(page) if isinstance(page, str) else page
        self._must(verb, chosen, *(() if of is None else (of,)))
        return chosen

    def read_file(self, page: Page) -> Value:
        """pread() of a page of the file."""
        return self._do("read_file", page)

    def write_file(self, page: Page, value: int) -> None:
        """pwrite() to a page of the file."""
        self._must("write_file", page, value)

    def sync_file(self, page: Page) -> None:
        """sync_file_range(): a dirty page of the file is written to its disk."""
        self._must("sync_file", page)

    def munmap(self, page: Page) -> None:
        """munmap()."""
        self._must("munmap", page)

    def mprotect(self, page: Page, protection: Literal["none", "r", "rw"]) -> None:
        """mprotect()."""
        self._must("mprotect", page, protection)

    def mremap(self, page: Page, to: Page | str) -> Page:
        """Move a mapping to another page, replacing what is there."""
        chosen = self._machine.page(to) if isinstance(to, str) else to
        self._must("mremap", page, chosen)
        return chosen

    def madvise(
        self,
        page: Page,
        advice: Literal[
            "dontneed",
            "dontfork",
            "dofork",
            "wipeonfork",
            "free",
            "guard",
            "unguard",
            "mergeable",
            "unmergeable",
            "pageout",
            "populate_read",
            "populate_write",
        ],
    ) -> Value:
        """madvise() with the advice of that name."""
        return self._do(advice, page)

    def mlock(self, page: Page) -> None:
        """mlock()."""
        self._must("mlock", page)

    def move(self, page: Page) -> Value:
        """move_pages() of one page to another node: `ok`, or `busy` where it stayed."""
        return self._do("move", page)

    def hwpoison(self, page: Page) -> Value:
        """madvise(MADV_HWPOISON): memory_failure() of the frame that the page maps."""
        return self._do("hwpoison", page)

    def soft_offline(self, page: Page) -> Value:
        """madvise(MADV_SOFT_OFFLINE): the content moves to another frame, or stays: `busy`."""
        return self._do("soft_offline", page)

    def clear_soft_dirty(self) -> None:
        """Write 4 to /proc/self/clear_refs."""
        self._must("clear_soft_dirty")

    def pagemap(self, page: Page) -> Value:
        """`absent`, `zero`, `present` or `swapped`."""
        return self._do("pagemap", page)

    def merge_any(self) -> Value:
        """prctl(PR_SET_MEMORY_MERGE, 1): KSM may merge all that the process maps."""
        return self._do("merge_any")

    def unmerge_any(self) -> Value:
        """prctl(PR_SET_MEMORY_MERGE, 0): and no more."""
        return self._do("unmerge_any")

    def ksm_merging_pages(self) -> Value:
        """/proc/self/ksm_merging_pages: how many pages ksmd has merged."""
        return self._do("ksm_merging_pages")

    def userfaultfd(
        self,
        *features: Literal[
            "event-fork", "event-remap", "wp-unpopulated", "wp-async", "rwp", "rwp-async"
        ],
    ) -> Value:
        """userfaultfd() and UFFDIO_API; a process without has one that knows no features."""
        return self._machine.do(Step(self.thread, "userfaultfd", (features,)))

    def uffd_register(self, page: Page) -> Value:
        """UFFDIO_REGISTER, to track writes."""
        return self._do("uffd_register", page)

    def uffd_protect(self, page: Page) -> Value:
        """UFFDIO_WRITEPROTECT: from now on a write to the page is `notified`."""
        return self._do("uffd_protect", page)

    def uffd_unprotect(self, page: Page) -> Value:
        """UFFDIO_WRITEPROTECT, off."""
        return self._do("uffd_unprotect", page)

    def uffd_register_rwp(self, page: Page) -> Value:
        """UFFDIO_REGISTER, to track all access."""
        return self._do("uffd_register_rwp", page)

    def uffd_rwprotect(self, page: Page) -> Value:
        """UFFDIO_RWPROTECT: from now on any access to the page is `notified`."""
        return self._do("uffd_rwprotect", page)

    def uffd_rwunprotect(self, page: Page) -> Value:
        """UFFDIO_RWPROTECT, off."""
        return self._do("uffd_rwunprotect", page)

    def uffd_register_minor(self, page: Page) -> Value:
        """UFFDIO_REGISTER of a mapping of the file: a fault on a page that it has is `notified`."""
        return self._do("uffd_register_minor", page)

    def uffd_continue(self, page: Page) -> Value:
        """UFFDIO_CONTINUE: map the page that the page cache has."""
        return self._do("uffd_continue", page)

    def device_exclusive(self, page: Page) -> Value:
        """make_device_exclusive(): a device has the page until the processor takes it back."""
        return self._do("device_exclusive", page)

    def migrate_to_device(self, page: Page) -> Value:
        """migrate_vma_setup(): the page goes to a device's memory until the processor wants it."""
        return self._do("migrate_to_device", page)

    def device_read(self, page: Page) -> Value:
        """A device's load from a page that it has."""
        return self._do("device_read", page)

    def device_write(self, page: Page, value: int) -> Value:
        """A device's store to a page that it has."""
        return self._do("device_write", page, value)

    def uffd_copy(self, page: Page, value: int) -> Value:
        """UFFDIO_COPY: fill a page where nothing is."""
        return self._do("uffd_copy", page, value)

    def uffd_move(self, page: Page, to: Page) -> Value:
        """UFFDIO_MOVE: the page itself goes to where nothing is."""
        return self._do("uffd_move", page, to)

    def pagemap_wp(self, page: Page) -> Value:
        """1 if bit 57 of /proc/self/pagemap says that the page is protected, else 0."""
        return self._do("pagemap_wp", page)

    def fork(self, name: str | None = None) -> Process:
        """fork(): the child; without a name the next of C, D, E, ..."""
        child = self._machine._add_process(name or self._machine._free("CDEFGH"))
        self._must("fork", child)
        return child

    def exit(self) -> None:
        """_exit(); references and pins that it took stay."""
        self._must("exit")

    def take(self, call: str, page: Page, *flags: str) -> Reference:
        """Take a reference by the verb `call` (`rdma_register`, `odirect_read`, ...).

        Raises:
            OperationFailed: EFAULT, or `call` takes no reference.
        """
        if call not in VERBS or VERBS[call].result is not Result.REFERENCE:
            known = ", ".join(v.name for v in VERBS.values() if v.result is Result.REFERENCE)
            raise OperationFailed(f"'{call}' takes no reference; these do: {known}")
        name = f"r{len(self._machine._references)}"
        arguments: tuple[Argument, ...] = (
            (page.name, flags) if VERBS[call].arguments[1:] else (page.name,)
        )
        result = self._machine.do(Step(self.thread, call, arguments, name))
        if result != "ok":
            raise OperationFailed(f"{self.name}: {call} {page.name}: {result}")
        return Reference(self._machine, name)

    def vmsplice(self, page: Page) -> Reference:
        """vmsplice() the page into a pipe."""
        return self.take("vmsplice", page)

    def get(self, page: Page, *flags: Literal["write", "force", "longterm", "fast"]) -> Reference:
        """get_user_pages() with FOLL_GET."""
        return self.take("get", page, *flags)

    def pin(self, page: Page, *flags: Literal["write", "force", "longterm", "fast"]) -> Reference:
        """pin_user_pages() with FOLL_PIN."""
        return self.take("pin", page, *flags)

    def process_madvise_collapse(self, other: Process, page: Page) -> Value:
        """process_madvise(MADV_COLLAPSE) of the huge range of another process that has the page."""
        return self._do("process_madvise_collapse", PageOf(other.name, page.name))

    def process_vm_readv(self, other: Process, page: Page) -> Value:
        """process_vm_readv() of a page of another process."""
        return self._do("process_vm_readv", PageOf(other.name, page.name))

    def process_vm_writev(self, other: Process, page: Page, value: int) -> Value:
        """process_vm_writev() to a page of another process."""
        return self._do("process_vm_writev", PageOf(other.name, page.name), value)

    def ptrace_peek(self, other: Process, page: Page) -> Value:
        """PTRACE_PEEKDATA."""
        return self._do("ptrace_peek", PageOf(other.name, page.name))

    def ptrace_poke(self, other: Process, page: Page, value: int) -> Value:
        """PTRACE_POKEDATA: writes even where the process itself may not."""
        return self._do("ptrace_poke", PageOf(other.name, page.name), value)


class Reference:
    """A reference or pin: it holds a frame whatever becomes of the page it was taken through."""

    def __init__(self, machine: Machine, name: str) -> None:
        self._machine = machine
        self.name = name

    def __repr__(self) -> str:
        return f"<reference {self.name}>"

    def _do(self, verb: str, *arguments: Argument) -> Value:
        first = self._machine._processes[0]
        return self._machine.do(Step(first.name, verb, (self.name, *arguments)))

    def read(self) -> int:
        """What a pipe's reader or a device sees."""
        value = self._do("read_ref")
        if not isinstance(value, int):
            raise OperationFailed(f"read_ref {self.name}: {value}")
        return value

    def write(self, value: int) -> None:
        """A device stores through it.

        Raises:
            OperationFailed: it was not taken for writing.
        """
        result = self._do("write_ref", value)
        if result != "ok":
            raise OperationFailed(f"write_ref {self.name}: {result}")

    def tee(self, n: int = 1) -> None:
        """So many references more on the same page."""
        self._do("tee", n)

    def share(self, other: Process) -> None:
        """Hand it to another process knowingly."""
        self._do("share", other.name)

    def release(self) -> None:
        """put_page() or unpin_user_page()."""
        self._do("release")
