"""All kernel paths: importing this registers every step."""

from pageherd.machine import (
    access,
    cow,
    fault,
    file,
    fork,
    gup,
    hugetlb,
    khugepaged,
    ksm,
    lazyfree,
    lru,
    memory_failure,
    migrate,
    numa,
    observe,
    reclaim,
    reference,
    swapin,
    sync,
    userfaultfd,
    vma,
    zap,
)

PATHS = (
    *(access, fault, file, sync, hugetlb, cow, swapin, fork, gup),
    *(reclaim, zap, vma, reference, lru, observe),
    *(migrate, ksm, lazyfree, userfaultfd, numa, memory_failure, khugepaged),
)
