"""The C programs: harmless whatever the test says, compiled without a warning, right when run.

Every program of the library is generated; some are compiled and run, on this kernel and (`-m vm`)
on those of Debian in QEMU, where there are devices, swap and soft-dirty bits.  With
PAGEHERD_ALL_REPRODUCERS=1 all of them are; that takes some minutes for each kernel.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from library import checker, library
from pageherd.cli.reproducer import main
from pageherd.errors import EnvironmentFailed
from pageherd.litmus.parsing import parse
from pageherd.litmus.syntax import Group, Keeps, Outcome, Question
from pageherd.real import images, vm
from pageherd.real.compile import SOURCES, compile_static, find_compiler
from pageherd.real.generate import random_test, steerable_verbs
from pageherd.real.reproducer import default_kernel, observable, reproducer
from pageherd.real.reproducer.plan import WITHOUT_REPRODUCER
from pageherd.real.reproducer.text import harmless
from pageherd.real.steer import NotSteerable
from pageherd.real.target import Vm
from pageherd.rules import kernels
from pageherd.rules.choose import choose
from pageherd.search.check import Chosen

KERNEL = "linux-6.18"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread")
ALL = bool(os.environ.get("PAGEHERD_ALL_REPRODUCERS"))
LINES = 380  # of a program without the drivers of VFIO and nbd
SAMPLE = (
    "cow-vmsplice-child-unmap",
    "cow-vmsplice-child-unmap/base-swap",
    "cow-iouring-fork",
    "fork-child-exit-reuse",
    "peek-unreadable",
    "readv-by-stranger",
    "tee-and-release",
    "swapoff-shared/base-swap",
    "swap-in-own-page/dropped",
    "fork-odirect-read",
    "aa-double-longterm-child-exit",
)
"""One program for each kind of helper."""

IN_GUEST = (
    *SAMPLE,
    "cow-vmsplice-child-unmap-mprotect/base-swap",
    "cow-ro-pin-shared",
    "cow-ro-pin-ro-exclusive/base-swap",
    "aa-odirect-softdirty",
    "aa-vfio-ro-swap/base-swap",
    "device-buffer-of-shared-page",
    "device-buffer-of-shared-page/vfio",
    "device-buffer-of-shared-page/odirect",
    "get-write-then-fork-child-exits",
    "pin-then-soft-dirty",
    "reclaim-of-shared-page",
    "read-only-is-refused/odirect",
    "torvalds-2021-counterexample",
    "zram-shared-by-fork/base-swap",
    "swap-in-remote-batch/base-swap",
)

HEAD = 'test t "{}"\nprocesses P C\npages a\n'
STEPS = "P: mmap a\nP: write a = 1\nP: fork C\nP: write a = 2\nC: x = read a\n"
PLAIN = HEAD + STEPS + "require x = 1\n"


def compiler_problem() -> str:
    try:
        find_compiler()
    except EnvironmentFailed as error:
        return error.message
    return ""


needs_compiler = pytest.mark.skipif(bool(compiler_problem()), reason=compiler_problem())
needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="for Linux only")


@cache
def programs(kernel: str = KERNEL) -> dict[str, tuple[Chosen, str]]:
    made = {}
    for chosen in library():
        try:
            made[chosen.id] = chosen, reproducer(chosen, choose(kernel))
        except NotSteerable:
            continue
    return made


def of(text: str, variant: str = "base", kernel: str = KERNEL) -> str:
    return reproducer(Chosen(parse(text, kernels=kernels.names()), variant), choose(kernel))


def build(text: str, folder: Path, name: str = "reproducer") -> Path:
    source, made = folder / f"{name}.c", folder / name
    source.write_text(text, encoding="ascii")
    command = [*find_compiler(), *FLAGS, "-o", str(made), str(source)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, ""), name
    return made


def says(program: Path) -> tuple[int, list[str]]:
    run = subprocess.run([program], capture_output=True, text=True, check=False, timeout=120)
    lines = run.stdout.splitlines()
    assert lines[0] == "KTAP version 1"
    return run.returncode, lines[1:]


_LINE = re.compile(r"(not )?ok (\d+) (.*?)(?: # SKIP (.*))?$")


def answers(lines: list[str]) -> dict[str, str]:
    """Each question with `kept`, `broken` or `skip`; nothing if the whole test was skipped."""
    found = {}
    for match in filter(None, map(_LINE.match, lines)):
        broken, _, question, skipped = match.groups()
        found[question] = "skip" if skipped else "broken" if broken else "kept"
    return found


def predicted(chosen: Chosen, kernel: str) -> dict[str, str]:
    """What the model says of the very steps that the program does."""
    test, _ = observable(chosen, choose(kernel))
    asked = Chosen(replace(test, questions=chosen.test.questions), "base")
    return {answer.ask: answer.verdict for answer in checker().check(asked, kernel).answers}


def agree(chosen: Chosen, lines: list[str], kernel: str) -> list[str]:
    """The questions on which the kernel and the model differ, and those that were not answered.

    What a race may break need not break in so few rounds.
    """
    if any(line.startswith("1..0 # SKIP ") for line in lines):
        return []
    seen = answers(lines)
    races = any(isinstance(item, Group) for item in chosen.test.body)
    return [
        f"{chosen.id}: {ask}: the kernel says {seen.get(ask)}, the model {verdict}: {lines}"
        for ask, verdict in predicted(chosen, kernel).items()
        if seen.get(ask) not in (verdict, "skip")
        and not (races and (seen.get(ask), verdict) == ("kept", "broken"))
    ]


def code(text: str) -> str:
    """A program without its first comment."""
    return text[text.index("*/") :]


# -- the text ------------------------------------------------------------------------------------


def test_every_steerable_test_of_the_library_becomes_a_short_program() -> None:
    made = programs()
    assert len(made) > 150
    for name, (_, text) in made.items():
        assert text.isascii(), name
        assert text.endswith("}\n"), name
        assert not re.search(r"[ \t]+$|\n\n\n", text, re.MULTILINE), name
        assert max(len(line.expandtabs(8)) for line in text.splitlines()) < 125, name
        if "edu_copy" not in text and "nbd_open" not in text:
            assert text.count("\n") < LINES, name


def test_the_same_test_gives_the_same_text() -> None:
    chosen, text = programs()["cow-vmsplice-child-unmap"]
    assert reproducer(chosen, choose(KERNEL)) == text


def test_each_step_stands_as_a_comment_above_its_call() -> None:
    _, text = programs()["cow-vmsplice-child-unmap"]
    steps = re.findall(r"at\((\d+)\); /\* ([PC]: .*) \*/\n\t([\w*]+)", text)
    assert sorted((int(turn), step, call) for turn, step, call in steps) == [
        (1, "P: mmap a", "need"),
        (2, "P: write a = 1", "*a"),
        (3, "P: fork C", "start"),
        (4, "C: before = read a", "shared"),
        (5, "C: r = vmsplice a", "need"),
        (6, "C: munmap a", "need"),
        (7, "P: write a = 0xff", "*a"),
        (8, "C: after = read_ref r", "need"),
    ]


def test_claims_about_kernels_that_shipped_stand_in_the_first_comment() -> None:
    _, text = programs()["cow-vmsplice-child-unmap/base-swap"]
    assert " *      broken on linux-5.10: do_swap_page() in 5.10.223" in text
    assert "unshare-2021" not in text


def test_only_what_is_used_is_printed() -> None:
    _, text = programs()["cow-basic-fork"]
    for unused in ("pipe2", "io_uring", "pagemap", "sigsetjmp", "cgroup", "pthread"):
        assert unused not in text


def test_a_raw_pin_is_taken_by_the_call_with_its_flags() -> None:
    text = of(HEAD + "P: mmap a\nP: r = pin a write longterm\nP: x = read_ref r\nrequire x = 0\n")
    assert "/* P: r = pin a write longterm: by io_uring_register, which uses" in text
    assert "IORING_REGISTER_BUFFERS" in text


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ("P: mmap a\nP: r = rdma_register a\n", "needs an RDMA device"),
        ("P: mmap a\nP: maybe write a = 1\n", "several programs"),
        ("P: mmap a\nP: r = odirect_read a\nP: x = read_ref r\n", "does not load"),
    ],
)
def test_what_user_space_cannot_do_is_refused_with_the_reason(steps: str, why: str) -> None:
    with pytest.raises(NotSteerable, match=why):
        of(HEAD + "P: fork C\n" + steps)


# -- hostile texts -------------------------------------------------------------------------------

HOSTILE = st.text(
    st.one_of(st.sampled_from('*/\\?"%{}#\n\t '), st.characters(exclude_categories=["Cs"])),
    max_size=300,
)


@given(HOSTILE)
@settings(max_examples=200, deadline=None)
def test_harmless_text_cannot_end_a_comment(text: str) -> None:
    safe = harmless(text)
    assert safe.isascii()
    assert safe.isprintable()
    for bad in ("*/", "/*", "??", "\\", "\n"):
        assert bad not in safe


@given(HOSTILE, HOSTILE, HOSTILE)
@settings(max_examples=60, deadline=None)
def test_title_note_and_source_stay_in_the_first_comment(
    title: str, note: str, source: str
) -> None:
    plain = parse(PLAIN, kernels=kernels.names())
    hostile = replace(plain, title=title, notes=(note,), sources=(source,))
    text = reproducer(Chosen(hostile, "base"), choose(KERNEL))
    assert code(text) == code(reproducer(Chosen(plain, "base"), choose(KERNEL)))
    comment = text[: text.index("*/")]
    assert comment.isascii()
    assert comment.count("/*") == 1
    assert all(line.startswith((" *", "/")) for line in comment.splitlines()[:-1])


CLASHING = """test names "{{{{ 7 * 7 }}}} %s {{% raw %}} */ int main(void) {{}} /* ??/"
processes NULL EOF FILE
threads T1 CPU_SET of NULL
pages errno int at do y0 if linux sizeof
NULL: mmap errno
NULL: mmap int
NULL: mmap at
NULL: mmap do
NULL: mmap y0
NULL: write errno = 1
NULL: write at = 2
NULL: write do = 3
NULL: main = vmsplice errno
NULL: fork EOF
NULL: shared = mprotect errno r
EOF: unix = read at
CPU_SET: static = read do
concurrent by operation {{
  NULL: write int = 1
  T1: write y0 = 2
  EOF: signal = read errno
}}
EOF: stdin = read_ref main
FILE: pagesize = process_vm_readv NULL.do
EOF: return = read linux
require stdin = 1 and unix = 2 and static = 3 and return = fault and shared = ok
"""


@needs_compiler
@needs_linux
def test_names_of_c_and_its_library_do_no_harm(tmp_path: Path) -> None:
    status, lines = says(build(of(CLASHING.format()), tmp_path))
    assert status == 0, lines
    assert lines[-1].startswith("ok 1 require stdin = 1")


# -- what promises become ------------------------------------------------------------------------


def derived(chosen: Chosen, kernel: str) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """For each promise that can be seen: its verdict, that of the check, and all that is broken."""
    test, lines = observable(chosen, choose(kernel))
    pairs = [
        (question, line)
        for question, line in zip(chosen.test.questions, lines, strict=True)
        if isinstance(question, Keeps) and line.good is not None
    ]
    if not pairs:
        return []

    def verdict(questions: list[Question]) -> tuple[list[str], tuple[str, ...]]:
        asked = Chosen(replace(test, questions=tuple(questions)), "base")
        found = checker().check(asked, kernel)
        return [answer.verdict for answer in found.answers], (*found.promises, *found.also)

    checks = [Outcome("require", line.good) for _, line in pairs if line.good is not None]
    promises, broken = verdict([question for question, _ in pairs])
    seen, _ = verdict(list(checks))
    return [
        (f"{chosen.id}: {question.promise}", kept, shown, broken)
        for (question, _), kept, shown in zip(pairs, promises, seen, strict=True)
    ]


@pytest.mark.parametrize("kernel", kernels.names())
def test_the_checks_of_promises_have_the_verdicts_of_the_promises(kernel: str) -> None:
    found = []
    for chosen in library():
        try:
            found += derived(chosen, kernel)
        except NotSteerable:
            continue
    assert len(found) > 40
    assert [case for case in found if case[1] != case[2]] == []


@pytest.mark.parametrize("kernel", ["linux-4.19", "linux-5.8", "linux-6.1", "linux-7.3"])
def test_a_check_of_random_programs_fails_only_if_something_is_broken(kernel: str) -> None:
    unfit = {*WITHOUT_REPRODUCER, *choose(kernel).absent()}
    verbs = [verb for verb in steerable_verbs(lambda probe: None) if verb not in unfit]
    questions = tuple(Keeps(p) for p in ("private", "own-writes", "pin-coherent", "get-fork"))
    seen = 0
    for seed in range(100):
        test = random_test(seed, 8 + seed % 12, verbs, "disk")
        try:
            cases = derived(Chosen(replace(test, questions=questions), "base"), kernel)
        except NotSteerable:
            continue
        seen += len(cases)
        assert [case for case in cases if case[2] == "broken" and not case[3]] == []
    assert seen > 10


def test_a_vmsplice_reader_must_not_see_a_later_store_of_another_process() -> None:
    text = of(
        HEAD + "P: mmap a\nP: write a = 1\nP: fork C\nC: r = vmsplice a\nC: munmap a\n"
        "P: write a = 2\nkeeps private\n"
    )
    assert "/* In the end: C: end_r = read_ref r */" in text
    assert 'report(1, shared->r_end_r != 2, "keeps private");' in text


def test_what_cannot_be_seen_is_a_skip() -> None:
    text = of(HEAD + STEPS + "keeps counts\nkeeps pin-coherent\n")
    assert 'puts("ok 1 keeps counts # SKIP user space cannot see reference counts");' in text
    assert "ok 2 keeps pin-coherent # SKIP nothing that the processes read" in text
    assert "KSFT_FAIL : KSFT_SKIP;" in text


# -- compiled and run ----------------------------------------------------------------------------


@needs_compiler
@needs_linux
@pytest.mark.parametrize("name", sorted(programs()) if ALL else SAMPLE)
def test_compiles_without_a_warning_and_agrees_with_the_model(name: str, tmp_path: Path) -> None:
    chosen, text = programs()[name]
    status, lines = says(build(text, tmp_path))
    assert status in (0, 1, 4), lines
    if any(line.startswith("1..0 # SKIP ") for line in lines):
        assert status == 4
        pytest.skip(lines[-1])
    found = answers(lines)
    want = 1 if "broken" in found.values() else 0 if "kept" in found.values() else 4
    assert status == want
    if os.uname().release.startswith("6.18."):
        assert agree(chosen, lines, KERNEL) == []


@needs_compiler
def test_clang_has_no_warning_either(tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.skip("no clang")
    for name in SAMPLE:
        (tmp_path / "r.c").write_text(programs()[name][1], encoding="ascii")
        command = ["clang", "-fsyntax-only", *FLAGS[:-2], str(tmp_path / "r.c")]
        subprocess.run(command, check=True)


@needs_compiler
@needs_linux
def test_a_broken_question_is_not_ok(tmp_path: Path) -> None:
    text = of(HEAD + STEPS + "require x = 2\nforbid x = 1\nallow x = 1\nkeeps private\n")
    status, lines = says(build(text, tmp_path))
    assert status == 1
    assert lines == [
        "1..4",
        "# x = 1",
        "not ok 1 require x = 2",
        "not ok 2 forbid x = 1",
        "ok 3 allow x = 1",
        "ok 4 keeps private",
    ]


@needs_compiler
@needs_linux
def test_a_concurrent_test_prints_a_histogram(tmp_path: Path) -> None:
    text = of(
        HEAD.replace("P C", "P C\nthreads T of P") + "P: mmap a\nP: fork C\nconcurrent by operation"
        " {\n  P: write a = 1\n  T: write a = 2\n  C: exit\n}\nP: x = read a\n"
        "forbid x = 0\nallow x = 3\nkeeps own-writes\n"
    )
    status, lines = says(build(text, tmp_path))
    counts = [re.fullmatch(r"# (\d+) times x = [12]", line) for line in lines[1:-3]]
    assert status == 0
    assert 0 < sum(int(match[1]) for match in counts if match) <= 1000
    assert lines[-3:] == [
        "ok 1 forbid x = 0",
        "ok 2 allow x = 3 # SKIP not seen",
        "ok 3 keeps own-writes",
    ]


@needs_compiler
@needs_linux
def test_what_does_not_return_is_killed_and_named(tmp_path: Path) -> None:
    text = of(PLAIN).replace("SECONDS = 30", "SECONDS = 1").replace("*a = 2;", "pause();")
    status, lines = says(build(text, tmp_path))
    assert (status, lines) == (1, ["Bail out! A process was killed by signal 14 in step 4"])


@needs_compiler
@needs_linux
def test_nothing_is_left_running(tmp_path: Path) -> None:
    text = of(PLAIN).replace("*a = 2;", 'skip("this: is missing");')
    program = build(text, tmp_path, "leaves-nothing-behind")
    assert says(program) == (4, ["1..0 # SKIP this: is missing"])
    left = subprocess.run(["ps", "-eo", "comm"], capture_output=True, text=True, check=False)
    assert "leaves-nothing" not in left.stdout


# -- the command ---------------------------------------------------------------------------------


def run(test: str, *, kernel: str | None = None, output: Path | None = None) -> tuple[int, str]:
    said = io.StringIO()
    with redirect_stdout(said):
        status = main(Namespace(test=test, variant=None, kernel=kernel, output=output))
    return status, said.getvalue()


def test_prints_the_program_or_writes_it_to_a_file(tmp_path: Path) -> None:
    status, text = run("cow-vmsplice-child-unmap", kernel=KERNEL)
    assert (status, text) == (0, programs()["cow-vmsplice-child-unmap"][1])
    assert run("cow-vmsplice-child-unmap", kernel=KERNEL, output=tmp_path / "r.c") == (0, "")
    assert (tmp_path / "r.c").read_text() == text


def test_the_newest_kernel_is_the_default() -> None:
    assert f"--kernel {default_kernel()}\n" in run("cow-basic-fork")[1]
    assert default_kernel() in kernels.names()


def test_a_test_without_levers_is_one_line_and_exit_code_3(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("zerocopy-send-child")[0] == 3
    said = capsys.readouterr().err
    assert said.startswith("pageherd: zerocopy-send-child has no reproducer: send_zerocopy: ")
    assert said.count("\n") == 1


# -- in QEMU -------------------------------------------------------------------------------------

GUEST = """#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int error = fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;

	close(fd);
	return error;
}

#include "swap.h"

/* Standard input: for each program a line "NAME SWAP SIZE" and so many bytes. */
int main(void)
{
	char line[512], name[256], device[128];
	size_t size;

	while (fgets(line, sizeof(line), stdin) &&
		sscanf(line, "%255s %127s %zu", name, device, &size) == 3) {
		int fd = open("/reproducer", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700), status;
		char *bytes = malloc(size);

		if (fread(bytes, 1, size, stdin) != size || write(fd, bytes, size) != (ssize_t)size)
			return 4;
		close(fd);
		free(bytes);
		if (swap_start(device))
			return 4;
		printf("begin %s\\n", name);
		fflush(stdout);
		if (fork() == 0) {
			execl("/reproducer", "/reproducer", NULL);
			_exit(127);
		}
		wait(&status);
		printf("end %s %d\\n", name, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
		fflush(stdout);
		unlink("/reproducer");
	}
	return 0;
}
"""
BATCH = 60  # programs that one guest has memory for


def in_guest(image: images.Image, made: list[tuple[Chosen, Path]]) -> dict[str, list[str]]:
    """What the programs print under a kernel in QEMU, by id."""
    folder = made[0][1].parent
    (folder / "guest.c").write_text(GUEST, encoding="ascii")
    shutil.copy(SOURCES / "swap.h", folder)
    runner = compile_static(folder / "guest.c")
    printed: dict[str, list[str]] = {}
    for first in range(0, len(made), BATCH):
        batch = made[first : first + BATCH]
        sent = b""
        for number, (chosen, program) in enumerate(batch):
            device = Vm.DEVICES.get(chosen.test.swap.kind, "none")
            data = program.read_bytes()
            sent += f"{first + number} {device} {len(data)}\n".encode() + data
        lines: list[str] = []
        result = vm.run(image, runner, programs=sent, on_line=lines.append, cpus=2, memory_mib=768)
        assert (result.status, result.exit_status) == ("done", 0), result.reason
        for line in lines:
            word, _, rest = line.partition(" ")
            if word == "begin":
                current = printed.setdefault(made[int(rest)][0].id, [])
            elif word != "end":
                current.append(line)
    return printed


@pytest.mark.vm
@needs_compiler
@pytest.mark.parametrize("series", ["5.10", "6.1", "6.12", "7.3"])
def test_agrees_with_the_model_on_kernels_in_qemu(series: str, tmp_path: Path) -> None:
    image = images.cached(f"debian-{series}")
    if image is None:
        pytest.skip(f"no image of debian-{series}")
    kernel = f"linux-{series}"
    chosen = [one for name, one in programs(kernel).items() if ALL or name in IN_GUEST]
    with ThreadPoolExecutor() as workers:
        paths = workers.map(
            lambda numbered: build(numbered[1][1], tmp_path, f"r{numbered[0]}"), enumerate(chosen)
        )
        made = [(one, path) for (one, _), path in zip(chosen, paths, strict=True)]
    printed = in_guest(image, made)
    assert len(printed) == len(made)
    assert [line for one, _ in made for line in agree(one, printed[one.id], kernel)] == []
    skipped = [name for name, lines in printed.items() if "1..0 # SKIP" in "\n".join(lines)]
    assert skipped == []
