"""A self-contained C program for one test, to hand over in a bug report.

The program does the steps of the test in their order, each in the process that must do it, and
prints one line of KTAP for each question.  Nothing of a test becomes C but checked names and
numbers; titles and sources stand in the first comment, where they cannot end it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pageherd.litmus.asked import comparisons
from pageherd.litmus.claims import expected_claim
from pageherd.litmus.format import format_question, format_step
from pageherd.litmus.syntax import (
    KERNEL,
    And,
    Comparison,
    Condition,
    Copies,
    Group,
    Keeps,
    Or,
    Outcome,
    PageOf,
    Question,
    Step,
    Test,
    steps_of,
)
from pageherd.machine.verbs import VERBS, Result
from pageherd.promises.table import DEFAULT
from pageherd.real import in_c
from pageherd.real.in_c import Reference
from pageherd.real.levers import LEVERS, NOT_STEERABLE
from pageherd.real.promised import (
    TooManyOrders,
    Walk,
    is_reference,
    may_be_shared,
    parts_of,
    probes,
    walk,
)
from pageherd.real.steer import NotSteerable, Steered, steer
from pageherd.rules import kernels
from pageherd.rules.choose import Kernel
from pageherd.search.check import Chosen

ROUNDS: Final = 1000
ROUND_SECONDS: Final = 20
_WIDTH: Final = 96
_HERE: Final = Path(__file__).parent
_CONDUCTOR: Final = "conductor"  # stands for the process that starts the others

_UNSEEN: Final = {
    "alive": "user space cannot see which frames are free",
    "no-leak": "user space cannot see which frames are free",
    "counts": "user space cannot see reference counts",
    "exclusive": "user space cannot see which pages are marked exclusive",
}
_COMPARED: Final = {
    "private": "nobody sees what another process stored for itself",
    "own-writes": "everybody reads what they stored last, or inherited at fork()",
    "pin-coherent": "through a pin the device sees what the page's owner sees",
    "get-fork": "what the device stores shows to the owner of the page, and to nobody else",
}


def default_kernel() -> str:
    """The newest kernel of the table that shipped."""
    return shipped()[-1]


def shipped() -> tuple[str, ...]:
    """The kernels of the table that are no proposals."""
    return tuple(row.name for row in kernels.ROWS if not row.proposal)


def reproducer(chosen: Chosen, kernel: Kernel) -> str:
    """The C program for one test.

    Args:
        kernel: decides by which call a raw `get` or `pin` is taken.

    Raises:
        NotSteerable: a step cannot be brought about from user space; the text says why.
    """
    steered = steer(chosen.test, chosen.variant, kernel)
    if len(steered) > 1:
        raise NotSteerable("a step under `maybe` makes several programs: write the test for one")
    plan = _planned(chosen, steered[0], kernel)
    return _rendered(plan)


# -- what is to be done, by whom, and what is asked of it --------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """One line of KTAP: its name, and a condition on the outcome or why there is none."""

    name: str
    good: Condition | None = None
    polarity: str = "require"
    unseen: str = ""
    copies: Copies | None = None
    compared: str = ""


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
                made[name] = Reference(name, step.verb, str(step.arguments[0]), len(made), sure)
        return made

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
    def copies(self) -> bool:
        """Whether copies are counted."""
        return any(line.copies is not None for line in self.lines)

    @property
    def remote(self) -> frozenset[str]:
        """Processes whose memory another one looks at."""
        targets = (a.process for s in self.steps for a in s.arguments if isinstance(a, PageOf))
        return frozenset(targets)


def _planned(chosen: Chosen, steered: Steered, kernel: Kernel) -> Plan:
    test = steered.test
    original = tuple(steps_of(chosen.test.variant_steps(chosen.variant)))
    for index, step in enumerate(original):
        if step.verb == "reclaim" and may_be_shared(test, index):
            raise NotSteerable(f"reclaim: {NOT_STEERABLE['reclaim']}")
    try:
        test, found, lines = _with_probes(chosen.test, test)
    except TooManyOrders:
        raise NotSteerable("the steps of a group have too many orders to follow") from None
    return Plan(chosen, kernel, test, original, steered.needs, found, lines)


def _with_probes(asked: Test, test: Test) -> tuple[Test, Walk, tuple[Line, ...]]:
    """The test with the probes that some line of the report makes use of."""
    appended = probes(test, walk(test)) if _wants_probes(asked) else ()
    longer = replace(test, body=(*test.body, *appended))
    used = {
        name
        for line in _lines(asked, longer, walk(longer))
        if line.good is not None
        for comparison in comparisons(line.good)
        for name in (comparison.register, comparison.right)
    }
    test = replace(test, body=(*test.body, *(step for step in appended if step.result in used)))
    found = walk(test)
    return test, found, _lines(asked, test, found)


def observable(chosen: Chosen, kernel: Kernel) -> tuple[Test, tuple[Line, ...]]:
    """The test that the program does, probes included, and its lines; for checks by the model.

    Raises:
        NotSteerable: a step cannot be brought about from user space.
    """
    steered = steer(chosen.test, chosen.variant, kernel)
    plan = _planned(chosen, steered[0], kernel)
    return plan.test, plan.lines


def _asked(test: Test) -> tuple[Question, ...]:
    return test.questions or tuple(Keeps(promise) for promise in DEFAULT)


def _wants_probes(test: Test) -> bool:
    return any(isinstance(q, Keeps) and q.promise in _COMPARED for q in _asked(test))


def _lines(asked: Test, test: Test, found: Walk) -> tuple[Line, ...]:
    return tuple(_line(question, test, found) for question in _asked(asked))


def _line(question: Question, test: Test, found: Walk) -> Line:
    name = format_question(question)
    if isinstance(question, Outcome):
        blind = _blind(question.condition, test)
        if blind:
            return Line(name, unseen=f"what {blind} gives cannot be seen")
        return Line(name, question.condition, question.polarity)
    if isinstance(question, Copies):
        if found.hidden_copy() or any(isinstance(part, Group) for part in test.body):
            return Line(name, unseen="not every copy can be seen in pagemap")
        return Line(name, copies=question)
    if question.promise not in _COMPARED:
        return Line(name, unseen=_UNSEEN[question.promise])
    condition = _promise(question.promise, test, found)
    if condition is None:
        return Line(name, unseen="nothing that the processes read depends on it")
    return Line(name, condition, compared=f"{question.promise}: {_COMPARED[question.promise]}")


def _blind(condition: Condition, test: Test) -> str | None:
    """The verb of a register in a condition whose result user space does not get."""
    verbs = {s.result: s.verb for s in steps_of(parts_of(test)) if s.result}
    for comparison in comparisons(condition):
        for name in (comparison.register, comparison.right):
            verb = verbs.get(str(name), "")
            if verb and verb != "pagemap" and not LEVERS[verb].returns:
                return verb
    return None


def _promise(promise: str, test: Test, found: Walk) -> Condition | None:
    """What must be true of the registers if the promise is kept; None: nothing can be told."""
    registers = [s.result for s in steps_of(parts_of(test)) if s.result and not is_reference(s)]
    if promise == "private":
        return _both([part for name in registers for part in _nothing_foreign(name, found)])
    if promise == "get-fork":
        strict = walk(test, strict=True)
        shown = [part for name in registers for part in _as_promised(name, strict, "page")]
        return _both([*shown, *(p for name in registers for p in _nothing_foreign(name, strict))])
    kind = "page" if promise == "own-writes" else "pin"
    return _both([part for name in registers for part in _as_promised(name, found, kind)])


def _nothing_foreign(name: str, found: Walk) -> list[Condition]:
    return [Comparison(name, "!=", value) for value in sorted(found.foreign(name))]


def _as_promised(name: str, found: Walk, kind: str) -> list[Condition]:
    values = found.values(name)
    if found.kind(name) != kind or values is None:
        return []
    equal = tuple(Comparison(name, "=", value) for value in sorted(values))
    return [equal[0] if len(equal) == 1 else Or(equal)]


def _both(parts: list[Condition]) -> Condition | None:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else And(tuple(parts))


# -- functions ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Function:
    """One function of the program: the steps of a thread, in blocks with a blank line between."""

    head: str
    blocks: list[list[str]] = field(default_factory=list)


@dataclass(slots=True)
class _Writer:
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
        comment = self._comment(step, index)
        self._add(step.thread, [*comment, f"at({turn});", *self._body(step, index)])
        if step.verb == "exit":
            reaper, wait = self._reap(step)
            comment = _comment(f"{format_step(step)}: its parent waits until its memory is gone")
            self._add(reaper, [*comment, f"at({turn});", wait])

    def _group(self, group: Group, turn: int, first: int) -> None:
        """Each member does its own steps of a group; who waits for an exit is a member."""
        bodies: dict[str, list[str]] = {}
        late: dict[str, list[str]] = {}
        for index, step in enumerate(group.steps, start=first):
            bodies.setdefault(step.thread, []).extend(
                [*self._comment(step, index), *self._body(step, index)]
            )
        for step in group.steps:
            if step.verb == "exit":
                reaper, wait = self._reap(step)
                late.setdefault(reaper, []).append(wait)
        members = dict.fromkeys([*bodies, *late])
        for member in members:
            head = [f"together({turn}, {len(members)});"]
            self._add(member, [*head, *bodies.get(member, ()), *late.get(member, ())])

    def _add(self, thread: str, lines: list[str]) -> None:
        self.blocks.setdefault(thread, []).append(lines)

    def _comment(self, step: Step, index: int) -> list[str]:
        if index >= len(self.plan.original):
            return _comment(f"In the end: {format_step(step)}")
        asked = self.plan.original[index]
        text = format_step(asked)
        if asked.verb in ("get", "pin"):
            text += f": by {step.verb}, which uses these flags in {self.plan.kernel.name}"
        elif asked.verb == "reclaim":
            text += ": by its only user"
        elif asked.verb == "share":
            text += ": it has the pipe"
        elif asked.verb == "write_ref" and self._through_pipe(asked):
            text += ": nothing stores through a pipe"
        return _comment(text)

    def _through_pipe(self, step: Step) -> bool:
        return self.plan.references[str(step.arguments[0])].holder == "pipe"

    def _body(self, step: Step, index: int) -> list[str]:
        found = self.plan.found
        lines = in_c.statement(
            step,
            self.plan.references,
            sure=found.sure[index],
            swaps=found.swaps.get(index, False),
            cpus=self.plan.cpus,
        )
        lines = [part for line in lines for part in _fold(line)]
        if step.verb == "fork":
            child = str(step.arguments[0])
            self.forked_by[child] = step.thread
            if child in self.plan.remote or self._exits(child):
                lines = [f"shared->{in_c.pid(child)} = {line}" for line in lines]
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
        reaper = self.forked_by.get(process, _CONDUCTOR)
        if reaper != _CONDUCTOR and self.plan.test.process_of(reaper) in self.gone:
            reaper = _CONDUCTOR
        return reaper, f"waitpid(shared->{in_c.pid(process)}, NULL, 0);"

    # -- what becomes of the blocks --

    def functions(self) -> Iterator[Function]:
        """The functions, each before the one that starts it."""
        forked = {child for child, _ in self.forked_by.items()}
        for process in self.roots():
            if process not in forked:
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
            head = f"static void *{in_c.thread(name)}(void *unused)"
            yield Function(head, [*self._start(name, ()), *self.blocks.get(name, ()), end])
        blocks = [*self._start(process, threads), *self.blocks.get(process, ())]
        if not self._exits(process) or any(t in self.blocks for t in threads):
            blocks.append(["at(THE_END);"])
        yield Function(f"static void {in_c.process(process)}(void)", blocks)

    def _start(self, thread: str, threads: Iterable[str]) -> list[list[str]]:
        lines = [f"start_thread({in_c.thread(name)});" for name in threads]
        if self.plan.test.cpus and thread != KERNEL:
            lines.insert(0, f"run_on({self.plan.test.cpu_of(thread)});")
        return [lines] if lines else []


# -- printing ----------------------------------------------------------------------------------


def _rendered(plan: Plan) -> str:
    writer = _Writer(plan)
    writer.write()
    functions = list(writer.functions())
    holders = {reference.holder for reference in plan.references.values()}
    pids = {in_c.pid(name) for name in writer.reaped | plan.remote}
    tee = sum(int(str(s.arguments[1])) for s in plan.steps if s.verb == "tee")
    values = {
        "about": _about(plan),
        "functions": functions,
        "end": len(plan.parts) + 1,
        "prepared": plan.chosen.test.main_start(plan.chosen.variant) + 1,
        "copies": plan.copies,
        "rounds": ROUNDS if plan.concurrent else 0,
        "round_seconds": ROUND_SECONDS,
        "groups": plan.concurrent,
        "remote": plan.remote,
        "threads": plan.test.threads,
        "tee": tee,
        "registers": _fold(f"int {', '.join(in_c.register(name) for name in plan.registers)};")
        if plan.registers
        else [],
        "pids": sorted(pids),
        "errors": [r.error for r in plan.references.values() if r.error],
        "pages": [in_c.page(name) for name in plan.test.pages],
        "references": _reference_lines(plan, holders, tee),
        "set_up": list(_set_up(plan, holders)),
        "conduct": _conduct(plan, writer, pids),
        "give_back": [f"{r.give_back()};" for r in plan.references.values() if r.holder != "nbd"],
        "tear_down": _tear_down(plan),
        "pinned": not plan.test.cpus and not plan.concurrent,
        "left": len(plan.test.processes) + int(KERNEL in writer.blocks) - len(writer.reaped),
        "show": _show(plan),
        "reports": [_report(line, n, plan) for n, line in enumerate(plan.lines, start=1)],
        "held": _held(plan),
        "drained": not plan.test.lru_batches,
        "all_unseen": all(line.unseen for line in plan.lines),
        "may_fault": False,
        "helpers": "",
        "headers": [],
    }
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    template = environment.get_template("reproducer.c.j2")
    library = environment.get_template("helpers.c.j2").render(values)
    library = "\n\n".join([*(_header(name) for name in sorted(holders & {"vfio", "nbd"})), library])
    helpers = used_parts(library, template.render(values))
    values |= {"helpers": helpers, "may_fault": "may_fault" in helpers}
    text = template.render(values)
    values["headers"] = _headers(text)
    return template.render(values)


def _header(name: str) -> str:
    """How the runner talks to a device: the same text."""
    return (_HERE / "c" / f"{name}.h").read_text(encoding="utf-8")


def _reference_lines(plan: Plan, holders: set[str], tee: int) -> list[str]:
    lines = [r.declaration for r in plan.references.values() if r.declaration]
    lines += [f"static struct {name} {name};" for name in sorted(holders & {"vfio", "nbd"})]
    if any(s.verb in ("read_ref", "write_ref") for s in plan.steps) and holders & {"pipe", "ring"}:
        lines.append("static int aside[2]; /* a pipe to look at what another holds */")
    if tee:
        lines.append(f"static int more_pipes[{(tee + 255) // 256}][2];")
    if _names_swap(plan):
        lines.append("static char swap[256]; /* the swap device */")
    return lines


def _uses_swap(plan: Plan) -> bool:
    return "swap" in plan.needs


def _set_up(plan: Plan, holders: set[str]) -> Iterator[str]:
    if "soft-dirty" in plan.needs:
        yield "need_soft_dirty();"
    if _uses_swap(plan):
        yield from _swap_lines(plan)
    for reference in plan.references.values():
        if reference.holder == "pipe":
            yield f'need(!pipe2({reference.variable}, O_NONBLOCK | O_CLOEXEC), "pipe2");'
        elif reference.holder == "ring":
            yield f"ring_open({reference.variable});"
    if any(line.startswith("static int aside") for line in _reference_lines(plan, holders, 0)):
        yield 'need(!pipe2(aside, O_NONBLOCK | O_CLOEXEC), "pipe2");'
    if "nbd" in holders:
        yield "need(!nbd_open(&nbd, pagesize), NBD_DEVICE);"
    if "vfio" in holders:
        yield 'need(!vfio_open(&vfio, pagesize), "VFIO with an edu device of QEMU");'


def _names_swap(plan: Plan) -> bool:
    """Whether it matters what the swap device is."""
    return _uses_swap(plan) and (plan.test.swap.kind == "zram" or _turns_swap_off(plan))


def _swap_lines(plan: Plan) -> Iterator[str]:
    off = plan.test.swap.kind == "none"
    yield f"if ({'' if off else '!'}sysinfo(&system) {'&&' if off else '||'} !system.totalswap)"


def _conduct(plan: Plan, writer: _Writer, pids: set[str]) -> list[str]:
    lines = []
    for process in writer.roots():
        start = f"start({in_c.process(process)});"
        known = in_c.pid(process) in pids
        lines.append(f"shared->{in_c.pid(process)} = {start}" if known else start)
    lines.append("set_turn(1);")
    own = [line for block in writer.blocks.get(_CONDUCTOR, ()) for line in block]
    nbd = any(reference.holder == "nbd" for reference in plan.references.values())
    if own or nbd:
        lines += [*own, "at(THE_END);"]
    if nbd:
        lines.append("nbd_finish(&nbd); /* without it no process could exit */")
    return lines


def _tear_down(plan: Plan) -> list[str]:
    lines = ["swapon(swap, 0); /* as it was */"] if _turns_swap_off(plan) else []
    if any(reference.holder == "nbd" for reference in plan.references.values()):
        lines.append("nbd_close(&nbd);")
    return lines


def _turns_swap_off(plan: Plan) -> bool:
    return any(step.verb == "swapoff" for step in plan.steps)


def _show(plan: Plan) -> list[str]:
    """The registers as text: a diagnostic line, or with groups a line of the histogram."""
    if not plan.registers:
        return []
    names, values = [], []
    for name, kind in plan.registers.items():
        value = f"shared->{in_c.register(name)}"
        state = kind is Result.STATE
        names.append(f"{name} = {'%s' if state else '%d'}")
        values.append(f"state_names[{value}]" if state else value)
    text, given = ", ".join(names), ", ".join(values)
    if plan.concurrent:
        return _fold(f'snprintf(outcome, sizeof(outcome), "{text}", {given});')
    return _fold(f'printf("# {text}\\n", {given});')


def _held(plan: Plan) -> list[str]:
    """With groups there are many runs: in how many of them the condition of each line was true."""
    return [
        part
        for n, line in enumerate(plan.lines)
        if line.good is not None
        for part in _fold(f"held[{n}] += {in_c.condition(line.good)};", 16)
    ]


def _report(line: Line, number: int, plan: Plan) -> list[str]:
    if line.unseen:
        return _fold(f'puts("ok {number} {line.name} # SKIP {line.unseen}");')
    if line.copies is not None:
        operator = "==" if line.copies.operator == "=" else line.copies.operator
        good = f"shared->copies {operator} {line.copies.number}"
        return _fold(f'report({number}, {good}, "{line.name}");')
    assert line.good is not None
    comment = _comment(line.compared) if line.compared else []
    if plan.concurrent:
        return [*comment, *_concurrent_report(line, number)]
    forbid = line.polarity == "forbid"
    good = in_c.negated(line.good) if forbid else in_c.condition(line.good)
    return [*comment, *_fold(f'report({number}, {good}, "{line.name}");')]


def _concurrent_report(line: Line, number: int) -> list[str]:
    true = f"held[{number - 1}]"
    if line.polarity == "allow":
        return [
            f"if ({true})",
            f'\treport({number}, true, "{line.name}");',
            "else",
            f'\tputs("ok {number} {line.name} # SKIP not seen");',
        ]
    good = f"!{true}" if line.polarity == "forbid" else f"{true} == runs"
    return _fold(f'report({number}, {good}, "{line.name}");')


def _fold(line: str, indent: int = 8) -> list[str]:
    """A statement over several lines if it is long; strings stay whole."""
    whole = re.sub(r'"[^"]*"', lambda match: match[0].replace(" ", "\0"), line)
    folded = textwrap.wrap(
        whole,
        _WIDTH - indent,
        subsequent_indent="\t",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [part.replace("\0", " ") for part in folded]


# -- comments ----------------------------------------------------------------------------------


def harmless(text: str) -> str:
    """A text that may stand in a comment: it cannot end it, and holds nothing but ASCII."""
    text = "".join(c if " " <= c <= "~" else "?" for c in " ".join(text.split()))
    text = text.replace("\\", "/")
    text = re.sub(r"\*(?=/)", "* ", text)
    text = re.sub(r"/(?=\*)", "/ ", text)
    return re.sub(r"\?(?=\?)", "? ", text)


def _comment(text: str) -> list[str]:
    lines = textwrap.wrap(harmless(text), _WIDTH - 8, break_on_hyphens=False)
    if len(lines) == 1:
        return [f"/* {lines[0]} */"]
    return ["/*", *(f" * {line}" for line in lines), " */"]


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        harmless(text),
        _WIDTH - 3,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_on_hyphens=False,
    )


def _about(plan: Plan) -> list[str]:
    """The first comment: what is asked, what is known, how to build and run it."""
    test, name = plan.chosen.test, plan.chosen.id
    title = f"{name}: {test.title}" if test.title else name
    lines = _wrapped(title)
    for source in test.sources:
        lines += _wrapped(f"From {source}", "")
    for note in test.notes:
        lines += ["", *_wrapped(note)]
    lines += ["", "What must hold, and what is known of it:"]
    for number, question in enumerate(_asked(test), start=1):
        lines += _wrapped(f"{number}. {format_question(question)}", "  ")
        lines += _known(test, question, plan.chosen.variant)
    threads = " -pthread" if test.threads else ""
    lines += [
        "",
        f"Build: gcc -O2 -Wall -Wextra -static{threads} -o reproducer reproducer.c",
        "Run:   ./reproducer (KTAP; exit status 0: as it should be, 1: broken, 4: skipped)",
        *_wrapped(f"Needs: {_needs(plan)}"),
        "",
    ]
    return lines + _wrapped(f"Made by pageherd reproducer {name} --kernel {plan.kernel.name}")


def _known(test: Test, question: Question, variant: str) -> list[str]:
    """What the claims say of the kernels that shipped: neighbours with the same claim together."""
    claims = [(k, expected_claim(test, question, variant, k)) for k in shipped()]
    lines = []
    for claim, members in groupby(claims, key=lambda pair: pair[1]):
        names = [kernel for kernel, _ in members]
        if claim is None or claim.verdict == "unknown":
            continue
        where = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"
        source = f": {claim.source}" if claim.source else ""
        lines += _wrapped(f"{claim.verdict} on {where}{source}", "     ")
    return lines


def _needs(plan: Plan) -> str:
    used = [LEVERS[step.verb] for step in plan.steps]
    since = max((lever.since for lever in used if lever.since), key=_version, default="")
    parts = [f"Linux {since} or later"] if since else ["Linux"]
    parts += dict.fromkeys(
        f"CONFIG_{c}" if c.isupper() else c for lv in used for c in _configs(lv.config)
    )
    if _uses_swap(plan):
        parts.append(
            {"none": "no swap", "zram": "swap on zram"}.get(plan.test.swap.kind, "swap on a disk")
        )
    root = plan.copies or any(r.holder in ("vfio", "nbd") for r in plan.references.values())
    root = root or any(s.verb in ("pagemap", "swapoff") for s in plan.steps)
    return ", ".join([*parts, "root"] if root else parts)


def _configs(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


# -- only what is used -------------------------------------------------------------------------

_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_COMMENTS: Final = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_DEFINED: Final = (
    re.compile(r"^#define (\w+)", re.MULTILINE),
    re.compile(r"^(?:struct|enum) (\w+) \{", re.MULTILINE),
    re.compile(r"^static [^;={(]*?(\w+)(?:\[\w*\])?(?:;|\(| = |\[)", re.MULTILINE),
)


def used_parts(library: str, program: str) -> str:
    """The parts of a library of C that a program needs, in their order.

    A part is what stands between two blank lines and begins in the first column.
    """
    parts = [part.strip("\n") for part in re.split(r"\n\n(?=\S)", library)]
    bodies = [_COMMENTS.sub("", part) for part in parts]
    defines = [{name for rule in _DEFINED for name in rule.findall(body)} for body in bodies]
    wanted = set(_WORD.findall(_COMMENTS.sub("", program)))
    used: set[int] = set()
    while True:
        new = {i for i, names in enumerate(defines) if names & wanted} - used
        if not new:
            break
        used |= new
        wanted = wanted.union(*(_WORD.findall(bodies[i]) for i in new))
    return "\n\n".join(parts[i] for i in sorted(used)) + "\n"


_HEADERS: Final = (
    ("arpa/inet.h", r"\b(?:htonl|ntohl)\b"),
    ("ctype.h", r"\bisdigit\b"),
    ("dirent.h", r"\bopendir\b"),
    ("endian.h", r"\bbe64toh\b"),
    ("errno.h", r"\berrno\b|\bE(?:FAULT|BUSY|NOSPC|IO)\b"),
    ("fcntl.h", r"\bO_[A-Z]+\b|\bSPLICE_F_|\bvmsplice\("),
    ("limits.h", r"\bU?INT_MAX\b"),
    ("linux/aio_abi.h", r"\bIOCB_"),
    ("linux/futex.h", r"\bFUTEX_"),
    ("linux/io_uring.h", r"\bIORING_"),
    ("linux/kernel-page-flags.h", r"\bKPF_"),
    ("linux/nbd.h", r"\bNBD_SET_"),
    ("linux/pci_regs.h", r"\bPCI_COMMAND\b"),
    ("linux/sockios.h", r"\bSIOCOUTQ\b"),
    ("linux/vfio.h", r"\bVFIO_[A-Z]+_"),
    ("poll.h", r"\bpollfd\b"),
    ("pthread.h", r"\bpthread_"),
    ("sched.h", r"\bsched_"),
    ("setjmp.h", r"\bsigjmp_buf\b"),
    ("signal.h", r"\bSIG[A-Z]+\b|\bsig_atomic_t\b"),
    ("stdbool.h", r"\bbool\b"),
    ("stdint.h", r"\bu?int(?:\d+|ptr)_t\b"),
    ("stdio.h", r"\bprintf\b"),
    ("stdlib.h", r"\b(?:malloc|calloc|free|strtol)\b"),
    ("string.h", r"\b(?:mem|str)[a-z]+\("),
    ("sys/ioctl.h", r"\bioctl\b"),
    ("sys/mman.h", r"\bmmap\b"),
    ("sys/prctl.h", r"\bprctl\b"),
    ("sys/socket.h", r"\bsocketpair\b"),
    ("sys/swap.h", r"\bswapo(?:n|ff)\b"),
    ("sys/syscall.h", r"\bSYS_"),
    ("sys/uio.h", r"\biovec\b"),
    ("sys/wait.h", r"\bwait(?:pid)?\("),
    ("time.h", r"\btime\("),
    ("unistd.h", r"\b_exit\b"),
)


def _headers(text: str) -> list[str]:
    """The headers that declare what a program uses."""
    code = _COMMENTS.sub("", text)
    return [name for name, pattern in _HEADERS if re.search(pattern, code)]
