"""counting: how mappings are counted, and what the counter vouches for.

Three questions: the counter after one mapping more, after one less, and between which numbers the
true number of mappings must then lie (lowest + 4096 * highest).
"""

from __future__ import annotations

from typing import Final

from pageherd.machine.jit import KernelRecord
from pageherd.machine.layout import State
from pageherd.machine.questions import COUNT_BOUNDS, COUNT_ON_MAP, COUNT_ON_UNMAP
from pageherd.rules.base import decision_point, no

POINT = decision_point(
    "counting",
    COUNT_ON_MAP,
    COUNT_ON_UNMAP,
    COUNT_BOUNDS,
    kernel_function="page_add_anon_rmap, page_remove_rmap",
    about="how are the mappings of a page counted?",
)

HIGHEST: Final = 4096
UNBOUNDED: Final = 4095
ONCE: Final = 1
MANY_OF_THREE: Final = 2
MANY_OF_FOUR: Final = 3


def exact_map(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Every mapping counts (_mapcount)."""
    return int(s.mapcount[frame]) + 1


def exact_unmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Every mapping counts (_mapcount)."""
    return int(s.mapcount[frame]) - 1


def exact_bounds(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Exactly as many mappings as the counter says."""
    return int(s.mapcount[frame]) * (1 + HIGHEST)


POINT.group(
    "exact", "_mapcount of a small page; all kernels so far", exact_map, exact_unmap, exact_bounds
)


def three_state_map(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Not mapped, mapped once, possibly mapped more than once."""
    return min(int(s.mapcount[frame]) + 1, MANY_OF_THREE)


def three_state_unmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """From "possibly more" there is no way back: nobody knows how many are left."""
    return 0 if s.mapcount[frame] == ONCE else MANY_OF_THREE


def three_state_bounds(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Exact for none and one; "possibly more" vouches for nothing."""
    state = int(s.mapcount[frame])
    return HIGHEST * UNBOUNDED if state >= MANY_OF_THREE else state * (1 + HIGHEST)


POINT.group(
    "three-state",
    "proposal: Matthew Wilcox, 17 Dec 2021: not mapped, mapped once, possibly more",
    three_state_map,
    three_state_unmap,
    three_state_bounds,
)


def zero_one_two_many_map(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Exact up to two, then many."""
    return min(int(s.mapcount[frame]) + 1, MANY_OF_FOUR)


def zero_one_two_many_unmap(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """From two it is known that one is left; from many nothing is known."""
    count = int(s.mapcount[frame])
    return MANY_OF_FOUR if count >= MANY_OF_FOUR else count - 1


def zero_one_two_many_bounds(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Exact for none, one and two; many vouches for nothing."""
    count = int(s.mapcount[frame])
    return HIGHEST * UNBOUNDED if count >= MANY_OF_FOUR else count * (1 + HIGHEST)


POINT.group(
    "zero-one-two-many",
    "proposal: three states with an exact two",
    zero_one_two_many_map,
    zero_one_two_many_unmap,
    zero_one_two_many_bounds,
)


def nothing_bounds(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """No counter vouches for nothing."""
    return HIGHEST * UNBOUNDED


POINT.group(
    "none",
    "proposal: Linus Torvalds, 19 Dec 2021: get rid of mapcount, use rmap where it matters",
    no,
    no,
    nothing_bounds,
)
