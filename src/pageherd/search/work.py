"""The room that a search works in: a record with the permutations of a scope, and codes to compare.

How long a code is follows from the scope, too.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, permutations, product
from math import factorial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from pageherd.machine.layout import Layout, words_compared

if TYPE_CHECKING:
    from pageherd.search.scope import Scope

Sizes: TypeAlias = tuple[int, int, int, int]
"""Processes, pages, references, swap slots."""

Work: TypeAlias = Any
"""One record of `work_dtype`: the permutations, and room for the codes being compared."""

FRESH: Final = 99  # the value that every store stores: no state between operations has it
TOKENS: Final = 64  # in a search with tokens: values are renamed to 1, 2, ... below this

FRAME_BYTES: Final = 3
LARGE_FRAME_BYTES: Final = 8


def held_frames(sizes: Sizes, folio: int = 1, *, files: bool = False) -> int:
    """Frames that can be held between operations: mapped, cached, referenced, in the one batch.

    One page of a large folio holds all of it.  The page cache holds the pages of a file.
    """
    mms, pages, refs, slots = sizes
    return (mms * pages + refs + 1) * folio + slots + (pages if files else 0)


def code_bytes(sizes: Sizes, tokens: bool, folio: int = 1, *, wide: bool = False) -> int:
    """Bytes of a code, rounded up to whole words; `wide`: every flag is kept, and files are."""
    mms, pages, refs, slots = sizes
    frames = held_frames(sizes, folio, files=wide)
    of_page, of_frame = 3, FRAME_BYTES
    if wide or folio > 1:
        of_page, of_frame = (9 if wide else 7), LARGE_FRAME_BYTES
    plain = mms * (1 + of_page * pages) + 3 * refs + 2 * slots + 2 + of_frame * frames
    plain += pages if wide else 0
    kept = mms * pages + slots + frames + 1 if tokens else 0
    return (plain + kept + 7) // 8 * 8


@cache
def work_dtype(layout: Layout) -> np.dtype[Any]:
    """The dtype of a `Work` record; sized by the layout, so that scopes share compiled code."""
    sizes = layout.mms, layout.pages, layout.refs
    orders = int(np.prod([np.prod(np.arange(1, size + 1)) for size in sizes]))
    every = (*sizes, layout.slots)
    longest = code_bytes(every, True, 2 if layout.large else 1)
    if layout.large:
        longest = max(longest, code_bytes(every, True, wide=True))
    orders_of_pages, most = factorial(layout.pages), max(layout.mms, layout.refs)
    return np.dtype(
        [
            ("orders", "i8"),  # how many of `mm_at`, ... are in use; the first changes no name
            ("refs", "i8"),  # of the scope
            ("held", "i8"),  # frames that a code has room for
            ("bytes", "i8"),  # of a code
            ("wide", "i8"),  # whether all flags of mappings and entries are kept, and the file
            ("tokens", "i8"),  # whether real values are kept
            ("forget", "i8"),  # what may be forgotten, in the bits of `forget.py`
            ("settled", "i8"),  # promises, as bits, of which nothing more is to be found out
            ("compared", "i8"),  # words of a record that tell states apart
            ("best", "i8"),  # which of the two rows of `code` is the smallest so far
            ("mm_at", "i1", (orders, layout.mms)),  # the old name at each new place
            ("page_at", "i1", (orders, layout.pages)),
            ("ref_at", "i1", (orders, layout.refs)),
            ("page_order", "i1", (orders,)),  # which order of the pages each one has
            ("page_orders", "i8"),
            ("page_step", "i8"),  # orders that differ in the references only
            ("pair", "i8", (2, most, most)),  # a bit for each pair: of processes, of references
            ("exchanged", "i8", (orders,)),  # the pairs that an order exchanges
            ("mm_key", "i8", (orders_of_pages, layout.mms)),
            ("ref_key", "i8", (layout.refs,)),
            ("code", "u1", (2, longest)),
            ("row", "u1", (longest,)),
            ("frame_no", "i1", (layout.frames,)),  # 0: not numbered yet
            ("slot_no", "i1", (layout.slots,)),
            ("frame_at", "i1", (layout.frames + 1,)),  # the frame with each number
            ("slot_at", "i1", (layout.slots + 1,)),
            ("nr_frames", "i8"),
            ("nr_slots", "i8"),
            ("mm_to", "i1", (layout.mms,)),  # the new name of each old one
            ("page_to", "i1", (layout.pages,)),
            ("value_no", "i1", (FRESH + 1,)),
            ("nr_values", "i8"),
        ],
        align=True,
    )


def work_record(
    scope: Scope, forget: int = 0, *, tokens: bool = False, symmetry: bool = True
) -> np.ndarray[Any, np.dtype[Any]]:
    """Room to work in; without symmetry: one order.

    Pages that are those of one folio have each its place, and no others.
    """
    layout, sizes, folio = scope.layout, scope.sizes, scope.folio
    mms, pages, refs, _ = sizes
    work = np.zeros(1, work_dtype(layout))
    of_pages = list(permutations(range(pages))) if folio == 1 else [tuple(range(pages))]
    every = list(product(permutations(range(mms)), of_pages, permutations(range(refs))))
    for i, (mm, page, ref) in enumerate(every):
        work["mm_at"][0, i, :mms] = mm
        work["page_at"][0, i, :pages] = page
        work["ref_at"][0, i, :refs] = ref
        work["page_order"][0, i] = i // factorial(refs) % len(of_pages)
        for kind, names in ((0, mm), (1, ref)):
            pairs = ((b, a) for a, b in combinations(names, 2) if a > b)
            work["exchanged"][0, i] += sum(1 << _pair_number(layout, kind, *pair) for pair in pairs)
    for kind, a, b in np.ndindex(work["pair"].shape[1:]):
        work["pair"][0, kind, a, b] = 1 << _pair_number(layout, kind, a, b)
    work["orders"] = len(every) if symmetry else 1
    work["page_orders"] = len(of_pages) if symmetry else 1
    work["page_step"] = factorial(refs)
    work["refs"] = refs
    work["wide"] = int(scope.wide)
    work["held"] = held_frames(sizes, folio, files=scope.wide)
    work["compared"] = words_compared(layout) // 8
    work["bytes"] = code_bytes(sizes, tokens, folio, wide=scope.wide)
    work["tokens"] = int(tokens)
    work["forget"] = forget
    return work


def _pair_number(layout: Layout, kind: int, a: int, b: int) -> int:
    most = max(layout.mms, layout.refs)
    return (kind * most + a) * most + b
