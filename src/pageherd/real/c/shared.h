/* What the conductor and the processes of the test share, and how they wait for each other. */

#define MAX_PROCESSES 6
#define MAX_THREADS 8
#define MAX_PAGES 8
#define MAX_REFERENCES 8
#define MAX_STEPS 200
#define MAX_CPUS 4
#define FIRST_PAGE 0x200000000000UL /* every process has the test's pages at the same addresses */
#define PAGE_GAP 1024 /* pages between two of them: their mappings never merge, and may be huge */
#define STEP_SECONDS 10
#define KERNEL (-1)
#define MAX_CROWDS 10	   /* pipes for references made by tee() */
#define PAGES_IN_PIPE 256  /* a pipe of 1 MiB, what an ordinary user may have */
#define RANGE_WIDTH 512	   /* pages of memory in a huge range */

typedef uint16_t value_t; /* what a page holds: its first bytes */

struct thread;

struct step {
	int thread, group; /* steps of one group (not 0) run at the same time */
	int (*run)(struct step *);
	int a, b, value, constant;
	int span; /* more than 1: on all pages of the huge range that `a` is the first of */
	int result, seen; /* 0 or -errno; the value read */
	bool reads;
	struct thread *by; /* that does it */
};

enum kind { NONE, PIPE, RING, VFIO, NBD };

struct reference {
	enum kind kind;
	int page, thread; /* that it was taken of and by */
	bool read_only;
	size_t length; /* of the memory that it is to */
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
	int range_pages; /* of each huge range; 0: the program has none */
	int place[MAX_PAGES], width[MAX_PAGES]; /* of a page, in pages of memory: from the first on */
	int mapped_width[MAX_PROCESSES][MAX_PAGES]; /* as the process has it now, after mremap */
	char id[64];
} *shared;

static struct pipe pipes[MAX_REFERENCES], rests[MAX_REFERENCES]; /* a page's memory fits into both */
static struct pipe asides[MAX_REFERENCES], crowds[MAX_CROWDS];
static struct ring rings[MAX_REFERENCES];
static struct vfio vfio;
static struct nbd nbd;
static bool have_ring, have_vfio, have_nbd, have_reclaim;
static size_t page_size;
static void *scratch; /* a page of the conductor's own */
static pid_t conductor;

static void *page_at(int page)
{
	return (void *)(FIRST_PAGE + (size_t)shared->place[page] * page_size);
}

/* The CPUs that this program may use; the test's CPU n is the n-th of them. */
static int cpus[MAX_CPUS], nr_cpus;

static void find_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE && nr_cpus < MAX_CPUS; cpu++)
		if (CPU_ISSET(cpu, &set))
			cpus[nr_cpus++] = cpu;
}

static void run_on_cpu(int number)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpus[number], &set);
	sched_setaffinity(0, sizeof(set), &set);
}

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
