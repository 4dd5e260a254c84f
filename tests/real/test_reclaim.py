"""The memory controller of the root cgroup is as before, once nothing is to be reclaimed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pageherd.errors import PageherdError
from pageherd.real import images, vm
from pageherd.real.compile import SOURCES, compile_static

GUEST = """#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int error = fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;

	close(fd);
	return error;
}

#include "reclaim.h"

static void once(const char *before)
{
	char controllers[256] = "";
	int fd = open(CGROUPS "/cgroup.subtree_control", O_RDONLY), opened, went;

	write_file(CGROUPS "/cgroup.subtree_control", before);
	opened = reclaim_open();
	went = fork();
	if (!went)
		_exit(reclaim_join() || reclaim_all());
	usleep(200000);
	reclaim_close();
	pread(fd, controllers, sizeof(controllers) - 1, 0);
	printf("%s %d %s\\n", before, opened, strstr(controllers, "memory") ? "on" : "off");
	close(fd);
}

int main(void)
{
	once("-memory");
	once("+memory");
	return 0;
}
"""


@pytest.mark.vm
def test_the_memory_controller_is_left_as_it_was(tmp_path: Path) -> None:
    try:
        vm.find_qemu()
        image = images.find("debian-6.12")
    except PageherdError as error:
        pytest.skip(str(error))
    (tmp_path / "guest.c").write_text(GUEST)
    shutil.copy(SOURCES / "reclaim.h", tmp_path)
    lines: list[str] = []
    result = vm.run(image, compile_static(tmp_path / "guest.c"), programs=b"", on_line=lines.append)
    assert result.status == "done", result.reason
    assert lines == ["-memory 0 off", "+memory 0 on"]
