"""`pageherd doctor`: what is there, what is missing and its cure, whatever the machine lacks."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from pageherd.cli.main import main
from pageherd.real import host_swap
from pageherd.real.doctor import can_run, examine


def findings(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    code = main(["doctor", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all({"what", "ok", "detail", "cure"} <= set(line) for line in lines)
    return code, {line["what"]: line for line in lines}


def test_every_missing_thing_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = findings(capsys)
    assert code == (0 if can_run(list(examine())) else 4)
    assert {"cache", "C compiler", "QEMU", "Debian's keys", "debian-6.1", "release"} <= set(found)
    for line in found.values():
        assert line["detail"]
        assert "\n" not in line["cure"]
        assert not (line["ok"] and line["cure"])
    assert os.uname().release in found["release"]["detail"]


def test_without_a_compiler_nothing_real_can_be_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    code, found = findings(capsys)
    assert code == 4
    assert not found["C compiler"]["ok"]
    assert "apt install gcc libc6-dev" in found["C compiler"]["cure"]
    assert not found["runner"]["ok"]


def test_without_qemu_the_host_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAGEHERD_QEMU", "no-such-qemu")
    code, found = findings(capsys)
    assert "apt install qemu-system-x86" in found["QEMU"]["cure"]
    if found["C compiler"]["ok"] and found["runner"]["ok"]:
        assert code == 0


def test_the_table_says_what_helps(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    out = capsys.readouterr().out
    assert "real kernels\n" in out
    assert out.rstrip().endswith("the model needs none of this")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may turn swap on")
def test_swap_that_another_run_has_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    with host_swap.swap_devices():
        _, found = findings(capsys)
    assert found.get("swap", {"ok": False})["ok"] is False
    assert "another run uses" in found["swap"]["detail"]
