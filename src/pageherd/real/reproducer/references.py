"""References in C: the call that takes one, and what is done through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pageherd.real.reproducer.names import number, page
from pageherd.real.steer import NotSteerable

_HOLDERS: Final = {
    "vmsplice": "pipe",
    "io_uring_register": "ring",
    "vfio_map": "vfio",
    "vfio_map_ro": "vfio",
    "odirect_read": "nbd",
}
_VFIO_FLAGS: Final = {
    "vfio_map": "VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE",
    "vfio_map_ro": "VFIO_DMA_MAP_FLAG_READ",
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call, how success is told, and a number that is negative if it fails."""

    text: str
    success: str = "!{}"
    negative: str = "{}"

    @property
    def works(self) -> str:
        """Whether it succeeds."""
        return self.success.format(self.text)

    @property
    def status(self) -> str:
        """Its status in the words of the test."""
        return f"status_of({self.negative.format(self.text)})"


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference of the test: the call that takes it, the page, and its number among all."""

    name: str
    call: str
    page: str
    number: int
    sure: bool  # the call cannot be refused
    once: bool = False  # its page is looked at once, and may then be out of the pipe

    @property
    def holder(self) -> str:
        """`pipe`, `ring`, `vfio` or `nbd`."""
        return _HOLDERS[self.call]

    @property
    def variable(self) -> str:
        """What stands for it in a call."""
        return f"&ref_{self.name}" if self.holder == "ring" else f"ref_{self.name}"

    @property
    def declaration(self) -> str | None:
        """Its variable, if it has one of its own."""
        if self.holder == "pipe":
            return f"static int ref_{self.name}[2]; /* a pipe */"
        if self.holder == "ring":
            return f"static struct ring ref_{self.name};"
        return None

    @property
    def refused(self) -> str | None:
        """The member of `struct shared` that says that it was refused, if it may be."""
        return None if self.sure else f"refused_{self.name}"

    def take(self) -> Call:
        """The call that takes it."""
        where = page(self.page)
        iov = f"&(struct iovec){{ {where}, pagesize }}"
        if self.holder == "pipe":
            return Call(f"vmsplice({self.variable}[1], {iov}, 1, 0)", "{} > 0")
        if self.holder == "ring":
            ring = f"ref_{self.name}.fd"
            return Call(
                f"syscall(SYS_io_uring_register, {ring}, IORING_REGISTER_BUFFERS, {iov}, 1)"
            )
        if self.holder == "vfio":
            flags = _VFIO_FLAGS[self.call]
            return Call(f"vfio_map(&vfio, VFIO_PAGE({self.number}), {where}, pagesize, {flags})")
        return Call(f"nbd_start_read(&nbd, {where})")

    def give_back(self) -> str:
        """The call that releases it."""
        if self.holder == "pipe":
            return f"pipe_release({self.variable})"
        if self.holder == "ring":
            ring = f"ref_{self.name}.fd"
            return f"syscall(SYS_io_uring_register, {ring}, IORING_UNREGISTER_BUFFERS, NULL, 0)"
        if self.holder == "vfio":
            return f"vfio_unmap(&vfio, VFIO_PAGE({self.number}), pagesize)"
        return "nbd_finish(&nbd)"

    def load(self) -> str:
        """What is seen through it: a value or -errno."""
        if self.holder == "pipe":
            return self._if_taken(f"pipe_look({self.variable})")
        if self.holder == "ring":
            return self._if_taken(f"ring_load({self.variable}, {page(self.page)})")
        if self.holder == "vfio":
            return self._if_taken(f"device_load({self.number})")
        raise NotSteerable("read_ref: a disk that stores to a page cannot be asked what it sees")

    def store(self, value: int) -> str:
        """A device's store: 0 or -errno."""
        if self.holder == "pipe":
            return "-EFAULT"
        if self.holder == "ring":
            return self._if_taken(
                f"ring_store({self.variable}, {page(self.page)}, {number(value)})"
            )
        if self.holder == "vfio":
            return self._if_taken(f"device_store({self.number}, {number(value)})")
        return self._if_taken(f"disk_store({number(value)})")

    def tee(self, times: int) -> str:
        """So many references more: 0 or -errno."""
        if self.holder != "pipe":
            return "-EFAULT"
        return self._if_taken(f"pipe_multiply({self.variable}, {times})")

    def _if_taken(self, call: str) -> str:
        return call if self.sure else f"shared->{self.refused} ? -EFAULT : {call}"
