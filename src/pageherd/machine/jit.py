"""Compiling steps and rules, each to a small C function that is reached by its address.

A kernel is a record of addresses (`dtype()` below): one for every step and one for every question.
So choosing rules, loading a user's rule and planting a fault in a step all recompile nothing else.
With `NUMBA_DISABLE_JIT=1` the same functions run as plain Python and an "address" is an index.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import numba
import numpy as np
from numba.core import config, types
from numba.extending import intrinsic

from pageherd.machine import layout as layouts
from pageherd.machine.layout import Layout
from pageherd.machine.questions import NR_QUESTIONS
from pageherd.machine.steps import NR_STEPS

JIT: Final = not config.DISABLE_JIT
GUARDED: Final = bool(config.BOUNDSCHECK)
"""Whether steps are wrapped so that an exception inside one becomes an alarm of the state."""

KernelRecord: TypeAlias = Any
"""One record of `KERNEL_DTYPE`."""

StepFunction: TypeAlias = Callable[[Any, int, Any], int]
RuleFunction: TypeAlias = Callable[[Any, int, Any, int], int]
F = TypeVar("F", bound=Callable[..., Any])

KERNEL_DTYPE: Final = np.dtype(
    [
        ("rule", "i8", (NR_QUESTIONS,)),
        ("step", "i8", (NR_STEPS,)),
        ("asked", "i8", (NR_QUESTIONS,)),
        ("answer", "i8", (NR_QUESTIONS,)),
        ("stepped", "i8", (NR_STEPS,)),
    ],
    align=True,
)

ALARM_EXCEPTION: Final = 1
ALARM_NONSENSE: Final = 2
ALARM_WRAPPED: Final = 3
ALARM_NO_FRAME: Final = 4
ALARM_STUCK: Final = 5
ALARMS: Final = {
    ALARM_EXCEPTION: "a rule or step raised an exception",
    ALARM_NONSENSE: "a rule gave an answer that its question does not have",
    ALARM_WRAPPED: "a count left its range",
    ALARM_NO_FRAME: "the layout ran out of frames",
    ALARM_STUCK: "a kernel path does not come to an end (no progress)",
}

STEPS: Final[dict[int, StepFunction]] = {}
"""Every step by its number, filled by `@step` as the files of the paths are imported."""


def helper(function: F) -> F:
    """Mark a small function that steps and rules call; compiled into each caller."""
    compiled: F = numba.njit(function) if JIT else function
    return compiled


def step(number: int) -> Callable[[F], F]:
    """Register the decorated function `(s, t, k) -> next step` as step `number`."""

    def register(function: F) -> F:
        assert number not in STEPS, f"step {number} is defined twice"
        STEPS[number] = function
        return function

    return register


def driver(function: F) -> F:
    """Compile a function that Python calls with arrays of states; cached on disk."""
    if not JIT:
        return function
    with _cache_directory():
        compiled: F = numba.njit(cache=True)(function)
    return compiled


def records(array: Any) -> Any:
    """An array of records as drivers take it: without the JIT, fields are read as attributes."""
    return array if JIT else array.view(np.recarray)


# -- calling by address -------------------------------------------------------------------------

FUNCTIONS: Final[list[Callable[..., int]]] = []
"""Without the JIT: the functions, by the index that stands for their address."""

if JIT:

    def _call(builder: Any, arguments: Any) -> Any:
        from llvmlite import ir

        word = ir.IntType(64)
        operands = [
            builder.sext(a, word) if isinstance(a.type, ir.IntType) and a.type.width < 64 else a
            for a in arguments[1:]
        ]
        function_type = ir.FunctionType(word, [operand.type for operand in operands])
        pointer = builder.inttoptr(arguments[0], function_type.as_pointer())
        return builder.call(pointer, operands)

    @intrinsic
    def invoke_step(typingctx: Any, address: Any, s: Any, t: Any, k: Any) -> Any:
        """Call the step at `address`."""
        signature = types.int64(types.int64, s, types.int64, k)
        return signature, lambda context, builder, sig, args: _call(builder, args)

    @intrinsic
    def invoke_rule(typingctx: Any, address: Any, s: Any, t: Any, k: Any, frame: Any) -> Any:
        """Call the rule at `address`."""
        signature = types.int64(types.int64, s, types.int64, k, types.int64)
        return signature, lambda context, builder, sig, args: _call(builder, args)

else:

    def invoke_step(address: int, s: Any, t: int, k: Any) -> int:
        return FUNCTIONS[address](s, t, k)

    def invoke_rule(address: int, s: Any, t: int, k: Any, frame: int) -> int:
        return FUNCTIONS[address](s, t, k, frame)


@cache
def _types(layout: Layout) -> tuple[Any, Any]:
    return numba.from_dtype(layouts.dtype(layout)), numba.from_dtype(KERNEL_DTYPE)


_kept: list[Any] = []  # compiled functions must outlive the addresses handed out


def _guard(function: Callable[..., int], answers: int, is_rule: bool) -> Callable[..., int]:
    """Wrap `function` so that an exception, or an answer out of range, becomes an alarm."""
    inner = numba.njit(function)
    exception, nonsense = ALARM_EXCEPTION, ALARM_NONSENSE

    if is_rule:

        def guarded_rule(s: Any, t: int, k: Any, frame: int) -> int:
            result = np.int64(0)
            try:
                result = np.int64(inner(s, t, k, frame))
            except Exception:
                s.alarm = exception
            if result < 0 or (answers > 0 and result >= answers):
                s.alarm = nonsense
                result = np.int64(0)
            return result

        return guarded_rule

    def guarded_step(s: Any, t: int, k: Any) -> int:
        result = np.int64(0)
        try:
            result = np.int64(inner(s, t, k))
        except Exception:
            s.alarm = exception
        return result

    return guarded_step


@cache
def address_of(
    function: Callable[..., int], layout: Layout, *, is_rule: bool = False, answers: int = -1
) -> int:
    """The address of `function` compiled for `layout` (without the JIT: its index).

    `answers >= 0` marks a function that is not to be trusted (a user's rule, a planted fault): it
    is wrapped so that exceptions and answers beyond `answers` (0: no bound) raise an alarm.

    Raises:
        numba.core.errors.NumbaError: the function uses something that Numba cannot compile.
    """
    guarded = answers >= 0 or GUARDED
    if not JIT:
        FUNCTIONS.append(_checked(function, answers) if answers >= 0 else function)
        return len(FUNCTIONS) - 1
    state, kernel = _types(layout)
    arguments = (state, types.int64, kernel) + ((types.int64,) if is_rule else ())
    signature = types.int64(*arguments)
    if guarded:
        compiled = numba.cfunc(signature)(_guard(function, answers, is_rule))
    else:
        with _cache_directory():
            compiled = numba.cfunc(signature, cache=True)(function)
    _kept.append(compiled)
    return int(compiled.address)


def _checked(function: Callable[..., int], answers: int) -> Callable[..., int]:
    """Without the JIT: exceptions pass, nonsense becomes an alarm."""

    def checked(s: Any, *rest: Any) -> int:
        result = function(s, *rest)
        if result < 0 or (answers > 0 and result >= answers):
            s.alarm = ALARM_NONSENSE
            return 0
        return int(result)

    return checked


# -- the cache on disk --------------------------------------------------------------------------


@cache
def cache_directory() -> Path:
    """Where compiled code is kept: one directory per version of the sources and of Numba.

    Numba itself notices a change only in the file that holds a function, not in the helpers that
    were compiled into it; so the directory's name is a hash of all sources that are compiled.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pageherd"
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{numba.__version__} {np.__version__} {config.BOUNDSCHECK}".encode())
    package = Path(__file__).parent.parent
    for folder in ("machine", "rules", "promises", "search"):
        for source in sorted((package / folder).glob("*.py")):
            digest.update(source.read_bytes())
    chosen = root / digest.hexdigest()
    if not chosen.exists():
        _forget_old(root)
    return chosen


def _forget_old(root: Path) -> None:
    """Keep the two newest directories of other versions, remove the rest."""
    try:
        old = sorted((p for p in root.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    except OSError:
        return
    for directory in old[:-2]:
        if len(directory.name) == 16:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _cache_directory() -> Iterator[None]:
    """Let Numba put its cache files in our directory for the duration."""
    before = config.CACHE_DIR
    directory = cache_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        config.CACHE_DIR = str(directory)
    except OSError:
        pass  # an unwritable home: Numba falls back to its own choice of places
    try:
        yield
    finally:
        config.CACHE_DIR = before


def compiled_before() -> bool:
    """Whether the cache holds compiled code for these sources (else the first use compiles)."""
    return cache_directory().exists() and any(cache_directory().rglob("*.nbc"))
