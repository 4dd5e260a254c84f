"""Putting the program together from the templates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pageherd.litmus.syntax import KERNEL
from pageherd.machine.verbs import Result
from pageherd.real.reproducer import names
from pageherd.real.reproducer.about import about
from pageherd.real.reproducer.deal import MAIN, Deal
from pageherd.real.reproducer.parts import headers, used_parts
from pageherd.real.reproducer.plan import Plan
from pageherd.real.reproducer.questions import Line
from pageherd.real.reproducer.text import comment, fold

ROUNDS: Final = 1000
ROUND_SECONDS: Final = 20
_REAL: Final = Path(__file__).parent.parent


@cache
def _environment() -> Environment:
    """The templates; what goes into them are checked names, numbers and harmless comments."""
    return Environment(
        loader=FileSystemLoader(_REAL / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def program(plan: Plan) -> str:
    """The program for a plan."""
    deal = Deal(plan)
    deal.write()
    environment = _environment()
    values = _values(plan, deal) | {"types": "", "helpers": "", "headers": []}
    template = environment.get_template("reproducer.c.j2")
    values["devices"] = [_device(name) for name in plan.devices]
    library = environment.get_template("helpers.c.j2").render(values)
    types, helpers = used_parts(library, template.render(values))
    values |= {"types": types, "helpers": helpers}
    values["headers"] = headers(template.render(values))
    return template.render(values)


def _device(name: str) -> str:
    """How the runner talks to a device: the same text."""
    return (_REAL / "c" / f"{name}.h").read_text(encoding="utf-8")


def _values(plan: Plan, deal: Deal) -> dict[str, object]:
    """What the templates ask for."""
    registers = ", ".join(names.register(name) for name in plan.registers)
    functions = list(deal.functions())
    set_up = list(_set_up(plan))
    lines = [line for function in functions for block in function.blocks for line in block]
    return {
        "about": about(plan),
        "functions": functions,
        "may_fault": any(re.search(r"\b(?:load|store)\(", line) for line in lines),
        "end": len(plan.parts) + 1,
        "prepared": plan.chosen.test.main_start(plan.chosen.variant) + 1,
        "copies": plan.copies,
        "rounds": ROUNDS if plan.concurrent else 0,
        "round_seconds": ROUND_SECONDS,
        "groups": plan.concurrent,
        "pinned": not plan.test.cpus and not plan.concurrent,
        "zeros": plan.found.zeros,
        "pagemap_used": _pagemap_used(plan),
        "drained": not plan.test.lru_batches,
        "remote": plan.remote,
        "cgroup": "reclaim" in plan.devices,
        "threads": plan.test.threads,
        "tee": _tees(plan),
        "registers": fold(f"int {registers};", 16) if registers else [],
        "pids": _pids(plan, deal),
        "refused": [r.refused for r in plan.references.values() if r.refused],
        "pages": [names.page(name) for name in plan.test.pages],
        "references": list(_declarations(plan)),
        "set_up": set_up,
        "asks_swap": any("&info" in line for line in set_up),
        "conduct": _conduct(plan, deal),
        "left": len(plan.test.processes) + int(KERNEL in deal.blocks) - len(deal.reaped),
        "give_back": [
            f"{r.give_back()};" for r in plan.references.values() if r.holder in ("pipe", "ring")
        ],
        "tear_down": _tear_down(plan),
        "show": _show(plan),
        "held": _held(plan),
        "reports": [_report(line, n, plan) for n, line in enumerate(plan.lines, start=1)],
        "all_unseen": all(line.unseen for line in plan.lines),
    }


def _pagemap_used(plan: Plan) -> bool:
    """Whether pagemap is looked at for more than the end of a pageout."""
    states = any(step.verb == "pagemap" for step in plan.steps)
    return plan.copies or states or "soft-dirty" in plan.needs


def _tees(plan: Plan) -> int:
    """How many references tee() makes."""
    return sum(int(str(step.arguments[1])) for step in plan.steps if step.verb == "tee")


def _pids(plan: Plan, deal: Deal) -> list[str]:
    return sorted(names.pid(name) for name in deal.reaped | plan.remote)


def _looks(plan: Plan) -> bool:
    """Whether a pipe is needed to look at what another holds."""
    through = any(step.verb in ("read_ref", "write_ref") for step in plan.steps)
    pipes = any(r.holder == "pipe" and not r.once for r in plan.references.values())
    return through and (pipes or "ring" in plan.holders)


def _declarations(plan: Plan) -> Iterator[str]:
    for reference in plan.references.values():
        if reference.declaration:
            yield reference.declaration
    for device in sorted(plan.holders & {"vfio", "nbd"}):
        yield f"static struct {device} {device};"
    if _looks(plan):
        yield "static int aside[2]; /* a pipe to look at what another one holds */"
    if _tees(plan):
        yield f"static int more_pipes[{(_tees(plan) + 255) // 256}][2];"
    if _names_swap(plan):
        yield "static char swap[256]; /* the device */"


def _set_up(plan: Plan) -> Iterator[str]:
    if "soft-dirty" in plan.needs:
        yield "need_soft_dirty();"
    if plan.swap:
        yield from _swap_lines(plan)
    for reference in plan.references.values():
        if reference.holder == "pipe":
            yield f'need(!pipe2({reference.variable}, O_NONBLOCK | O_CLOEXEC), "pipe2");'
        elif reference.holder == "ring":
            yield f"ring_open({reference.variable});"
    if _looks(plan):
        yield 'need(!pipe2(aside, O_NONBLOCK | O_CLOEXEC), "pipe2");'
    if "nbd" in plan.holders:
        yield "need(!nbd_open(&nbd, pagesize), NBD_DEVICE);"
    if "vfio" in plan.holders:
        yield 'need(!vfio_open(&vfio, pagesize), "VFIO with an edu device of QEMU");'
    if "reclaim" in plan.devices:
        yield "signal(SIGTERM, stop);"
        yield "signal(SIGINT, stop);"
        yield 'need(!reclaim_open(), "a memory cgroup");'


def _names_swap(plan: Plan) -> bool:
    """Whether it matters which device is used for swap."""
    return plan.swap and (plan.test.swap.kind == "zram" or _turns_swap_off(plan))


def _turns_swap_off(plan: Plan) -> bool:
    return any(step.verb == "swapoff" for step in plan.steps)


def _pages_out(plan: Plan) -> bool:
    """Whether some pageout must work, which then says that swap is not on."""
    return any(plan.found.swaps.values())


def _swap_lines(plan: Plan) -> Iterator[str]:
    if plan.test.swap.kind == "none":
        yield "if (sysinfo(&info) || info.totalswap)"
        yield '\tskip("swap: on, and this test is about a machine without");'
    elif not _names_swap(plan) and not _pages_out(plan):
        yield "if (sysinfo(&info) || !info.totalswap)"
        yield '\tskip("swap: not on");'
    elif plan.test.swap.kind == "zram":
        yield 'if (swap_devices(swap) < 1 || !strstr(swap, "zram"))'
        yield '\tskip("swap: not on zram");'
    if _turns_swap_off(plan):
        yield "if (swap_devices(swap) != 1)"
        yield '\tskip("swap: must be on one device, which is turned off and on");'


def _conduct(plan: Plan, deal: Deal) -> list[str]:
    lines = []
    for process in deal.roots():
        start, pid = f"start({names.process(process)});", names.pid(process)
        lines.append(f"shared->{pid} = {start}" if pid in _pids(plan, deal) else start)
    lines.append("set_turn(1);")
    own = [line for block in deal.blocks.get(MAIN, ()) for line in block]
    if own or "nbd" in plan.holders:
        lines += [*own, "at(THE_END);"]
    if "nbd" in plan.holders:
        lines.append("nbd_finish(&nbd); /* without it no process could exit */")
    return lines


def _tear_down(plan: Plan) -> list[str]:
    lines = ["swapon(swap, 0); /* as it was */"] if _turns_swap_off(plan) else []
    if "reclaim" in plan.devices:
        lines.append("reclaim_close();")
    return [*lines, "nbd_close(&nbd);"] if "nbd" in plan.holders else lines


def _show(plan: Plan) -> list[str]:
    """The registers as text: a diagnostic line, or with groups a line of the histogram."""
    if not plan.registers:
        return []
    shown, values = [], []
    for name, kind in plan.registers.items():
        value = f"shared->{names.register(name)}"
        state = kind is Result.STATE
        shown.append(f"{name} = {'%s' if state else '%d'}")
        values.append(f"state_names[{value}]" if state else value)
    text, given = ", ".join(shown), ", ".join(values)
    if plan.concurrent:
        return fold(f'snprintf(outcome, sizeof(outcome), "{text}", {given});')
    return fold(f'printf("# {text}\\n", {given});')


def _held(plan: Plan) -> list[str]:
    """With groups there are many runs: in how many of them the condition of each line was true."""
    return [
        part
        for n, line in enumerate(plan.lines)
        if line.good is not None
        for part in fold(f"held[{n}] += {names.condition(line.good)};", 16)
    ]


def _report(line: Line, number: int, plan: Plan) -> list[str]:
    if line.unseen:
        return fold(f'puts("ok {number} {line.name} # SKIP {line.unseen}");')
    if line.copies is not None:
        operator = "==" if line.copies.operator == "=" else line.copies.operator
        good = f"shared->copies {operator} {line.copies.number}"
        return fold(f'report({number}, {good}, "{line.name}");')
    assert line.good is not None
    why = comment(line.compared) if line.compared else []
    if plan.concurrent:
        return [*why, *_concurrent_report(line, number)]
    forbid = line.polarity == "forbid"
    good = names.negated(line.good) if forbid else names.condition(line.good)
    return [*why, *fold(f'report({number}, {good}, "{line.name}");')]


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
    return fold(f'report({number}, {good}, "{line.name}");')
