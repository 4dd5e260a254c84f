"""`pageherd tests`: the library of tests by shelf, or one test."""

from __future__ import annotations

from argparse import Namespace

from pageherd.cli.output import console, json_line


def main(arguments: Namespace) -> int:
    """List all, or show one."""
    return _one(arguments) if arguments.name else _all(arguments)


def _all(arguments: Namespace) -> int:
    from pageherd.litmus.shelves import load_file, paths

    tests = [load_file(path) for path in paths()]
    if arguments.json:
        for test in tests:
            for test_id in test.ids:
                json_line(test=test_id, shelf=test.shelf, title=test.title)
        return 0
    out = console()
    shelf = None
    for test in tests:
        if test.shelf != shelf:
            shelf = test.shelf
            out.print(f"\n[bold]{shelf}[/]")
        variants = [name for name in test.variant_names if name != test.default_variant]
        more = f" [dim](also: {', '.join(variants)})[/]" if variants else ""
        out.print(f"  {test.name}  [dim]{test.title}[/]{more}", soft_wrap=True)
    out.print(f"\n{len(tests)} tests, {sum(len(test.ids) for test in tests)} with their variants")
    return 0


def _one(arguments: Namespace) -> int:
    from pageherd.litmus.format import format_test
    from pageherd.litmus.identify import identity
    from pageherd.search.check import find_one

    chosen = find_one(arguments.name)
    mark = identity(chosen.test, chosen.variant)
    if arguments.json:
        json_line(
            test=chosen.id,
            shelf=chosen.test.shelf,
            title=chosen.test.title,
            hash=mark,
            sources=list(chosen.test.sources),
            notes=list(chosen.test.notes),
            text=format_test(chosen.test),
        )
        return 0
    out = console()
    out.print(format_test(chosen.test), markup=False, end="", soft_wrap=True)
    out.print(f"\n# {chosen.id}: hash {mark}", style="dim", markup=False)
    return 0
