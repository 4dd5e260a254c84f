"""Every mistake gives one message, at the right place, in plain words."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from pageherd.errors import LitmusError, PageherdError
from pageherd.litmus import limits, parse, parse_file

KERNELS = ("linux-4.19", "linux-5.8", "linux-5.10", "linux-6.1", "three-state")

# Short heads, so that the line of a mistake is easy to tell: what follows is line 4.
HEAD = "test t\nprocesses P C\npages a b\n"
FORK = HEAD + "P: fork C\n"  # line 5
VALUE = HEAD + "P: x = read a\n"  # line 5
TAKEN = HEAD + "P: r = vmsplice a\n"  # line 5
ASKED = HEAD + "P: x = read a\nkeeps private\n"  # line 6
BLOCK = HEAD + "variant base {\n  P: read a\n"  # line 6
VARIANTS = HEAD + "variant u {\n}\nvariant v {\n}\nprepare\nP: read a\n"  # line 10


def many(count: int, form: str) -> str:
    return "".join(form.format(n) for n in range(count))


MISTAKES = [
    # the shape of the file
    ("", "1:1", "there is no test in this file"),
    ("# only a comment\n", "1:17", "there is no test in this file"),
    ("tst t\n", "1:1", "did you mean 'test'?"),
    ("processes P\n", "1:1", "a file begins with the line 'test'"),
    ("test\n", "1:5", "a name or number is expected here, but the line ends"),
    (HEAD + "test u\n", "4:1", "one file holds one test"),
    (HEAD, "1:6", "no steps"),
    (HEAD + "variant base {\n}\nprepare\n", "1:6", "no steps in variant 'base'"),
    ("test t\nP: fork C\n", "1:6", "no process is declared"),
    (HEAD + "forbd x = 1\n", "4:1", "did you mean 'forbid'?"),
    (HEAD + "shlf x\n", "4:1", "did you mean 'shelf'?"),
    (HEAD + "frobnicate x\n", "4:1", "no directive named 'frobnicate'"),
    (VALUE + "shelf x\n", "5:1", "'shelf' belongs in the head of the test"),
    (VALUE + "variant base {\n}\n", "5:1", "variants stand before the first step"),
    (VALUE + "kept everywhere\n", "5:1", "'kept' is a claim and stands under a question"),
    (ASKED + "P: read a\n", "6:1", "steps stand before the questions"),
    (ASKED + "prepare\n", "6:1", "steps stand before the questions"),
    (BLOCK, "5:12", "the file ends inside a block"),
    (BLOCK + "forbid x = 1\n", "6:1", "a block is not closed before this line"),
    (BLOCK + "  prepare\n}\n", "6:3", "'prepare' cannot stand inside a block"),
    (HEAD + "variant base\n", "4:13", "the '{' is missing"),
    (HEAD + "variant base { P: read a }\n", "4:16", "the steps of a block stand on lines of their"),
    (BLOCK + "} P: read a\n", "6:3", "nothing else stands on the line of '}'"),
    (HEAD + "}\n", "4:1", "this '}' closes nothing"),
    (HEAD + "prepare x\nP: read a\n", "4:9", "the end of the line is expected here, not 'x'"),
    # characters and strings
    ('test t "x\n', "1:8", "this string is not closed"),
    ('test t "\\n"\n', "1:8", "a backslash in a string stands before"),
    ("test t 'x'\n", "1:8", "strings stand in double quotes"),
    (f'test t "{"x" * 401}"\n', "1:8", "a string has at most 400 characters"),
    ("test t\nprocesses P, C\n", "2:12", "separated by spaces, not by commas"),
    (HEAD + "P: read a;\n", "4:10", "leave the ';' out"),
    (HEAD + "P: read a // x\n", "4:11", "a comment begins with '#'"),
    (HEAD + "P: read \x1b[31ma\n", "4:9", "the control character U+001B"),
    ("\ufefftest t\n", "1:1", "the control character U+FEFF"),
    (HEAD + "P: @ a\n", "4:4", "a name or number is expected here, not '@'"),
    # names
    ("test T\n", "1:6", "'T' cannot name a test"),
    ("test variant\n", "1:6", "'variant' is a keyword and cannot name a test"),
    ("test t\nprocesses p\n", "2:11", "'p' cannot name a process"),
    ("test t\nprocesses P P\n", "2:13", "'P' is declared twice"),
    ("test t\nprocesses P\nthreads P of P\n", "3:9", "'P' is declared twice"),
    ("test t\nprocesses P\nthreads T of Q\n", "3:14", "no process named 'Q'"),
    ("test t\nprocesses P\npages A\n", "3:7", "'A' cannot name a page"),
    ("test t\nprocesses P\npages a a\n", "3:9", "'a' is declared twice"),
    ("test t\nprocesses P\npages in\n", "3:7", "'in' is a keyword and cannot name a page"),
    ("test t\nprocesses P\npages fork\n", "3:7", "'fork' is a verb and cannot name a page"),
    (HEAD + "P: ok = read a\n", "4:4", "'ok' is a status and cannot name a result"),
    (HEAD + "P: maybe = read a\n", "4:4", "'maybe' is a keyword and cannot name a result"),
    (HEAD + "P: a = read b\n", "4:4", "'a' is a page already"),
    (HEAD + f"P: {'x' * 65} = read a\n", "4:4", "a name has at most 64 characters"),
    (HEAD + "variant u {\n}\nvariant u {\n}\nprepare\nP: exit\n", "6:9", "declared twice"),
    # settings
    (HEAD + "shelf x\nshelf y\n", "5:1", "'shelf' is said twice"),
    (HEAD + "file tmpfil\n", "4:6", "did you mean 'tmpfile'?"),
    (HEAD + "file hugetlbfs\n", "4:6", "did you mean 'hugetlb'?"),
    (HEAD + "file memfd\nfile tmpfile\n", "5:1", "'file' is said twice"),
    (HEAD + "file tmpfile in base\nP: exit\n", "4:17", "this test has no variants"),
    (
        HEAD + "file tmpfile in on\nvariant one {\n}\nprepare\nP: exit\n",
        "4:17",
        "did you mean 'one'?",
    ),
    (
        HEAD + "file tmpfile in one\nfile memfd in one\nvariant one {\n}\nprepare\nP: exit\n",
        "5:15",
        "the file of 'one' is said twice",
    ),
    (HEAD + "file dax\nP: pageout a\n", "5:4", "'pageout' in a test with 'file dax' is not"),
    (HEAD + "swap dsk\n", "4:6", "did you mean 'disk'?"),
    (HEAD + "swap disk stable\n", "4:11", "no swap option named 'stable'"),
    (HEAD + "swap none stable-writes\n", "4:11", "without a swap device"),
    (HEAD + "lru_batches 32\n", "4:13", "a batch is a number from 1 to 31"),
    (HEAD + "lru_batches many\n", "4:13", "lru_batches drained"),
    (HEAD + "hugetlb_pool 17\n", "4:14", "a pool is a number from 0 to 16"),
    (HEAD + "hugetlb_pool many\n", "4:14", "write: hugetlb_pool 1"),
    (HEAD + "hugetlb_pool 1\nhugetlb_pool 2\n", "5:1", "'hugetlb_pool' is said twice"),
    (HEAD + "on cpu 4: P\n", "4:8", "a CPU is a number from 0 to 3"),
    (HEAD + "on cpu 1 P\n", "4:10", "':' is expected here, not 'P'"),
    (HEAD + "on cpu 1: T\n", "4:11", "no thread named 'T'"),
    (HEAD + "on cpu 1: P P\n", "4:13", "thread 'P' is put on a CPU twice"),
    (HEAD + "on cpu 1: kernel\n", "4:11", "the kernel is on every CPU"),
    # steps
    (HEAD + "P write a = 1\n", "4:3", "write: P: write a = 1"),
    (HEAD + "kernel reclaim P.a\n", "4:8", "a ':' is missing after the thread 'kernel'"),
    (HEAD + "write a = 1\n", "4:1", "a step begins with its thread"),
    (HEAD + "P:\n", "4:3", "the step is missing"),
    (HEAD + "P: x := read a\n", "4:6", "a result is bound by '='"),
    (HEAD + "P: r = vmsplice(a)\n", "4:16", "write: P: r = vmsplice a"),
    (HEAD + "P: raed a\n", "4:4", "did you mean 'read'?"),
    (HEAD + "P: write = 1\n", "4:4", "'write' is a verb, not a name"),
    (HEAD + "P: write a 1\n", "4:12", "write: P: write a = 1"),
    (HEAD + "P: write a\n", "4:4", "'write' needs a value"),
    (HEAD + "P: write a = 65536\n", "4:14", "a value is a number from 0 to 65535"),
    (HEAD + "P: write a = -1\n", "4:14", "numbers have no sign"),
    (HEAD + "P: write a = 1x\n", "4:14", "'1x' is no number"),
    (HEAD + f"P: write a = {'9' * 5000}\n", "4:14", "a value is a number from 0 to 65535"),
    (HEAD + "P: x = read\n", "4:8", "'read' needs a page"),
    (HEAD + "P: read a b\n", "4:11", "one argument too many for 'read'"),
    (HEAD + "P: read a = 1\n", "4:13", "'read' stores no value"),
    (HEAD + "P: read c\n", "4:9", "no page named 'c'"),
    (HEAD + "P: read P.a\n", "4:9", "'read' needs a page, not the page of a process"),
    (HEAD + "P: mprotect a rwx\n", "4:15", "did you mean 'rw'?"),
    (HEAD + "P: r = pin a writ\n", "4:14", "did you mean 'write'?"),
    (HEAD + "P: r = pin a fast fast\n", "4:19", "flag 'fast' is given twice"),
    (HEAD + "P: x = ptrace_peek a\n", "4:20", "needs the page of a process, as in C.a"),
    (HEAD + "P: x = ptrace_peek X.a\n", "4:20", "no process named 'X'"),
    (HEAD + "P: x = ptrace_peek C.d\n", "4:22", "no page named 'd'"),
    (HEAD + "P: x = ptrace_peek C.a.b\n", "4:20", "'C.a.b' is no page of a process"),
    (HEAD + "P: fork D\n", "4:9", "no process named 'D'"),
    (HEAD + "D: read a\n", "4:1", "no thread named 'D'"),
    (HEAD + "P: reclaim P.a\n", "4:4", "write: kernel: reclaim"),
    (HEAD + "kernel: read a\n", "4:9", "'read' is done by a process"),
    (HEAD + "P: vmsplice a\n", "4:4", "needs a name"),
    (HEAD + "kernel: drain 4\n", "4:15", "a CPU is a number from 0 to 3"),
    # what exists and what is bound
    (HEAD + "C: read a\nP: fork C\n", "4:1", "'C' is forked in line 5"),
    (HEAD + "P: x = ptrace_peek C.a\nP: fork C\n", "4:20", "process 'C' does not exist yet"),
    (FORK + "P: fork C\n", "5:9", "process 'C' is forked already"),
    (FORK + "C: fork P\n", "5:9", "process 'P' exists from the start"),
    (FORK + "C: exit\nC: read a\n", "6:1", "process 'C' has exited before this step"),
    (HEAD + "P: read_ref r\n", "4:13", "no reference named 'r'"),
    (HEAD + "P: read_ref a\n", "4:13", "'a' is a page, not a reference"),
    (HEAD + "kernel: reclaim a\n", "4:17", "write a process too, as in: P.a"),
    (VALUE + "P: read_ref x\n", "5:13", "'x' is a register, not a reference"),
    (TAKEN + "P: release r\nP: read_ref r\n", "6:13", "reference 'r' is released already"),
    (TAKEN + "P: r = vmsplice a\n", "5:4", "'r' is bound already"),
    (HEAD + "P: read_ref r\nP: r = vmsplice a\n", "4:13", "it is bound in line 5"),
    # groups
    (HEAD + "concurrent by luck {\n}\n", "4:15", "no way to interleave by 'luck'"),
    (HEAD + "concurrent {\n}\n", "4:12", "'by' is expected here"),
    (HEAD + "concurrent by operation {\n}\n", "4:15", "a concurrent group without steps"),
    (
        HEAD + "concurrent by operation {\n  concurrent by operation {\n",
        "5:3",
        "'concurrent' cannot stand inside a block",
    ),
    (
        HEAD + "concurrent by operation {\nP: fork C\nC: read a\n}\n",
        "6:1",
        "process 'C' does not exist yet",
    ),
    (
        HEAD + "threads T of P\nconcurrent by operation {\nT: read a\nP: exit\n}\n",
        "6:1",
        "another thread ends it in line 7",
    ),
    (
        HEAD + "concurrent by operation {\nP: r = vmsplice a\nC: read_ref r\n}\n",
        "6:13",
        "where threads run in any order",
    ),
    (
        TAKEN + "concurrent by operation {\nP: release r\nP: read_ref r\n}\n",
        "7:13",
        "reference 'r' is released already",
    ),
    # variants
    (HEAD + "prepare\nP: read a\n", "4:1", "'prepare' without variants"),
    (VARIANTS + "prepare\n", "10:1", "'prepare' stands in a test once"),
    (HEAD + "variant base {\n}\nP: read a\n", "4:9", "the steps of the variants are never done"),
    (
        HEAD + "variant u {\nP: x = read a\n}\nvariant v {\n}\nprepare\nP: exit\nallow x = 1\n",
        "11:7",
        "register 'x' is not bound in variant 'v'",
    ),
    (
        HEAD + "variant u {\nP: fork C\n}\nvariant v {\n}\nprepare\nC: read a\n",
        "10:1",
        "process 'C' does not exist yet (in variant 'v')",
    ),
    # questions
    (VALUE + "forbid x == 1\n", "5:11", "a comparison has one '='"),
    (VALUE + "forbid x < 1\n", "5:10", "compared by '=' and '!=' only"),
    (VALUE + "forbid x = 1 && x = 2\n", "5:14", "write 'and' instead of '&'"),
    (VALUE + "forbid x = 1 \\/ x = 2\n", "5:14", "write 'or' instead of '\\/'"),
    (VALUE + "forbid ~x = 1\n", "5:8", "write 'not' instead of '~'"),
    (VALUE + "forbid x\n", "5:9", "but the line ends"),
    (VALUE + "forbid (x = 1\n", "5:14", "a ')' is missing"),
    (VALUE + "forbid x = 1)\n", "5:13", "this ')' closes nothing"),
    (VALUE + f"forbid {'not ' * 21}x = 1\n", "5:88", "a condition nests at most 20 deep"),
    (VALUE + "forbid y = 1\n", "5:8", "no register named 'y'"),
    (VALUE + "forbid x = y\n", "5:12", "no register named 'y'"),
    (VALUE + "forbid x = ok\n", "5:12", "'x' is never 'ok'"),
    (VALUE + "forbid x = 70000\n", "5:12", "a value is a number from 0 to 65535"),
    (VALUE + "forbid 1 = x\n", "5:8", "the register stands on the left"),
    (TAKEN + "forbid r = 1\n", "5:8", "'r' is a reference, not a register"),
    (HEAD + "P: s = write a = 1\nforbid s = 1\n", "5:12", "'s' is never a number"),
    (HEAD + "P: s = exit\nC: x = read a\nforbid s = x\n", "6:12", "are never equal"),
    (VALUE + "keeps privat\n", "5:7", "did you mean 'private'?"),
    (VALUE + "keeps cache-coherent\n", "5:7", "promise 'cache-coherent' is not checked yet"),
    (VALUE + "no copies\n", "5:4", "'copy' is expected here, not 'copies'"),
    (VALUE + "copies 1\n", "5:8", "is expected here, not '1'"),
    (VALUE + "copies < x\n", "5:10", "'x' is no number"),
    (VALUE + "no copy\ncopies = 0\n", "6:1", "this is asked twice"),
    # claims
    (ASKED + "kept linux-5.8\n", "6:6", "'everywhere' or 'on' is expected here"),
    (ASKED + "kept on\n", "6:8", "a name or number is expected here"),
    (ASKED + "kept on linux-5.9\n", "6:9", "did you mean 'linux-5.8'?"),
    (ASKED + "kept on linux-5.8..linux-5.9\n", "6:20", "no kernel named 'linux-5.9'"),
    (ASKED + "kept on linux-6.1..linux-5.8\n", "6:9", "write: linux-5.8..linux-6.1"),
    (ASKED + "kept on linux-5.8..\n", "6:9", "no kernel and no range of kernels"),
    (ASKED + "kept everywhere in base\n", "6:20", "this test has no variants"),
    (ASKED + "kept everywhere from CVE\n", "6:22", "a string in double quotes is expected here"),
    (ASKED + "kept everywhere\nbroken everywhere\n", "7:1", "contradicts the claim 'kept'"),
    (
        ASKED + "kept on linux-5.8..linux-6.1\nbroken on linux-5.10\n",
        "7:1",
        "for the same case, on linux-5.10",
    ),
    (VARIANTS + "no copy\nkept everywhere in w\n", "11:20", "no variant named 'w'"),
    (
        VARIANTS + "no copy\nkept everywhere in u\nbroken on linux-5.8\n",
        "12:1",
        "for the same case, on linux-5.8 in 'u'",
    ),
    # limits
    ("test t\nprocesses " + many(7, "P{} ") + "\n", "2:29", "at most 6 processes"),
    (HEAD + "threads " + many(7, "T{} ") + "of P\n", "4:27", "at most 8 threads"),
    ("test t\nprocesses P\npages " + many(9, "a{} ") + "\n", "3:31", "at most 8 pages"),
    (HEAD + many(9, "P: r{} = vmsplice a\n"), "12:4", "at most 8 references"),
    (HEAD + many(17, "P: x{} = read a\n"), "20:4", "at most 16 registers"),
    (HEAD + many(201, "P: read a\n"), "204:1", "at most 200 steps"),
    (HEAD + "concurrent by operation {\n" + many(17, "P: read a\n"), "21:10", "inside a block"),
    (HEAD + "concurrent by operation {\n" + many(17, "P: read a\n") + "}\n", "21:1", "16 steps"),
    (HEAD + many(33, "variant v{} {{\n}}\n") + "prepare\nP: exit\n", "68:9", "at most 32 variants"),
    (VALUE + many(33, "copies < {}\n"), "37:1", "at most 32 questions"),
    (ASKED + many(65, "kept on linux-5.8\n"), "70:1", "at most 64 claims"),
]


@pytest.mark.parametrize(("text", "place", "fragment"), MISTAKES)
def test_a_mistake_is_named(text: str, place: str, fragment: str) -> None:
    with pytest.raises(LitmusError) as caught:
        parse(text, "t.litmus", KERNELS)
    shown = str(caught.value)
    assert shown.startswith(f"t.litmus:{place}: ")
    assert fragment in shown
    assert "Token(" not in shown


def test_the_message_shows_the_line_and_the_nearest_name() -> None:
    text = "test cow\nprocesses P\npages a\n\nP: write aa = 1\n"
    with pytest.raises(PageherdError) as caught:
        parse(text, "cow.litmus")
    assert str(caught.value) == (
        "cow.litmus:5:10: no page named 'aa'\n"
        "    5 | P: write aa = 1\n"
        "      |          ^^\n"
        "   did you mean 'a'?"
    )


def test_an_error_survives_pickling() -> None:
    with pytest.raises(LitmusError) as caught:
        parse("tst")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert (copy.line, copy.column, copy.width) == (1, 1, 3)


def test_the_caret_stands_below_the_mistake_in_long_and_tabbed_lines() -> None:
    text = HEAD + "\tP:\tread\t" + "a " * 200 + "\n"
    with pytest.raises(LitmusError) as caught:
        parse(text)
    _, line, carets, _ = str(caught.value).split("\n")
    assert line.expandtabs()[carets.expandtabs().index("^")] == "a"
    assert len(line) < 120


def test_names_of_kernels_are_taken_as_they_are_without_a_table() -> None:
    claim = parse(ASKED + "kept on linux-5.9..mine\n").questions[0].claims[0]
    assert (claim.kernels[0].first, claim.kernels[0].last) == ("linux-5.9", "mine")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LitmusError, match="cannot be read: No such file"):
        parse_file(tmp_path / "none.litmus")
    with pytest.raises(LitmusError, match="cannot be read: Is a directory"):
        parse_file(tmp_path)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "t.litmus"
    path.write_bytes(b"test t\nnote \xff\n")
    with pytest.raises(LitmusError, match=r"t\.litmus:2:6: this is not UTF-8 text"):
        parse_file(path)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "t.litmus"
    path.write_bytes(b"#" * (limits.MAX_FILE_BYTES + 1))
    with pytest.raises(LitmusError, match="at most 64 KiB"):
        parse_file(path)
    with pytest.raises(LitmusError, match="at most 64 KiB"):
        parse("#" * (limits.MAX_FILE_BYTES + 1))


def test_needless_parentheses_do_no_harm() -> None:
    count = 20_000
    text = VALUE + f"forbid {'(' * count}x = 1{')' * count}\n"
    assert parse(text) == parse(VALUE + "forbid x = 1\n")


def test_lines_may_end_as_on_windows() -> None:
    assert parse(VALUE.replace("\n", "\r\n")) == parse(VALUE)
