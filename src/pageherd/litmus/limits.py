"""How large a test may be.

The machine's `test` layout must have room for every test within these limits, so they stand in
one place where that can be asserted.
"""

from __future__ import annotations

from typing import Final

MAX_FILE_BYTES: Final = 64 * 1024
MAX_STRING: Final = 400  # characters of a title, note or source
MAX_NAME: Final = 64  # characters of a name

MAX_PROCESSES: Final = 6
MAX_THREADS: Final = 8  # all threads: one per process, and the declared ones
MAX_PAGES: Final = 8  # pages of each process
HUGE_SIZES: Final = (2, 4, 8)  # pages that one PMD entry maps, in a test
MAX_REFERENCES: Final = 8  # references and pins bound in one variant
MAX_REGISTERS: Final = 16  # registers bound in one variant
MAX_CPUS: Final = 4
MAX_STEPS: Final = 200  # steps of one variant, `prepare` expanded
MAX_GROUP: Final = 16  # steps of one concurrent group
MAX_VARIANTS: Final = 32
MAX_QUESTIONS: Final = 32
MAX_CLAIMS: Final = 64  # claims under one question
MAX_NESTING: Final = 20  # parentheses and `not` in a condition
MAX_LRU_BATCH: Final = 31  # pages that one LRU batch holds
MAX_HUGETLB_POOL: Final = 16  # pages of the hugetlb pool, where a test says how many

MAX_VALUE: Final = 0xFFFF  # the greatest value a page can hold, and the greatest number
