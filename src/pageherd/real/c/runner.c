/*
 * Runs litmus programs on the kernel that it is started on.
 *
 * Standard input holds programs, one word-separated line per step, numbers and verbs only; standard
 * output gets what each step gave and what the kernel says of every page after it.  One process,
 * the conductor, hands each step to the process that must do it and waits, so the order is exactly
 * the program's; the steps of a group are released at once.  docs/real.md describes both formats.
 *
 * Exit code: 0; 2 a line that cannot be read; 4 something of a program stays and cannot be removed;
 * 128 and the number of a signal: told to stop, or (SIGPIPE) nobody reads what is printed.  In each
 * case the processes are gone and swap is off.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <arpa/inet.h>
#include <endian.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/kernel-page-flags.h>
#include <linux/magic.h>
#include <linux/nbd.h>
#include <linux/pci_regs.h>
#include <linux/sockios.h>
#include <linux/vfio.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pipe.h"
#include "ring.h"
#include "vfio.h"
#include "nbd.h"
#include "shared.h"
#include "file.h"
#include "settings.h"
#include "swap.h"
#include "reclaim.h"
#include "migrate.h"
#include "facts.h"
#include "thp.h"
#include "uffd.h"
#include "ksm.h"
#include "steps.h"
#include "processes.h"
#include "conduct.h"
#include "probe.h"

/* ---- reading programs --------------------------------------------------------------------------- */

static int thp_failed; /* why the program's huge ranges could not be had */
static int ksm_failed; /* why ksmd could not be had */
static int swap_error; /* why the swap that was asked for last could not be had; 0 if it could */

static int refuse(const char *line)
{
	fprintf(stderr, "runner: cannot read: %s", line);
	return 2;
}

static bool within(int number, int limit)
{
	return number >= 0 && number < limit;
}

static bool read_program(const char *line)
{
	int facts, drained;

	memset(shared, 0, sizeof(*shared));
	pool_error = 0;
	file_kind = MEMFD;
	pool_wanted = -1;
	if (sscanf(line, "program %63s %9d %9d %9d %9d %9d", shared->id, &shared->nr_processes,
		   &shared->nr_pages, &shared->repeat, &facts, &drained) != 6)
		return false;
	shared->facts = facts;
	shared->drain = drained;
	thp_failed = ksm_failed = 0;
	for (int page = 0; page < MAX_PAGES; page++) {
		shared->place[page] = page * PAGE_GAP;
		shared->width[page] = 1;
	}
	return within(shared->nr_processes, MAX_PROCESSES + 1) && within(shared->nr_pages, MAX_PAGES + 1);
}

/* How many hugetlb pages there are in all. */
static bool read_pool(const char *line)
{
	if (sscanf(line, "pool %9ld", &pool_wanted) != 1 || pool_wanted < 0)
		return false;
	pool_error = pool_start();
	return true;
}

/* What kind of file the file is; a pool that has a size has it by now. */
static bool read_file_kind(const char *line)
{
	if (!strcmp(line, "file tmpfile\n"))
		file_kind = ON_DISK;
	else if (!strcmp(line, "file dax\n"))
		file_kind = DAX;
	else if (!strcmp(line, "file hugetlb\n"))
		file_kind = OF_HUGE_PAGES;
	if (file_kind == OF_HUGE_PAGES && !pool_error)
		pool_error = pool_start();
	return file_kind != MEMFD;
}

/* The pages of a range lie in a row, the last one is as wide as it takes. */
static bool read_range(const char *line)
{
	int first, pages;

	if (sscanf(line, "range %9d %9d", &first, &pages) != 2 || !within(first, MAX_PAGES) ||
	    pages < 2 || first + pages > shared->nr_pages)
		return false;
	for (int i = 1; i < pages; i++)
		shared->place[first + i] = shared->place[first] + i;
	shared->width[first + pages - 1] = RANGE_WIDTH - pages + 1;
	shared->range_pages = pages;
	if (!thp_failed)
		thp_failed = thp_error ? -thp_error : thp_start();
	return true;
}

static bool read_thread(const char *line)
{
	struct thread *t = &shared->threads[shared->nr_threads];

	if (shared->nr_threads == MAX_THREADS ||
	    sscanf(line, "thread %9d %9d", &t->process, &t->cpu) != 2)
		return false;
	shared->nr_threads++;
	return within(t->process, MAX_PROCESSES) && within(t->cpu, MAX_CPUS);
}

static bool read_step(const char *line)
{
	struct step *s = &shared->steps[shared->nr_steps];
	char verb[32];

	s->span = 1;
	if (shared->nr_steps == MAX_STEPS || sscanf(line, "step %9d %9d %31s %9d %9d %9d %9d", &s->thread,
						    &s->group, verb, &s->a, &s->b, &s->value, &s->span) < 6)
		return false;
	if (s->thread != KERNEL && !within(s->thread, shared->nr_threads))
		return false;
	if (!within(s->a, MAX_PAGES) || !within(s->b, MAX_PAGES) || s->span < 1 || s->a + s->span > MAX_PAGES)
		return false;
	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++) {
		if (strcmp(verb, verbs[i].name))
			continue;
		s->run = verbs[i].run;
		s->constant = verbs[i].constant;
		s->reads = verbs[i].reads;
		if (s->run == map_huge && !pool_error)
			pool_error = pool_start();
		if (s->run == merge_pages && !ksm_failed)
			ksm_failed = ksm_error ? -ksm_error : ksm_start();
		shared->nr_steps++;
		return true;
	}
	return false;
}

/* What is no path stands for a device that this machine does not have. */
static bool read_swap(const char *line)
{
	char device[128];

	if (sscanf(line, "swap %127s", device) != 1)
		return false;
	if (device[0] == '/' || !strcmp(device, "none"))
		swap_error = swap_start(device);
	else
		swap_error = -ENODEV;
	printf("swap %d\n", swap_error);
	return true;
}

/* Without the swap, huge pages or ksmd that it needs a program is not run: it shows no step. */
static int run_or_pass(void)
{
	if (!swap_error && !pool_error && !thp_failed && !ksm_failed)
		return run_program();
	printf("program %s\n%send\n", shared->id, pool_error ? "no-huge\n" : "");
	return 0;
}

static int serve(void)
{
	char line[256];
	int error = 0;

	while (!error && fgets(line, sizeof(line), stdin)) {
		if (!strncmp(line, "program ", 8))
			error = read_program(line) ? 0 : refuse(line);
		else if (!strncmp(line, "range ", 6))
			error = read_range(line) ? 0 : refuse(line);
		else if (!strncmp(line, "pool ", 5))
			error = read_pool(line) ? 0 : refuse(line);
		else if (!strncmp(line, "thread ", 7))
			error = read_thread(line) ? 0 : refuse(line);
		else if (!strncmp(line, "step ", 5))
			error = read_step(line) ? 0 : refuse(line);
		else if (!strncmp(line, "file ", 5))
			error = read_file_kind(line) ? 0 : refuse(line);
		else if (!strncmp(line, "swap ", 5))
			error = read_swap(line) ? 0 : refuse(line);
		else if (!strcmp(line, "run\n"))
			error = run_or_pass();
		else
			error = refuse(line);
	}
	return !error && stopped() ? 128 + stop_signal : error;
}

/* ---- start ---------------------------------------------------------------------------------------- */

static void handle_signals(void)
{
	struct sigaction fault = { .sa_handler = fault_handler, .sa_flags = SA_NODEFER };
	struct sigaction stop = { .sa_handler = stop_handler };

	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGBUS, &fault, NULL);
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGHUP, &stop, NULL);
	signal(SIGPIPE, SIG_IGN);
}

int main(void)
{
	int status;

	page_size = sysconf(_SC_PAGESIZE);
	conductor = getpid();
	strcpy(swap_label, "pageherd");
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	scratch = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || scratch == MAP_FAILED)
		return 4;
	handle_signals();
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
	find_cpus();
	run_on_cpu(0);
	probe();
	status = serve();
	swap_stop();
	pool_stop();
	settings_back(&thp);
	ksm_stop();
	reclaim_close();
	if (have_nbd)
		nbd_close(&nbd);
	return status;
}
