/*
 * Runs the program that is its standard input (an ELF file) with swap and huge pages.
 *
 *     selftest DEVICE PAGES [ARGUMENT ...] < PROGRAM
 *
 * It swaps on DEVICE (`none`: it does not), and PAGES huge pages of 2 MiB are added to the pool.
 * Both are as before at the end, also after SIGTERM, which is for the program.  What cannot be had
 * is told as a comment, so that the program may skip what needs it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

extern char **environ;

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), error = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		error = -errno;
	close(fd);
	return error;
}

#include "swap.h"

/* Make the pool larger by `pages`, which may be less than nothing. */
static int pool_add(long pages)
{
	FILE *file = fopen(POOL, "re");
	char text[32];
	long before;
	int found = file && fscanf(file, "%ld", &before) == 1;

	if (file)
		fclose(file);
	if (!found)
		return -ENOSYS;
	snprintf(text, sizeof(text), "%ld", before + pages);
	return write_file(POOL, text);
}

static void tell(const char *what, int error)
{
	if (error)
		printf("# [INFO] no %s: %s\n", what, strerror(-error));
	fflush(stdout);
}

static void ignore(int number)
{
	(void)number;
}

/* The exit status of a shell: that of the program, or 128 and the signal that ended it. */
static int run(char **arguments)
{
	struct sigaction wake = { .sa_handler = ignore };
	struct stat about;
	pid_t program;
	int status;

	if (fstat(0, &about) == 0 && !(about.st_mode & S_IXUSR))
		fchmod(0, 0700);
	sigaction(SIGTERM, &wake, NULL); /* an exec undoes it */
	program = fork();
	if (program == 0) {
		fexecve(0, arguments, environ);
		fprintf(stderr, "selftest: cannot run the program: %s\n", strerror(errno));
		_exit(127);
	}
	while (waitpid(program, &status, 0) < 0)
		if (errno != EINTR)
			return 127;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main(int count, char **arguments)
{
	long pages = count > 2 ? atol(arguments[2]) : 0;
	int status, pool;

	if (count < 3)
		return 2;
	strcpy(swap_label, "pageherd");
	tell("swap", swap_start(arguments[1]));
	pool = pages ? pool_add(pages) : -ENOENT;
	tell("huge pages", pages ? pool : 0);
	status = run(arguments + 2);
	if (!pool)
		pool_add(-pages);
	tell("end of swap", swap_stop());
	return status;
}
