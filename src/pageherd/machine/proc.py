"""What /proc says of a page by its counters, and what an rmap walk finds."""

from __future__ import annotations

from typing import Any, Final

from pageherd.machine.folio import is_free, page_count
from pageherd.machine.jit import KernelRecord, driver, helper, invoke_rule
from pageherd.machine.layout import State, States
from pageherd.machine.questions import COUNT_ONE, COUNT_PAGE
from pageherd.machine.rmap import counts_here
from pageherd.machine.state import LIVE, PG_FILE, PG_HUGETLB, ZERO_FRAME

COUNT: Final = 0
"""/proc/kpagecount, and the count behind smaps and numa_maps."""
ONCE: Final = 1
"""pagemap bit 56 and "private" in smaps: the page is mapped once."""
TRUE_COUNT: Final = 2
"""The entries that map the page."""
LAST_REFERENCE: Final = 3
"""The folio has one reference: smaps looks at no counter then."""
COLUMNS: Final = 4


@helper
def entries(s: State, frame: int) -> int:
    """The entries of living processes that map `frame`, also those of a device that count."""
    count = 0
    for mm in range(s.nr_mms):
        if s.mm_state[mm] == LIVE:
            for page in range(s.nr_pages):
                count += int(counts_here(s, mm, page, frame))
    return count


@helper
def read_frame(s: State, k: KernelRecord, frame: int, row: Any) -> None:
    """One frame of anonymous memory in use."""
    row[COUNT] = invoke_rule(k.rule[COUNT_PAGE], s, 0, k, frame)
    row[ONCE] = invoke_rule(k.rule[COUNT_ONE], s, 0, k, frame)
    row[TRUE_COUNT] = entries(s, frame)
    row[LAST_REFERENCE] = int(page_count(s, frame) == 1)


@driver
def read_frames(states: States, i: int, kernels: Any, found: Any) -> None:
    """Fill `found` (frames x COLUMNS, int64) for states[i]; -1: no anonymous memory in use."""
    s, k = states[i], kernels[0]
    found[:, :] = -1
    for frame in range(s.nr_frames):
        other = (int(s.page_flags[frame]) & (PG_FILE | PG_HUGETLB)) != 0
        if frame != ZERO_FRAME and not other and not is_free(s, frame):
            read_frame(s, k, frame, found[frame])
