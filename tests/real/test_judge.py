"""From runs to results: pass, fail, skip and error, and whether model and kernel agree."""

from __future__ import annotations

import pytest

from library import library
from pageherd.litmus import parse
from pageherd.machine.steps import DRAIN, RECLAIM_ISOLATE
from pageherd.real.judge import Verdict, run_tests
from pageherd.real.target import Report
from pageherd.rules.choose import choose
from pageherd.search.check import Chosen, find_one
from pretend import Pretend

VMSPLICE = find_one("cow-vmsplice-child-unmap")


def verdicts(target: Pretend, *chosen: Chosen, kernel: str = "", repeat: int = 4) -> list[Verdict]:
    row = choose(kernel or target.rules)
    return list(run_tests(target, chosen, row, Report(), repeat=repeat))


def verdict(target: Pretend, chosen: Chosen, kernel: str = "", repeat: int = 4) -> Verdict:
    (one,) = verdicts(target, chosen, kernel=kernel, repeat=repeat)
    return one


def asking(questions: str, steps: str = "", name: str = "t") -> Chosen:
    text = f"test {name}\nprocesses P C\npages a\nP: mmap a\nP: write a = 1\n{steps}P: x = read a\n"
    return Chosen(parse(text + questions), "base")


def test_a_kept_promise_passes() -> None:
    one = verdict(Pretend("linux-6.1"), VMSPLICE)
    assert (one.result, one.agrees, one.reason) == ("pass", True, "")
    assert one.observed["promises"] == []
    assert one.observed["registers"] == [{"before": 1, "after": 1}]
    assert one.predicted == {"promises": [], "registers": [{"before": 1, "after": 1}]}
    assert (one.on, one.release, one.kernel) == ("pretended", "6.1.0-pretended", "linux-6.1")


def test_a_promise_that_breaks_as_predicted_fails_and_agrees() -> None:
    one = verdict(Pretend("linux-4.19", "4.19.0"), VMSPLICE)
    assert (one.result, one.agrees) == ("fail", True)
    assert one.observed["promises"] == ["private"]
    assert one.observed["registers"] == [{"before": 1, "after": 255}]


def test_a_kernel_that_does_otherwise_is_an_error_and_disagrees() -> None:
    one = verdict(Pretend("linux-6.1:reuse=by-mapcount", "6.1.0"), VMSPLICE, "linux-6.1")
    assert (one.result, one.agrees) == ("error", False)
    assert one.reason.startswith("P: write a = 0xff: ")


@pytest.mark.parametrize(
    ("question", "result"),
    [
        ("allow x = 1", "pass"),
        ("allow x = 2", "fail"),
        ("forbid x = 2", "pass"),
        ("forbid x = 1", "fail"),
        ("require x = 1", "pass"),
        ("require x != 1", "fail"),
        ("require x = 1 and not x = fault", "pass"),
        ("require x = fault", "fail"),
    ],
)
def test_conditions_are_judged_by_the_values_that_were_read(question: str, result: str) -> None:
    one = verdict(Pretend("linux-6.1"), asking(question))
    assert (one.result, one.agrees) == (result, True)


def test_every_maybe_is_run_and_all_endings_count() -> None:
    steps = "P: maybe write a = 2\n"
    target = Pretend("linux-6.1")
    assert verdict(target, asking("allow x = 1", steps)).result == "pass"
    assert target.programs == ["t", "t#1"]
    assert verdict(target, asking("allow x = 2", steps)).result == "pass"
    assert verdict(target, asking("allow x = 3", steps)).result == "fail"
    assert verdict(target, asking("forbid x = 2", steps)).result == "fail"
    one = verdict(target, asking("require x = 2", steps))
    assert one.result == "fail"
    assert one.observed["registers"] == [{"x": 2}, {"x": 1}]


def test_a_register_of_a_step_that_was_left_out_is_unset() -> None:
    steps = "P: maybe y = read a\n"
    one = verdict(Pretend("linux-6.1"), asking("forbid y = 1", steps))
    assert one.observed["registers"] == [{"y": 1, "x": 1}, {"x": 1}]
    assert one.result == "fail", "the run in which it is done reads 1"
    assert verdict(Pretend("linux-6.1"), asking("forbid y = 2", steps)).result == "pass"
    assert verdict(Pretend("linux-6.1"), asking("allow y != 1", steps)).result == "pass"


class Lazy(Pretend):
    """Its kernel finds nothing to reclaim in a cgroup."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.table["step"][0, RECLAIM_ISOLATE] = self.table["step"][0, DRAIN]


def test_a_kernel_that_reclaims_other_pages_is_not_blamed() -> None:
    shared = find_one("reclaim-of-shared-page")
    one = verdict(Lazy("linux-6.1"), shared)
    assert (one.result, one.agrees) == ("skip", True)
    assert one.reason.startswith("the kernel reclaimed other pages")
    assert verdict(Pretend("linux-6.1"), shared).result == "pass"


def test_what_has_no_lever_is_skipped_with_the_reason() -> None:
    one = verdict(Pretend("linux-6.1"), find_one("zerocopy-send-child"))
    assert (one.result, one.agrees) == ("skip", None)
    assert one.reason.startswith("not steerable: send_zerocopy: the network stack")


@pytest.mark.parametrize("probe", ["io_uring", "swap"])
def test_what_is_not_there_is_skipped_with_the_reason(probe: str) -> None:
    name = {"io_uring": "cow-iouring-fork", "swap": "clean-swap-cache-again"}[probe]
    target = Pretend("linux-6.1", missing=[probe])
    one, other = verdicts(target, find_one(name), VMSPLICE)
    assert (one.result, one.agrees) == ("skip", None)
    assert one.reason.startswith(f"missing: {probe}: E")
    assert other.result == "pass"


def test_a_step_that_does_not_return_is_an_error_that_says_which() -> None:
    one, other = verdicts(
        Pretend("linux-6.1", hang="vmsplice"), VMSPLICE, find_one("cow-basic-fork")
    )
    assert (one.result, one.agrees, one.reason) == ("error", None, "'C: vmsplice' did not return")
    assert other.result == "pass"


def test_a_kernel_that_stops_is_started_again_for_the_rest() -> None:
    chosen = [Chosen(asking("allow x = 1", name=f"t{n}").test, "base") for n in range(5)]

    class Dies(Pretend):
        """It stops after the second program, once."""

        def run_once(self, decoded, run):  # type: ignore[no-untyped-def]
            if decoded.id == "t2" and self.runs == 1:
                return
            yield from super().run_once(decoded, run)

    target = Dies("linux-6.1", stop_after=3, reason="kernel BUG at mm/rmap.c")
    found = verdicts(target, *chosen)
    assert target.runs == 2
    assert [one.result for one in found[3:]] == ["pass", "pass"]
    assert [one.result for one in found[:2]] == ["pass", "pass"]


def test_concurrent_steps_run_often_and_every_ending_is_counted() -> None:
    text = "test t\nprocesses P\nthreads T of P\npages a\nP: mmap a\nP: write a = 1\n"
    group = "concurrent by operation {\n  P: write a = 2\n  T: y = read a\n}\nforbid y = 1\n"
    one = verdict(Pretend("linux-6.1"), Chosen(parse(text + group), "base"), repeat=10)
    assert one.observed["registers"] == [{"y": 2}, {"y": 1}]
    assert one.observed["times"] == [5, 5]
    assert (one.result, one.agrees) == ("fail", True)
    assert one.reason == "promises of concurrent steps are judged by the values read only"


def test_a_concurrent_ending_that_the_model_does_not_allow() -> None:
    text = (
        "test t\nprocesses P C\npages a\nP: mmap a\nP: write a = 1\nP: fork C\n"
        "C: r = vmsplice a\nC: munmap a\n"
        "concurrent by operation {\n  P: write a = 2\n  C: y = read_ref r\n}\nallow y = 1\n"
    )
    old = Pretend("linux-4.19", "4.19.0")
    one = verdict(old, Chosen(parse(text), "base"), "linux-6.1")
    assert one.agrees is False
    assert one.reason == "the model does not allow {'y': 2}"
    agreeing = verdict(old, Chosen(parse(text), "base"))
    assert (agreeing.result, agreeing.agrees) == ("pass", True)


@pytest.mark.parametrize("kernel", ["linux-5.10", "linux-6.12"])
def test_the_library_agrees_with_a_kernel_that_is_the_model(kernel: str) -> None:
    """Fail exactly where a promise or condition is claimed broken; disagree nowhere."""
    found = verdicts(Pretend(kernel, kernel.removeprefix("linux-") + ".1"), *library())
    assert [one.test for one in found] == [chosen.id for chosen in library()]
    assert not [(one.test, one.reason) for one in found if one.agrees is False]
    assert not [(one.test, one.reason) for one in found if one.result == "error"]
    ran = [one for one in found if one.agrees is not None]
    assert len(ran) > 80
    assert any(one.result == "fail" for one in ran)
