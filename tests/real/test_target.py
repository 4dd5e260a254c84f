"""Which row of the table a release is, and what a run on a kernel can see."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pageherd.errors import RuleError
from pageherd.real.observe import Sight
from pageherd.real.results import Probes
from pageherd.real.target import row_of, sight_of
from pageherd.rules import kernels


@pytest.mark.parametrize(
    ("release", "row"),
    [
        ("5.10.0-46-cloud-amd64", "linux-5.10"),
        ("6.1.0-56-cloud-amd64", "linux-6.1"),
        ("6.12.117+deb12-cloud-amd64", "linux-6.12"),
        ("7.3.4+deb13-cloud-amd64", "linux-7.3"),
        ("6.18.44", "linux-6.18"),
        ("6.6.30-gentoo", "linux-6.1"),
        ("5.15.0-generic", "linux-5.10"),
        ("8.0.0", "linux-7.3"),
        ("4.19.0", "linux-4.19"),
        ("5.9-rc1", "linux-5.8"),
    ],
)
def test_the_row_of_a_release(release: str, row: str) -> None:
    assert row_of(release) == row


def test_every_shipped_release_has_its_own_row() -> None:
    for row in kernels.ROWS:
        if not row.proposal and not row.name.endswith(".y"):
            assert row_of(row.name.removeprefix("linux-") + ".7-x") == row.name


@pytest.mark.parametrize("release", ["4.14.0", "2.6.32-754.el6", "", "next-20211217", "x6.1"])
def test_a_release_that_no_row_fits(release: str) -> None:
    with pytest.raises(RuleError, match="choose"):
        row_of(release)


EVERYTHING = {"pagemap": 0, "kpagecount": 0, "kpageflags": 0, "soft-dirty": 0, "ksm-flag": 0}


def test_what_a_run_can_see() -> None:
    everything = Sight(True, True, True, True, True, ksm=True)
    assert sight_of(Probes("6.1.0", dict(EVERYTHING))) == everything
    assert sight_of(Probes("5.10.0", dict(EVERYTHING))) == replace(everything, exclusive=False)
    assert sight_of(Probes("5.18.9", dict(EVERYTHING))).exclusive is False
    assert sight_of(Probes("5.19.0", dict(EVERYTHING))).exclusive is True
    assert sight_of(Probes("6.1.0", {})) == Sight(False, False, False, False, False)
    assert sight_of(Probes("", dict(EVERYTHING))).exclusive is False


@pytest.mark.parametrize(
    ("probe", "fields"),
    [
        ("pagemap", {"frames"}),
        ("kpagecount", {"counts"}),
        ("kpageflags", {"flags", "exclusive", "ksm"}),
        ("ksm-flag", {"ksm"}),
        ("soft-dirty", {"soft_dirty"}),
    ],
)
def test_without_a_probe_some_of_it_is_hidden(probe: str, fields: set[str]) -> None:
    sight = sight_of(Probes("6.1.0", {**EVERYTHING, probe: 1}))
    hidden = {name for name in Sight.__slots__ if not getattr(sight, name)}
    assert hidden - {"of_head"} == fields
