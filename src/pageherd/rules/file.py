"""What GUP and io_uring do with mappings of files."""

from __future__ import annotations

from pageherd.machine import questions as q
from pageherd.machine.jit import KernelRecord
from pageherd.machine.layout import State
from pageherd.machine.questions import NO, YES
from pageherd.machine.state import FILE_MEMFD, FOLL_LONGTERM, FOLL_PIN
from pageherd.rules.base import decision_point, no, yes

PINS = decision_point("file-pins", q.FILE_PINS, kernel_function="check_vma_flags")
PINS.group("allowed", "check_vma_flags; until v6.4", yes)


@PINS.alternative(
    "unless-longterm", "writable_file_mapping_allowed; v6.5 (8ac268436e6d, a6e79df92e4a)"
)
def unless_longterm(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """Not FOLL_PIN with FOLL_LONGTERM: the pin would outlast the file system's write-back."""
    both = FOLL_PIN | FOLL_LONGTERM
    return NO if (int(s.t_foll[t]) & both) == both else YES


WHOLE = decision_point("huge-file-maps", q.FILE_MAPS_WHOLE, kernel_function="finish_fault")
WHOLE.group("one-page", "finish_fault, alloc_set_pte; until v6.10, read in 6.1.192", no)
WHOLE.group("whole-folio", "finish_fault; v6.11 (43e027e41423), read in 6.12.117", yes)

ADVICE = decision_point("huge-file-advice", q.FILE_PMD_ADVICE, kernel_function="do_set_pmd")
ADVICE.group("ignored", "do_set_pmd; read in 5.10 and 6.1.192", no)
ADVICE.group("heeded", "do_set_pmd; v6.12 (2b0f922323cc), vma_thp_disabled()", yes)

FITS = decision_point("huge-file-fits", q.FILE_HUGE_FITS, kernel_function="shmem_get_folio_gfp")
FITS.group("no", "shmem_is_huge, shmem_alloc_hugefolio; read in 5.10 and 6.1.192", no)
FITS.group("yes", "shmem_suitable_orders; read in 6.12.117 and 7.3.4", yes)

COW = decision_point("huge-file-cow", q.FILE_HUGE_COW, kernel_function="wp_huge_pmd")
COW.group("split", "wp_huge_pmd; files without ->huge_fault(), v5.7 every file (327e9fd48972)", yes)
COW.group("left-to-filesystem", "wp_huge_pmd, xfs_filemap_huge_fault: DAX only; until v5.6", no)

DAX = decision_point("dax-pages", q.DAX_COUNTS, kernel_function="vm_normal_page")
DAX.group("devmap", "vm_normal_page, pte_devmap(); until v6.14, read in 5.10 and 6.12", no)
DAX.group("counted", "vmf_insert_page_mkwrite; v6.15 (38607c62b34b), read in 7.3", yes)

BUFFERS = decision_point(
    "io-uring-file", q.IO_URING_FILE, kernel_function="io_sqe_buffer_register, io_pin_pages"
)
BUFFERS.group("refused", "io_sqe_buffer_register, EOPNOTSUPP; v5.1 to v5.8, except hugetlb", no)


@BUFFERS.alternative("of-shmem", "vma_is_shmem() in io_pin_pages; read in 5.10.223, 5.15 and 6.1")
def of_shmem(s: State, t: int, k: KernelRecord, frame: int) -> int:
    """A memfd's, private or shared; those of other files give EOPNOTSUPP, hugetlbfs apart."""
    return YES if s.file_kind == FILE_MEMFD else NO


BUFFERS.group("accepted", "io_pin_pages; read in 6.12: GUP refuses what must be refused", yes)
