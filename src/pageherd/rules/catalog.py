"""All decision points: importing the files of the rules declares them."""

from typing import Final

from pageherd.rules import (
    calls,
    counting,
    counting_proposals,
    device,
    file,
    fork,
    guard,
    huge,
    hugetlb,
    hwpoison,
    khugepaged,
    ksm,
    lazyfree,
    migration,
    numa,
    protection,
    reclaim,
    reuse,
    swapin,
    unshare,
    userfaultfd,
)
from pageherd.rules.base import DECLARED, DecisionPoint

FILES = (
    *(reuse, unshare, swapin, fork, reclaim, protection, migration, ksm, hugetlb),
    *(lazyfree, counting, counting_proposals, huge, userfaultfd, numa, file, guard, hwpoison),
    khugepaged,
    device,
    calls,
)

POINTS: Final[dict[str, DecisionPoint]] = dict(
    sorted(DECLARED.items(), key=lambda item: item[1].questions)
)
"""All decision points, in the order of the machine's questions."""
