"""All kernel paths: importing this registers every step."""

from pageherd.machine import (
    access,
    anon_folio,
    cow,
    device,
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
    merge_any,
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
    *(access, fault, anon_folio, file, sync, hugetlb, cow, swapin, fork, gup),
    *(reclaim, zap, vma, reference, lru, observe),
    *(migrate, ksm, merge_any, lazyfree, userfaultfd, numa, memory_failure, khugepaged),
    device,
)
