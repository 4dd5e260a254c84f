"""Dealing the steps out: which thread does which, when, and who waits for whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pageherd.litmus.format import format_step
from pageherd.litmus.syntax import KERNEL, Group, Step
from pageherd.real.reproducer import names
from pageherd.real.reproducer.plan import Plan
from pageherd.real.reproducer.statements import statement
from pageherd.real.reproducer.text import comment, fold

_LEAVES: Final = "shared->left++; /* as at() does */"
MAIN: Final = "main"  # main(), which starts the processes that nobody forks


def _at(turn: int, about: list[str]) -> list[str]:
    """The wait for a turn with the comment that says what is done then."""
    if len(about) == 1:
        return [f"at({turn}); {about[0]}"]
    return [*about, f"at({turn});"]


@dataclass(slots=True)
class Function:
    """One function of the program: the steps of a thread, in blocks with a blank line between."""

    head: str
    blocks: list[list[str]] = field(default_factory=list)


@dataclass(slots=True)
class Deal:
    """Deals the steps out to the threads that do them."""

    plan: Plan
    blocks: dict[str, list[list[str]]] = field(default_factory=dict)
    forked_by: dict[str, str] = field(default_factory=dict)
    reaped: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)

    def write(self) -> None:
        """All steps and groups, in order."""
        index = 0
        for turn, part in enumerate(self.plan.parts, start=1):
            if isinstance(part, Group):
                self._group(part, turn, index)
                index += len(part.steps)
            else:
                self._single(part, turn, index)
                index += 1

    def _single(self, step: Step, turn: int, index: int) -> None:
        self._add(step.thread, [*_at(turn, self._comment(step, index)), *self._body(step, index)])
        if step.verb == "exit":
            reaper, wait = self._reap(step)
            why = comment(f"{format_step(step)}: wait until its memory is gone")
            self._add(reaper, [*_at(turn, why), wait])

    def _group(self, group: Group, turn: int, first: int) -> None:
        """Each member does its own steps of a group; who waits for an exit is a member."""
        bodies: dict[str, list[str]] = {}
        late: dict[str, list[str]] = {}
        for index, step in enumerate(group.steps, start=first):
            leaves = [_LEAVES] if step.verb == "exit" else []
            bodies.setdefault(step.thread, []).extend(
                [*self._comment(step, index), *leaves, *self._body(step, index)]
            )
        for step in group.steps:
            if step.verb == "exit":
                reaper, wait = self._reap(step)
                late.setdefault(reaper, []).append(wait)
        members = dict.fromkeys([*bodies, *late])
        for member in members:
            others = ", ".join(name for name in members if name != member)
            head = [f"together({turn}, {len(members)}); /* with {others} */"]
            self._add(member, [*head, *bodies.get(member, ()), *late.get(member, ())])

    def _add(self, thread: str, lines: list[str]) -> None:
        self.blocks.setdefault(thread, []).append(lines)

    def _comment(self, step: Step, index: int) -> list[str]:
        if index >= len(self.plan.original):
            return comment(f"In the end: {format_step(step)}")
        asked = self.plan.original[index]
        text = format_step(asked)
        if asked.verb in ("get", "pin"):
            text += f": by {step.verb}, which uses these flags in {self.plan.kernel.name}"
        elif asked.verb == "reclaim":
            by_all = "reclaim" in self.plan.devices
            text += ": of all that the processes have" if by_all else ": by its only user"
        elif asked.verb == "share":
            text += ": it has the pipe"
        elif asked.verb == "write_ref" and self._through_pipe(asked):
            text += ": nothing stores through a pipe"
        return comment(text)

    def _through_pipe(self, step: Step) -> bool:
        return self.plan.references[str(step.arguments[0])].holder == "pipe"

    def _body(self, step: Step, index: int) -> list[str]:
        found = self.plan.found
        lines = statement(
            step,
            self.plan.references,
            sure=found.sure[index],
            swaps=found.swaps.get(index, False),
            cpus=self.plan.cpus,
        )
        lines = [part for line in lines for part in fold(line)]
        if step.verb == "fork":
            child = str(step.arguments[0])
            self.forked_by[child] = step.thread
            if child in self.plan.remote or self._exits(child):
                lines = [f"shared->{names.pid(child)} = {line}" for line in lines]
        return lines

    def _exits(self, process: str) -> bool:
        test = self.plan.test
        return any(
            s.verb == "exit" and test.process_of(s.thread) == process for s in self.plan.steps
        )

    def _reap(self, step: Step) -> tuple[str, str]:
        """Who waits for a process that exits, and how."""
        process = self.plan.test.process_of(step.thread)
        self.reaped.add(process)
        self.gone.add(process)
        reaper = self.forked_by.get(process, MAIN)
        if reaper != MAIN and self.plan.test.process_of(reaper) in self.gone:
            reaper = MAIN
        return reaper, f"waitpid(shared->{names.pid(process)}, NULL, 0);"

    # -- what becomes of the blocks --

    def functions(self) -> Iterator[Function]:
        """The functions, each before the one that starts it."""
        for process in self.roots():
            yield from self._process(process)

    def roots(self) -> list[str]:
        """The processes that exist from the start; the kernel's own steps count as one."""
        own = [process for process in self.plan.test.processes if process not in self.forked_by]
        return [*own, KERNEL] if KERNEL in self.blocks else own

    def _process(self, process: str) -> Iterator[Function]:
        threads = [t.name for t in self.plan.test.threads if t.process == process]
        for child, by in self.forked_by.items():
            if by == process or by in threads:
                yield from self._process(child)
        for name in threads:
            end = ["at(THE_END);", "return unused;"]
            head = f"static void *{names.thread(name)}(void *unused)"
            yield Function(head, [*self._start(name, ()), *self.blocks.get(name, ()), end])
        blocks = [*self._start(process, threads), *self.blocks.get(process, ())]
        undone = self._undone(process, threads)
        if undone:
            blocks.append(["at(THE_END);", *undone])
        yield Function(f"static void {names.process(process)}(void)", blocks)

    def _undone(self, process: str, threads: Iterable[str]) -> list[str]:
        """With groups the test is run again: until v6.1 VFIO leaves unmapping to who mapped."""
        mine = {process, *threads}
        taken = {step.result for step in self.plan.steps if step.thread in mine}
        return [
            f"{reference.give_back()};"
            for name, reference in self.plan.references.items()
            if self.plan.concurrent and reference.holder == "vfio" and name in taken
        ]

    def _start(self, thread: str, threads: Iterable[str]) -> list[list[str]]:
        lines = [f"start_thread({names.thread(name)});" for name in threads]
        if "reclaim" in self.plan.devices and thread in self.roots() and thread != KERNEL:
            lines.insert(0, 'need(!reclaim_join(), "a memory cgroup");')
        if self.plan.test.cpus and thread != KERNEL:
            lines.insert(0, f"run_on({self.plan.test.cpu_of(thread)});")
        return [lines] if lines else []
