"""The command line as scripts and people meet it: output, JSON, exit codes, errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pageherd.cli.main import main, worst

CVE = "cow-vmsplice-child-unmap"
BAD = "test t\nprocesses P\npages a\nP: wite a = 1\n"
GOOD = "test mine\nprocesses P C\npages a\nP: mmap a\nP: write a = 1\nP: fork C\nC: x = read a\n"


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "mine.litmus"
    path.write_text(GOOD + "\nforbid x = 2\n")
    return path


def test_run_names_the_broken_promise_in_the_cell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", CVE, "-k", "linux-4.19", "-k", "linux-6.1"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(CVE))
    assert row.split() == [CVE, "private", "kept"]


def test_run_json_has_the_fields_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", f"{CVE}/base-swap", "--kernel", "linux-5.10", "--json"]) == 0
    (found,) = lines(capsys)
    contract = "test kernel verdict promises also questions outcomes states transitions seconds"
    assert set(contract.split()) | {"expected", "agrees"} <= set(found)
    assert found["test"] == f"{CVE}/base-swap"
    assert (found["verdict"], found["promises"], found["agrees"]) == ("broken", ["private"], True)
    for question in found["questions"]:  # type: ignore[attr-defined]
        assert set(question) == {"ask", "verdict", "expected"}


def test_a_file_runs_all_its_variants(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(good), "--kernel", "linux-6.1", "--json"]) == 0
    (found,) = lines(capsys)
    assert (found["test"], found["agrees"], found["expected"]) == ("mine", None, None)


def test_broken_without_a_claim_is_found(tmp_path: Path) -> None:
    path = tmp_path / "t.litmus"
    path.write_text(GOOD + "\nrequire x = 2\n")
    assert main(["run", str(path), "-k", "linux-6.1"]) == 1


def test_a_claim_that_is_wrong_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.litmus"
    path.write_text(GOOD + "\nforbid x = 2\n  broken on linux-6.1\n")
    assert main(["run", str(path), "-k", "linux-6.1", "-k", "linux-5.10"]) == 1
    assert "expected broken, is kept" in capsys.readouterr().out


def test_a_bound_that_is_hit_is_undetermined(good: Path) -> None:
    assert main(["run", str(good), "-k", "linux-6.1", "--max-states", "2"]) == 3


def test_explain_shows_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    main(["explain", CVE, "--kernel", "linux-4.19"])
    out = capsys.readouterr().out
    assert "P: write a = 0xff" in out
    assert "rule reuse=by-mapcount: reuse" in out
    assert "private is broken here" in out


def test_explain_says_where_a_race_has_no_end_any_more(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "circle.litmus"
    path.write_text(
        "test circle\nprocesses P\nthreads T of P\npages a b\nhuge h = a b\n\nP: mmap_file h\n"
        "P: hugepage h\nP: write b = 1\n"
        "concurrent by step {\n  P: r = pin a longterm\n  T: mmap_file h\n}\n\nkeeps progress\n"
    )
    main(["explain", str(path), "--kernel", "linux-7.3"])
    told = capsys.readouterr().out.splitlines()
    assert told[-2].strip() == "from here no order comes to an end: progress is broken"


def test_explain_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["explain", CVE, "--kernel", "linux-4.19", "--json"])
    (found,) = lines(capsys)
    broke = [op["operation"] for op in found["trace"] if op["broke"]]  # type: ignore[attr-defined]
    assert broke == ["P: write a = 0xff"]


@pytest.mark.parametrize("verb", ["kernels", "tests", "promises"])
def test_lists(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb]) == 0
    assert capsys.readouterr().out.strip()
    assert main([verb, "--json"]) == 0
    assert lines(capsys)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["kernels", "linux-6.1"], ["reuse", "by-exclusive", "do_wp_page"]),
        (["kernels", "linux-6.1:reuse=by-mapcount"], ["by-mapcount"]),
        (["tests", CVE], ["C: r = vmsplice a", "hash"]),
        (["promises", "private"], ["store by process A"]),
    ],
)
def test_one_of_a_list(
    argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in words)


def test_fmt_rewrites_and_checks(good: Path) -> None:
    assert main(["fmt", "--check", str(good)]) == 1
    assert main(["fmt", str(good)]) == 0
    assert main(["fmt", "--check", str(good)]) == 0
    assert [p.name for p in good.parent.iterdir()] == ["mine.litmus"]


def test_fmt_changes_nothing_if_one_file_is_bad(good: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.litmus"
    bad.write_text(BAD)
    before = good.read_text()
    assert main(["fmt", str(good), str(bad)]) == 2
    assert good.read_text() == before


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["run", "cow-vmsplice-child-unmpa"], "cow-vmsplice-child-unmap"),
        (["run", CVE, "-k", "linux-6.2"], "linux-6.1"),
        (["run", CVE, "-k", "linux-6.1:reuse=by-mapcuont"], "by-mapcount"),
        (["run", CVE, "-k", "linux-6.1:resue=by-mapcount"], "reuse"),
        (["run", CVE, "-k", "linux-6.1:reuse"], "decision=alternative"),
        (["run", CVE, "-k", "no-such.py"], "no such file"),
        (["run", "no-such.litmus"], "no-such.litmus"),
        (["promises", "privat"], "private"),
        (["explain", CVE, "-k", "linux-4.19", "--variant", "x"], "base-swap"),
        (["kernels", "linux"], "no kernel"),
        (["tests", "x/y/z"], "no test"),
    ],
)
def test_bad_input_is_one_message(
    argv: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    streams = capsys.readouterr()
    assert hint in streams.err
    assert "Traceback" not in streams.err
    assert streams.err.startswith("pageherd: ")


@pytest.mark.parametrize("argv", [[], ["walk"], ["run", "--max-states", "0"], ["explain", "x"]])
def test_usage_errors(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_mistake_in_a_file_has_a_place(tmp_path: Path) -> None:
    path = tmp_path / "t.litmus"
    path.write_text(BAD)
    run = subprocess.run(
        [sys.executable, "-m", "pageherd", "run", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert f"{path}:4:4: " in run.stderr
    assert "did you mean 'write'?" in run.stderr


def test_the_worst_exit_code() -> None:
    assert worst([0, 3, 1]) == 1
    assert worst([1, 3, 4]) == 4
    assert worst([4, 2]) == 2
    assert worst([3, 0]) == 3
    assert worst([]) == 0


def test_a_closed_pipe_is_no_error() -> None:
    run = subprocess.run(
        f"{sys.executable} -m pageherd tests | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0
    assert run.stderr == ""


def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    """Interrupted while compiling: one line, no traceback."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    run = subprocess.Popen(
        [sys.executable, "-m", "pageherd", "run", CVE],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    time.sleep(4)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert err.splitlines()[-1] == "pageherd: interrupted"


def test_an_interrupt_in_a_destructor_comes_again() -> None:
    """Python can only report what a destructor raises, and goes on."""
    code = """
import gc, os, signal, time
from pageherd.cli import main
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
def run(arguments):
    Last()
    time.sleep(10)
main._run = run
raise SystemExit(main.main(["tests"]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stderr) == (130, "pageherd: interrupted\n")


def test_what_was_started_with_ctrl_c_ignored_is_not_ended_by_it() -> None:
    """A shell without job control starts `pageherd hunt ... &` so."""
    code = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from pageherd.cli import main
main._run = lambda arguments: os.kill(os.getpid(), signal.SIGINT) or 0
raise SystemExit(main.main(["tests"]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom pageherd.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numba', 'numpy', 'rich', 'lark'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_an_unwritable_cache_costs_only_time() -> None:
    """Nothing is written beside the sources, where compiled code would grow stale.

    One step is compiled, which stands for all of them.
    """
    environment = {**os.environ, "XDG_CACHE_HOME": "/proc/self"}
    command = [sys.executable, "-m", "pageherd", "run", "cow-basic-fork", "-k", "linux-6.1"]
    plain = {**environment, "NUMBA_DISABLE_JIT": "1"}
    subprocess.run(command, capture_output=True, env=plain, check=True)
    program = (
        "from pageherd.machine import steps, zap\n"
        "from pageherd.machine.jit import STEPS, step_address\n"
        "from pageherd.machine.layout import TEST\n"
        "assert step_address(STEPS[steps.ZAP_END], TEST)\n"
    )
    compiled = {**environment, "NUMBA_DISABLE_JIT": ""}
    subprocess.run([sys.executable, "-c", program], capture_output=True, env=compiled, check=True)
    package = Path(sys.modules["pageherd"].__file__ or "").parent
    assert not list(package.rglob("*.nbi"))
