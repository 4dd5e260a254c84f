"""Only what is used: of a library of C the parts that a program needs, and the headers."""

from __future__ import annotations

import re
from typing import Final

_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_COMMENTS: Final = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_STRINGS: Final = re.compile(r'"[^"\n]*"')
_DEFINED: Final = (
    re.compile(r"^#define (\w+)", re.MULTILINE),
    re.compile(r"^(?:struct|enum) (\w+) \{", re.MULTILINE),
    re.compile(r"^static [^;={(]*?(\w+)(?:\[\w*\])?(?:;|\(| = |\[)", re.MULTILINE),
)


def used_parts(library: str, program: str) -> tuple[str, str]:
    """The parts of a library of C that a program needs, in their order: types, and all others.

    A part is what stands between two blank lines and begins in the first column.  Lines of
    `#define` that come to stand next to each other are put together.
    """
    parts = [part.strip("\n") for part in re.split(r"\n\n(?=\S)", library)]
    bodies = [_code(part) for part in parts]
    defines = [{name for rule in _DEFINED for name in rule.findall(body)} for body in bodies]
    wanted = set(_WORD.findall(_code(program)))
    used: set[int] = set()
    while True:
        new = {i for i, names in enumerate(defines) if names & wanted} - used
        if not new:
            break
        used |= new
        wanted = wanted.union(*(_WORD.findall(bodies[i]) for i in new))
    types = {i for i in used if bodies[i].lstrip().startswith("struct")}
    code = "".join(f"{parts[i]}\n\n" for i in sorted(used - types))
    code = re.sub(r"(#define .*\n)\n(?=#define )", r"\1", code)
    return "".join(f"{parts[i]}\n\n" for i in sorted(types)), code


def _code(text: str) -> str:
    """A text without its comments and strings."""
    return _STRINGS.sub("", _COMMENTS.sub("", text))


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
    ("sys/sysinfo.h", r"\bsysinfo\b"),
    ("sys/stat.h", r"\bmkdir\b"),
    ("sys/swap.h", r"\bswapo(?:n|ff)\b"),
    ("sys/syscall.h", r"\bSYS_"),
    ("sys/uio.h", r"\biovec\b"),
    ("sys/wait.h", r"\bwait(?:pid)?\("),
    ("time.h", r"\btime\("),
    ("unistd.h", r"\b_exit\b"),
)


def headers(text: str) -> list[str]:
    """The headers that declare what a program uses."""
    code = _code(text)
    return [name for name, pattern in _HEADERS if re.search(pattern, code)]
