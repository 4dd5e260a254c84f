"""Holding a run against the model: agreement, the first divergence in words, what stays open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from library import library
from pageherd.litmus import parse
from pageherd.real.follow import Followed, follow, result_of
from pageherd.real.judge import check_returns
from pageherd.real.observe import Sight
from pageherd.real.results import Ran, Run
from pageherd.real.steer import Steered, steer
from pageherd.real.target import Batch, Report, sight_of
from pageherd.rules.choose import choose, record
from pretend import Pretend

EVERYTHING = Sight(frames=True, counts=True, flags=True, exclusive=True, soft_dirty=True)
NOTHING = Sight(frames=False, counts=False, flags=False, exclusive=False, soft_dirty=False)

COW = """test cow
processes P C
pages a
P: mmap a
P: write a = 1
P: r = vmsplice a
P: fork C
P: write a = 2
C: x = read a
C: s = pagemap a
keeps private
"""


def steered(text: str, kernel: str = "linux-6.1") -> Steered:
    (one,) = steer(parse(text), "base", choose(kernel))
    return one


def run_of(program: Steered, rules: str = "linux-6.1") -> Run:
    (run,) = Pretend(rules).run(Batch([program]), Report())
    return run


def held(program: Steered, run: Run, sight: Sight = EVERYTHING, on: str = "linux-6.1") -> Followed:
    return follow(program, run, record(choose(on)), sight)


def changed(run: Run, step: int, **fields: object) -> Run:
    """The run with something of a page of process 0 seen otherwise after one step."""
    steps = list(run.steps)
    pages = {**steps[step].pages, (0, 0): replace(steps[step].pages[0, 0], **fields)}  # type: ignore[arg-type]
    steps[step] = replace(steps[step], pages=pages)
    return Run(run.id, steps, run.ending)


def test_a_kernel_that_does_as_the_model_says() -> None:
    program = steered(COW)
    found = held(program, run_of(program))
    assert found.divergence is None
    assert found.results == ("ok", "ok", "ok", "ok", "ok", 1, "present")
    assert found.determined
    assert len(found.predictions) == len(program.program.steps)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mapcount": 3}, "P.a mapcount: the model says 1, the kernel 3"),
        ({"exclusive": False}, "P.a exclusive: the model says True, the kernel False"),
        ({"soft_dirty": False}, "P.a soft_dirty: the model says True, the kernel False"),
        ({"cached": True}, "P.a cached: the model says False, the kernel True"),
        ({"entry": "zero"}, "P.a entry: the model says present, the kernel zero"),
    ],
)
def test_the_first_divergence_is_said_in_words(fields: dict[str, object], words: str) -> None:
    program = steered(COW)
    found = held(program, changed(run_of(program), 4, **fields))
    assert found.divergence is not None
    assert (found.divergence.index, found.divergence.step) == (4, "P: write a = 2")
    assert words in found.divergence.differences
    assert len(found.predictions) == 5, "nothing after it is looked at"


def test_a_frame_that_is_kept_where_the_model_copies_is_seen() -> None:
    program = steered(COW)
    run = run_of(program)
    kept = run.steps[3].pages[0, 0].frame
    found = held(program, changed(run, 4, frame=kept))
    assert found.divergence is not None
    assert "P.a moved: the model says True, the kernel False" in found.divergence.differences


def test_a_value_that_differs_is_a_divergence() -> None:
    program = steered(COW)
    run = run_of(program)
    run.steps[5] = replace(run.steps[5], seen=2)
    found = held(program, run)
    assert found.divergence is not None
    assert found.divergence.differences == ("result: the model gives 1, the kernel 2",)
    assert found.results[-1] == 2


def test_a_process_that_should_not_be_there_is_a_divergence() -> None:
    program = steered(COW)
    run = run_of(program)
    run.steps[1] = replace(run.steps[1], pages=run.steps[-1].pages)
    found = held(program, run)
    assert found.divergence is not None
    words = [word for word in found.divergence.differences if word.startswith("C.a entry")]
    assert words == ["C.a entry: the model says None, the kernel present"]


def test_what_cannot_be_seen_is_not_held_against_anybody() -> None:
    program = steered(COW)
    lie = {"frame": None, "mapcount": 77, "exclusive": False, "soft_dirty": False, "cached": True}
    odd = run_of(program)
    for step in range(len(odd.steps)):
        odd = changed(odd, step, **lie) if step != 0 else odd
    assert held(program, odd).divergence is not None
    assert held(program, odd, NOTHING).divergence is None


def test_results_that_a_lever_does_not_tell_are_the_models() -> None:
    program = steered(
        "test t\nprocesses P\npages a\nP: mmap a\nP: write a = 1\nP: s = pageout a\nkeeps private\n"
    )
    run = run_of(program)
    assert result_of(program, program.program.steps[-1], run.steps[-1], EVERYTHING) is None
    assert held(program, run).results[-1] == "ok"


def test_a_state_is_read_off_what_was_seen() -> None:
    program = steered(COW)
    step, ran = program.program.steps[-1], run_of(program).steps[-1]
    assert result_of(program, step, ran, EVERYTHING) == "present"
    assert result_of(program, step, Ran(6, 0, 0, {}), EVERYTHING) is None


BATCHED = """test batched
processes P C
pages a
on cpu 1: C
lru_batches 15
P: mmap a
P: write a = 1
P: fork C
C: exit
{drain}P: write a = 2
keeps private
"""


def test_somebody_else_may_have_drained_a_batch() -> None:
    """The reference of a batch makes 5.10 copy; whether it is there is nobody's to say."""
    left = steered(BATCHED.format(drain=""), "linux-5.10")
    drained = steered(BATCHED.format(drain="kernel: drain\n"), "linux-5.10")
    reused, copied = run_of(drained, "linux-5.10"), run_of(left, "linux-5.10")
    last = reused.steps.pop()
    reused.steps[-1] = replace(last, step=4)  # the drain itself is left out
    assert len(reused.steps) == len(copied.steps)
    frames = [run.steps[-1].pages[0, 0].frame for run in (reused, copied)]
    assert frames[0] == reused.steps[1].pages[0, 0].frame != frames[1]
    for run in (reused, copied):
        found = held(left, run, on="linux-5.10")
        assert found.divergence is None
        assert not found.determined
        assert max(found.predictions) == 2


def test_broken_promises_are_those_of_the_states_that_agree() -> None:
    text = COW.replace("P: fork C\n", "P: fork C\nC: q = vmsplice a\nC: munmap a\n").replace(
        "C: x = read a\nC: s = pagemap a\n", "C: x = read_ref q\n"
    )
    program = steered(text, "linux-4.19")
    found = held(program, run_of(program, "linux-4.19"), on="linux-4.19")
    assert found.divergence is None
    assert found.results[-1] == 2
    assert "private" in found.broken
    assert held(program, run_of(program, "linux-6.1")).broken == ()


@pytest.mark.parametrize("kernel", ["linux-5.10", "linux-6.1", "linux-6.12", "linux-7.3"])
def test_the_library_on_a_kernel_that_is_the_model(kernel: str) -> None:
    """Encoded, decoded, run, printed, read and followed: nothing diverges anywhere on the way."""
    from pageherd.real.steer import NotSteerable

    row, programs = choose(kernel), []
    table = record(row)
    for chosen in library():
        try:
            steered = steer(chosen.test, chosen.variant, row)
            for program in steered:
                check_returns(program, table)
            programs += [p for p in steered if not p.concurrent]
        except NotSteerable:
            continue
    report = Report()
    release = kernel.removeprefix("linux-") + ".0"
    runs = {run.id: run for run in Pretend(kernel, release).run(Batch(programs), report)}
    for program in programs:
        found = follow(program, runs[program.word], table, sight_of(report.probes))
        assert found.divergence is None, (program.id, found.divergence)
    assert len(programs) > 60
