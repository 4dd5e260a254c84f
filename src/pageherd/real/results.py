"""What the runner printed, read back: probes, and what each step gave and showed."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from pageherd.real.observe import Page, Where, real_page

Ending = Literal["end", "hang", "stuck", "missing"]

_STATUS: Final = {
    0: "ok",
    errno.EFAULT: "fault",
    errno.ENOMEM: "fault",  # madvise(), mprotect() and mlock() where nothing is mapped
    errno.EBUSY: "busy",
    errno.ERESTART: "notified",  # the runner's word for SIGBUS of a userfaultfd
    errno.EACCES: "busy",  # move_pages() of a page that others map, too
    errno.ENOENT: "busy",  # and where there is none
    errno.EOPNOTSUPP: "fault",  # io_uring does not take buffers in mappings of such files
    errno.EINVAL: "fault",  # MADV_POPULATE_WRITE where the mapping forbids it
}


@dataclass(frozen=True, slots=True)
class Ran:
    """One step that ran: its error number (0: none), the value read, the pages after it."""

    step: int
    error: int
    seen: int
    pages: Mapping[Where, Page]

    @property
    def status(self) -> str:
        """`ok`, `fault`, or the name of another error number."""
        return _STATUS.get(self.error, errno.errorcode.get(self.error, str(self.error)))


@dataclass(slots=True)
class Run:
    """One run of one program."""

    id: str
    steps: list[Ran] = field(default_factory=list)
    ending: Ending = "missing"
    unlike: bool = False  # the pages that stand for one were not alike after the last step
    no_huge: bool = False  # the kernel had no huge page to give
    no_swap: int = 0  # why its swap device could not be turned on: an error number; 0: it was


@dataclass(slots=True)
class Probes:
    """What the runner found: `have` maps a probe to 0 or the error number of what is missing."""

    release: str = ""
    have: dict[str, int] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    def missing(self, probe: str) -> str | None:
        """Why `probe` is not there, in words; None if it is."""
        error = self.have.get(probe, errno.ENOSYS)
        return f"{probe}: {errno.errorcode.get(error, error)}" if error else None


_PAGE: Final = re.compile(r"(\d+)\.(\d+) ([0-9a-f]+) (-?\d+) ([0-9a-f]+)(?: (\d+) (\d+))?$")


def read(lines: Iterator[str], probes: Probes) -> Iterator[Run]:
    """The runs in the lines that a runner printed, as they come; probes go into `probes`."""
    run: Run | None = None
    no_swap = 0
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if word == "program":
            run = Run(rest, no_swap=no_swap)
        elif word == "again" and run is not None:
            run.ending = "end"
            yield run
            run = Run(run.id, no_swap=no_swap)
        elif word == "step" and run is not None:
            ran, unlike = _step(rest)
            run.unlike = run.unlike or unlike
            if not run.unlike:
                run.steps.append(ran)
        elif word == "no-huge" and run is not None:
            run.no_huge = True
        elif word == "hang" and run is not None:
            run.ending = "hang"
        elif word in ("end", "stuck") and run is not None:
            if run.ending != "hang":
                run.ending = "end" if word == "end" else "stuck"
            yield run
            run = None
        elif word == "release":
            probes.release = rest
        elif word == "have":
            name, _, error = rest.partition(" ")
            if not (name.startswith("cpu-") and name in probes.have and int(error)):
                probes.have[name] = int(error)  # another batch may have been given fewer CPUs
        elif word == "swap":
            no_swap = probes.have["swap"] = -int(rest)
        elif word == "fact":
            name, _, value = rest.partition(" ")
            probes.facts[name] = value
    if run is not None:
        yield run


def _step(text: str) -> tuple[Ran, bool]:
    """A step, and whether the pages that stand for one were not alike after it."""
    head, *pages = text.split(" | ")
    step, result, seen = head.split()
    found: dict[Where, Page] = {}
    unlike = -int(result) == errno.EILSEQ
    for page in pages:
        match = _PAGE.match(page)
        if match is None:
            raise ValueError(f"the runner printed '{page}'")
        process, number, pagemap, count, flags, huge, others = match.groups()
        where = int(process), int(number)
        mapped = None if huge is None else int(huge)
        found[where] = real_page(int(pagemap, 16), int(count), int(flags, 16), mapped)
        unlike = unlike or bool(others and int(others))
    return Ran(int(step), -int(result), int(seen), found), unlike
