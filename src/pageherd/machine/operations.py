"""From a verb to the registers of the thread that will run it.

An operation is plain data: where its path starts and what its registers hold.  Everything that is
left open is an argument, so that an operation replays exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from pageherd.machine import questions, steps
from pageherd.machine.file import MAP_HUGETLB, MAP_PRIVATE, MAP_SHARED
from pageherd.machine.gup import (
    BY_DEVICE,
    BY_DIRECT_IO,
    BY_HWPOISON,
    BY_IO_URING,
    BY_OFFLINE,
    FLAG_WORDS,
    NO_REF,
)
from pageherd.machine.migrate import TO_DEVICE
from pageherd.machine.state import (
    FAULT_TOUCH,
    FAULT_WRITE,
    FOLL_FAST,
    FOLL_GET,
    FOLL_WRITE,
    UFFD_EVENT_FORK,
    UFFD_EVENT_REMAP,
    UFFD_RWP,
    UFFD_RWP_ASYNC,
    UFFD_WP_ASYNC,
    UFFD_WP_UNPOPULATED,
    VM_DONTCOPY,
    VM_HUGEPAGE,
    VM_LOCKED,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_READ,
    VM_UFFD_MINOR,
    VM_UFFD_RWP,
    VM_UFFD_WP,
    VM_WIPEONFORK,
    VM_WRITE,
)
from pageherd.machine.vma import MAP_DROPPABLE
from pageherd.machine.zap import GUARD, KEEP, TAKE_OVER, UNMAP

NO_FRAME: Final = 0  # where the path's frame comes from
FRAME_OF_PAGE: Final = 1
FRAME_OF_REF: Final = 2

NO_QUESTION: Final = -1
NO_REGISTER: Final = 0

DTYPE: Final = np.dtype(
    [
        (name, "i4")
        for name in (
            *("thread", "pc", "then", "mm", "page", "span", "other", "fault", "foll", "question"),
            *("ref", "value", "frame_from", "register", "maybe", "group", "bit", "needs"),
        )
    ]
)
"""`register` is one more than the register bound (0: none).

A program runs group after group; inside a group an operation is ready when those in the bit set
`needs` are done, and sets `bit` when it is done itself."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation by one thread; all fields are the numbers of the machine."""

    pc: int
    thread: int = 0
    then: int = steps.IDLE
    mm: int = 0
    page: int = 0
    span: int = 1  # pages from `page` on
    other: int = 0
    fault: int = 0
    foll: int = 0
    question: int = NO_QUESTION
    ref: int = 0
    value: int = 0
    frame_from: int = NO_FRAME
    register: int = NO_REGISTER
    maybe: int = 0
    group: int = 0
    bit: int = 1
    needs: int = 0


@dataclass(frozen=True, slots=True)
class Operands:
    """What the words of a step mean, in numbers of the machine."""

    thread: int
    mm: int  # the acting process, or the remote one
    page: int = 0
    span: int = 1
    to: int = 0  # second page, or the child
    value: int = 0
    ref: int = 0  # or the process of the second page
    flags: int = 0
    frame_from: int = NO_FRAME
    pages: int = 0  # pages of an address space


Builder = Callable[[Operands], Operation]


def _access(fault: int) -> Builder:
    return lambda o: Operation(steps.ACCESS, mm=o.mm, page=o.page, fault=fault, value=o.value)


def _zap(what: int, then: int = steps.IDLE) -> Builder:
    return lambda o: Operation(
        steps.ZAP, mm=o.mm, page=o.page, other=o.page + o.span, value=what, then=then
    )


def _mmap_file(how: int) -> Builder:
    """The page of the file is the second one named, or that of the same name."""

    def make(o: Operands) -> Operation:
        file = o.page if o.to < 0 else o.to
        return replace(_zap(TAKE_OVER, steps.MMAP_FILE)(o), fault=how, ref=file)

    return make


def _mmap_droppable(o: Operands) -> Operation:
    return replace(_zap(TAKE_OVER, steps.MMAP)(o), pc=steps.MMAP_DROPPABLE, fault=MAP_DROPPABLE)


def _exit(o: Operands) -> Operation:
    return Operation(steps.ZAP, mm=o.mm, other=o.pages, value=TAKE_OVER, then=steps.EXIT)


def _madvise(on: int, off: int = 0) -> Builder:
    return lambda o: Operation(steps.MADVISE, mm=o.mm, page=o.page, value=on | off << 16)


def _mlock(o: Operands) -> Operation:
    populate = FAULT_WRITE | FAULT_TOUCH
    advised = _madvise(VM_LOCKED)(o)
    return replace(advised, then=steps.ACCESS, fault=populate)


def _take(question: int, by: int = 0) -> Builder:
    """A call that takes a reference; the kernel's rule chooses the FOLL_ flags."""
    return lambda o: Operation(
        steps.GUP, mm=o.mm, page=o.page, other=by, ref=o.ref, question=question, foll=o.flags
    )


def _get(o: Operands) -> Operation:
    return Operation(steps.GUP, mm=o.mm, page=o.page, ref=o.ref, foll=FOLL_GET | o.flags)


def _remote(question: int) -> Builder:
    return lambda o: Operation(
        steps.GUP, mm=o.mm, page=o.page, ref=NO_REF, question=question, value=o.value
    )


def _inject_error(by: int) -> Builder:
    """madvise_inject_error(): get_user_pages_fast() for reading, in every kernel."""
    foll = FOLL_GET | FOLL_FAST
    return lambda o: Operation(steps.GUP, mm=o.mm, page=o.page, other=by, ref=NO_REF, foll=foll)


def _device_exclusive(o: Operands) -> Operation:
    built = replace(_get(o), pc=steps.DEVICE_EXCLUSIVE, other=BY_DEVICE, ref=NO_REF)
    return replace(built, foll=FOLL_GET | FOLL_WRITE)


def _through(pc: int) -> Builder:
    return lambda o: Operation(pc, mm=o.mm, ref=o.ref, value=o.value)


def _on_page(pc: int) -> Builder:
    return lambda o: Operation(
        pc, mm=o.mm, page=o.page, other=o.to, value=o.value, ref=o.ref, frame_from=o.frame_from
    )


def _register(mode: int) -> Builder:
    return lambda o: replace(_on_page(steps.UFFD_REGISTER)(o), value=mode)


BUILDERS: Final[Mapping[str, Builder]] = MappingProxyType(
    {
        "read": _access(0),
        "write": _access(FAULT_WRITE),
        "write_stale": lambda o: replace(_access(FAULT_WRITE)(o), pc=steps.STALE_STORE),
        "populate_read": _access(FAULT_TOUCH),
        "populate_write": _access(FAULT_WRITE | FAULT_TOUCH),
        "mmap": _zap(TAKE_OVER, steps.MMAP),
        "mmap_file": _mmap_file(MAP_PRIVATE),
        "mmap_shared": _mmap_file(MAP_SHARED),
        "mmap_hugetlb": lambda o: replace(_zap(TAKE_OVER, steps.MMAP_FILE)(o), fault=MAP_HUGETLB),
        "read_file": _on_page(steps.READ_FILE),
        "write_file": _on_page(steps.WRITE_FILE),
        "mmap_droppable": _mmap_droppable,
        "sync_file": _on_page(steps.SYNC_FILE),
        "munmap": _zap(UNMAP),
        "dontneed": _zap(KEEP),
        "guard": _zap(GUARD),
        "unguard": lambda o: Operation(steps.UNGUARD, mm=o.mm, page=o.page),
        "exit": _exit,
        "mprotect": _on_page(steps.MPROTECT),
        "mremap": _on_page(steps.MREMAP),
        "dontfork": _madvise(VM_DONTCOPY),
        "dofork": _madvise(0, VM_DONTCOPY),
        "wipeonfork": _madvise(VM_WIPEONFORK),
        "mlock": _mlock,
        "clear_soft_dirty": lambda o: Operation(steps.CLEAR_SOFT_DIRTY, mm=o.mm),
        "pagemap": _on_page(steps.PAGEMAP),
        "free": _on_page(steps.FREE),
        "hwpoison": _inject_error(BY_HWPOISON),
        "soft_offline": _inject_error(BY_OFFLINE),
        "mergeable": _madvise(VM_MERGEABLE),
        "unmergeable": _on_page(steps.UNMERGE),
        "merge_any": _on_page(steps.MERGE_ANY),
        "unmerge_any": _on_page(steps.UNMERGE_ANY),
        "ksm": _on_page(steps.KSM),
        "ksm_zero": _on_page(steps.KSM_ZERO),
        "pageout": lambda o: replace(_on_page(steps.PAGEOUT)(o), then=steps.PAGEOUT),
        "move": _on_page(steps.MOVE),
        "hugepage": _madvise(VM_HUGEPAGE, VM_NOHUGEPAGE),
        "nohugepage": _madvise(VM_NOHUGEPAGE, VM_HUGEPAGE),
        "collapse": _on_page(steps.COLLAPSE),
        "process_madvise_collapse": _on_page(steps.COLLAPSE),
        "khugepaged": _on_page(steps.KHUGEPAGED),
        "split": _on_page(steps.SPLIT),
        "userfaultfd": _on_page(steps.USERFAULTFD),
        "uffd_register": _register(VM_UFFD_WP),
        "uffd_register_rwp": _register(VM_UFFD_RWP),
        "uffd_register_minor": _register(VM_UFFD_MINOR),
        "uffd_continue": _on_page(steps.UFFD_CONTINUE),
        "uffd_rwprotect": lambda o: replace(_on_page(steps.UFFD_RWPROTECT)(o), value=1),
        "uffd_rwunprotect": _on_page(steps.UFFD_RWPROTECT),
        "uffd_protect": lambda o: replace(_on_page(steps.UFFD_PROTECT)(o), value=1),
        "uffd_unprotect": _on_page(steps.UFFD_PROTECT),
        "uffd_copy": _on_page(steps.UFFD_COPY),
        "uffd_move": _on_page(steps.UFFD_MOVE),
        "pagemap_wp": _on_page(steps.PAGEMAP_WP),
        "ksm_merging_pages": _on_page(steps.KSM_MERGING),
        "device_exclusive": _device_exclusive,
        "migrate_to_device": lambda o: replace(
            _on_page(steps.MIGRATE_TO_DEVICE)(o), other=TO_DEVICE
        ),
        "device_read": _on_page(steps.DEVICE_READ),
        "device_write": _on_page(steps.DEVICE_WRITE),
        "fork": _on_page(steps.FORK_START),
        "vmsplice": _take(questions.FLAGS_VMSPLICE),
        "send_zerocopy": _take(questions.FLAGS_SEND_ZEROCOPY),
        "odirect_read": _take(questions.FLAGS_ODIRECT_READ, BY_DIRECT_IO),
        "odirect_write": _take(questions.FLAGS_ODIRECT_WRITE),
        "io_uring_register": _take(questions.FLAGS_IO_URING, BY_IO_URING),
        "rdma_register": _take(questions.FLAGS_RDMA),
        "rdma_register_ro": _take(questions.FLAGS_RDMA_RO),
        "vfio_map": _take(questions.FLAGS_VFIO),
        "vfio_map_ro": _take(questions.FLAGS_VFIO_RO),
        "get": _get,
        "pin": _take(questions.FLAGS_RAW_PIN),
        "read_ref": _through(steps.READ_REF),
        "write_ref": _through(steps.WRITE_REF),
        "tee": _through(steps.TEE),
        "share": _through(steps.SHARE),
        "release": _through(steps.RELEASE),
        "process_vm_readv": _remote(questions.FLAGS_PROCESS_VM_READV),
        "process_vm_writev": _remote(questions.FLAGS_PROCESS_VM_WRITEV),
        "ptrace_peek": _remote(questions.FLAGS_PTRACE_PEEK),
        "ptrace_poke": _remote(questions.FLAGS_PTRACE_POKE),
        "reclaim": _on_page(steps.RECLAIM_ISOLATE),
        "migrate": _on_page(steps.MIGRATE),
        "numa_hint": _on_page(steps.NUMA_HINT),
        "writeback": _on_page(steps.WRITEBACK_END),
        "drain": lambda o: Operation(steps.DRAIN, value=o.value),
        "mthp": lambda o: Operation(steps.MTHP, value=o.value),
        "swapoff": lambda o: Operation(steps.SWAPOFF),
    }
)

PROTECTIONS: Final = MappingProxyType({"none": 0, "r": VM_READ, "rw": VM_READ | VM_WRITE})


FEATURES: Final = MappingProxyType(
    {
        "event-fork": UFFD_EVENT_FORK,
        "event-remap": UFFD_EVENT_REMAP,
        "wp-unpopulated": UFFD_WP_UNPOPULATED,
        "wp-async": UFFD_WP_ASYNC,
        "rwp": UFFD_RWP,
        "rwp-async": UFFD_RWP_ASYNC,
    }
)


def features_from_words(words: tuple[str, ...]) -> int:
    """UFFD_FEATURE_ bits from words such as `event-fork`."""
    return sum(FEATURES[word] for word in words)


def flags_from_words(words: tuple[str, ...]) -> int:
    """FOLL_ flags from words such as `write` and `longterm`."""
    flags = 0
    for word in words:
        flags |= FLAG_WORDS[word]
    return flags


def build(verb: str, operands: Operands, *, register: int = NO_REGISTER) -> Operation:
    """The operation that `verb` stands for; `register` is one more than the register bound."""
    built = BUILDERS[verb](operands)
    return replace(built, thread=operands.thread, register=register, span=operands.span)


def encode(operations: list[Operation]) -> np.ndarray[Any, np.dtype[Any]]:
    """Operations as an array of `DTYPE`, one record each."""
    names = DTYPE.names or ()
    rows = [tuple(getattr(operation, name) for name in names) for operation in operations]
    return np.array(rows, dtype=DTYPE)
