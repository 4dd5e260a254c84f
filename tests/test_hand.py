"""The machine driven by hand."""

from __future__ import annotations

import pytest

from pageherd import Machine, PromiseBroken, explore, parse
from pageherd.hand import OperationFailed
from pageherd.litmus.syntax import Step


def leak(m: Machine) -> None:
    """CVE-2020-29374 by hand."""
    p = m.process("P")
    a = p.mmap("a")
    p.write(a, 1)
    c = p.fork("C")
    pipe = c.vmsplice(a)
    c.munmap(a)
    p.write(a, 255)
    assert pipe.read() == (255 if "4.19" in m.kernel.name else 1)


def test_what_was_done_becomes_a_test_with_the_same_verdict() -> None:
    for kernel, verdict in (("linux-4.19", "broken"), ("linux-6.1", "kept")):
        m = Machine(kernel)
        leak(m)
        text = m.as_test("by-hand")
        assert explore(parse(text), kernel).verdict == verdict
        assert ("private" in m.broken) == (verdict == "broken")


def test_a_broken_promise_is_raised_when_asked() -> None:
    with pytest.raises(PromiseBroken) as error:
        leak(Machine("linux-4.19", on_breach="raise"))
    assert error.value.promises == ("private",)


def test_daemons_and_choices() -> None:
    m = Machine("linux-5.10", lru_batches=15)
    p = m.process("P")
    a = p.mmap("a")
    p.write(a, 1)
    assert m.reclaim((p, a)) == "busy"  # in a batch: not on the LRU list
    m.drain()
    assert m.reclaim((p, a)) == "ok"
    assert p.pagemap(a) == "swapped"
    assert p.read(a) == 1
    p.mprotect(a, "r")
    with pytest.raises(OperationFailed, match="fault"):
        p.write(a, 2)


def test_gup_and_unmap_leaves_a_page_that_is_referenced_not_mapped_and_not_free() -> None:
    m = Machine("linux-6.1")
    p = m.process("P")
    a = p.mmap("a")
    p.write(a, 7)
    r = p.vmsplice(a)
    p.munmap(a)
    assert "refcount 1, mapcount 0" in m.show()
    assert r.read() == 7
    assert not m.leaks()
    r.release()
    assert "frame" not in m.show()


def test_costs_are_counted() -> None:
    m = Machine("linux-6.1")
    p = m.process("P")
    a = p.mmap("a")
    p.write(a, 1)
    p.fork("C")
    p.write(a, 2)
    assert m.costs["copies"] == m.copies == 1
    assert m.costs["faults"] == 2
    assert m.costs["atomics"] > 0


def test_explain_says_what_changed() -> None:
    m = Machine("linux-6.1")
    p = m.process("P")
    p.mmap("a")
    assert "P.a: nothing -> frame 1, writable" in m.explain(Step("P", "write", ("a", 3)))


def test_the_machine_has_its_limits() -> None:
    m = Machine("linux-6.1")
    p = m.process("P")
    with pytest.raises(OperationFailed, match="already"):
        m.process("P")
    for n in range(8):
        p.mmap(f"p{n}")
    with pytest.raises(OperationFailed, match="pages"):
        p.mmap("p8")
    with pytest.raises(OperationFailed, match="takes no reference"):
        p.take("write", m.page("p0"))


def test_names_may_be_left_out_and_must_be_names() -> None:
    m = Machine("linux-6.1")
    p = m.process()
    a = p.mmap()
    p.write(a, 4)
    child = p.fork()
    assert (p.name, child.name, a.name, child.read(a)) == ("P", "C", "a", 4)
    assert "P: fork C" in m.as_test("unnamed")
    for wrong in ("p", "a b", "", "kernel"):
        with pytest.raises(OperationFailed):
            m.process(wrong) if wrong else m.process("9")
    with pytest.raises(OperationFailed):
        m.page("write")


@pytest.mark.parametrize(("kernel", "shown"), [("linux-5.8", 0), ("linux-5.10", 1)])
def test_who_reads_a_dax_mapping_of_another_process(kernel: str, shown: int) -> None:
    m = Machine(kernel, file="dax")
    p, q = m.process("P"), m.process("Q")
    a = m.page("a")
    p.write_file(a, 1)
    p.mmap_file(a)
    assert p.read(a) == 1
    assert q.process_vm_readv(p, a) == p.read(a) == shown
    assert "file dax" in m.as_test("by-hand")
    with pytest.raises(OperationFailed, match="'pageout' with a DAX file is not supported"):
        p.madvise(a, "pageout")


def test_a_pool_of_one_hugetlb_page() -> None:
    m = Machine("linux-6.1", hugetlb_pool=1)
    parent = m.process("P")
    a = parent.mmap_hugetlb("a")
    parent.write(a, 1)
    child = parent.fork("C")
    parent.write(a, 2)
    with pytest.raises(OperationFailed):
        child.read(a)
    assert "P.a      frame 1, writable" in m.show()
    assert "hugetlb_pool 1" in m.as_test("by-hand")
