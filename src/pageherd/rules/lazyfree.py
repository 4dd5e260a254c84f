"""lazyfree: when reclaim may drop a page that was given to MADV_FREE.  (try_to_unmap_one)"""

from __future__ import annotations

from pageherd.machine.folio import has_flag, page_count
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.questions import DROP_IT, KEEP_IT, KEEP_LAZY, LAZYFREE
from pageherd.machine.state import PG_DIRTY
from pageherd.rules.base import decision_point

POINT = decision_point("lazyfree", LAZYFREE, kernel_function="try_to_unmap_one")


@POINT.alternative("unless-dirty", "try_to_unmap_one; until v5.17")
def unless_dirty(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Drop it unless it has become dirty, whoever else holds it."""
    return KEEP_IT if has_flag(s, frame, PG_DIRTY) else DROP_IT


@helper
def held_by_others(s: State, frame: int) -> bool:
    """Whether anybody but the isolation and the mappings has a reference."""
    return page_count(s, frame) != 1 + int(s.mapcount[frame])


@POINT.alternative(
    "unless-dirty-or-held", "try_to_unmap_one; v5.18 and 5.10.y (6c8e2a256915), read in 6.12"
)
def unless_dirty_or_held(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Drop it unless it has become dirty or is held; then it is an ordinary page again."""
    return KEEP_IT if has_flag(s, frame, PG_DIRTY) or held_by_others(s, frame) else DROP_IT


@POINT.alternative("held-stays-lazy", "try_to_unmap_one; read in 6.18 and 7.3")
def held_stays_lazy(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """A dirty page is an ordinary page again; one that is only held may be dropped later."""
    if has_flag(s, frame, PG_DIRTY):
        return KEEP_IT
    return KEEP_LAZY if held_by_others(s, frame) else DROP_IT
