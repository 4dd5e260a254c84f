"""migration: what an entry remembers while its page moves, who waits how, which pages may move.

And rmap-stops: when a walk over the mappings of a page ends, for reclaim and migration alike.
"""

from __future__ import annotations

from pageherd.machine.folio import is_large
from pageherd.machine.jit import KernelRecord
from pageherd.machine.layout import State
from pageherd.machine.migrate import WAS_MAPPED, WAS_MLOCKED
from pageherd.machine.questions import (
    COUNT_FOLIO,
    COUNT_SHARED,
    DIRTY_ALL,
    DIRTY_PMDS,
    FOLLOW_INACCESSIBLE,
    MIGRATION_COPIES_FIRST,
    MIGRATION_DIRTY,
    MIGRATION_DRAINS,
    MIGRATION_EXCLUSIVE,
    MIGRATION_SOFT_DIRTY,
    MIGRATION_SPLITS,
    MIGRATION_WAIT_HOLDS,
    MOVE_SKIPS,
    NO,
    RMAP_STOPS,
    YES,
)
from pageherd.machine.state import ask
from pageherd.rules.base import decision_point, no, yes
from pageherd.rules.reclaim import mapped_twice_by_rmap

EXCLUSIVE = decision_point(
    "migration-exclusive",
    MIGRATION_EXCLUSIVE,
    kernel_function="try_to_migrate_one, remove_migration_pte",
)
EXCLUSIVE.group("forgotten", "make_migration_entry; until v5.18, write or read", no)
EXCLUSIVE.group(
    "in-the-entry", "make_readable_exclusive_migration_entry; v5.19 (6c287605fd56)", yes
)

DIRTY = decision_point(
    "migration-dirty", MIGRATION_DIRTY, kernel_function="try_to_migrate_one, remove_migration_pte"
)
DIRTY.group("forgotten", "remove_migration_pte; until v6.0, the page alone is dirty", no)
DIRTY.group("in-the-entry", "make_migration_entry_dirty; v6.1 (2e3468778dbe)", yes)

DRAINS = decision_point(
    "migration-drains", MIGRATION_DRAINS, kernel_function="__unmap_and_move, migrate_folio_move"
)
DRAINS.group("never", "__unmap_and_move, putback_lru_page; until v5.17", no)


@DRAINS.alternative("if-mapped", "__unmap_and_move; v5.18 (c3096e6782b7), read in 5.19 and 6.1")
def if_mapped(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """When the old page was mapped."""
    return YES if int(s.t_seq[t]) & WAS_MAPPED else NO


@DRAINS.alternative("if-mlocked", "migrate_folio_move; read in 6.12 to 7.3")
def if_mlocked(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """When the old page was mapped by locked memory."""
    return YES if int(s.t_seq[t]) & WAS_MLOCKED else NO


ORDER = decision_point(
    "migration-order", MIGRATION_COPIES_FIRST, kernel_function="migrate_page, __migrate_folio"
)
ORDER.group("freeze-then-copy", "migrate_page_move_mapping; until v6.1", no)
ORDER.group("copy-then-freeze", "__migrate_folio; read in 6.12 to 7.3 (060913999d7a)", yes)

SOFT_DIRTY = decision_point(
    "migration-soft-dirty",
    MIGRATION_SOFT_DIRTY,
    kernel_function="remove_migration_pte, remove_migration_pmd",
)
SOFT_DIRTY.group("kept", "dirty bits were forgotten, so none comes back; until v6.0", no)


@SOFT_DIRTY.alternative("of-dirty-pmds", "pte_clear_soft_dirty() of a page's; read in 6.12 to 7.3")
def of_dirty_pmds(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """pmd_mkdirty() makes the entry soft-dirty; a page's is cleared again if it was not."""
    return DIRTY_PMDS


@SOFT_DIRTY.alternative("of-dirty", "pte_mkdirty() comes after pte_mksoft_dirty(); read in 6.1")
def of_dirty(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Every dirty entry comes back soft-dirty."""
    return DIRTY_ALL


SPLITS = decision_point(
    "migration-splits", MIGRATION_SPLITS, kernel_function="migrate_pages_batch, migrate_folio_move"
)
SPLITS.group("never", "the new folio is on no queue; read in v4.19 to 6.1", no)
SPLITS.group("if-partly-mapped", "folio_test_partially_mapped(); read in 6.12 to 7.3", yes)

WAIT = decision_point(
    "migration-wait", MIGRATION_WAIT_HOLDS, kernel_function="__migration_entry_wait"
)
WAIT.group("with-reference", "wait_on_page_locked, put_page; until v4.20", yes)
WAIT.group(
    "without-reference",
    "put_and_wait_on_page_locked; v5.0 (9a1ea439b16b); no reference at all since v5.17",
    no,
)

MOVE = decision_point("move-skips", MOVE_SKIPS, kernel_function="add_page_for_migration")


@MOVE.alternative("mapped-more-than-once", "page_mapcount() > 1; folio_maybe_mapped_shared()")
def mapped_more_than_once(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Without MPOL_MF_MOVE_ALL, skip a page that the counter says is mapped more than once."""
    if is_large(s, frame):
        return ask(s, t, k, COUNT_SHARED, frame)
    return YES if s.mapcount[frame] > 1 else NO


MOVE.group("mapped-twice-by-rmap", "proposal: look the mappings up with rmap", mapped_twice_by_rmap)

FOLLOW = decision_point(
    "follow-inaccessible", FOLLOW_INACCESSIBLE, kernel_function="follow_page_pte"
)
FOLLOW.group("found", "follow_page_pte, FOLL_NUMA; folio_walk_start, break_ksm_pmd_entry", yes)
FOLLOW.group(
    "skipped", "gup_can_follow_protnone; v6.1 (474098edac26): as if it were NUMA balancing's", no
)

STOPS = decision_point("rmap-stops", RMAP_STOPS, kernel_function="rmap_walk_anon, page_not_mapped")
STOPS.group("at-the-end", "proposal: without a count the walk visits every process", no)


@STOPS.alternative("when-unmapped", "page_not_mapped(), folio_not_mapped(): all kernels so far")
def when_unmapped(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """As soon as the counter says that no mapping is left."""
    if is_large(s, frame):
        return YES if ask(s, t, k, COUNT_FOLIO, frame) == 0 else NO
    return YES if s.mapcount[frame] == 0 else NO
