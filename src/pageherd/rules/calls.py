"""calls: which FOLL_ flags each user-space call uses.  GET or PIN is the kernel's choice.

Each call is a decision point of its own, so that `linux-6.1:vmsplice=pin-read` can be asked about.
"""

from __future__ import annotations

from itertools import product
from typing import Final

from pageherd.machine import questions as q
from pageherd.machine.state import (
    FOLL_FAST,
    FOLL_FORCE,
    FOLL_GET,
    FOLL_LONGTERM,
    FOLL_PIN,
    FOLL_WRITE,
)
from pageherd.rules.base import decision_point, no, yes

CALLS: Final = {
    "vmsplice": (q.FLAGS_VMSPLICE, "vmsplice_to_pipe, iter_to_pipe"),
    "send-zerocopy": (q.FLAGS_SEND_ZEROCOPY, "zerocopy_fill_skb_from_iter"),
    "odirect-read": (q.FLAGS_ODIRECT_READ, "bio_iov_iter_get_pages"),
    "odirect-write": (q.FLAGS_ODIRECT_WRITE, "bio_iov_iter_get_pages"),
    "io-uring": (q.FLAGS_IO_URING, "io_sqe_buffer_register"),
    "rdma": (q.FLAGS_RDMA, "ib_umem_get"),
    "rdma-ro": (q.FLAGS_RDMA_RO, "ib_umem_get"),
    "vfio": (q.FLAGS_VFIO, "vaddr_get_pfns"),
    "vfio-ro": (q.FLAGS_VFIO_RO, "vaddr_get_pfns"),
    "process-vm-readv": (q.FLAGS_PROCESS_VM_READV, "process_vm_rw_single_vec"),
    "process-vm-writev": (q.FLAGS_PROCESS_VM_WRITEV, "process_vm_rw_single_vec"),
    "ptrace-peek": (q.FLAGS_PTRACE_PEEK, "ptrace_access_vm"),
    "ptrace-poke": (q.FLAGS_PTRACE_POKE, "ptrace_access_vm"),
    "raw-pin": (q.FLAGS_RAW_PIN, "pin_user_pages"),
}

_MODIFIERS: Final = (
    ("write", FOLL_WRITE),
    ("force", FOLL_FORCE),
    ("longterm", FOLL_LONGTERM),
    ("fast", FOLL_FAST),
)


def _name_and_flags(kind: str, base: int, chosen: tuple[bool, ...]) -> tuple[str, int]:
    names, flags = [kind], base
    for (name, flag), on in zip(_MODIFIERS, chosen, strict=True):
        if on:
            names.append(name)
            flags |= flag
    return "-".join(names), flags


def _declare() -> None:
    for call, (question, function) in CALLS.items():
        point = decision_point(call, question, kernel_function=function)
        for kind, base in (("get", FOLL_GET), ("pin", FOLL_PIN)):
            for chosen in product((False, True), repeat=len(_MODIFIERS)):
                name, flags = _name_and_flags(kind, base, chosen)
                point.value(name, flags, f"{function} with these FOLL_ flags")


_declare()

RELEASE = decision_point(
    "io-uring-release", q.IO_URING_DIRTIES, kernel_function="io_release_ubuf, io_buffer_unmap"
)
RELEASE.group("clean", "unpin_user_page; v5.1 to v7.3, nothing marks the page dirty", no)
RELEASE.group("dirty", "unpin_user_pages_dirty_lock, as VFIO and RDMA do; the cure", yes)
