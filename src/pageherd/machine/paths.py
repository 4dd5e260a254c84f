"""All kernel paths: importing this registers every step."""

from pageherd.machine import (
    access,
    cow,
    fault,
    file,
    fork,
    gup,
    hugetlb,
    ksm,
    lazyfree,
    lru,
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
    *(migrate, ksm, lazyfree, userfaultfd, numa),
)
