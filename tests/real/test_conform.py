"""Random programs against a kernel that is the model itself, and against one that is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pageherd.cli.main import main
from pageherd.errors import EnvironmentFailed
from pageherd.litmus import parse
from pageherd.real import conform as conforming
from pageherd.real.conform import Tally, prepare
from pageherd.search.edit import all_steps, tidy, with_steps
from pretend import Pretend

LATE = "linux-6.1:mremap-checks=late"


def quiet(tally: Tally) -> None:
    pass


def against(
    target: Pretend, rules: str, verbs: Sequence[str] = (), programs: int = 150, **more: Any
) -> Tally:
    conform = prepare(target, rules)
    if verbs:
        conform.verbs = list(verbs)
    return conform.run(programs, 1, progress=quiet, **more)


@pytest.mark.parametrize("kernel", ["linux-5.10", "linux-6.1", "linux-6.12", "linux-7.3"])
def test_the_model_conforms_to_itself(kernel: str) -> None:
    tally = against(Pretend(kernel, kernel.removeprefix("linux-") + ".0"), kernel, programs=300)
    assert not tally.found, tally.found[0].text
    assert tally.programs == 300
    assert tally.observations > 300 * 5
    assert tally.steps.total() == tally.observations
    assert not tally.hung
    assert tally.kernel == kernel


def test_the_kernel_is_chosen_by_its_release() -> None:
    assert prepare(Pretend("linux-6.12", "6.14.2-x")).kernel.name == "linux-6.12"
    assert prepare(Pretend("linux-6.12", "6.14.2-x"), "linux-6.1").kernel.name == "linux-6.1"


def test_another_rule_is_found_and_shrunk_to_the_smallest_program() -> None:
    verbs = ("write", "read", "munmap", "mremap", "fork", "mprotect", "vmsplice")
    tally = against(Pretend(LATE, "6.1.0"), "linux-6.1", verbs, most=1)
    (found,) = tally.found
    assert [step.verb for step in all_steps(found.test)] in (
        ["mmap", "write", "mremap"],
        ["mmap", "read", "mremap"],
        ["mmap", "mremap", "mremap"],  # the second has nothing to move
    )
    assert found.divergence.step.startswith("P: mremap")
    assert found.divergence.differences
    assert (found.seen, found.runs) == (conforming.AGAIN, conforming.AGAIN)
    assert found.steps_before > 3
    assert found.test.name == f"diverges-{found.seed}"
    assert parse(found.text).body == found.test.body


def test_nothing_can_be_left_out_of_what_was_found() -> None:
    target = Pretend("linux-5.10", "6.1.0")
    conform = prepare(target, "linux-6.1")
    tally = conform.run(60, 1, most=1, progress=quiet)
    (found,) = tally.found
    for number in range(len(all_steps(found.test))):
        smaller = tidy(with_steps(found.test, {number: None}))
        program = smaller and conform.program(smaller)
        assert not program or conform.diverging([program]) == [None]


def test_programs_that_shrink_to_the_same_are_one_finding() -> None:
    tally = against(Pretend(LATE, "6.1.0"), "linux-6.1", ("write", "munmap", "mremap"), 200, most=3)
    bodies = [found.test.body for found in tally.found]
    assert len(set(bodies)) == len(bodies) <= 3
    assert sum(len(found.seeds) for found in tally.found) > 0


class Fickle(Pretend):
    """Does what the model says from its third run on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sound = Pretend("linux-6.1", "6.1.0")

    def lines(self, *arguments: Any) -> Any:
        self.runs += 1
        other = super() if self.runs <= 3 else self.sound
        return other.lines(*arguments)


def test_a_divergence_that_does_not_come_again_is_told_with_its_whole_program() -> None:
    target = Fickle(LATE, "6.1.0")
    conform = prepare(target, "linux-6.1")
    conform.verbs = ["write", "munmap", "mremap"]
    target.runs = 2
    tally = conform.run(60, 1, most=1, progress=quiet)
    (found,) = tally.found
    assert found.seen == 0
    assert len(all_steps(found.test)) == found.steps_before


def test_the_same_seeds_give_the_same_findings() -> None:
    verbs = ("write", "munmap", "mremap")
    first, second = (
        against(Pretend(LATE, "6.1.0"), "linux-6.1", verbs, most=1).found for _ in range(2)
    )
    assert [found.text for found in first] == [found.text for found in second]


def test_verbs_that_the_kernel_has_no_lever_for_are_not_drawn() -> None:
    tally = against(Pretend("linux-6.1", missing=["vfio", "populate", "io_uring"]), "linux-6.1")
    undrawable = {"vfio_map", "vfio_map_ro", "populate_read", "populate_write", "io_uring_register"}
    assert not undrawable & set(tally.steps)
    assert "pageout" in tally.steps


def test_without_swap_nothing_is_swapped() -> None:
    conform = prepare(Pretend("linux-6.1", missing=["swap"]), "linux-6.1")
    assert conform.swaps == ("none",)
    assert "pageout" not in conform.verbs
    assert "write" in conform.verbs


def test_one_swap_device_of_two_is_enough() -> None:
    """A host may have no idle zram; a file to swap on is always there."""

    class NoZram(Pretend):
        def lines(self, programs: Any, cpus: int, report: Any) -> Any:
            text = programs({"disk": "/dev/disk"})
            missing = "swap missing" in text
            lines = super().lines(lambda _: text.replace("swap missing", "swap none"), cpus, report)
            return ("swap -2\n" if missing and line.startswith("swap") else line for line in lines)

    conform = prepare(NoZram("linux-6.1"), "linux-6.1")
    assert conform.swaps == ("disk",)
    assert "pageout" in conform.verbs


def test_a_program_that_hangs_is_counted() -> None:
    tally = against(Pretend("linux-6.1", hang="mremap"), "linux-6.1", programs=100)
    assert 0 < len(tally.hung) < 100
    assert all(": hang at '" in told and ": mremap " in told for told in tally.hung)
    assert not tally.found, "what came before agrees"


def test_a_kernel_that_stops_is_a_failure_of_the_environment() -> None:
    target = Pretend("linux-6.1", stop_after=7, reason="Kernel panic - not syncing")
    with pytest.raises(EnvironmentFailed, match="pretended: Kernel panic"):
        against(target, "linux-6.1")


def test_an_interrupt_is_passed_on() -> None:
    target = Pretend("linux-6.1", stop_after=7, reason=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        against(target, "linux-6.1")


def test_progress_is_told_after_every_program() -> None:
    told: list[int] = []
    conform = prepare(Pretend("linux-6.1"), "linux-6.1")
    conform.run(20, 5, progress=lambda tally: told.append(tally.programs))
    assert told == [*range(1, 21), 20]


# -- the command ---


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let `--on host` be a kernel that pretends."""

    def choose(target: Pretend) -> None:
        monkeypatch.setattr("pageherd.real.target.find", lambda name, say=None: target)

    return choose


def test_the_command_says_what_it_found(
    on: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    on(Pretend("linux-5.10", "5.10.0"))
    save = str(tmp_path / "found")
    assert main(["conform", "--programs", "40", "--kernel", "linux-6.1", "--save", save]) == 1
    out = capsys.readouterr().out
    assert "against the model of linux-6.1" in out
    assert "divergence" in out
    files = list(Path(save).iterdir())
    assert files
    assert all(parse(file.read_text()).body for file in files)
    on(Pretend("linux-6.1"))
    assert main(["conform", "--programs", "40"]) == 0
    assert "no divergences\n" in capsys.readouterr().out


def test_the_command_prints_json(on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    on(Pretend("linux-5.10", "5.10.0"))
    assert main(["conform", "--programs", "40", "--kernel", "linux-6.1", "--json"]) == 1
    *found, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert last["divergences"] == len(found) > 0
    assert all(parse(one["text"]).body and one["differences"] for one in found)


def test_exit_codes(on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    on(Pretend("linux-6.1", hang="mremap"))
    assert main(["conform", "--programs", "60"]) == 1
    on(Pretend("linux-6.1", stop_after=3, reason="Kernel panic"))
    assert main(["conform", "--programs", "60"]) == 4
    on(Pretend("linux-6.1", stop_after=3, reason=KeyboardInterrupt()))
    assert main(["conform", "--programs", "60"]) == 130
    on(Pretend("linux-6.1", "99.bottles"))
    assert main(["conform", "--programs", "60"]) == 2
    assert "99.bottles" in capsys.readouterr().err
