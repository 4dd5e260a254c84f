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
from typing import Any, Final, TypeAlias, TypeVar, cast

import numba
import numpy as np
from numba.core import config as numba_config
from numba.core import types
from numba.extending import intrinsic

from pageherd.cache import user_cache
from pageherd.machine import layout as layouts
from pageherd.machine.layout import Layout
from pageherd.machine.questions import NR_QUESTIONS, QUESTIONS
from pageherd.machine.steps import NR_STEPS

config: Any = numba_config
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

ALARM_UNDERFLOW: Final = 1
ALARM_NO_FRAME: Final = 2
ALARM_STUCK: Final = 3
ALARM_STEP_RAISED: Final = 4
ALARM_OVERFLOW: Final = 5
ALARM_RULE_RAISED: Final = 1000  # + the question that was asked
ALARM_RULE_NONSENSE: Final = 2000  # + the question that was asked
ALARMS: Final = {
    ALARM_UNDERFLOW: "a count fell below zero",
    ALARM_OVERFLOW: "a count exceeds what the machine can hold",
    ALARM_NO_FRAME: "the layout ran out of frames",
    ALARM_STUCK: "a kernel path does not come to an end",
    ALARM_STEP_RAISED: "a step raised an exception",
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
    """Compile a function that Python calls with arrays of states; cached on disk.

    It does not hold Python's lock while it runs, so that threads can run several.
    """
    if not JIT:
        return function
    with _cache_directory():
        compiled: Any = numba.njit(cache=_cache_usable(), nogil=True)(function)
    return cast(F, compiled)


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
    def _invoke_step(typingctx: Any, address: Any, s: Any, t: Any, k: Any) -> Any:
        signature = types.int64(types.int64, s, types.int64, k)
        return signature, lambda context, builder, sig, args: _call(builder, args)

    @intrinsic
    def _invoke_rule(typingctx: Any, address: Any, s: Any, t: Any, k: Any, frame: Any) -> Any:
        signature = types.int64(types.int64, s, types.int64, k, types.int64)
        return signature, lambda context, builder, sig, args: _call(builder, args)

else:

    def _invoke_step(address: int, s: Any, t: int, k: Any) -> int:  # type: ignore[misc]
        return FUNCTIONS[address](s, t, k)

    def _invoke_rule(  # type: ignore[misc]
        address: int, s: Any, t: int, k: Any, frame: int
    ) -> int:
        return FUNCTIONS[address](s, t, k, frame)


invoke_step: Callable[[int, Any, int, Any], int] = _invoke_step  # type: ignore[assignment]
"""Call the step at an address."""

invoke_rule: Callable[[int, Any, int, Any, int], int] = _invoke_rule  # type: ignore[assignment]
"""Call the rule at an address."""


if JIT:

    def _mangling_args(record: Any) -> tuple[str, tuple[()]]:
        """How the name of a compiled function names a record that it works on: by its fields.

        Numba names it by a number of this process.  Then helpers that two processes have compiled
        for two layouts, and kept, may have one name, and a third process links the wrong one.
        """
        return f"Record_{hashlib.blake2b(record.name.encode(), digest_size=8).hexdigest()}", ()

    types.Record.mangling_args = property(_mangling_args)  # type: ignore[assignment]


@cache
def _types(layout: Layout) -> tuple[Any, Any]:
    return numba.from_dtype(layouts.dtype(layout)), numba.from_dtype(KERNEL_DTYPE)


_kept: list[Any] = []  # compiled functions must outlive the addresses handed out


def _guarded_step(function: Callable[..., int]) -> Callable[..., int]:
    """With bounds checks on: an exception inside a step becomes an alarm of the state."""
    inner = numba.njit(function)
    raised = ALARM_STEP_RAISED

    def guarded(s: Any, t: int, k: Any) -> int:
        result: Any = np.int64(0)
        try:
            result = np.int64(inner(s, t, k))
        except Exception:
            s.alarm = raised
        return result  # type: ignore[no-any-return]

    return guarded


def _guarded_rule(function: Callable[..., int], question: int) -> Callable[..., int]:
    """A rule whose exceptions, and answers that its question does not have, become alarms."""
    inner = numba.njit(function)
    raised, nonsense = ALARM_RULE_RAISED + question, ALARM_RULE_NONSENSE + question
    answers = len(QUESTIONS[question].answers)

    def guarded(s: Any, t: int, k: Any, frame: int) -> int:
        result: Any = np.int64(0)
        try:
            result = np.int64(inner(s, t, k, frame))
        except Exception:
            s.alarm = raised
        if result < 0 or (answers > 0 and result >= answers):
            s.alarm = nonsense
            result = np.int64(0)
        return result  # type: ignore[no-any-return]

    return guarded


@cache
def step_address(function: StepFunction, layout: Layout, keep: bool = True) -> int:
    """The address of a step compiled for `layout` (without the JIT: its index).

    `keep`: on disk for the next time; not for steps that are made up on the spot.
    """
    if not JIT:
        return _index_of(function)
    state, kernel = _types(layout)
    signature = types.int64(state, types.int64, kernel)
    chosen = _guarded_step(function) if GUARDED else function
    return _compiled(signature, chosen, keep and not GUARDED)


@cache
def rule_address(function: RuleFunction, layout: Layout, question: int | None = None) -> int:
    """The address of a rule compiled for `layout` (without the JIT: its index).

    With a `question` the rule is not to be trusted (it is a user's): it is checked at every call,
    and an exception, or an answer that the question does not have, raises an alarm that names it.

    Raises:
        numba.core.errors.NumbaError: it uses something that Numba cannot compile.
    """
    if not JIT:
        return _index_of(function if question is None else _checked(function, question))
    state, kernel = _types(layout)
    signature = types.int64(state, types.int64, kernel, types.int64)
    if question is None:
        return _compiled(signature, function, True)
    return _compiled(signature, _guarded_rule(function, question), False)


def _compiled(signature: Any, function: Callable[..., int], cached: bool) -> int:
    with _cache_directory():
        compiled = numba.cfunc(signature, cache=cached and _cache_usable())(function)
    _kept.append(compiled)
    return cast(int, compiled.address)


def _index_of(function: Callable[..., int]) -> int:
    FUNCTIONS.append(function)
    return len(FUNCTIONS) - 1


def _checked(function: RuleFunction, question: int) -> RuleFunction:
    """The same without the JIT."""
    answers = len(QUESTIONS[question].answers)

    def checked(s: Any, t: int, k: Any, frame: int) -> int:
        try:
            result = int(function(s, t, k, frame))
        except Exception:
            s.alarm = ALARM_RULE_RAISED + question
            return 0
        if result < 0 or (answers > 0 and result >= answers):
            s.alarm = ALARM_RULE_NONSENSE + question
            return 0
        return result

    return checked


# -- the cache on disk --------------------------------------------------------------------------

_COMPILED: Final = (
    *("machine/*.py", "rules/*.py", "promises/*.py"),
    *(
        f"search/{name}.py"
        for name in ("store", "work", "packing", "forget", "canonical", "expand")
    ),
)
"""The sources of compiled functions."""
_KEPT: Final = 6  # versions; each takes some 50 MB


@cache
def cache_directory() -> Path:
    """Where compiled code is kept: one directory per version of the sources and of Numba.

    Numba itself notices a change only in the file that holds a function, not in the helpers that
    were compiled into it; so the directory's name is a hash of all sources that are compiled.
    """
    root = user_cache()
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{numba.__version__} {np.__version__} {config.BOUNDSCHECK}".encode())
    package = Path(__file__).parent.parent
    for pattern in _COMPILED:
        for source in sorted(package.glob(pattern)):
            digest.update(source.read_bytes())
    chosen = root / digest.hexdigest()
    if not chosen.exists():
        _forget_old(root)
    return chosen


def _forget_old(root: Path) -> None:
    """Keep the directories of other versions that are newest: of checkouts beside this one."""
    try:
        old = sorted((p for p in root.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    except OSError:
        return
    for directory in old[:-_KEPT]:
        if len(directory.name) == 16:
            shutil.rmtree(directory, ignore_errors=True)


@cache
def _cache_usable() -> bool:
    """Whether the directory can be written; Numba's own choice of places would grow stale."""
    try:
        cache_directory().mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(cache_directory(), os.W_OK)


@contextmanager
def _cache_directory() -> Iterator[None]:
    """Let Numba put its cache files in our directory for the duration."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(cache_directory())
    try:
        yield
    finally:
        config.CACHE_DIR = before


def compiled_before() -> bool:
    """Whether the cache holds compiled code for these sources (else the first use compiles)."""
    return cache_directory().exists() and any(cache_directory().rglob("*.nbc"))
