"""Random programs: the same on every machine, valid, steerable or refused with a reason."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pageherd.litmus import format_test, parse
from pageherd.litmus.check import check
from pageherd.litmus.limits import MAX_PROCESSES, MAX_REFERENCES, MAX_STEPS
from pageherd.litmus.syntax import Step, SwapKind, Test
from pageherd.real.generate import WEIGHTS, random_test, steerable_verbs
from pageherd.real.steer import NotSteerable, encode, steer
from pageherd.rules.choose import choose
from pretend import decode

KERNELS = ("linux-4.19", "linux-5.10", "linux-6.12", "linux-7.3")


def texts(seeds: range) -> list[str]:
    return [format_test(random_test(seed, 12, list(WEIGHTS), "disk")) for seed in seeds]


def test_a_seed_gives_one_program_in_every_process() -> None:
    script = (
        "import sys; sys.path.insert(0, 'tests/real')\n"
        "from test_generate import texts\n"
        "print('\\0'.join(texts(range(20))), end='')\n"
    )
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root / "src"), str(root / "tests")])
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\0") == texts(range(20))


def test_other_seeds_give_other_programs() -> None:
    assert len(set(texts(range(200)))) == 200


@settings(deadline=None, max_examples=300)
@given(
    some.integers(0, 10**9),
    some.integers(1, 60),
    some.sets(some.sampled_from(sorted(WEIGHTS)), min_size=1),
    some.sampled_from(get_args(SwapKind)),
    some.sampled_from(KERNELS),
)
def test_every_program_is_a_test_that_is_steered_or_refused(
    seed: int, length: int, verbs: set[str], swap: SwapKind, kernel: str
) -> None:
    test = random_test(seed, length, verbs, swap)
    check(test)
    assert parse(format_test(test)).body == test.body
    try:
        (steered,) = steer(test, "base", choose(kernel), chosen=False)
    except NotSteerable as reason:
        refusal = str(reason)
    else:
        refusal = ""
        (decoded,) = decode(encode(steered, "none"))
        assert len(decoded.program.steps) == len(test.body)
    assert refusal == refusal.strip()


def test_programs_are_as_long_as_they_were_asked_to_be() -> None:
    for length in range(5, 17):
        test = random_test(length, length, list(WEIGHTS), "zram")
        assert len(test.body) == length <= MAX_STEPS
        assert len(test.processes) <= MAX_PROCESSES
        assert sum(step.result is not None for step in test.body) <= MAX_REFERENCES  # type: ignore[union-attr]


def test_every_verb_is_drawn_and_no_verb_that_was_not_asked_for() -> None:
    drawn: Counter[str] = Counter()
    for seed in range(600):
        drawn.update(step.verb for step in random_test(seed, 16, list(WEIGHTS), "disk").body)  # type: ignore[union-attr]
    assert set(drawn) == set(WEIGHTS)
    few = random_test(1, 16, ["read"], "disk")
    assert {step.verb for step in few.body} == {"mmap", "write", "read"}  # type: ignore[union-attr]


def test_what_a_kernel_has_no_lever_for_is_not_drawn() -> None:
    def missing(probe: str) -> str | None:
        return "vfio: ENODEV" if probe == "vfio" else None

    assert set(WEIGHTS) - set(steerable_verbs(missing)) == {"vfio_map", "vfio_map_ro"}


@pytest.mark.parametrize("kernel", KERNELS)
def test_most_programs_are_steerable(kernel: str) -> None:
    row = choose(kernel)
    verbs = [verb for verb in WEIGHTS if verb not in row.absent()]
    refused = 0
    for seed in range(200):
        try:
            steer(random_test(seed, 10, verbs, "disk"), "base", row, chosen=False)
        except NotSteerable:
            refused += 1
    assert refused < 60


def test_some_random_programs_have_a_file_of_each_kind() -> None:
    def kinds(verbs: list[str]) -> Counter[str]:
        tests = [random_test(seed, 16, verbs, "disk") for seed in range(300)]
        mapped = {"mmap_file", "mmap_shared"}
        return Counter(test.file_of("base") for test in tests if mapped & used(test))

    def used(test: Test) -> set[str]:
        return {step.verb for step in test.body if isinstance(step, Step)}

    assert min(kinds(list(WEIGHTS)).values()) > 10
    assert set(kinds([verb for verb in WEIGHTS if verb != "sync_file"])) == {"memfd", "hugetlb"}
    alone = [verb for verb in WEIGHTS if verb not in ("sync_file", "mmap_hugetlb")]
    assert set(kinds(alone)) == {"memfd"}
