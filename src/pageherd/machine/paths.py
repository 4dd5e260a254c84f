"""All kernel paths: importing this registers every step."""

from pageherd.machine import (
    access,
    anon_folio,
    cow,
    fault,
    file,
    fork,
    gup,
    hugetlb,
    ksm,
    lazyfree,
    lru,
    merge_any,
    migrate,
    numa,
    observe,
    reclaim,
    reference,
    swapin,
    userfaultfd,
    vma,
    zap,
)

PATHS = (
    *(access, fault, anon_folio, file, hugetlb, cow, swapin, fork, gup),
    *(reclaim, zap, vma, reference, lru, observe),
    *(migrate, ksm, merge_any, lazyfree, userfaultfd, numa),
)
