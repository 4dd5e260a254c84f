"""A test made ready to be printed: every step has a lever, every question a check."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from pageherd.litmus.asked import comparisons
from pageherd.litmus.syntax import Group, PageOf, Step, Test, steps_of
from pageherd.machine.verbs import FILE_VERBS, VERBS, Result
from pageherd.real.reproducer.probes import is_reference, probes
from pageherd.real.reproducer.questions import Line, lines_of, wants_probes
from pageherd.real.reproducer.references import Reference
from pageherd.real.reproducer.walk import TooManyOrders, Walk, beyond_pageout, parts_of, walk
from pageherd.real.steer import NotSteerable, Steered, steer
from pageherd.rules.choose import Kernel
from pageherd.search.check import Chosen

OF_USERFAULTFD: Final = tuple(verb for verb in VERBS if verb.startswith(("userfaultfd", "uffd_")))
WITHOUT_REPRODUCER: Final = (
    *(*FILE_VERBS, "mmap_hugetlb", "free", "mergeable", "unmergeable"),
    *("merge_any", "unmerge_any"),
    *("guard", "unguard", "mmap_droppable", "process_madvise_collapse", "hwpoison", "soft_offline"),
    *(*OF_USERFAULTFD, "pagemap_wp"),
)


@dataclass(frozen=True)
class Plan:
    """A test ready to be printed."""

    chosen: Chosen
    kernel: Kernel
    test: Test  # steps with levers, and the probes at the end
    original: tuple[Step, ...]  # the steps as the test has them; none for probes
    needs: frozenset[str]
    found: Walk
    lines: tuple[Line, ...]

    @cached_property
    def parts(self) -> tuple[Step | Group, ...]:
        """Single steps and groups, in order; each has a turn."""
        return parts_of(self.test)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """All steps."""
        return tuple(steps_of(self.parts))

    @cached_property
    def references(self) -> dict[str, Reference]:
        """The references by name."""
        made: dict[str, Reference] = {}
        for number, step in enumerate(self.steps):
            if is_reference(step):
                name = str(step.result)
                sure = self.found.sure[number]
                page, once = str(step.arguments[0]), sure and self._looks(name) == 1
                made[name] = Reference(name, step.verb, page, len(made), sure, once)
        return made

    def _looks(self, name: str) -> int:
        """How often somebody loads through a reference."""
        return sum(step.verb == "read_ref" and step.arguments[0] == name for step in self.steps)

    @cached_property
    def registers(self) -> dict[str, Result]:
        """The registers by name, with what they hold."""
        return {
            s.result: VERBS[s.verb].result for s in self.steps if s.result and not is_reference(s)
        }

    @property
    def concurrent(self) -> bool:
        """Whether some steps run at the same time."""
        return any(isinstance(part, Group) for part in self.parts)

    @property
    def cpus(self) -> int:
        """How many CPUs its threads are placed on."""
        return 1 + max((placement.cpu for placement in self.test.cpus), default=0)

    @property
    def holders(self) -> frozenset[str]:
        """What holds references: some of `pipe`, `ring`, `vfio` and `nbd`."""
        return frozenset(reference.holder for reference in self.references.values())

    @property
    def swap(self) -> bool:
        """Whether it matters if swap is on."""
        return bool(self.needs & {"swap", "cgroup-reclaim"})

    @property
    def devices(self) -> list[str]:
        """What is driven by a header of its own: some of `nbd`, `reclaim` and `vfio`."""
        used = set(self.holders & {"nbd", "vfio"})
        return sorted(used | {s.verb for s in self.steps if s.verb == "reclaim"})

    @property
    def copies(self) -> bool:
        """Whether copies are counted."""
        return any(line.copies is not None for line in self.lines)

    @property
    def remote(self) -> frozenset[str]:
        """Processes whose memory another one looks at."""
        targets = (a.process for s in self.steps for a in s.arguments if isinstance(a, PageOf))
        return frozenset(targets)


def plan(chosen: Chosen, kernel: Kernel) -> Plan:
    """A test with levers on a kernel, and what is checked.

    Raises:
        NotSteerable: a step cannot be brought about from user space; the text says why.
    """
    original = tuple(steps_of(chosen.test.variant_steps(chosen.variant)))
    for step in original:
        if step.verb in WITHOUT_REPRODUCER:
            raise NotSteerable(f"{step.verb}: no C program is made for this verb yet")
    try:
        steered = _steered(chosen, original, kernel)
        test, found, lines = _with_probes(chosen.test, steered.test)
    except TooManyOrders:
        raise NotSteerable("the steps of a group have too many orders to follow") from None
    return Plan(chosen, kernel, test, original, steered.needs, found, lines)


def _steered(chosen: Chosen, original: tuple[Step, ...], kernel: Kernel) -> Steered:
    """The one program of a test; where MADV_PAGEOUT cannot do what reclaim does, by a cgroup."""
    steered = steer(chosen.test, chosen.variant, kernel)
    if steered[0].test.huge:
        raise NotSteerable(
            f"{steered[0].test.huge[0].name}: no C program is made for huge ranges yet"
        )
    if len(steered) > 1:
        raise NotSteerable("a step under `maybe` makes several programs: write a test for one")
    for index, step in enumerate(original):
        if step.verb == "reclaim" and beyond_pageout(steered[0].test, index):
            return steer(chosen.test, chosen.variant, kernel, chosen=False)[0]
    return steered[0]


def _with_probes(asked: Test, test: Test) -> tuple[Test, Walk, tuple[Line, ...]]:
    """The test with the probes that some line of the report makes use of."""
    appended = probes(test, walk(test)) if wants_probes(asked) else ()
    longer = replace(test, body=(*test.body, *appended))
    used = {
        name
        for line in lines_of(asked, longer, walk(longer))
        if line.good is not None
        for comparison in comparisons(line.good)
        for name in (comparison.register, comparison.right)
    }
    test = replace(test, body=(*test.body, *(step for step in appended if step.result in used)))
    found = walk(test)
    return test, found, lines_of(asked, test, found)
