"""From a test to programs with levers, and to the runner's words and back."""

from __future__ import annotations

import pytest

from library import library
from pageherd.litmus import format_test, parse
from pageherd.litmus.syntax import KERNEL, Group, PageOf, Prepare, Step, Test, steps_of
from pageherd.machine.verbs import Kind
from pageherd.real.levers import LEVERS
from pageherd.real.steer import MAX_MAYBE, NotSteerable, Steered, encode, steer
from pageherd.rules import kernels
from pageherd.rules.choose import choose
from pageherd.search.edit import kinds_of, takes_reference
from pretend import DEVICES, decode

SHIPPED = [row.name for row in kernels.ROWS if not row.proposal]


def make(steps: str, head: str = "") -> Test:
    return parse(f"test t\nprocesses P C\npages a b\n{head}\nP: mmap a\n{steps}\nkeeps private\n")


def verbs(steered: Steered) -> list[str]:
    return [step.verb for step in steered.program.steps]


@pytest.mark.parametrize(
    ("kernel", "step", "call"),
    [
        ("linux-5.10", "r = get a", "vmsplice"),
        ("linux-5.10", "r = get a fast", "vmsplice"),
        ("linux-5.10", "r = pin a write longterm", "io_uring_register"),
        ("linux-6.12", "r = pin a longterm", "vfio_map_ro"),
        ("linux-6.1", "r = get a write", "odirect_read"),
    ],
)
def test_a_raw_reference_becomes_the_call_with_the_same_flags(
    kernel: str, step: str, call: str
) -> None:
    (steered,) = steer(make(f"P: {step}"), "base", choose(kernel))
    assert verbs(steered) == ["mmap", call]


def test_which_call_it_is_depends_on_the_kernel() -> None:
    test = make("P: r = pin a write")
    assert verbs(steer(test, "base", choose("linux-6.12"))[0])[1] == "odirect_read"
    with pytest.raises(NotSteerable, match="pin write: no call of this kernel takes a lasting pin"):
        steer(test, "base", choose("linux-5.10"))


def test_reclaim_of_a_page_is_paged_out_by_its_process() -> None:
    test = make("P: fork C\nC: write a = 1\nkernel: reclaim C.a")
    (steered,) = steer(test, "base", choose("linux-6.1"))
    assert steered.program.steps[-1] == Step("C", "pageout", ("a",))
    assert "swap" in steered.needs
    assert steered.swap == "disk"


def test_reclaim_of_everything_does_not_tell_what_became_of_one_page() -> None:
    kernel, steps = choose("linux-6.1"), "P: r = vmsplice a\nkernel: {}reclaim r"
    (steered,) = steer(make(steps.format("")), "base", kernel)
    assert verbs(steered)[-1] == "reclaim"
    assert {"cgroup-reclaim", "swap"} <= steered.needs
    with pytest.raises(NotSteerable, match="reclaim: of a cgroup tells nothing about one page"):
        steer(make(steps.format("x = ")), "base", kernel)


def test_each_maybe_is_done_and_left_out() -> None:
    test = make("P: maybe write a = 1\nP: maybe r = vmsplice a\nP: write a = 2")
    programs = steer(test, "base", choose("linux-6.1"))
    assert [verbs(p)[1:] for p in programs] == [
        ["write", "vmsplice", "write"],
        ["write", "write"],
        ["vmsplice", "write"],
        ["write"],
    ]
    assert [p.id for p in programs] == ["t", "t#1", "t#2", "t#3"]
    assert not any(step.maybe for p in programs for step in p.program.steps)


def test_a_group_whose_steps_are_all_left_out_is_gone() -> None:
    test = make("concurrent by operation {\n  P: maybe write a = 1\n}")
    with_it, without = steer(test, "base", choose("linux-6.1"))
    assert with_it.concurrent
    assert not without.concurrent


REFUSED = {
    "P: r = send_zerocopy a": "send_zerocopy: the network stack",
    "P: r = odirect_write a": "odirect_write: a disk reads",
    "P: r = rdma_register a": "needs an RDMA device",
    "P: r = get a longterm": "get longterm: no call",
    "P: r = odirect_read a\nP: s = odirect_read a": "two O_DIRECT reads in flight",
    "P: r = odirect_read a\nP: x = read_ref r": "a disk that stores does not load",
    "P: r = odirect_read a\nP: write_ref r = 1\nP: write_ref r = 2": "a disk answers once",
    "P: fork C\nC: r = odirect_read a\nC: exit": "exit: waits for the O_DIRECT read",
    "P: r = io_uring_register a\nP: tee r 1": "tee: the reference is not a pipe's",
    "P: maybe write a = 1\n" * (MAX_MAYBE + 1): "7 steps under `maybe`",
}


@pytest.mark.parametrize("steps", REFUSED)
def test_what_has_no_lever_is_refused_with_a_reason(steps: str) -> None:
    with pytest.raises(NotSteerable, match=REFUSED[steps]):
        steer(make(steps), "base", choose("linux-6.1"))


def test_a_call_that_the_kernel_lacks_is_refused() -> None:
    with pytest.raises(NotSteerable, match=r"populate_read: linux-5\.10 does not have it"):
        steer(make("P: populate_read a"), "base", choose("linux-5.10"))


def test_swap_devices_that_no_real_kernel_here_has() -> None:
    for swap, reason in (("slow", "write-back"), ("disk stable-writes", "stable pages")):
        with pytest.raises(NotSteerable, match=reason):
            steer(make("P: read a", f"swap {swap}"), "base", choose("linux-6.1"))


@pytest.mark.parametrize("kernel", SHIPPED)
def test_every_step_of_a_steered_test_has_a_lever(kernel: str) -> None:
    row, steerable = choose(kernel), 0
    for chosen in library():
        try:
            programs = steer(chosen.test, chosen.variant, row)
        except NotSteerable:
            continue
        steerable += 1
        for steered in programs:
            assert {step.verb for step in steered.program.steps} <= set(LEVERS)
            assert not {step.verb for step in steered.program.steps} & set(row.absent())
            assert len(steered.word) < 64, "the runner keeps 63 characters"
            assert " " not in steered.word
    assert steerable > 40


# -- the runner's words ---


def shape(test: Test) -> list[object]:
    """The steps with numbers in place of names."""
    parts: list[object] = []
    for part in test.body:
        assert not isinstance(part, Prepare)
        steps = part.steps if isinstance(part, Group) else (part,)
        parts.append((isinstance(part, Group), [plain(test, step) for step in steps]))
    return parts


def plain(test: Test, step: Step) -> tuple[object, ...]:
    taken = [s.result for s in steps_of(test.variant_steps("base")) if takes_reference(s)]
    references = list(dict.fromkeys(taken))
    arguments: list[object] = []
    for kind, argument in kinds_of(step):
        if isinstance(argument, PageOf):
            process, page = argument.process, argument.page
            arguments.append((test.processes.index(process), test.pages.index(page)))
        elif argument in {huge.name for huge in test.huge}:
            huge = next(huge for huge in test.huge if huge.name == argument)
            arguments.append((test.pages.index(huge.pages[0]), len(huge.pages)))
        elif kind is Kind.PAGE:
            page = test.pages.index(str(argument))
            to_range = arguments and isinstance(arguments[0], tuple)  # where a range goes
            arguments.append((page, len(test.huge[0].pages)) if to_range else page)
        elif kind is Kind.PROCESS:
            arguments.append(test.processes.index(str(argument)))
        elif kind is Kind.REFERENCE:
            arguments.append(references.index(str(argument)))
        else:
            arguments.append(argument)
    if step.verb == "share":
        arguments = arguments[:1]  # every process has the file descriptor anyway
    if step.verb in ("reclaim", "ksm"):
        arguments = []  # of everything, as no page can be chosen
    result = references.index(step.result) if takes_reference(step) else None
    thread = -1 if step.thread == KERNEL else test.thread_names().index(step.thread)
    return step.verb, thread, arguments, result


@pytest.mark.parametrize("kernel", ["linux-5.10", "linux-6.1", "linux-7.3"])
def test_words_say_everything_about_a_program(kernel: str) -> None:
    row, told = choose(kernel), 0
    for chosen in library():
        try:
            programs = steer(chosen.test, chosen.variant, row)
        except NotSteerable:
            continue
        for steered in programs:
            device = DEVICES.get(steered.swap, "none")
            (decoded,) = decode(encode(steered, device, repeat=7))
            assert decoded.id == steered.word
            assert decoded.repeat == 7
            assert shape(decoded.test) == shape(steered.test), format_test(steered.test)
            assert [decoded.test.cpu_of(t) for t in decoded.test.thread_names()] == [
                steered.test.cpu_of(t) for t in steered.test.thread_names()
            ]
            assert (decoded.test.lru_batches == 0) == (steered.test.lru_batches == 0)
            told += 1
    assert told > 40


def test_words_are_numbers_and_names_of_levers_only() -> None:
    test = make("P: write a = 0xffff\nP: mprotect a none\nP: x = read a\nkernel: drain 1")
    (steered,) = steer(test, "base", choose("linux-6.1"))
    assert encode(steered, "none") == (
        "swap none\nprogram t 1 1 1 1 1\nthread 0 0\n"
        "step 0 0 mmap 0 0 0\nstep 0 0 write 0 0 65535\nstep 0 0 mprotect 0 0 0\n"
        "step 0 0 read 0 0 0\nstep -1 0 drain 0 0 1\nrun\n"
    )


def test_a_file_on_disk_is_asked_for_where_the_test_has_one() -> None:
    head = "processes P\npages m\nfile tmpfile in disk\n"
    kinds = "variant memory {\n}\nvariant disk {\n}\nvariant none {\n  P: mmap m\n}\n"
    test = parse(f"test t\n{head}{kinds}prepare\nP: mmap_file m\n")
    (memory,) = steer(test, "memory", choose("linux-6.12"))
    (disk,) = steer(test, "disk", choose("linux-6.12"))
    assert "tmpfile" not in memory.needs
    assert "file tmpfile" not in encode(memory, "none").splitlines()
    assert "tmpfile" in disk.needs
    assert "file tmpfile" in encode(disk, "none").splitlines()
    assert disk.program.first["file_kind"] != memory.program.first["file_kind"]
