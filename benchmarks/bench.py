"""Figures and ratios in one run: python benchmarks/bench.py [PART ...]

Without arguments all parts are run: start, cold, compile, rule, hunt, simulate, search, real.
Needs only the package itself; `real` needs a C compiler, and QEMU for its second half.  Parts that
depend on a fresh or uncompiled machine run in their own process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGES = 1_000_000
PEER_SECONDS = 10.0
HUNTED = "linux-5.10"  # by `hunt`
RULE = """\
from pageherd import alternative, proposal
from pageherd.machine.questions import COPY, REUSE_PAGE
from pageherd.machine.folio import is_exclusive, page_count


@alternative("reuse")
def mine(s, t, k, frame):
    return REUSE_PAGE if is_exclusive(s, frame) or page_count(s, frame) == {count} else COPY


KERNEL = proposal("mine", extends="linux-6.1", reuse=mine)
"""
GROUP = """\
test bench-group "four threads of two processes and the kernel, every order of 16 operations"

processes P C
threads T2 of P
pages a b

P: mmap a
P: mmap b
P: write a = 1
P: write b = 2
P: r = pin a write
P: s = vmsplice b
P: fork C
concurrent by operation {
  P: write a = 3
  P: write b = 4
  P: maybe dontneed b
  P: write b = 5
  T2: maybe read a
  T2: maybe clear_soft_dirty
  T2: pageout b
  T2: write a = 6
  C: write a = 7
  C: maybe pageout b
  C: write b = 8
  C: munmap a
  kernel: maybe reclaim P.a
  kernel: reclaim C.b
  kernel: reclaim P.b
  kernel: reclaim P.a
}
P: seen = read a
"""


def row(what: str, figure: str, peer: str = "", ratio: str = "", aim: str = "") -> None:
    print(f"{what:44}{figure:>16}{peer:>18}{ratio:>10}  {aim}", flush=True)


def process(*command: str, runs: int = 1, **environment: str) -> float:
    """The seconds of the fastest of `runs` runs of a command, which may exit with 0, 1 or 3."""
    best = float("inf")
    for _ in range(runs):
        started = time.perf_counter()
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | environment, check=False
        )
        best = min(best, time.perf_counter() - started)
        if done.returncode not in (0, 1, 3):
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return best


def child(part: str, **environment: str) -> Any:
    """What another process of this script prints as its last line, as JSON."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", part],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


PAGEHERD = (sys.executable, "-m", "pageherd")


# -- start: what a warm start costs ----------------------------------------------------------------


def start() -> None:
    process(*PAGEHERD, "run")  # whatever is not compiled yet is compiled now
    library = process(*PAGEHERD, "run", runs=5)
    importing = process(sys.executable, "-c", "import numba", runs=5)
    ratio("library on all kernels, warm", library, "import numba", importing, "at most 5 times")
    helping = process(*PAGEHERD, "--help", runs=5)
    nothing = process(sys.executable, "-c", "pass", runs=5)
    ratio("pageherd --help", helping, "python -c pass", nothing, "at most 5 times")


def ratio(what: str, seconds: float, peer: str, other: float, aim: str) -> None:
    row(what, f"{seconds:.3f} s", "", "", "")
    row(f"  peer: {peer}", "", f"{other:.3f} s", f"{seconds / other:.2f}", aim)


# -- cold: everything is compiled first ------------------------------------------------------------


def cold() -> None:
    with tempfile.TemporaryDirectory() as empty:
        seconds = process(*PAGEHERD, "run", XDG_CACHE_HOME=empty)
    row("library on all kernels, compiling included", f"{seconds:.1f} s", aim="below 120 s")


# -- compile: seconds for each step and each rule --------------------------------------------------


def compile_all() -> None:
    with tempfile.TemporaryDirectory() as empty:
        found = child("compile", XDG_CACHE_HOME=empty)
    for kind in ("step", "rule"):
        times = dict(found[kind])
        slowest = sorted(times, key=lambda name: -times[name])[:4]
        row(
            f"compiling {len(times)} {kind}s, sum",
            f"{sum(times.values()):.1f} s",
            f"median {statistics.median(times.values()):.2f} s",
            aim=", ".join(f"{name} {times[name]:.2f}" for name in slowest),
        )


def compile_child() -> Any:
    import numba

    from pageherd.machine import paths
    from pageherd.machine.jit import STEPS, step_address
    from pageherd.machine.layout import TEST
    from pageherd.rules.catalog import POINTS
    from pageherd.rules.choose import entries

    assert paths.PATHS  # importing them registered the steps
    numba.njit(lambda x: x + 1)(1)  # starting the compiler itself does not count
    found: dict[str, list[tuple[str, float]]] = {"step": [], "rule": []}
    for function in STEPS.values():
        found["step"].append((function.__name__, timed(lambda f=function: step_address(f, TEST))))
    for point in POINTS.values():
        for chosen in point.alternatives.values():
            if chosen.functions:
                seconds = timed(lambda c=chosen: entries(c, TEST))  # type: ignore[misc]
                found["rule"].append((f"{point.name}={chosen.name}", seconds))
    return found


def timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


# -- rule: from saving a rule to its first verdict -------------------------------------------------


def rule() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mine.py"
        seconds = []
        for count in range(1, 4):  # a different rule each time
            file.write_text(RULE.format(count=count), encoding="utf-8")
            seconds.append(
                process(*PAGEHERD, "run", "cow-vmsplice-child-unmap", "--kernel", str(file))
            )
    row("a changed rule file to its first verdict", f"{min(seconds):.2f} s", aim="3 s")


# -- hunt: from saving a rule to every program of the scope `small` --------------------------------


def hunting() -> None:
    whole, searching = [], []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mine.py"
        for count in (2, 1):  # the first compiles the machine, if need be; the second is timed
            file.write_text(RULE.format(count=count), encoding="utf-8")
            started = time.perf_counter()
            done = subprocess.run(
                (*PAGEHERD, "hunt", "--kernel", str(file), "--json"),
                capture_output=True,
                text=True,
                check=False,
            )
            whole.append(time.perf_counter() - started)
            searching.append(json.loads(done.stdout.splitlines()[0])["seconds"])
    row("a changed rule file to its verdicts on `small`", f"{whole[-1]:.2f} s", aim="15 s")
    row("  of which search", f"{searching[-1]:.2f} s")
    row("  of which starting, compiling, replaying", f"{whole[-1] - searching[-1]:.2f} s")
    found = child("hunt")
    one, two = found["seconds"]
    row(
        f"hunt: {HUNTED}, small, two cores",
        f"{two:.2f} s",
        f"one core {one:.2f} s",
        f"{one / two:.2f}",
        aim=f"{found['states']} states; busy before: load {found['load']:.1f}",
    )
    row("hunt: the same on one and two cores", "yes" if found["same"] else "NO")


def hunt_child() -> Any:
    from pageherd.search.hunt import Found, hunt

    def told(found: Found) -> object:
        programs = {name: breach.operations for name, breach in found.breaches.items()}
        return found.size.states, found.size.transitions, found.size.depth, programs

    hunt(HUNTED, "2,1,1,1")  # whatever is not compiled yet is compiled now
    load = os.getloadavg()[0]
    runs = {cores: [hunt(HUNTED, "small", cores=cores)[0] for _ in range(3)] for cores in (1, 2)}
    first = runs[1][0]
    return {
        "seconds": [min(each.size.seconds for each in runs[cores]) for cores in (1, 2)],
        "states": first.size.states,
        "same": all(told(each) == told(first) for found in runs.values() for each in found),
        "load": load,
    }


# -- simulate: the same steps over a million pages -------------------------------------------------


def simulate() -> None:
    found = child("simulate")
    row("simulate: size of the state", f"{found['bytes'] / 1e6:.0f} MB")
    row("simulate: compile or load the steps", f"{found['load']:.1f} s")
    for name, (seconds, right) in found["phases"].items():
        rate = PAGES / seconds / 1e6
        row(
            f"simulate: {name}",
            f"{seconds:.3f} s",
            f"{rate:.1f} M pages/s",
            aim="" if right else "WRONG END STATE",
        )
    events = 4 * PAGES / found["total"] / 1e6
    peer = 4 * PAGES / found["peer"] / 1e6
    row("simulate: page events/s, all four phases", f"{events:.1f} M/s")
    row(
        "  peer: the TEST layout, 8 pages at a time",
        "",
        f"{peer:.1f} M/s",
        f"{events / peer:.1f}",
    )


def simulate_child() -> Any:
    import numba
    import numpy as np

    from pageherd.machine.drive import drive
    from pageherd.machine.layout import SIMULATE, TEST, dtype
    from pageherd.machine.operations import Operands, build, encode
    from pageherd.rules.choose import choose, record
    from pageherd.search.program import empty_state

    @numba.njit
    def rounds(words: Any, first: Any, states: Any, kernels: Any, ops: Any, n: int) -> None:
        for _ in range(n):
            words[0] = first[0]
            drive(states, 0, kernels, ops, 0, ops.shape[0])

    def every_page(verb: str, pages: int, value: int = 0) -> Any:
        one = build(verb, Operands(thread=0, mm=0, page=0, value=value, pages=pages))
        ops = np.repeat(encode([one]), pages)
        ops["page"] = np.arange(pages)
        if verb == "mmap":
            ops["other"] = np.arange(pages) + 1
        return ops

    layout = SIMULATE
    started = time.perf_counter()
    kernel = record(choose("linux-6.1"), layout)
    state = empty_state(layout, 2, PAGES, 0)
    state["mm_state"][0, 0] = 1
    fork = encode([build("fork", Operands(thread=0, mm=0, to=1, pages=PAGES))])
    small = empty_state(TEST, 2, TEST.pages, 0)
    small["mm_state"][0, 0] = 1
    few = record(choose("linux-6.1"), TEST)
    phases = {
        "mmap": every_page("mmap", PAGES),
        "write": every_page("write", PAGES, 1),
        "fork": fork,
        "write again": every_page("write", PAGES, 2),
    }
    drive(state, 0, kernel, phases["mmap"], 0, 0)  # compile the driver for this layout
    load = time.perf_counter() - started

    def right(name: str) -> bool:
        frames = state["refcount"][0, 1 : PAGES + 1]
        if state["alarm"][0]:
            return False
        if name == "mmap":
            return bool((state["vma"][0, 0, :PAGES] != 0).all())
        if name == "write":
            return bool((frames == 1).all())
        if name == "fork":
            return bool((frames == 2).all())
        copied = int(state["cost"][0, 1]) == PAGES
        return copied and bool((frames == 1).all())

    results = {}
    for name, ops in phases.items():
        started = time.perf_counter()
        drive(state, 0, kernel, ops, 0, len(ops))
        results[name] = (time.perf_counter() - started, right(name))

    ops = np.concatenate(
        [
            every_page("mmap", TEST.pages),
            every_page("write", TEST.pages, 1),
            encode([build("fork", Operands(thread=0, mm=0, to=1, pages=TEST.pages))]),
            every_page("write", TEST.pages, 2),
        ]
    )
    words, first = small.view(np.uint64).reshape(1, -1), small.copy().view(np.uint64).reshape(1, -1)
    rounds(words, first, small, few, ops, 1)
    started = time.perf_counter()
    rounds(words, first, small, few, ops, PAGES // TEST.pages)
    return {
        "bytes": dtype(layout).itemsize,
        "load": load,
        "phases": results,
        "total": sum(seconds for seconds, _ in results.values()),
        "peer": time.perf_counter() - started,
    }


# -- search: states per second -------------------------------------------------------------------


def search() -> None:
    compiled = child("search")
    plain = child("plain", NUMBA_DISABLE_JIT="1")
    row(
        "search: one test, 16 operations in a group",
        f"{compiled['seconds']:.3f} s",
        f"{compiled['states']} states",
        aim=f"{compiled['transitions']} transitions, {compiled['bytes']} bytes a state",
    )
    for what in ("states", "transitions"):
        ours = compiled[what] / compiled["seconds"]
        theirs = plain[what] / plain["seconds"]
        row(f"search: {what}/s", f"{ours:,.0f}")
        row("  peer: dict BFS, uncompiled steps", "", f"{theirs:,.0f}", f"{ours / theirs:,.0f}")
    if plain["complete"]:
        same = plain["states"] == compiled["states"]
        row("search: both found the same states", "yes" if same else "NO")


def _program() -> tuple[Any, Any]:
    from pageherd.litmus.parsing import parse
    from pageherd.rules import kernels
    from pageherd.rules.choose import choose, record
    from pageherd.search.program import program_of

    test = parse(GROUP, "bench.litmus", kernels.names())
    return program_of(test, test.default_variant), record(choose("linux-6.1"))


def search_child() -> Any:
    from pageherd.machine.layout import dtype
    from pageherd.search.explore import explore_program

    program, kernel = _program()
    explore_program(program, kernel)
    found = min((explore_program(program, kernel) for _ in range(3)), key=lambda f: f.seconds)
    assert found.complete
    return {
        "states": found.states,
        "transitions": found.transitions,
        "seconds": found.seconds,
        "bytes": dtype(program.layout).itemsize,
    }


def large() -> None:
    """Base-page tests of the library, in a layout that has large folios and in one without."""
    found = child("large")
    ratio(
        f"search: {found['tests']} base-page tests, large folios in the layout",
        found["large"],
        "no large folios",
        found["small"],
        aim="1.25",
    )
    row("search: both found the same states", "yes" if found["same"] else "NO")


def large_child() -> Any:
    from dataclasses import replace

    from pageherd.machine.layout import TEST
    from pageherd.rules.choose import choose, record
    from pageherd.search.check import find_all
    from pageherd.search.explore import explore_program
    from pageherd.search.program import program_of

    layouts = {"large": TEST, "small": replace(TEST, name="no-large", large=False)}
    kernels = {name: record(choose("linux-6.1"), layout) for name, layout in layouts.items()}
    seconds = dict.fromkeys(layouts, 0.0)
    tests, same = 0, True
    for chosen in find_all():
        if chosen.test.huge:
            continue
        tests += 1
        states = set()
        for name, layout in layouts.items():
            program = program_of(chosen.test, chosen.variant, layout)
            runs = [explore_program(program, kernels[name]) for _ in range(6)]
            seconds[name] += min(run.seconds for run in runs[1:])
            states.add((runs[0].states, runs[0].transitions))
        same = same and len(states) == 1
    return seconds | {"tests": tests, "same": same}


def plain_child() -> Any:
    """The same space as one would search it in plain Python: bytes of a state in a dict."""
    import numpy as np

    from pageherd.machine.jit import records
    from pageherd.machine.layout import words_compared
    from pageherd.search.store import advance, run_checked

    program, kernel = _program()
    ops, kernels = records(program.ops), records(kernel)
    compared = words_compared(program.layout)
    first = program.first.copy()
    seen = {first.tobytes()[:compared]: None}
    frontier = [first.tobytes()]
    transitions = 0
    groups = len(program.full)
    started = time.perf_counter()
    while frontier and time.perf_counter() - started < PEER_SECONDS:
        following = []
        for stored in frontier:
            before = np.frombuffer(stored, dtype=first.dtype)
            group, done = int(before["group"][0]), int(before["done"][0])
            if group == groups:
                continue
            for j, operation in enumerate(program.operations):
                if operation.group != group or done & operation.bit:
                    continue
                if done & operation.needs != operation.needs:
                    continue
                after = before.copy()
                s = records(after)[0]
                run_checked(s, kernels[0], ops[j])
                s.broke = 0
                advance(s, ops[j], program.full, program.main_group)
                transitions += 1
                key = after.tobytes()
                if key[:compared] not in seen:
                    seen[key[:compared]] = None
                    following.append(key)
            if time.perf_counter() - started > PEER_SECONDS:
                break
        frontier = following
    return {
        "states": len(seen),
        "transitions": transitions,
        "seconds": time.perf_counter() - started,
        "complete": not frontier,
    }


# -- real: programs per second on real kernels ---------------------------------------------------

PROGRAMS = 600
GUEST = "debian-6.1"
FORKS = 5000
PEER = """\
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < %d; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("%%f\\n", to.tv_sec - from.tv_sec + (to.tv_nsec - from.tv_nsec) / 1e9);
    return 0;
}
"""


def real() -> None:
    found = child("real")
    if "problem" in found:
        row("real: skipped", "", aim=found["problem"])
        return
    steps, processes = found["steps"] / PROGRAMS, found["processes"] / PROGRAMS
    row(
        "real: programs/s on the running kernel",
        f"{found['rate']:.0f}",
        aim=f"{PROGRAMS} programs of {steps:.1f} steps and {processes:.1f} processes",
    )
    peer = FORKS / found["peer"]
    row(
        "  peer: fork, _exit, waitpid in a loop of C",
        "",
        f"{peer:.0f}",
        f"{found['rate'] / peer:.3f}",
    )
    row("real: programs/s, each held to the model", f"{found['held']:.0f}")
    if "guest_problem" in found:
        row(f"real: {GUEST} skipped", "", aim=found["guest_problem"])
        return
    row(f"real: one boot of {GUEST}, {found['accel']}", f"{found['boot']:.1f} s")
    row(
        f"real: {PROGRAMS} programs in that boot",
        f"{found['batch']:.1f} s",
        aim=f"{PROGRAMS / (found['batch'] - found['boot']):.0f} programs/s after the boot",
    )


def real_child() -> Any:
    from pageherd.errors import PageherdError
    from pageherd.real import images
    from pageherd.real.compile import compile_static
    from pageherd.real.conform import prepare
    from pageherd.real.target import Batch, Host, Report, Target, Vm, by_swap, find

    def batch(target: Target, programs: Any) -> tuple[float, Any, Any]:
        report = Report()
        began = time.perf_counter()
        runs = {run.id: run for run in target.run(Batch(by_swap(programs)), report)}
        seconds = time.perf_counter() - began
        if len(runs) != len(programs):
            raise SystemExit(f"{target.name}: {len(runs)} of {len(programs)}: {report.ended}")
        return seconds, runs, report

    try:
        host = prepare(Host())
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "forks.c"
            source.write_text(PEER % FORKS, encoding="utf-8")
            peer = compile_static(source)
    except PageherdError as error:
        return {"problem": str(error).splitlines()[0]}
    supply = host.supply(1)
    samples = [next(supply)[1] for _ in range(PROGRAMS)]
    host.hold(samples[0], batch(host.target, samples[:1])[1][samples[0].word])  # compiles
    forks = [float(subprocess.check_output([peer])) for _ in range(2)]
    seconds, runs, _ = batch(host.target, samples)
    forks.append(float(subprocess.check_output([peer])))
    began = time.perf_counter()
    for program in samples:
        host.hold(program, runs[program.word])
    found: dict[str, Any] = {
        "steps": sum(len(program.program.steps) for program in samples),
        "processes": sum(len(program.program.names.processes) for program in samples),
        "rate": PROGRAMS / seconds,
        "held": PROGRAMS / (seconds + time.perf_counter() - began),
        "peer": min(forks),
    }
    try:
        image = images.cached(GUEST)
        if image is None:
            return found | {"guest_problem": f"not fetched: pageherd real --on {GUEST}"}
        guest = prepare(find(GUEST))
    except PageherdError as error:
        return found | {"guest_problem": str(error).splitlines()[0]}
    supply = guest.supply(1)
    total, _, report = batch(Vm(image), [next(supply)[1] for _ in range(PROGRAMS)])
    return found | {"batch": total, "boot": report.boot_seconds, "accel": report.accel}


# -- all of it -----------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], None]] = {
    "start": start,
    "cold": cold,
    "compile": compile_all,
    "rule": rule,
    "hunt": hunting,
    "simulate": simulate,
    "search": search,
    "large": large,
    "real": real,
}
CHILDREN: dict[str, Callable[[], Any]] = {
    "compile": compile_child,
    "simulate": simulate_child,
    "search": search_child,
    "large": large_child,
    "hunt": hunt_child,
    "plain": plain_child,
    "real": real_child,
}


def machine() -> str:
    """The processor, its cores, and the versions that matter."""
    from importlib.metadata import version

    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    packages = ", ".join(f"{p} {version(p)}" for p in ("pageherd", "numba", "numpy"))
    return f"{name}, {os.cpu_count()} cores; Python {platform.python_version()}, {packages}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(CHILDREN[arguments.child]()))
        return
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part '{unknown[0]}'; there are {', '.join(PARTS)}")
    print(machine())
    row("", "pageherd", "peer", "ratio", "aim, or more")
    for part in arguments.parts or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
