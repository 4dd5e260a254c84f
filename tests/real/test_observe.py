"""What can be observed of a page: the kernel's words and the model's state say it alike."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as some

from library import library
from pageherd.machine.drive import drive
from pageherd.machine.jit import records
from pageherd.real import observe
from pageherd.real.observe import Page, Sight, look, model_pages, real_page
from pageherd.rules.choose import choose, record
from pageherd.search.program import program_of
from pretend import FIRST_FRAME, words_of

EVERYTHING = Sight(frames=True, counts=True, flags=True, exclusive=True, soft_dirty=True, ksm=True)
NOTHING = Sight(frames=False, counts=False, flags=False, exclusive=False, soft_dirty=False)
PRESENT = Page(
    "present",
    frame=7,
    mapcount=1,
    alone=True,
    cached=False,
    dirty=True,
    exclusive=True,
    ksm=False,
    soft_dirty=False,
)


def bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


def test_a_page_from_the_words_of_the_kernel() -> None:
    present = bits(observe.PRESENT_BIT, observe.ALONE_BIT, observe.SOFT_DIRTY_BIT) | 0x1234
    flags = bits(observe.KPF_SWAPCACHE, observe.KPF_DIRTY, observe.KPF_ANON_EXCLUSIVE)
    assert real_page(present, 1, flags) == replace(
        PRESENT, frame=0x1234, cached=True, soft_dirty=True
    )
    assert real_page(bits(observe.PRESENT_BIT), 3, 0) == replace(
        PRESENT, frame=0, mapcount=3, alone=False, dirty=False, exclusive=False
    )
    assert real_page(bits(observe.SWAPPED_BIT) | 0x40, 0, 0) == Page(
        "swapped", slot=0x40, soft_dirty=False
    )
    assert real_page(0, 0, 0) == Page("absent", soft_dirty=False)
    zero = real_page(bits(observe.PRESENT_BIT) | 1, 0, bits(observe.KPF_ZERO_PAGE))
    assert zero == Page("zero", soft_dirty=False)


def test_every_page_of_the_model_survives_the_words_of_the_kernel() -> None:
    """Nothing that the model says of a page is lost on the way through /proc."""
    table, seen = record(choose("linux-6.1")), set()
    for chosen in library():
        program = program_of(chosen.test, chosen.variant)
        states, names = program.first.copy(), program.names
        for i in range(len(program.operations)):
            drive(records(states), 0, records(table), records(program.ops), i, i + 1)
            for page in model_pages(states[0], len(names.processes), len(names.pages)).values():
                pagemap, count, flags, *more = words_of(page).split()
                huge = int(more[0]) if more else None
                back = real_page(int(pagemap, 16), int(count), int(flags, 16), huge)
                if back.frame is not None:
                    back = replace(back, frame=back.frame - FIRST_FRAME)
                if back.slot is not None:
                    back = replace(back, slot=(back.slot >> 5) - 1)  # 0: a marker
                assert back == page
                seen.add(page.entry)
    assert seen == {"absent", "zero", "present", "swapped"}


def test_names_of_frames_and_slots_do_not_count() -> None:
    first = {(0, 0): PRESENT, (0, 1): replace(PRESENT, frame=9), (1, 0): Page("swapped", slot=4)}
    second = {
        (1, 0): Page("swapped", slot=800),
        (0, 1): replace(PRESENT, frame=7),
        (0, 0): replace(PRESENT, frame=900),
    }
    assert look(first, {}, EVERYTHING) == look(second, {}, EVERYTHING)
    shared = {**first, (0, 1): PRESENT}
    assert look(first, {}, EVERYTHING) != look(shared, {}, EVERYTHING)


@given(some.permutations(range(40)), some.lists(some.integers(0, 5), min_size=6, max_size=6))
def test_any_renaming_of_frames_looks_the_same(names: list[int], frames: list[int]) -> None:
    pages = {(n // 2, n % 2): replace(PRESENT, frame=frame) for n, frame in enumerate(frames)}
    renamed = {where: replace(page, frame=names[page.frame or 0]) for where, page in pages.items()}
    assert look(pages, {}, EVERYTHING) == look(renamed, {}, EVERYTHING)


def test_a_frame_that_changed_between_two_looks_has_moved() -> None:
    where = (0, 0)

    def moved(old: Page | None, new: Page) -> bool | None:
        before = {} if old is None else {where: old}
        return look({where: new}, before, EVERYTHING)[where].moved

    assert moved(PRESENT, replace(PRESENT, frame=8)) is True
    assert moved(PRESENT, PRESENT) is False
    assert moved(None, PRESENT) is None
    assert moved(Page("swapped", slot=1), PRESENT) is None
    assert moved(PRESENT, Page("absent")) is None


def test_what_cannot_be_seen_is_unknown() -> None:
    blind = look({(0, 0): PRESENT, (0, 1): Page("zero", soft_dirty=True)}, {}, NOTHING)
    assert blind == {(0, 0): Page("present", alone=True), (0, 1): Page("present")}
    old = {(0, 0): replace(PRESENT, frame=8)}
    assert look({(0, 0): PRESENT}, old, NOTHING)[0, 0].moved is None
    for name, fields in (
        ("frames", {"frame"}),
        ("counts", {"mapcount"}),
        ("flags", {"cached", "dirty"}),
        ("exclusive", {"exclusive"}),
        ("soft_dirty", {"soft_dirty"}),
    ):
        page = replace(EVERYTHING, **{name: False}).of(PRESENT)
        unknown = {f for f in observe.FIELDS if getattr(page, f) != getattr(PRESENT, f)}
        assert unknown == fields
