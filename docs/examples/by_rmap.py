"""Write faults reuse a page that has no second mapping, found by an rmap walk."""

from pageherd import alternative, proposal
from pageherd.machine.questions import COPY, REUSE_PAGE
from pageherd.machine.rmap import find_mapping
from pageherd.machine.state import NONE


@alternative("reuse")
def no_second_mapping(s, t, k, frame):
    """Walk on after the first mapping."""
    pages = int(s.nr_pages)
    first = find_mapping(s, frame, 0, 0)
    second = find_mapping(s, frame, first // pages, first % pages + 1)
    return REUSE_PAGE if second == NONE else COPY


KERNEL = proposal(
    "by-rmap",
    extends="no-mapcount",
    about="no map count; write faults look with rmap",
    reuse=no_second_mapping,
)
