"""The steps of a test as statements of C."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pageherd.litmus.syntax import PageOf, Step
from pageherd.real.levers import NOT_STEERABLE
from pageherd.real.reproducer.ledger import TAKES
from pageherd.real.reproducer.names import number, page, pid, process, register
from pageherd.real.reproducer.references import Call, Reference
from pageherd.real.steer import NotSteerable

_PROTECTIONS: Final = {"none": "PROT_NONE", "r": "PROT_READ", "rw": "PROT_READ | PROT_WRITE"}
_ADVICE: Final = {
    "dontneed": "MADV_DONTNEED",
    "dontfork": "MADV_DONTFORK",
    "dofork": "MADV_DOFORK",
    "wipeonfork": "MADV_WIPEONFORK",
    "pageout": "MADV_PAGEOUT",
    "populate_read": "MADV_POPULATE_READ",
    "populate_write": "MADV_POPULATE_WRITE",
}


def statement(
    step: Step, references: Mapping[str, Reference], *, sure: bool, swaps: bool, cpus: int
) -> list[str]:
    """The step in C.

    Args:
        sure: it succeeds on every kernel that keeps its promises.
        swaps: it is a pageout, and the page must be swapped out after it.
        cpus: how many CPUs the test uses.

    Raises:
        NotSteerable: it has no lever.
    """
    first = page(str(step.arguments[0])) if step.arguments else ""
    to = f"shared->{register(step.result)} = " if step.result and step.verb not in TAKES else ""
    if step.verb in TAKES:
        return _take(step, references[str(step.result)])
    if step.verb == "read":
        return [f"{to or '(void)'}*{first};" if sure else f"{to}load({first});"]
    if step.verb == "write":
        return [f"{to}{_store(step, plain=sure and not to)};"]
    if step.verb == "pagemap":
        return [f"{to}page_state({first});"]
    if step.verb == "exit":
        return ["_exit(KSFT_PASS);"]
    if step.verb == "fork":
        return [f"start({process(str(step.arguments[0]))});"]
    if step.verb == "share":
        return []  # the pipe was inherited
    if step.verb == "drain":
        return [f"drain({cpu});" for cpu in (step.arguments or range(cpus))]
    if step.verb == "pageout" and swaps:
        return [f"page_out({first});"]
    if step.verb == "read_ref" and to:
        reference = references[str(step.arguments[0])]
        if reference.holder == "pipe" and reference.once:
            return [f'need(read({reference.variable}[0], &{to[:-3]}, sizeof(int)) > 0, "read");']
    call = _call(step, references)
    if isinstance(call, str):
        return _valued(step, to, call, sure)
    if to:
        return [f"{to}{call.status};"]
    return [f'need({call.works}, "{_label(step)}");' if sure else f"{call.text};"]


def _valued(step: Step, to: str, value: str, sure: bool) -> list[str]:
    """A step whose result is what a helper returns: a value, or a negative number if it fails."""
    if value == "-EFAULT" and not to:
        return []  # nothing can be done through a pipe
    if not (sure and step.verb.startswith(("process_vm", "ptrace"))):
        return [f"{to}{value};"]
    if not to:
        return [f'need({value} >= 0, "{_label(step)}");']
    return [f"{to}{value};", f'need({to.removesuffix(" = ")} >= 0, "{_label(step)}");']


def _take(step: Step, reference: Reference) -> list[str]:
    if reference.sure:
        return [f'need({reference.take().works}, "{_label(step)}");']
    return [f"shared->{reference.refused} = {reference.take().text} < 0;"]


def _store(step: Step, plain: bool) -> str:
    where, value = page(str(step.arguments[0])), number(int(str(step.arguments[1])))
    return f"*{where} = {value}" if plain else f"store({where}, {value})"


def _call(step: Step, references: Mapping[str, Reference]) -> Call | str:
    """The call of a step, or a helper that returns a value."""
    verb, first, *rest = step.verb, *step.arguments, "", ""
    if verb == "reclaim":
        return Call("reclaim_all()")
    if isinstance(first, PageOf):
        return _remote(step, first)
    if isinstance(first, str) and first in references:
        return _by_reference(verb, references[first], rest[0])
    where, null = page(str(first)), "{} == MAP_FAILED ? -1 : 0"
    if verb in _ADVICE:
        return Call(f"madvise({where}, pagesize, {_ADVICE[verb]})")
    if verb == "mmap":
        kind = "PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED"
        return Call(f"mmap({where}, pagesize, {kind}, -1, 0)", f"{{}} == {where}", null)
    if verb == "mremap":
        to = page(str(rest[0]))
        flags = "MREMAP_MAYMOVE | MREMAP_FIXED"
        return Call(f"mremap({where}, pagesize, pagesize, {flags}, {to})", f"{{}} == {to}", null)
    calls = {
        "munmap": f"munmap({where}, pagesize)",
        "mprotect": f"mprotect({where}, pagesize, {_PROTECTIONS.get(str(rest[0]), '')})",
        "mlock": f"mlock({where}, pagesize)",
        "clear_soft_dirty": 'write_file("/proc/self/clear_refs", "4")',
        "swapoff": "swapoff(swap)",
    }
    if verb not in calls:
        raise NotSteerable(f"{verb}: {NOT_STEERABLE.get(verb, 'it has no lever')}")
    return Call(calls[verb])


def _by_reference(verb: str, reference: Reference, argument: object) -> Call | str:
    if verb == "read_ref":
        return reference.load()
    if verb == "write_ref":
        return reference.store(int(str(argument)))
    return Call(reference.tee(int(str(argument))) if verb == "tee" else reference.give_back())


def _remote(step: Step, target: PageOf) -> str:
    where = f"shared->{pid(target.process)}, {page(target.page)}"
    if step.verb in ("process_vm_writev", "ptrace_poke"):
        call = "remote_write" if step.verb == "process_vm_writev" else "poke"
        return f"{call}({where}, {number(int(str(step.arguments[1])))})"
    return f"{'remote_read' if step.verb == 'process_vm_readv' else 'peek'}({where})"


def _label(step: Step) -> str:
    """What is named if the call does not work."""
    labels = {
        "vmsplice": "vmsplice",
        "io_uring_register": "io_uring_register",
        "vfio_map": "VFIO_IOMMU_MAP_DMA",
        "vfio_map_ro": "VFIO_IOMMU_MAP_DMA",
        "odirect_read": "O_DIRECT read",
        "ptrace_peek": "read of /proc/PID/mem",
        "ptrace_poke": "write to /proc/PID/mem",
        "clear_soft_dirty": "/proc/self/clear_refs",
    }
    return labels.get(step.verb, _ADVICE.get(step.verb, step.verb))
