"""fork: what becomes of present pages, of swap entries, and of a racing gup-fast."""

from __future__ import annotations

from pageherd.machine.folio import is_exclusive, page_maybe_dma_pinned
from pageherd.machine.jit import KernelRecord
from pageherd.machine.layout import State
from pageherd.machine.questions import COPY_EARLY, FORK, FORK_SEQ, FORK_SWAP, SHARE_PAGE
from pageherd.rules.base import decision_point, no, yes

POINT = decision_point("fork", FORK, kernel_function="copy_present_page")


@POINT.alternative("share", "copy_one_pte; until v5.8")
def share(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Share every page, pinned or not."""
    return SHARE_PAGE


@POINT.alternative("copy-if-pinned", "copy_present_page; v5.9 to v5.18 (70e806e4e645)")
def copy_if_pinned(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Copy for the child when this process has ever pinned and the page may be pinned."""
    pinned = s.mm_has_pinned[int(s.t_mm[t])] != 0 and page_maybe_dma_pinned(s, frame)
    return COPY_EARLY if pinned else SHARE_PAGE


@POINT.alternative("copy-if-exclusive-pinned", "page_try_dup_anon_rmap; v5.19 (fb3d824d1a46)")
def copy_if_exclusive_pinned(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As copy-if-pinned, but only exclusive pages can have pins; sharing clears the mark."""
    if not is_exclusive(s, frame):
        return SHARE_PAGE
    pinned = s.mm_has_pinned[int(s.t_mm[t])] != 0 and page_maybe_dma_pinned(s, frame)
    return COPY_EARLY if pinned else SHARE_PAGE


SWAP = decision_point("fork-swap", FORK_SWAP, kernel_function="copy_nonpresent_pte")
SWAP.group("duplicate", "copy_one_pte, copy_nonpresent_pte; until v5.18", no)
SWAP.group("clear-exclusive", "copy_nonpresent_pte; v5.19 (1493a1913e34)", yes)

SEQ = decision_point("fork-seq", FORK_SEQ, kernel_function="internal_get_user_pages_fast")
SEQ.group("ignored", "gup_pgd_range; until v5.10.0", no)
SEQ.group("checked", "lockless_pages_from_mm; v5.11 and 5.10.y (57efa1fe5957)", yes)
