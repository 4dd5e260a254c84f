"""hwpoison: what a memory failure does not take away, and who may forget or map what it took."""

from __future__ import annotations

from pageherd.machine.questions import (
    HWPOISON_COUNTS,
    HWPOISON_FREE,
    HWPOISON_KSM,
    SWAPOFF_POISON,
)
from pageherd.rules.base import decision_point, no, yes

KSM = decision_point("hwpoison-ksm", HWPOISON_KSM, kernel_function="hwpoison_user_mappings")
KSM.group("left", "hwpoison_user_mappings; until v6.3: can't handle KSM pages", no)
KSM.group("taken", "hwpoison_user_mappings; v6.4 (4248d0083ec5)", yes)

HELD = decision_point("hwpoison-held", HWPOISON_COUNTS, kernel_function="page_action")
HELD.group("busy", "page_action; until v5.15, read in 5.10.262", yes)
HELD.group("done", "me_pagecache_clean; v5.16 (dd0f230a0a80), read in 6.1", no)

FREE = decision_point("hwpoison-free", HWPOISON_FREE, kernel_function="madvise_free_pte_range")
FREE.group("kept", "madvise_free_pte_range; read in 5.10.262", no)
FREE.group("cleared", "madvise_free_pte_range; read in 6.1.192", yes)

SWAPOFF = decision_point("swapoff-poison", SWAPOFF_POISON, kernel_function="unuse_pte")
SWAPOFF.group("mapped", "unuse_pte; until v5.18, read in 5.10.262", yes)
SWAPOFF.group("refused", "unuse_pte; v5.19 (9f186f9e5fa9), a hwpoison entry in 6.12", no)
