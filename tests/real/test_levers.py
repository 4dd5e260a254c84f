"""Levers: every verb has one or a reason why not; the runner knows each and probes its needs."""

from __future__ import annotations

import re

from pageherd.machine.verbs import VERBS
from pageherd.real.compile import SOURCES
from pageherd.real.generate import WEIGHTS
from pageherd.real.levers import LEVERS, NOT_STEERABLE

C = "\n".join(file.read_text() for file in sorted(SOURCES.glob("*.[ch]")))
TABLE = re.search(r"(?s)struct verb \{.*?\} verbs\[\] = \{(.*?)\n\};", C)
SERVED = set(re.findall(r"\{ *\.name = \"(\w+)\"", TABLE[1])) if TABLE else set()
PROBED = set(re.findall(r"\breport\(\"([\w-]+)\"", C)) | {"swap"}  # told for each program


def test_every_verb_has_a_lever_or_a_reason_and_never_both() -> None:
    assert set(LEVERS) | set(NOT_STEERABLE) == set(VERBS)
    assert not set(LEVERS) & set(NOT_STEERABLE)


def test_the_runner_serves_exactly_the_steps_of_the_levers() -> None:
    assert {lever.step for lever in LEVERS.values()} == SERVED


def test_a_step_of_the_runner_stands_for_one_verb() -> None:
    assert len({lever.step for lever in LEVERS.values()}) == len(LEVERS)


def test_every_need_is_probed_by_the_runner() -> None:
    assert {lever.needs for lever in LEVERS.values()} - {""} <= PROBED


def test_levers_go_by_the_names_of_verbs() -> None:
    assert all(lever.verb == verb for verb, lever in LEVERS.items())
    assert all(re.fullmatch(r"|\d+\.\d+(\.\d+)?", lever.since) for lever in LEVERS.values())


def test_every_verb_that_is_drawn_has_a_lever() -> None:
    assert set(WEIGHTS) <= set(LEVERS)


def test_every_verb_with_a_lever_is_drawn_or_needs_no_drawing() -> None:
    quiet = {"pagemap", "share", "drain"}  # the facts say it; the state does not change by it
    quiet.add("hwpoison")  # a zero page that is poisoned stays so
    quiet |= {"merge_any", "unmerge_any"}  # ksmd would merge what is no page of the program, too
    quiet |= {"mthp"}  # its folios need ranges of eight pages
    quiet |= {verb for verb in LEVERS if verb.startswith(("userfaultfd", "uffd_", "pagemap_"))}
    assert set(LEVERS) - set(WEIGHTS) == quiet
