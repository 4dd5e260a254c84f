"""Does pageherd conform notice a wrong rule?  python scripts/detector.py [--on WHERE] [--shrink]

Runs random programs on a real kernel, then holds the runs to models that differ from the right
one in one rule, and prints which were noticed, and after how many programs.
"""

from __future__ import annotations

import argparse
import time

from pageherd.real import detector
from pageherd.real.conform import prepare
from pageherd.real.target import find


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", default="host", metavar="WHERE")
    parser.add_argument("--programs", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--shrink", action="store_true", help="shrink on the kernel what was found")
    parser.add_argument("--point", action="append", help="only this decision point")
    arguments = parser.parse_args()
    conform = prepare(find(arguments.on))
    began = time.monotonic()
    samples = detector.collect(conform, arguments.programs, arguments.seed)
    seconds = time.monotonic() - began
    steps = sum(len(sample.run.steps) for sample in samples)
    print(
        f"{conform.target.release} as {conform.kernel.name}: {len(samples)} programs,"
        f" {steps} observations, {len(samples) / seconds:.0f} programs/s"
    )
    print(f"{'wrong rule':48}{'programs':>9}{'shrunk':>8}  seen at")

    def show(one: detector.Noticed) -> None:
        if one.divergence is None:
            print(f"{one.rule:48}{'-':>9}{'':>8}  not seen", flush=True)
            return
        size = str(detector.shrunk(conform, one)) if arguments.shrink and one.sample else ""
        where = f"{one.divergence.step}: {one.divergence.differences[0]}"
        print(f"{one.rule:48}{one.programs:>9}{size:>8}  {where}", flush=True)

    rules = [
        rule
        for rule in detector.wrong_rules(conform.kernel.base)
        if not arguments.point or rule[0] in arguments.point
    ]
    found = detector.notice(conform, samples, rules, show)
    noticed = sum(one.divergence is not None for one in found)
    print(f"{noticed} of {len(found)} wrong rules noticed")


if __name__ == "__main__":
    main()
