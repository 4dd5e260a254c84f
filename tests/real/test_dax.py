"""What is left of a private DAX page when another process stores one byte to it (dax-poke)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pageherd.errors import PageherdError
from pageherd.real import images, vm
from pageherd.real.compile import compile_static

GUEST = """#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned char *const page = (void *)0x20000000;

static void map(int protection, int flags, int fd)
{
	mmap(page, 4096, protection, MAP_PRIVATE | MAP_FIXED | flags, fd, 0);
}

/* By a process that has at this address nothing, or memory of its own. */
static void poke(int memory)
{
	char path[64];
	int fd;

	munmap(page, 4096);
	if (memory) {
		map(PROT_READ | PROT_WRITE, MAP_ANONYMOUS, -1);
		memset(page, 0x77, 4096);
	}
	snprintf(path, sizeof(path), "/proc/%d/mem", getppid());
	fd = open(path, O_RDWR);
	_exit(pwrite(fd, "\\xcc", 1, (off_t)page) != 1);
}

int main(void)
{
	int fd = open("/dax", O_TMPFILE | O_RDWR, 0600);
	char buffer[4096];

	memset(buffer, 0x11, sizeof(buffer));
	pwrite(fd, buffer, sizeof(buffer), 0);
	for (int memory = 0; memory < 3; memory++) {
		volatile unsigned char there;

		map(memory < 2 ? PROT_READ | PROT_WRITE : PROT_READ | PROT_EXEC, 0, fd);
		there = page[1];
		(void)there;
		if (!fork())
			poke(memory);
		wait(NULL);
		printf("%02x %02x %02x\\n", page[0], page[1], page[4095]);
	}
	return 0;
}
"""


TORN = ["cc 00 00", "cc 77 77", "cc 77 77"]  # by one without memory there; with; program text


@pytest.mark.vm
@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("debian-5.10", TORN),
        ("debian-6.1", TORN),
        ("debian-6.12", TORN),
        ("debian-7.3", ["cc 11 11"] * 3),
    ],
)
def test_the_rest_of_the_page_comes_from_whoever_stores(
    tmp_path: Path, name: str, seen: list[str]
) -> None:
    try:
        vm.find_qemu()
        image = images.find(name)
    except PageherdError as error:
        pytest.skip(str(error))
    (tmp_path / "guest.c").write_text(GUEST)
    lines: list[str] = []
    result = vm.run(image, compile_static(tmp_path / "guest.c"), programs=b"", on_line=lines.append)
    assert (result.status, result.exit_status) == ("done", 0), result.reason
    assert lines == seen
