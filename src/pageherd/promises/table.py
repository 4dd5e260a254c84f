"""The promises by name: what user space relies on, and when it is broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Promise:
    """A property that a verdict is about; `number` is its bit in the state's `broke`."""

    number: int
    name: str
    broken_when: str
    asked_by_default: bool = True


PROMISES: Final = (
    Promise(
        0,
        "private",
        "a store by process A, or through A's reference, lands in a frame or slot that another"
        " process maps or has swapped, or that a reference of another process holds, so that the"
        " other could see it; or a store through a private mapping of a file lands in the page"
        " cache; copies that the kernel makes on request (process_vm_readv and"
        " _writev, ptrace, reading a pipe) belong to the process whose memory receives them",
    ),
    Promise(
        1,
        "own-writes",
        "a load through a mapping gives anything but the last value stored there by the process"
        " itself, by a debugger or process_vm_writev on its behalf, or by a device through a write"
        " reference attached to that page; or, at fork, the parent's value",
    ),
    Promise(
        2,
        "pin-coherent",
        "a pin attached to a page does not hold the frame that the page maps; a FOLL_PIN is"
        " attached from success until unpin, or until its owner unmaps, discards, overmaps or"
        " exits that page, and mremap moves it along; promised for every pin of an anonymous page,"
        " and for long-term pins also of the zero page and of pages of files",
    ),
    Promise(
        3,
        "get-fork",
        "a write reference by FOLL_GET, attached in the same way, goes stale through a fork, or"
        " what a device stores through it shows in the other process; no kernel promises this,"
        " it is why O_DIRECT moved to pins",
        asked_by_default=False,
    ),
    Promise(
        4,
        "alive",
        "a frame or swap slot is freed or reused while something maps, references, pins or caches"
        " it, or while a migration entry names it",
    ),
    Promise(
        5,
        "no-leak",
        "all processes and references are gone, batches drained, write-back done and reclaim has"
        " run once over every frame, yet a frame or slot is not free, or a hugetlb page of the"
        " pool is not there or still reserved",
    ),
    Promise(
        6,
        "counts",
        "the refcount differs from the sum of its holders, a swap count from its swap entries, or"
        " a mapping counter from what its way of counting vouches for against a full walk",
    ),
    Promise(
        7,
        "exclusive",
        "a page marked exclusive has a second mapping, or a swap entry other than an exclusive"
        " one; or a writable entry maps an anonymous page that another process maps too, or a KSM"
        " page",
    ),
    Promise(
        8,
        "progress",
        "a path of the kernel comes back to a step with nothing changed, again and again, and can"
        " neither finish nor fail",
    ),
)

NAMES: Final = tuple(promise.name for promise in PROMISES)
BY_NAME: Final = {promise.name: promise for promise in PROMISES}
DEFAULT: Final = tuple(promise.name for promise in PROMISES if promise.asked_by_default)
