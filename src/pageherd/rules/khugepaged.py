"""khugepaged: what it does not collapse, and MADV_COLLAPSE does."""

from __future__ import annotations

from pageherd.machine.questions import KHUGEPAGED_LAZYFREE, KHUGEPAGED_SHARED
from pageherd.rules.base import decision_point, no, yes

SHARED = decision_point(
    "khugepaged-shared", KHUGEPAGED_SHARED, kernel_function="hpage_collapse_scan_pmd"
)
SHARED.value("none", 0, "khugepaged_scan_pmd; until v5.7: page_count() is 1 and the swap cache's")
SHARED.value("half", 4, "max_ptes_shared; v5.8 (9445689f3b61, 71a2c112a0f6)")

LAZYFREE = decision_point(
    "khugepaged-lazyfree", KHUGEPAGED_LAZYFREE, kernel_function="hpage_collapse_scan_pmd"
)
LAZYFREE.group("collapsed", "hpage_collapse_scan_pmd; read in 6.12.117", no)
LAZYFREE.group("left", "collapse_scan_pmd, SCAN_PAGE_LAZYFREE; read in 7.3.4", yes)
