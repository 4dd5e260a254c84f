"""guard: what kernels know of guard regions; and droppable: whether they have MAP_DROPPABLE."""

from __future__ import annotations

from pageherd.machine.questions import (
    DROPPABLE,
    DROPPABLE_UFFD,
    GUARD_KNOWN,
    GUARD_KNOWS,
    GUARD_STAYS,
)
from pageherd.rules.base import decision_point, no, yes

GUARD = decision_point("guard", GUARD_KNOWS, kernel_function="madvise_guard_install")
GUARD.value("none", 0, "madvise_behavior_valid; until v6.12: EINVAL")
GUARD.value(
    "marker",
    GUARD_KNOWN,
    "madvise_guard_install; v6.13 (662df3e5c376), read in 6.18: pte_none_mostly() takes its marker"
    " for one of userfaultfd, and UFFDIO_COPY replaces it",
)
GUARD.value(
    "marker-of-its-own",
    GUARD_KNOWN | GUARD_STAYS,
    "mfill_atomic_install_pte, pte_is_uffd_marker; read in 7.3",
)

MAPS = decision_point("droppable", DROPPABLE, kernel_function="do_mmap")
MAPS.group("unknown", "do_mmap; until v6.10: EINVAL", no)
MAPS.group("known", "do_mmap, MAP_DROPPABLE; v6.11 (9651fcedf7b9)", yes)

UFFD = decision_point("droppable-uffd", DROPPABLE_UFFD, kernel_function="vma_can_userfault")
UFFD.group(
    "registered",
    "vma_can_userfault; read in 6.12.117: it looks for VM_DROPPABLE in the mode that is asked for",
    yes,
)
UFFD.group("refused", "vma_can_userfault; read in 7.3.4, seen on 6.18.44", no)
