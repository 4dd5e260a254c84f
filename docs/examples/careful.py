"""Reuse a page that is marked exclusive, or that has one reference; look no further."""

from pageherd import alternative, proposal
from pageherd.machine.folio import is_exclusive, page_count
from pageherd.machine.questions import COPY, REUSE_PAGE


@alternative("reuse")
def exclusive_or_alone(s, t, k, frame):
    """May the write fault keep the page?"""
    if is_exclusive(s, frame) or page_count(s, frame) == 1:
        return REUSE_PAGE
    return COPY


KERNEL = proposal("careful", extends="linux-6.1", reuse=exclusive_or_alone)
