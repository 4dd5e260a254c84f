"""The steps of a test as statements of C, and its names and conditions as expressions.

Names come out with a prefix, so that none can be a keyword, a macro or a name of the C library;
only pages of one or two letters stand as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pageherd.litmus.syntax import And, Comparison, Condition, Not, Or, PageOf, Step
from pageherd.machine.verbs import STATE_WORDS, STATUS_WORDS
from pageherd.real.levers import LEVERS, NOT_STEERABLE
from pageherd.real.promised import TAKES
from pageherd.real.steer import NotSteerable

_SHORT: Final = 2  # no macro or function of the C library has so short a name, but these
_TAKEN: Final = frozenset({"at", "do", "if", "j0", "j1", "jn", "y0", "y1", "yn"})

WORDS: Final[Mapping[str, str]] = {
    "ok": "0",
    "fault": "-EFAULT",
    "busy": "-EBUSY",
    "full": "-ENOSPC",
    "absent": "ABSENT",
    "zero": "ZERO_PAGE",
    "present": "PRESENT",
    "swapped": "SWAPPED",
}
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
_HOLDERS: Final = {
    "vmsplice": "pipe",
    "io_uring_register": "ring",
    "vfio_map": "vfio",
    "vfio_map_ro": "vfio",
    "odirect_read": "nbd",
}
_VFIO_FLAGS: Final = {
    "vfio_map": "VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE",
    "vfio_map_ro": "VFIO_DMA_MAP_FLAG_READ",
}

assert set(WORDS) == {*STATUS_WORDS, *STATE_WORDS}
assert all(verb in LEVERS for verb in (*_ADVICE, *_HOLDERS))


def page(name: str) -> str:
    """The variable that points to a page."""
    return name if len(name) <= _SHORT and name not in _TAKEN else f"page_{name}"


def register(name: str) -> str:
    """The member of `struct shared` that holds a register."""
    return f"r_{name}"


def process(name: str) -> str:
    """The function with the steps of a process, or of the kernel."""
    return f"process_{name}"


def thread(name: str) -> str:
    """The function with the steps of another thread."""
    return f"thread_{name}"


def pid(name: str) -> str:
    """The member of `struct shared` that holds a process's id."""
    return f"pid_{name}"


def number(value: int) -> str:
    """Small numbers decimal, others hexadecimal, as in tests."""
    return f"{value:#x}" if value > 9 else str(value)


def condition(asked: Condition) -> str:
    """A condition on the registers."""
    if isinstance(asked, Comparison):
        return f"shared->{register(asked.register)} {_operator(asked)} {_right(asked.right)}"
    if isinstance(asked, Not):
        return f"!({condition(asked.part)})"
    word = " && " if isinstance(asked, And) else " || "
    return word.join(_inside(part) for part in asked.parts)


def negated(asked: Condition) -> str:
    """The opposite of a condition, without needless parentheses."""
    if isinstance(asked, Comparison):
        operator = "=" if asked.operator == "!=" else "!="
        return condition(Comparison(asked.register, operator, asked.right))  # type: ignore[arg-type]
    if isinstance(asked, Not):
        return condition(asked.part)
    return f"!({condition(asked)})"


def _inside(part: Condition) -> str:
    text = condition(part)
    return f"({text})" if isinstance(part, And | Or) else text


def _operator(asked: Comparison) -> str:
    return "==" if asked.operator == "=" else "!="


def _right(right: int | str) -> str:
    if isinstance(right, int):
        return number(right)
    return WORDS[right] if right in WORDS else f"shared->{register(right)}"


@dataclass(frozen=True, slots=True)
class Call:
    """A call, how success is told, and a number that is negative if it fails."""

    text: str
    success: str = "!{}"
    negative: str = "{}"

    @property
    def works(self) -> str:
        """Whether it succeeds."""
        return self.success.format(self.text)

    @property
    def status(self) -> str:
        """Its status in the words of the test."""
        return f"status({self.negative.format(self.text)})"


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference of the test: the call that takes it, the page, and its number among all."""

    name: str
    call: str
    page: str
    number: int
    sure: bool  # the call cannot be refused

    @property
    def holder(self) -> str:
        """`pipe`, `ring`, `vfio` or `nbd`."""
        return _HOLDERS[self.call]

    @property
    def variable(self) -> str:
        """What stands for it in a call."""
        return f"&ref_{self.name}" if self.holder == "ring" else f"ref_{self.name}"

    @property
    def declaration(self) -> str | None:
        """Its variable, if it has one of its own."""
        if self.holder == "pipe":
            return f"static int ref_{self.name}[2]; /* a pipe */"
        if self.holder == "ring":
            return f"static struct ring ref_{self.name};"
        return None

    @property
    def error(self) -> str | None:
        """The member that says why it was refused, if it may be."""
        return None if self.sure else f"error_{self.name}"

    def take(self) -> Call:
        """The call that takes it."""
        where = page(self.page)
        iov = f"&(struct iovec){{ {where}, pagesize }}"
        if self.holder == "pipe":
            return Call(f"vmsplice({self.variable}[1], {iov}, 1, 0)", "{} > 0")
        if self.holder == "ring":
            ring = f"ref_{self.name}.fd"
            return Call(
                f"syscall(SYS_io_uring_register, {ring}, IORING_REGISTER_BUFFERS, {iov}, 1)"
            )
        if self.holder == "vfio":
            flags = _VFIO_FLAGS[self.call]
            return Call(f"vfio_map(&vfio, VFIO_PAGE({self.number}), {where}, pagesize, {flags})")
        return Call(f"nbd_start_read(&nbd, {where})")

    def give_back(self) -> str:
        """The call that releases it."""
        if self.holder == "pipe":
            return f"pipe_release({self.variable})"
        if self.holder == "ring":
            ring = f"ref_{self.name}.fd"
            return f"syscall(SYS_io_uring_register, {ring}, IORING_UNREGISTER_BUFFERS, NULL, 0)"
        if self.holder == "vfio":
            return f"vfio_unmap(&vfio, VFIO_PAGE({self.number}), pagesize)"
        return "nbd_finish(&nbd)"

    def load(self) -> str:
        """What is seen through it: a value or -errno."""
        if self.holder == "pipe":
            return self._if_taken(f"pipe_look({self.variable})")
        if self.holder == "ring":
            return self._if_taken(f"ring_load({self.variable}, {page(self.page)})")
        if self.holder == "vfio":
            return self._if_taken(f"device_load({self.number})")
        raise NotSteerable("read_ref: a disk that stores to a page cannot be asked what it sees")

    def store(self, value: int) -> str:
        """A device's store: 0 or -errno."""
        if self.holder == "pipe":
            return "-EFAULT"
        if self.holder == "ring":
            return self._if_taken(
                f"ring_store({self.variable}, {page(self.page)}, {number(value)})"
            )
        if self.holder == "vfio":
            return self._if_taken(f"device_store({self.number}, {number(value)})")
        return self._if_taken(f"disk_store({number(value)})")

    def tee(self, times: int) -> str:
        """So many references more: 0 or -errno."""
        if self.holder != "pipe":
            return "-EFAULT"
        return self._if_taken(f"pipe_multiply({self.variable}, {times})")

    def _if_taken(self, call: str) -> str:
        return call if self.sure else f"shared->{self.error} ? shared->{self.error} : {call}"


def holder(call: str) -> str:
    """What holds the references of a call: `pipe`, `ring`, `vfio` or `nbd`."""
    return _HOLDERS[call]


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
        return [f"{to or '(void)'}READ_ONCE(*{first});" if sure else f"{to}load({first});"]
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
    return [f"shared->{reference.error} = {reference.take().status};"]


def _store(step: Step, plain: bool) -> str:
    where, value = page(str(step.arguments[0])), number(int(str(step.arguments[1])))
    return f"WRITE_ONCE(*{where}, {value})" if plain else f"store({where}, {value})"


def _call(step: Step, references: Mapping[str, Reference]) -> Call | str:
    """The call of a step, or a helper that returns a value."""
    verb, first, *rest = step.verb, *step.arguments, "", ""
    if isinstance(first, PageOf):
        return _remote(step, first)
    if first in references:
        return _by_reference(verb, references[str(first)], rest[0])
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
        "clear_soft_dirty": "clear_soft_dirty()",
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
