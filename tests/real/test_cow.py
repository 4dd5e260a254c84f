"""scripts/cow.py: the output of the kernel's selftest beside the model, without a kernel."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from pageherd.real import cow

SCRIPT = Path(__file__).parents[2] / "scripts" / "cow.py"

# As selftests of 6.12 print it: the name first, then the result with a reason.
AGREES = """\
TAP version 13
# [INFO] detected hugetlb page size: 2048 KiB
1..9
# [RUN] Basic COW after fork() ... with base page
ok 1 No leak from parent into child
# [RUN] Basic COW after fork() ... with swapped out base page
ok 2 # SKIP MADV_PAGEOUT did not work, is swap enabled?
# [RUN] vmsplice() + unmap in child ... with hugetlb (2048 kB)
ok 3 # XFAIL Leak from parent into child
# [RUN] fork() with an iouring fixed buffer ... with PTE-mapped THP (64 kB)
ok 4 Longterm R/W pin is reliable
# [RUN] Basic COW after fork() when collapsing before fork()
ok 5 No leak from parent into child
# [RUN] Basic COW ... with tmpfile
ok 6 Other mapping not modified
# [RUN] Basic COW ... with huge zeropage
ok 7 Other mapping not modified
# [RUN] R/O longterm GUP pin ... with memfd hugetlb (2048 kB)
ok 8 Longterm R/O pin is reliable
# [RUN] A test of a later kernel ... with base page
ok 9 No leak
# Totals: pass:7 fail:0 xfail:1 xpass:0 skip:1 error:0
"""

# As those of 7.3 print it, in the output of a harness: the reason first, the name in the result.
DISAGREES = """\
# TAP version 13
# 1..4
# # [RUN] vmsplice() + unmap in child ... with base page
# # Leak from parent into child
# not ok 1 vmsplice() + unmap in child ... with base page
# # [RUN] Basic COW after fork() ... with swapped out base page
# # MADV_PAGEOUT did not work, is swap enabled?
# ok 2 # SKIP Basic COW after fork() ... with swapped out base page
# # [RUN] vmsplice() + unmap in child ... with hugetlb (2048 kB)
# ok 3 vmsplice() + unmap in child ... with hugetlb (2048 kB)
# # [RUN] vmsplice() before fork(), unmap in parent after fork() ... with base page
# ok 4 vmsplice() before fork(), unmap in parent after fork() ... with base page
"""

BROKEN_STEP = """\
1..1
# [RUN] Basic COW after fork() ... with base page
# fork() failed: Cannot allocate memory (12)
not ok 1 Basic COW after fork() ... with base page
"""


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("cow_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save(folder: Path, text: str) -> str:
    file = folder / "cow.tap"
    file.write_text(text, encoding="utf-8")
    return str(file)


def relations(text: str, kernel: str) -> list[str]:
    lines = cow.read_tap(text.splitlines()).lines
    return [one.relation for one in cow.Comparison(kernel).compare(lines)]


def test_an_output_that_agrees(script: Any, tmp_path: Path, capsys: Any) -> None:
    assert script.main([save(tmp_path, AGREES), "--release", "6.12.117-cloud"]) == 0
    out = capsys.readouterr().out
    assert "9 lines: 7 agree, 1 skipped, 1 no counterpart" in out
    assert "skipped 1: MADV_PAGEOUT did not work" in out


def test_an_output_that_disagrees(script: Any, tmp_path: Path, capsys: Any) -> None:
    file = save(tmp_path, DISAGREES)
    assert script.main([file, "--kernel", "linux-7.3", "--json"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["test"], one["result"], one["predicted"], one["relation"]) for one in found] == [
        ("cow-vmsplice-child-unmap", "fail", "kept", "DISAGREE"),
        ("cow-basic-fork/base-swap", "skip", "kept", "skipped"),
        ("cow-vmsplice-child-unmap/hugetlb", "pass", "broken", "DISAGREE"),
        ("cow-vmsplice-before-fork", "pass", "kept", "agree"),
    ]
    assert found[1]["reason"] == "MADV_PAGEOUT did not work, is swap enabled?"


def test_the_kernel_decides() -> None:
    assert relations(DISAGREES, "linux-4.19") == ["agree", "skipped", "DISAGREE", "DISAGREE"]


def test_a_step_that_failed_is_no_breach(script: Any, tmp_path: Path, capsys: Any) -> None:
    assert relations(BROKEN_STEP, "linux-6.12") == ["error"]
    assert script.main([save(tmp_path, BROKEN_STEP), "--release", "6.12"]) == 4
    assert "fork() failed" in capsys.readouterr().out


def test_an_output_that_ends_early(script: Any, tmp_path: Path, capsys: Any) -> None:
    cut = "\n".join(AGREES.splitlines()[:6])
    assert script.main([save(tmp_path, cut), "--release", "6.12"]) == 4
    assert "1 of 9 lines" in capsys.readouterr().err


def test_nothing_to_compare(script: Any, tmp_path: Path) -> None:
    assert script.main([save(tmp_path, "ok 1 # SKIP no memory\n"), "--release", "6.12"]) == 3


@pytest.mark.parametrize("text", ["", "hello\n", "\x7fEL"])
def test_what_is_no_output(script: Any, tmp_path: Path, capsys: Any, text: str) -> None:
    assert script.main([save(tmp_path, text), "--release", "6.12"]) == 2
    assert "no line of TAP" in capsys.readouterr().err


def test_a_saved_output_needs_its_kernel(script: Any, tmp_path: Path, capsys: Any) -> None:
    assert script.main([save(tmp_path, AGREES)]) == 2
    assert "--release" in capsys.readouterr().err


def test_a_program_that_cannot_run(script: Any, tmp_path: Path) -> None:
    file = tmp_path / "cow"
    file.write_bytes(b"\x7fELF and no more")
    file.chmod(0o755)
    assert script.main([str(file)]) == 4


def test_every_named_page_is_in_the_library() -> None:
    """A name of a variant that no test has would hide lines."""
    known = {name for test in cow.counterparts().values() for name in test.variant_names}
    wanted = {name for names in cow.VARIANTS.values() for name in names}
    assert wanted <= known


def test_every_test_of_the_selftest_is_found() -> None:
    assert len(cow.counterparts()) == 14 + 4 + 3
