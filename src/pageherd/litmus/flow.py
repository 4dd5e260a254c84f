"""One variant from its first step to its last: who exists, and which names are bound.

A process that some step of the test forks exists from that step on; every other process exists
from the start.  Inside a concurrent group a thread can rely only on what was so before the group
and on its own earlier steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from pageherd.errors import LitmusError
from pageherd.litmus import limits
from pageherd.litmus.source import Source
from pageherd.litmus.syntax import KERNEL, Group, PageOf, Place, Prepare, Step, Test, steps_of
from pageherd.litmus.words import did_you_mean
from pageherd.machine.verbs import VERBS, Kind, Result

_REFERENCE_KINDS: Final = (Kind.REFERENCE, Kind.FRAME)


def walk(test: Test, variant: str, source: Source) -> dict[str, Result]:
    """What each name is bound to at the end of a variant; LitmusError if a step cannot be."""
    return _Walk(test, variant, source).run()


@dataclass(slots=True)
class _Known:
    """What is so at one point of a run."""

    unborn: set[str]
    gone: set[str]
    bound: dict[str, Result]
    released: set[str]

    def copy(self) -> _Known:
        return _Known(set(self.unborn), set(self.gone), dict(self.bound), set(self.released))


class _Walk:
    def __init__(self, test: Test, variant: str, source: Source) -> None:
        self.test = test
        self.variant = variant
        self.source = source
        self.parts = test.variant_steps(variant)
        self.known = _Known(_forked_anywhere(test), set(), {}, set())
        self.process_of = {name: name for name in test.processes}
        self.process_of.update({thread.name: thread.process for thread in test.threads})

    def run(self) -> dict[str, Result]:
        for part in self.parts:
            if isinstance(part, Group):
                self.group(part)
            else:
                self.step(part, self.known)
                self.apply(part, self.known)
        return self.known.bound

    def group(self, group: Group) -> None:
        """Each thread sees the state before the group and its own steps in it."""
        before = self.known.copy()
        seen_by: dict[str, _Known] = {}
        for step in group.steps:
            known = seen_by.setdefault(step.thread, before.copy())
            self.step(step, known)
            self.rival_exit(step, group)
            self.apply(step, known)
            self.apply(step, self.known)

    # what must hold before a step

    def step(self, step: Step, known: _Known) -> None:
        verb = VERBS[step.verb]
        if step.thread != KERNEL:
            self.actor(step, known)
        for kind, argument, place in zip(
            verb.arguments, step.arguments, step.argument_places, strict=False
        ):
            if isinstance(argument, PageOf):
                self.born(argument.process, place._replace(width=len(argument.process)), known)
            elif kind in _REFERENCE_KINDS:
                self.reference(str(argument), place, known)
            elif kind is Kind.PROCESS and step.verb == "fork":
                self.forkable(str(argument), place)
            elif kind is Kind.PROCESS:
                self.born(str(argument), place, known)
        self.result(step)

    def actor(self, step: Step, known: _Known) -> None:
        process = self.process_of[step.thread]
        self.born(process, step.place, known)
        if process in known.gone:
            raise self.error(step.place, f"process '{process}' has exited before this step")

    def born(self, process: str, place: Place, known: _Known) -> None:
        if process not in known.unborn:
            return
        fork = self.forks.get(process)
        hint = (
            f"'{process}' is forked in line {fork.place.line}"
            if fork
            else (f"add a step that forks it: {self.test.processes[0]}: fork {process}")
        )
        raise self.error(place, f"process '{process}' does not exist yet", hint)

    def forkable(self, process: str, place: Place) -> None:
        if process == self.test.processes[0]:
            message = f"process '{process}' exists from the start"
            raise self.error(place, message, "the first process declared is never forked")
        if process not in self.known.unborn:
            message = f"process '{process}' is forked already"
            first = f"in line {self.forks[process].place.line}"
            raise self.error(place, message, f"{first}; a process is forked once")

    def reference(self, name: str, place: Place, known: _Known) -> None:
        kind = known.bound.get(name)
        if kind is None:
            raise self.unbound(name, place)
        if kind is not Result.REFERENCE:
            raise self.error(place, f"'{name}' is a register, not a reference")
        if name in known.released:
            raise self.error(place, f"reference '{name}' is released already")

    def unbound(self, name: str, place: Place) -> LitmusError:
        if name in self.test.pages:
            hint = f"write a process too, as in: {self.test.processes[0]}.{name}"
            return self.error(place, f"'{name}' is a page, not a reference", hint)
        binding = self.bindings.get(name)
        if binding is not None:
            hint = f"it is bound in line {binding.place.line}"
            if any(isinstance(part, Group) and binding in part.steps for part in self.parts):
                hint += ", in a concurrent group, where threads run in any order"
            return self.error(place, f"'{name}' may be used before it is bound", hint)
        references = [
            known
            for known, step in self.bindings.items()
            if VERBS[step.verb].result is Result.REFERENCE
        ]
        message = f"no reference named '{name}'"
        return self.error(place, message, did_you_mean(name, references))

    def result(self, step: Step) -> None:
        verb = VERBS[step.verb]
        if step.result is None:
            if verb.result is Result.REFERENCE:
                message = f"the reference that '{verb.name}' takes needs a name"
                raise self.error(step.verb_place, message, f"write: r = {verb.name} ...")
        elif step.result in self.known.bound:
            line = self.bindings[step.result].place.line
            message = f"'{step.result}' is bound already"
            raise self.error(step.result_place, message, f"first in line {line}")

    def rival_exit(self, step: Step, group: Group) -> None:
        """No thread may act while another thread of its group ends their process."""
        for other in group.steps:
            if (
                other.verb == "exit"
                and not other.maybe
                and other.thread != step.thread
                and self.process_of.get(other.thread) == self.process_of.get(step.thread)
            ):
                message = f"process '{self.process_of[step.thread]}' may have exited by this step"
                hint = f"another thread ends it in line {other.place.line}, in the same group"
                raise self.error(step.place, message, hint)

    # what a step changes

    def apply(self, step: Step, known: _Known) -> None:
        if step.verb == "fork":
            known.unborn.discard(str(step.arguments[0]))
        elif step.verb == "exit" and not step.maybe:
            known.gone.add(self.process_of[step.thread])
        elif step.verb == "release" and not step.maybe:
            known.released.add(str(step.arguments[0]))
        if step.result is not None:
            known.bound[step.result] = VERBS[step.verb].result
            self.limit(step, known)

    def limit(self, step: Step, known: _Known) -> None:
        references = sum(kind is Result.REFERENCE for kind in known.bound.values())
        if references > limits.MAX_REFERENCES:
            message = f"a test has at most {limits.MAX_REFERENCES} references"
            raise self.error(step.result_place, message)
        if len(known.bound) - references > limits.MAX_REGISTERS:
            message = f"a test has at most {limits.MAX_REGISTERS} registers"
            raise self.error(step.result_place, message)

    # what the whole variant says, for messages

    @cached_property
    def bindings(self) -> dict[str, Step]:
        found: dict[str, Step] = {}
        for step in steps_of(self.parts):
            if step.result is not None:
                found.setdefault(step.result, step)
        return found

    @cached_property
    def forks(self) -> dict[str, Step]:
        found: dict[str, Step] = {}
        for step in steps_of(self.parts):
            if step.verb == "fork":
                found.setdefault(str(step.arguments[0]), step)
        return found

    def error(self, place: Place, message: str, hint: str = "") -> LitmusError:
        if len(self.test.variants) > 1:
            message += f" (in variant '{self.variant}')"
        return self.source.error(place, message, hint)


def _forked_anywhere(test: Test) -> set[str]:
    main = tuple(part for part in test.body if not isinstance(part, Prepare))
    prepared = tuple(step for variant in test.variants for step in variant.steps)
    return {str(step.arguments[0]) for step in steps_of(prepared + main) if step.verb == "fork"} - {
        test.processes[0]
    }
