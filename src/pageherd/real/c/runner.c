/*
 * Runs litmus programs on the kernel that it is started on.
 *
 * Standard input holds programs, one word-separated line per step, numbers and verbs only; standard
 * output gets what each step gave and what the kernel says of every page after it.  One process,
 * the conductor, hands each step to the process that must do it and waits, so the order is exactly
 * the program's; the steps of a group are released at once.  docs/real.md describes both formats.
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
#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

#define MAX_PROCESSES 6
#define MAX_THREADS 8
#define MAX_PAGES 8
#define MAX_REFERENCES 8
#define MAX_STEPS 200
#define MAX_CPUS 4
#define FIRST_PAGE 0x200000000000UL /* every process has the test's pages at the same addresses */
#define PAGE_GAP 16		    /* pages between two of them: their mappings never merge */
#define STEP_SECONDS 10
#define KERNEL (-1)
#define FRAME_MASK ((1ULL << 55) - 1)
#define MAX_CROWDS 10	   /* pipes for references made by tee() */
#define TEES_IN_PIPE 256   /* a pipe of 1 MiB, what an ordinary user may have */

typedef uint16_t value_t; /* what a page holds: its first bytes */

struct thread;

struct step {
	int thread, group; /* steps of one group (not 0) run at the same time */
	int (*run)(struct step *);
	int a, b, value, constant;
	int result, seen; /* 0 or -errno; the value read */
	bool reads;
	struct thread *by; /* that does it */
};

enum kind { NONE, PIPE, RING, VFIO, NBD };

struct reference {
	enum kind kind;
	int page, thread; /* that it was taken of and by */
	bool read_only;
	int teed; /* references made by tee(); one test makes them of one reference only */
};

struct thread {
	uint32_t posted, done; /* futexes: steps handed over, steps finished */
	int process, cpu;
	struct step *queue[MAX_STEPS];
};

/* What the conductor and every process see; MAP_SHARED. */
static struct shared {
	struct thread threads[MAX_THREADS];
	struct step steps[MAX_STEPS];
	struct reference references[MAX_REFERENCES];
	pid_t pids[MAX_PROCESSES];
	uint32_t release; /* the threads of a group wait for it */
	int nr_processes, nr_threads, nr_pages, nr_steps, repeat;
	bool facts, drain;
	char id[64];
} *shared;

static struct pipe pipes[MAX_REFERENCES], asides[MAX_REFERENCES], crowds[MAX_CROWDS];
static struct ring rings[MAX_REFERENCES];
static struct vfio vfio;
static struct nbd nbd;
static bool have_ring, have_vfio, have_nbd;
static int kpagecount = -1, kpageflags = -1;
static size_t page_size;
static void *scratch; /* a page of the conductor's own */
static pid_t conductor;
static __thread int self; /* the thread of the test that runs here */
static __thread sigjmp_buf on_fault;
static __thread volatile sig_atomic_t guarded;

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

/* ---- waiting ---------------------------------------------------------------------------------- */

static void futex_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Sleep until *word is no longer `now`, or for a moment. */
static void futex_wait(uint32_t *word, uint32_t now)
{
	struct timespec moment = { .tv_nsec = 200000000 };

	syscall(SYS_futex, word, FUTEX_WAIT, now, &moment, NULL, 0);
}

static double seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

/* ---- what a process does ---------------------------------------------------------------------- */

static void *page_at(int page)
{
	return (void *)(FIRST_PAGE + (size_t)page * PAGE_GAP * page_size);
}

static int result_of(long returned)
{
	return returned < 0 ? -errno : 0;
}

static void fault_handler(int signal)
{
	(void)signal;
	if (guarded)
		siglongjmp(on_fault, 1);
	_exit(99);
}

static int read_page(struct step *s)
{
	if (sigsetjmp(on_fault, 1)) {
		guarded = 0;
		return -EFAULT;
	}
	guarded = 1;
	s->seen = *(volatile value_t *)page_at(s->a);
	guarded = 0;
	return 0;
}

static int write_page(struct step *s)
{
	if (sigsetjmp(on_fault, 1)) {
		guarded = 0;
		return -EFAULT;
	}
	guarded = 1;
	*(volatile value_t *)page_at(s->a) = (value_t)s->value;
	guarded = 0;
	return 0;
}

static int map_page(struct step *s)
{
	void *map = mmap(page_at(s->a), page_size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (map == MAP_FAILED)
		return -errno;
	madvise(map, page_size, MADV_NOHUGEPAGE); /* EINVAL where the kernel has none */
	return 0;
}

static int unmap_page(struct step *s)
{
	return result_of(munmap(page_at(s->a), page_size));
}

static int protect_page(struct step *s)
{
	return result_of(mprotect(page_at(s->a), page_size, s->value));
}

static int move_page(struct step *s)
{
	void *map = mremap(page_at(s->a), page_size, page_size, MREMAP_MAYMOVE | MREMAP_FIXED,
			   page_at(s->b));

	return map == MAP_FAILED ? -errno : 0;
}

static int advise_page(struct step *s)
{
	return result_of(madvise(page_at(s->a), page_size, s->constant));
}

static int lock_page(struct step *s)
{
	return result_of(mlock(page_at(s->a), page_size));
}

static int clear_soft_dirty(struct step *s)
{
	(void)s;
	return write_file("/proc/self/clear_refs", "4");
}

static int leave(struct step *s)
{
	(void)s;
	_exit(0);
}

static int taken(struct step *s, enum kind kind, int error)
{
	if (!error)
		shared->references[s->b] = (struct reference){ .kind = kind, .page = s->a, .thread = s->thread,
							.read_only = s->constant == VFIO_DMA_MAP_FLAG_READ };
	return error;
}

static int take_pipe(struct step *s)
{
	return taken(s, PIPE, pipe_take(&pipes[s->b], page_at(s->a), page_size));
}

static int take_ring(struct step *s)
{
	return have_ring ? taken(s, RING, ring_register(&rings[s->b], page_at(s->a), page_size)) : -ENOSYS;
}

static int take_vfio(struct step *s)
{
	if (!have_vfio)
		return -ENOSYS;
	return taken(s, VFIO, vfio_map(&vfio, VFIO_PAGE(s->b), page_at(s->a), page_size, s->constant));
}

static int take_nbd(struct step *s)
{
	return have_nbd ? taken(s, NBD, nbd_start_read(&nbd, page_at(s->a))) : -ENOSYS;
}

static int load_reference(struct step *s)
{
	struct reference *r = &shared->references[s->a];
	value_t seen = 0;
	int error = -EFAULT; /* there is no reference: it could not be taken */

	if (r->kind == PIPE)
		error = pipe_look(&pipes[s->a], &asides[s->a], &seen, sizeof(seen));
	else if (r->kind == RING)
		error = ring_load(&rings[s->a], &asides[s->a], page_at(r->page), &seen, sizeof(seen));
	else if (r->kind == VFIO)
		error = vfio_load(&vfio, VFIO_PAGE(s->a), &seen, sizeof(seen));
	s->seen = seen;
	return error;
}

static int store_reference(struct step *s)
{
	struct reference *r = &shared->references[s->a];
	value_t value = (value_t)s->value;

	if (r->read_only)
		return -EFAULT; /* the IOMMU would stop the device */
	if (r->kind == RING)
		return ring_store(&rings[s->a], &asides[s->a], page_at(r->page), &value, sizeof(value));
	if (r->kind == VFIO)
		return vfio_store(&vfio, VFIO_PAGE(s->a), &value, sizeof(value));
	if (r->kind == NBD)
		return nbd_store(&nbd, &value, sizeof(value));
	return -EFAULT; /* no reference, or a pipe: nothing writes through it */
}

static int tee_reference(struct step *s)
{
	struct reference *r = &shared->references[s->a];
	int in = r->teed / TEES_IN_PIPE;

	if (r->kind != PIPE)
		return -EFAULT;
	for (int i = 0; i < s->value; i++) {
		if (tee(pipes[s->a].read_end, crowds[in].write_end, 1, SPLICE_F_NONBLOCK) >= 0)
			r->teed++;
		else if (errno != EAGAIN || ++in == MAX_CROWDS)
			return -errno;
		else if (fcntl(crowds[in].write_end, F_SETPIPE_SZ, TEES_IN_PIPE * page_size) < 0)
			return -errno;
		else
			i--;
	}
	return 0;
}

static int release_reference(struct step *s)
{
	struct reference *r = &shared->references[s->a];
	enum kind kind = r->kind;

	r->kind = NONE;
	if (kind == PIPE) {
		for (int i = 0; r->teed && i < MAX_CROWDS; i++)
			pipe_release(&crowds[i]);
		r->teed = 0;
		return pipe_release(&pipes[s->a]);
	}
	if (kind == RING)
		return ring_unregister(&rings[s->a]);
	if (kind == VFIO)
		return vfio_unmap(&vfio, VFIO_PAGE(s->a), page_size);
	if (kind == NBD)
		return nbd_finish(&nbd);
	return -EFAULT; /* there is no reference */
}

static int remote_read(struct step *s)
{
	value_t seen = 0;
	struct iovec here = { &seen, sizeof(seen) }, there = { page_at(s->b), sizeof(seen) };
	int error = result_of(process_vm_readv(shared->pids[s->a], &here, 1, &there, 1, 0));

	s->seen = seen;
	return error;
}

static int remote_write(struct step *s)
{
	value_t value = (value_t)s->value;
	struct iovec here = { &value, sizeof(value) }, there = { page_at(s->b), sizeof(value) };

	return result_of(process_vm_writev(shared->pids[s->a], &here, 1, &there, 1, 0));
}

static int open_memory(int process, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mem", shared->pids[process]);
	return open(path, flags | O_CLOEXEC);
}

/* Through /proc/PID/mem, as a debugger does; a page that cannot be had gives EIO. */
static int peek(struct step *s)
{
	value_t seen = 0;
	int fd = open_memory(s->a, O_RDONLY), error;

	if (fd < 0)
		return -errno;
	error = result_of(pread(fd, &seen, sizeof(seen), (off_t)page_at(s->b)));
	close(fd);
	s->seen = seen;
	return error == -EIO ? -EFAULT : error;
}

static int poke(struct step *s)
{
	value_t value = (value_t)s->value;
	int fd = open_memory(s->a, O_RDWR), error;

	if (fd < 0)
		return -errno;
	error = result_of(pwrite(fd, &value, sizeof(value), (off_t)page_at(s->b)));
	close(fd);
	return error == -EIO ? -EFAULT : error;
}

static int fork_process(struct step *s);

static int swap_off(struct step *s)
{
	(void)s;
	return swap_stop();
}

static void drain(int cpu);
static void drain_all(void);

static int drain_batches(struct step *s)
{
	if (s->value < 0)
		drain_all();
	else
		drain(s->value % MAX_CPUS);
	return 0;
}

static int nothing(struct step *s)
{
	(void)s;
	return 0;
}

static const struct verb {
	const char *name;
	int (*run)(struct step *);
	int constant;
	bool reads;
} verbs[] = {
	{ .name = "read", .run = read_page, .reads = true },
	{ .name = "write", .run = write_page },
	{ .name = "mmap", .run = map_page },
	{ .name = "munmap", .run = unmap_page },
	{ .name = "mprotect", .run = protect_page },
	{ .name = "mremap", .run = move_page },
	{ .name = "dontneed", .run = advise_page, .constant = MADV_DONTNEED },
	{ .name = "dontfork", .run = advise_page, .constant = MADV_DONTFORK },
	{ .name = "dofork", .run = advise_page, .constant = MADV_DOFORK },
	{ .name = "wipeonfork", .run = advise_page, .constant = MADV_WIPEONFORK },
	{ .name = "pageout", .run = advise_page, .constant = MADV_PAGEOUT },
	{ .name = "populate_read", .run = advise_page, .constant = MADV_POPULATE_READ },
	{ .name = "populate_write", .run = advise_page, .constant = MADV_POPULATE_WRITE },
	{ .name = "mlock", .run = lock_page },
	{ .name = "clear_soft_dirty", .run = clear_soft_dirty },
	{ .name = "pagemap", .run = nothing }, /* the facts after every step say it */
	{ .name = "fork", .run = fork_process },
	{ .name = "exit", .run = leave },
	{ .name = "pipe", .run = take_pipe },
	{ .name = "ring", .run = take_ring },
	{ .name = "vfio", .run = take_vfio,
	  .constant = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE },
	{ .name = "vfio_ro", .run = take_vfio, .constant = VFIO_DMA_MAP_FLAG_READ },
	{ .name = "nbd", .run = take_nbd },
	{ .name = "read_ref", .run = load_reference, .reads = true },
	{ .name = "write_ref", .run = store_reference },
	{ .name = "tee", .run = tee_reference },
	{ .name = "release", .run = release_reference },
	{ .name = "share", .run = nothing }, /* every process has the file descriptor */
	{ .name = "process_vm_readv", .run = remote_read, .reads = true },
	{ .name = "process_vm_writev", .run = remote_write },
	{ .name = "peek", .run = peek, .reads = true },
	{ .name = "poke", .run = poke },
	{ .name = "drain", .run = drain_batches },
	{ .name = "swapoff", .run = swap_off },
};

/* ---- the threads of the test ------------------------------------------------------------------- */

static void run_on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void *thread_main(void *argument)
{
	struct thread *t;
	uint32_t done = 0;

	self = (int)(intptr_t)argument;
	t = &shared->threads[self];
	run_on_cpu(t->cpu);
	for (;;) {
		uint32_t posted = __atomic_load_n(&t->posted, __ATOMIC_ACQUIRE);

		if (posted == done) {
			futex_wait(&t->posted, posted);
			if (kill(conductor, 0))
				_exit(0); /* the conductor was killed */
			continue;
		}
		while (done != posted) {
			struct step *s = t->queue[done];

			if (s->group)
				while (__atomic_load_n(&shared->release, __ATOMIC_ACQUIRE) != (uint32_t)s->group)
					;
			s->result = s->run(s);
			__atomic_store_n(&t->done, ++done, __ATOMIC_RELEASE);
		}
		futex_wake(&t->done);
	}
	return NULL;
}

/* The first thread of process `n` goes on here; the others are started. */
static void process_main(int n)
{
	pthread_t started;
	int first = -1;

	for (int t = 0; t < shared->nr_threads; t++) {
		if (shared->threads[t].process != n)
			continue;
		if (first < 0)
			first = t;
		else if (pthread_create(&started, NULL, thread_main, (void *)(intptr_t)t))
			_exit(98);
	}
	thread_main((void *)(intptr_t)first);
}

/* fork(), but the child is the conductor's to wait for. */
static int start_process(int n, int flags)
{
	pid_t pid = syscall(SYS_clone, flags | SIGCHLD, 0, NULL, NULL, 0);

	if (pid < 0)
		return -errno;
	if (pid == 0)
		process_main(n);
	shared->pids[n] = pid;
	return 0;
}

static int fork_process(struct step *s)
{
	return start_process(s->a, CLONE_PARENT);
}

/* ---- the conductor ----------------------------------------------------------------------------- */

/* lru_add_drain(), which madvise(MADV_COLD) calls first (v5.4 and later). */
static void drain(int cpu)
{
	if (cpu)
		run_on_cpu(cpu);
	madvise(scratch, page_size, MADV_COLD);
	if (cpu)
		run_on_cpu(0);
}

static void drain_all(void)
{
	bool used[MAX_CPUS] = { false };

	for (int t = 0; t < shared->nr_threads; t++)
		used[shared->threads[t].cpu] = true;
	for (int cpu = 0; cpu < MAX_CPUS; cpu++)
		if (used[cpu])
			drain(cpu);
}

static bool wait_gone(int process)
{
	for (int i = 0; i < STEP_SECONDS * 1000; i++) {
		pid_t pid = waitpid(shared->pids[process], NULL, WNOHANG);

		if (pid == shared->pids[process] || (pid < 0 && errno == ECHILD)) {
			shared->pids[process] = 0;
			return true;
		}
		usleep(i < 100 ? 50 : 1000);
	}
	return false;
}

static bool ask(int fd, off_t offset, uint64_t *word)
{
	return fd >= 0 && pread(fd, word, sizeof(*word), offset) == sizeof(*word);
}

/* Wait until the frame of the page that a pageout may have written is no longer under write-back. */
static void settle(uint64_t frame)
{
	uint64_t flags = 1 << KPF_WRITEBACK;

	for (int i = 0; frame && flags >> KPF_WRITEBACK & 1 && i < 5000; i++)
		if (!ask(kpageflags, frame * sizeof(flags), &flags))
			return;
		else if (flags >> KPF_WRITEBACK & 1)
			usleep(100);
}

static uint64_t frame_of(int process, int page)
{
	uint64_t entry = 0;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", shared->pids[process]);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ask(fd, (uintptr_t)page_at(page) / page_size * sizeof(entry), &entry);
	close(fd);
	return entry >> 63 ? entry & FRAME_MASK : 0;
}

/* pagemap, kpagecount and kpageflags of every page of every process. */
static void print_facts(void)
{
	char path[64];

	for (int n = 0; n < shared->nr_processes; n++) {
		int fd;

		if (!shared->pids[n])
			continue;
		snprintf(path, sizeof(path), "/proc/%d/pagemap", shared->pids[n]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		for (int page = 0; page < shared->nr_pages; page++) {
			uint64_t entry = 0, count = 0, flags = 0, frame;

			ask(fd, (uintptr_t)page_at(page) / page_size * sizeof(entry), &entry);
			frame = entry >> 63 ? entry & FRAME_MASK : 0;
			if (frame) {
				ask(kpagecount, frame * sizeof(count), &count);
				ask(kpageflags, frame * sizeof(flags), &flags);
			}
			printf(" | %d.%d %llx %lld %llx", n, page, (unsigned long long)entry,
			       (long long)count, (unsigned long long)flags);
		}
		if (fd >= 0)
			close(fd);
	}
}

static void print_step(int i)
{
	struct step *s = &shared->steps[i];

	printf("step %d %d %d", i, s->result, s->reads ? s->seen : 0);
	if (shared->facts)
		print_facts();
	putchar('\n');
}

/* The thread that does a step: the one named, but a VFIO mapping is undone by its own process. */
static struct thread *poster(struct step *s)
{
	struct reference *r = &shared->references[s->a];

	if (s->run == release_reference && r->kind == VFIO)
		return &shared->threads[r->thread];
	return &shared->threads[s->thread];
}

static void post(struct step *s)
{
	struct thread *t = s->by;

	t->queue[t->posted] = s;
	__atomic_store_n(&t->posted, t->posted + 1, __ATOMIC_RELEASE);
	futex_wake(&t->posted);
}

/* Whether the step's thread finished all that was posted to it, or its process left as it should;
 * false: it hangs, or its process died. */
static bool finished(struct step *s)
{
	double until = seconds_now() + STEP_SECONDS;
	struct thread *t = s->by;
	uint32_t done;

	if (s->run == leave)
		return wait_gone(t->process);
	while ((done = __atomic_load_n(&t->done, __ATOMIC_ACQUIRE)) != t->posted) {
		if (seconds_now() > until || waitpid(shared->pids[t->process], NULL, WNOHANG) > 0)
			return false;
		futex_wait(&t->done, done);
	}
	return true;
}

/* Run the steps from `first` to before `last`, which belong to one group or are one; false: hang. */
static bool run_steps(int first, int last)
{
	uint64_t frame = 0; /* that a pageout may write to swap */
	struct step *s;

	for (int i = first; i < last; i++) {
		s = &shared->steps[i];
		s->by = s->thread == KERNEL ? NULL : poster(s);
		if (s->constant == MADV_PAGEOUT)
			frame = frame_of(s->by->process, s->a);
		if (s->thread == KERNEL)
			s->result = s->run(s);
		else
			post(s);
	}
	__atomic_store_n(&shared->release, shared->steps[first].group, __ATOMIC_RELEASE);
	for (int i = first; i < last; i++) {
		s = &shared->steps[i];
		if (s->thread != KERNEL && !finished(s))
			return false;
	}
	settle(frame);
	return true;
}

/* Once through the program; false when a step did not return. */
static bool run_once(void)
{
	int last;

	for (int t = 0; t < shared->nr_threads; t++)
		shared->threads[t].posted = shared->threads[t].done = 0;
	for (int n = 0; n < shared->nr_processes; n++)
		shared->pids[n] = 0;
	for (int i = 0; i < shared->nr_steps; i++)
		if (shared->steps[i].run == fork_process)
			shared->pids[shared->steps[i].a] = -1;
	for (int n = 0; n < shared->nr_processes; n++)
		if (shared->pids[n] < 0)
			shared->pids[n] = 0; /* some step forks it */
		else if (start_process(n, 0))
			return false;
	drain_all();
	for (int i = 0; i < shared->nr_steps; i = last) {
		for (last = i + 1; shared->steps[i].group && last < shared->nr_steps; last++)
			if (shared->steps[last].group != shared->steps[i].group)
				break;
		if (!run_steps(i, last)) {
			printf("hang %d\n", i);
			return false;
		}
		if (shared->drain)
			drain_all();
		for (int j = i; j < last; j++)
			print_step(j);
	}
	return true;
}

/* Kill every process of the test and give every reference back; false: something stays. */
static bool clean_up(void)
{
	struct step s = { 0 };
	bool clean = true, mapped = false;

	for (int n = 0; n < shared->nr_processes; n++)
		if (shared->pids[n] > 0)
			kill(shared->pids[n], SIGKILL);
	if (have_nbd)
		nbd_finish(&nbd);
	for (int n = 0; n < shared->nr_processes; n++)
		if (shared->pids[n] > 0)
			clean &= wait_gone(n);
	for (s.a = 0; s.a < MAX_REFERENCES; s.a++) {
		if (shared->references[s.a].kind == VFIO)
			mapped = true; /* the process that may unmap it is gone */
		else
			release_reference(&s);
	}
	if (mapped) {
		vfio_close(&vfio, page_size);
		have_vfio = !vfio_open(&vfio, page_size);
	}
	return clean && (have_vfio || !mapped);
}

static int run_program(void)
{
	bool whole = true, clean = true;

	printf("program %s\n", shared->id);
	for (int i = 0; i < shared->repeat && whole && clean; i++) {
		if (i)
			puts("again");
		whole = run_once();
		clean = clean_up();
	}
	puts(clean ? "end" : "stuck");
	fflush(stdout);
	return clean ? 0 : 4;
}

/* ---- reading programs --------------------------------------------------------------------------- */

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
	if (sscanf(line, "program %63s %d %d %d %d %d", shared->id, &shared->nr_processes,
		   &shared->nr_pages, &shared->repeat, &facts, &drained) != 6)
		return false;
	shared->facts = facts;
	shared->drain = drained;
	return within(shared->nr_processes, MAX_PROCESSES + 1) && within(shared->nr_pages, MAX_PAGES + 1);
}

static bool read_thread(const char *line)
{
	struct thread *t = &shared->threads[shared->nr_threads];

	if (shared->nr_threads == MAX_THREADS ||
	    sscanf(line, "thread %d %d", &t->process, &t->cpu) != 2)
		return false;
	shared->nr_threads++;
	return within(t->process, MAX_PROCESSES) && within(t->cpu, MAX_CPUS);
}

static bool read_step(const char *line)
{
	struct step *s = &shared->steps[shared->nr_steps];
	char verb[32];

	if (shared->nr_steps == MAX_STEPS || sscanf(line, "step %d %d %31s %d %d %d", &s->thread,
						    &s->group, verb, &s->a, &s->b, &s->value) != 6)
		return false;
	if (s->thread != KERNEL && !within(s->thread, shared->nr_threads))
		return false;
	if (!within(s->a, MAX_PAGES) || !within(s->b, MAX_PAGES))
		return false;
	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++) {
		if (strcmp(verb, verbs[i].name))
			continue;
		s->run = verbs[i].run;
		s->constant = verbs[i].constant;
		s->reads = verbs[i].reads;
		shared->nr_steps++;
		return true;
	}
	return false;
}

static int serve(void)
{
	char line[256], device[128];
	int error = 0;

	while (!error && fgets(line, sizeof(line), stdin)) {
		if (!strncmp(line, "program ", 8))
			error = read_program(line) ? 0 : refuse(line);
		else if (!strncmp(line, "thread ", 7))
			error = read_thread(line) ? 0 : refuse(line);
		else if (!strncmp(line, "step ", 5))
			error = read_step(line) ? 0 : refuse(line);
		else if (!strcmp(line, "run\n"))
			error = run_program();
		else if (sscanf(line, "swap %127s", device) == 1)
			printf("swap %d\n", swap_start(device));
		else
			error = refuse(line);
	}
	return error;
}

/* ---- start ---------------------------------------------------------------------------------------- */

static void report(const char *what, int error)
{
	printf("have %s %d\n", what, error);
	fflush(stdout); /* if the next probe hangs, it is known which */
}

static void report_cpu(int cpu)
{
	char name[16];

	snprintf(name, sizeof(name), "cpu-%d", cpu);
	report(name, cpu < sysconf(_SC_NPROCESSORS_ONLN) ? 0 : ENODEV);
}

/* Whether clearing soft-dirty bits clears them; the file is there without CONFIG_MEM_SOFT_DIRTY. */
static int soft_dirty_works(int pagemap)
{
	uint64_t word = 0;
	int error = -write_file("/proc/self/clear_refs", "4");

	if (error)
		return error;
	ask(pagemap, (uintptr_t)scratch / page_size * sizeof(word), &word);
	if (word >> 55 & 1)
		return EOPNOTSUPP;
	*(volatile char *)scratch = 2;
	ask(pagemap, (uintptr_t)scratch / page_size * sizeof(word), &word);
	return word >> 55 & 1 ? 0 : EOPNOTSUPP;
}

/* Whether /proc/PID/mem writes where the mapping forbids it (CONFIG_PROC_MEM_ALWAYS_FORCE). */
static int forced_write_works(void)
{
	void *page = mmap(NULL, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC), error = 0;

	if (fd < 0 || page == MAP_FAILED)
		return errno;
	if (pwrite(fd, "x", 1, (off_t)page) != 1)
		error = errno;
	close(fd);
	munmap(page, page_size);
	return error;
}

/* Try everything once and say what is there: 0, or the errno that tells what is missing. */
static void probe(void)
{
	struct utsname name;
	uint64_t word = 0;
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), error = 0;

	uname(&name);
	printf("release %s\n", name.release);
	for (int cpu = 1; cpu < MAX_CPUS; cpu++)
		report_cpu(cpu);
	kpagecount = open("/proc/kpagecount", O_RDONLY | O_CLOEXEC);
	report("kpagecount", kpagecount < 0 ? errno : 0);
	kpageflags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	report("kpageflags", kpageflags < 0 ? errno : 0);
	*(volatile char *)scratch = 1;
	if (!ask(pagemap, (uintptr_t)scratch / page_size * sizeof(word), &word))
		report("pagemap", errno);
	else
		report("pagemap", word & FRAME_MASK ? 0 : EPERM);
	report("pageout", madvise(scratch, page_size, MADV_PAGEOUT) ? errno : 0);
	report("populate", madvise(scratch, page_size, MADV_POPULATE_READ) ? errno : 0);
	report("soft-dirty", soft_dirty_works(pagemap));
	report("forced-writes", forced_write_works());
	for (int i = 0; i < MAX_REFERENCES && !error; i++)
		error = pipe_open(&pipes[i]) ? errno : pipe_open(&asides[i]) ? errno : 0;
	for (int i = 0; i < MAX_CROWDS && !error; i++)
		error = -pipe_open(&crowds[i]);
	if (!error)
		fcntl(crowds[0].write_end, F_SETPIPE_SZ, TEES_IN_PIPE * page_size);
	report("pipe", error);
	error = 0;
	for (int i = 0; i < MAX_REFERENCES && !error; i++)
		error = -ring_open(&rings[i]);
	have_ring = !error;
	report("io_uring", error);
	error = -nbd_open(&nbd, page_size);
	have_nbd = !error;
	report("nbd", error);
	/* last: a child that has these files would keep every mapping alive */
	error = -vfio_open(&vfio, page_size);
	have_vfio = !error;
	report("vfio", error);
	fflush(stdout);
}

int main(void)
{
	struct sigaction action = { .sa_handler = fault_handler, .sa_flags = SA_NODEFER };
	int status;

	page_size = sysconf(_SC_PAGESIZE);
	conductor = getpid();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	scratch = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || scratch == MAP_FAILED)
		return 4;
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
	run_on_cpu(0);
	probe();
	status = serve();
	swap_stop();
	if (have_nbd)
		nbd_close(&nbd);
	return status;
}
