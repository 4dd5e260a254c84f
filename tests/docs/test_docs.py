"""What README.md and docs/ show is what happens.

A fenced block whose first line says `file=NAME` is written to NAME, and stands unchanged in
docs/examples.  In a ```console block, lines that begin with `$ pageherd` are run and what they
print is compared, `...` standing for anything.  A ```python block is a doctest if it has prompts;
otherwise it is run.  The blocks of a page share a folder and run in order.
"""

from __future__ import annotations

import doctest
import importlib.util
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from pageherd.cli import main as cli
from pageherd.promises.table import PROMISES
from pageherd.rules import kernels
from pageherd.search.check import Checker, find_one

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COLUMNS = 100  # as wide as the output that the pages show
_FENCE = re.compile(r"(?ms)^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$")
_SAME = doctest.OutputChecker()
_FLAGS = doctest.ELLIPSIS


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    file: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        language, *rest = match["info"].split() or [""]
        file = next((w.removeprefix("file=") for w in rest if w.startswith("file=")), None)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page.name, line, language, file, match["text"]))
    return found


def said(output: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in output.rstrip().splitlines())


def run_console(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    for part in re.split(r"(?m)^\$ ", block.text)[1:]:
        command, _, wanted = part.partition("\n")
        command, echo, _ = command.partition("; echo $?")
        program, *arguments = shlex.split(command, comments=True)
        assert program == "pageherd", f"{block.page}:{block.line}: only pageherd is run here"
        try:
            code = cli.main(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 2
        captured = capsys.readouterr()
        got = said(captured.out + captured.err) + (f"{code}\n" if echo else "")
        if not _SAME.check_output(said(wanted), got, _FLAGS):
            pytest.fail(f"{block.page}:{block.line}: $ {command}\nprinted\n{got}")


def run_python(block: Block, names: dict[str, object]) -> None:
    where = f"{block.page}:{block.line}"
    if ">>> " not in block.text:
        exec(compile(block.text, where, "exec"), names)
        return
    test = doctest.DocTestParser().get_doctest(block.text, names, where, block.page, block.line)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=_FLAGS)
    runner.run(test, out=report.append, clear_globs=False)
    names.update(test.globs)
    assert not runner.failures, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_is_what_happens(
    page: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pageherd.cli.output.WIDE", COLUMNS)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.file is not None:
            assert block.text == (EXAMPLES / block.file).read_text(encoding="utf-8")
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            run_console(block, capsys)
        elif block.language == "python":
            run_python(block, names)


def test_every_example_is_shown_somewhere() -> None:
    shown = {block.file for page in PAGES for block in blocks(page)}
    assert {path.name for path in EXAMPLES.iterdir()} == shown - {None}


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "scripts" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_are_up_to_date(page: Path, tables: ModuleType) -> None:
    text = page.read_text(encoding="utf-8")
    assert tables.up_to_date(text) == text, "run: python scripts/tables.py --write"


def breakers() -> list[tuple[str, str, str]]:
    """(promise, test, kernel) of every line `Broken by` in the page about promises."""
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    found = []
    for part in re.split(r"(?m)^## ", text)[1:]:
        name = part.partition("\n")[0].strip()
        for test, kernel in re.findall(r"(?m)^Broken by `([^`]+)` on `([^`]+)`", part):
            found.append((name, test, kernel))
    return found


@pytest.mark.parametrize(("promise", "test", "kernel"), breakers())
def test_the_examples_break_their_promise(promise: str, test: str, kernel: str) -> None:
    assert promise in Checker().check(find_one(test), kernel).exploration.broken


def test_every_promise_has_its_section() -> None:
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    heads = re.findall(r"(?m)^## (\S+)$", text)
    assert [head for head in heads if head in {p.name for p in PROMISES}] == [
        p.name for p in PROMISES
    ]


def anchors(text: str) -> set[str]:
    heads = re.findall(r"(?m)^#+ (.+)$", _FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", text)):
        if target.startswith(("https:", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), target


def test_kernels_that_are_named_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"`(linux-[0-9][0-9.y]*)`", page.read_text(encoding="utf-8")):
            assert name in kernels.names(), f"{page.name}: {name}"
