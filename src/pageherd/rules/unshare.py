"""unshare: what GUP does before it takes a page that is mapped read-only.  (follow_page_pte)

And unshare-in-place: whether the unshare fault may leave the page where it is.  (do_wp_page)
"""

from __future__ import annotations

from pageherd.machine.folio import is_anon, is_exclusive, is_ksm, page_count
from pageherd.machine.jit import KernelRecord, helper
from pageherd.machine.layout import State
from pageherd.machine.pte import pte_of
from pageherd.machine.questions import (
    BREAK_COW,
    COPY,
    COUNT_PAGE,
    REUSE,
    REUSE_PAGE,
    TAKE,
    UNSHARE,
    UNSHARE_FIRST,
    UNSHARE_IN_PLACE,
)
from pageherd.machine.state import FOLL_LONGTERM, FOLL_PIN, PTE_PRESENT, ask
from pageherd.rules.base import decision_point, no
from pageherd.rules.reuse import alone_after_drop

POINT = decision_point("unshare", UNSHARE, kernel_function="follow_page_pte, gup_pte_range")


@helper
def present(s: State, t: int) -> bool:
    """Whether the entry that GUP looks at maps a page."""
    return (pte_of(s, int(s.t_mm[t]), int(s.t_page[t])) & PTE_PRESENT) != 0


@helper
def wants_pin(s: State, t: int) -> bool:
    return (int(s.t_foll[t]) & FOLL_PIN) != 0


@POINT.alternative("never", "follow_page_pte; until v5.7 and v5.9 to v5.18 (a308c71bf1e6)")
def never(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Take the page, shared or not."""
    return TAKE


@POINT.alternative("break-cow", "should_force_cow_break; v5.8 and stable trees (17839856fd58)")
def break_cow(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Turn every GUP of a private mapping into a write fault, the zero page included."""
    return BREAK_COW


@POINT.alternative("mapped-more-than-once", "proposal v1 06/11 of 17 Dec 2021, by map count")
def mapped_more_than_once(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Unshare an anonymous page that is mapped more than once, for references and pins alike.

    Not a KSM page.  Under three states or zero-one-two-many the counter reads "possibly more than
    once".
    """
    shared = present(s, t) and is_anon(s, frame) and ask(s, t, k, COUNT_PAGE, frame) > 1
    shared = shared and not is_ksm(s, frame)
    return UNSHARE_FIRST if shared else TAKE


@POINT.alternative(
    "shared-by-refcount", "proposal: v1 06/11 with the refcount in place of mapcount"
)
def shared_by_refcount(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Unshare an anonymous page on which anybody else has a reference of any kind."""
    shared = present(s, t) and is_anon(s, frame) and page_count(s, frame) > 1
    return UNSHARE_FIRST if shared else TAKE


@POINT.alternative("pins-not-exclusive", "gup_must_unshare; v5.19 (a7f226604170)")
def pins_not_exclusive(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Before a pin, unshare an anonymous page that is not marked exclusive; FOLL_GET just takes."""
    if wants_pin(s, t) and present(s, t) and is_anon(s, frame) and not is_exclusive(s, frame):
        return UNSHARE_FIRST
    return TAKE


@POINT.alternative(
    "pins-not-exclusive-or-longterm", "gup_must_unshare; v6.2 (84209e87c696, 8d6a0ac09a16)"
)
def pins_not_exclusive_or_longterm(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As pins-not-exclusive; a long-term pin also replaces the zero page by a private one."""
    if not wants_pin(s, t) or not present(s, t):
        return TAKE
    if not is_anon(s, frame):
        return UNSHARE_FIRST if int(s.t_foll[t]) & FOLL_LONGTERM else TAKE
    return TAKE if is_exclusive(s, frame) else UNSHARE_FIRST


IN_PLACE = decision_point("unshare-in-place", UNSHARE_IN_PLACE, kernel_function="do_wp_page")

IN_PLACE.group("never", "no unshare faults in this kernel", no)


@IN_PLACE.alternative("mapped-once", "proposal v1 06/11 of 17 Dec 2021: do_wp_page, by map count")
def mapped_once(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Nothing to do when the page is mapped once; otherwise copy."""
    return REUSE_PAGE if ask(s, t, k, COUNT_PAGE, frame) <= 1 else COPY


@IN_PLACE.alternative("by-exclusive", "do_wp_page with FAULT_FLAG_UNSHARE; v5.19 (c89357e27f20)")
def in_place_by_exclusive(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As a write fault decides: exclusive or alone stays, and is marked exclusive."""
    if is_exclusive(s, frame):
        return REUSE_PAGE
    return alone_after_drop(s, t, frame)


@IN_PLACE.alternative("as-write", "do_wp_page with FAULT_FLAG_UNSHARE; read in 6.12")
def in_place_as_write(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As the rule `reuse` decides about a write fault, also of a page of a large folio."""
    return ask(s, t, k, REUSE, frame)


@IN_PLACE.alternative("by-refcount", "proposal: v1 06/11 with the refcount in place of mapcount")
def in_place_by_refcount(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Nothing to do when nobody else has a reference; otherwise copy."""
    return REUSE_PAGE if page_count(s, frame) == 1 else COPY
