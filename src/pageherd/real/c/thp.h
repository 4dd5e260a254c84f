/* Transparent huge pages: settings for the programs that have huge ranges, and what becomes of a range.
 *
 * In such a program the first pages of a range are one page each, and the last one is all the rest of
 * the 2 MiB: what is done to it is done to every page of it, so all of them should stay alike. */

#define THP "/sys/kernel/mm/transparent_hugepage/"
#define FAULT_AROUND "/sys/kernel/debug/fault_around_bytes"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define COLLAPSE_TRIES 100

static struct settings thp = {
	.note = "/run/pageherd.thp",
	.wanted = {
		{ THP "enabled", "madvise" },
		{ THP "defrag", "madvise" },
		{ THP "use_zero_page", "1" },
		{ THP "shrink_underused", "0" },
		{ THP "khugepaged/scan_sleep_millisecs", "3600000" }, /* not meanwhile */
		{ THP "hugepages-8kB/enabled", "never" },
		{ THP "hugepages-16kB/enabled", "never" },
		{ THP "hugepages-32kB/enabled", "never" },
		{ THP "hugepages-64kB/enabled", "never" },
		{ THP "hugepages-128kB/enabled", "never" },
		{ THP "hugepages-256kB/enabled", "never" },
		{ THP "hugepages-512kB/enabled", "never" },
		{ THP "hugepages-1024kB/enabled", "never" },
		{ THP "hugepages-2048kB/enabled", "inherit" },
		{ THP "shmem_enabled", "advise" },
		{ THP "hugepages-2048kB/shmem_enabled", "inherit" },
		{ FAULT_AROUND, "4096" }, /* a fault maps what it is about */
		{ "/proc/sys/vm/page-cluster", "0" }, /* pages of a range lie in a row on the swap device */
	},
};

static int thp_error = ENOSYS, shmem_error = ENOSYS, split_error = ENOSYS, split_file = -1;
static unsigned long huge_failures;

/* A place for khugepaged to look at all the time: else it would look at each new process at once. */
static void thp_bait(void)
{
	char *map = mmap(NULL, 2 * HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		return;
	madvise(map, 2 * HUGE_SIZE, MADV_HUGEPAGE);
	madvise(map, 2 * HUGE_SIZE, MADV_DONTFORK);
}

#define SMALL_FOLIO 4 /* pages; the smallest size that anonymous memory can have */

static bool small_folios;

/* What a first touch of advised memory allocates: so many pages, or all of a range. */
static int thp_size(bool small)
{
	int error;

	if (access(THP "hugepages-16kB/enabled", W_OK))
		return -EFAULT; /* before v6.8 */
	small_folios = small;
	error = write_file(THP "hugepages-2048kB/enabled", small ? "never" : "inherit");
	return error ? error : write_file(THP "hugepages-16kB/enabled", small ? "madvise" : "never");
}

static int thp_start(void)
{
	static bool baited;
	int error;

	if (thp.changed)
		return small_folios ? thp_size(false) : 0;
	error = settings_change(&thp);
	if (error)
		return error;
	if (!baited)
		thp_bait();
	baited = true;
	usleep(20000); /* until khugepaged sleeps */
	return 0;
}

/* How often the kernel had no huge page to give. */
static unsigned long huge_failures_now(void)
{
	unsigned long sum = 0, count;
	FILE *file = fopen("/proc/vmstat", "re");
	char name[64];

	while (file && fscanf(file, "%63s %lu", name, &count) == 2)
		if (!strcmp(name, "thp_fault_fallback") || !strcmp(name, "thp_collapse_alloc_failed") ||
		    !strcmp(name, "thp_file_fallback"))
			sum += count;
	if (file)
		fclose(file);
	return sum;
}

/* Make room for some huge pages if there is little, and remember how often there was none. */
static void huge_prepare(void)
{
	FILE *file = fopen("/proc/buddyinfo", "re");
	char line[512];
	unsigned long free = 0;

	while (file && fgets(line, sizeof(line), file)) {
		char *at = strstr(line, "Normal"), *end;

		at = at ? at : strstr(line, "DMA32");
		at = at ? at + strcspn(at, " ") : NULL;
		for (int order = 0; at; order++) {
			unsigned long count = strtoul(at, &end, 10);

			if (end == at)
				break;
			free += order >= 9 ? count << (order - 9) : 0;
			at = end;
		}
	}
	if (file)
		fclose(file);
	if (free < 24)
		write_file("/proc/sys/vm/compact_memory", "1");
	huge_failures = huge_failures_now();
}

/* ---- what becomes of a range -------------------------------------------------------------------- */

static int split_at(pid_t pid, const char *address)
{
	char text[96];

	snprintf(text, sizeof(text), "%d,0x%lx,0x%lx", (int)pid, (unsigned long)address,
		 (unsigned long)address + page_size);
	return write(split_file, text, strlen(text)) < 0 ? -errno : 0;
}

static bool is_thp(uint64_t frame)
{
	uint64_t flags = 0;

	return frame && ask(kpageflags, frame * sizeof(flags), &flags) && flags >> KPF_THP & 1;
}

/* Whether a memfd has huge pages, and a fault maps no small pages beside its own. */
static int shmem_works(int pagemap)
{
	int fd = memfd_create("pageherd", MFD_CLOEXEC), error = 0;
	char *map = MAP_FAILED, *page;

	if (access(THP "shmem_enabled", W_OK) || access(FAULT_AROUND, W_OK))
		error = errno;
	if (!error && (fd < 0 || ftruncate(fd, HUGE_SIZE)))
		error = errno;
	if (!error)
		map = mmap(NULL, 2 * HUGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map != MAP_FAILED) {
		page = (char *)(((uintptr_t)map + HUGE_SIZE - 1) & ~(HUGE_SIZE - 1));
		if (mmap(page, HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED ||
		    madvise(page, HUGE_SIZE, MADV_HUGEPAGE))
			error = errno;
		else
			*(volatile char *)page = 1;
		if (!error && !is_thp(frame_in(entry_at(pagemap, page))))
			error = ENOMEM;
		munmap(map, 2 * HUGE_SIZE);
	}
	if (fd >= 0)
		close(fd);
	return error;
}

/* Whether a huge page is had, and whether one can be split. */
static void thp_probe(int pagemap)
{
	int error = thp_start();
	char *map = MAP_FAILED, *page;

	if (!error && kpageflags < 0)
		error = -EPERM; /* nobody would know what became of it */
	if (!error)
		map = mmap(NULL, 2 * HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map != MAP_FAILED) {
		page = (char *)(((uintptr_t)map + HUGE_SIZE - 1) & ~(HUGE_SIZE - 1));
		huge_prepare();
		madvise(page, HUGE_SIZE, MADV_HUGEPAGE);
		*(volatile char *)page = 1;
		if (!is_thp(frame_in(entry_at(pagemap, page))))
			error = -ENOMEM;
		split_file = open("/sys/kernel/debug/split_huge_pages", O_WRONLY | O_CLOEXEC);
		split_error = split_file < 0 ? errno : -split_at(getpid(), page);
		if (!split_error && is_thp(frame_in(entry_at(pagemap, page))))
			split_error = EBUSY;
		munmap(map, 2 * HUGE_SIZE);
	}
	thp_error = -error;
	shmem_error = error ? thp_error : shmem_works(pagemap);
	settings_back(&thp);
}

/* MADV_COLLAPSE of what no process has asked to be huge: EINVAL where the kernel has no such call. */
static int collapse_works(void)
{
	char *map = mmap(NULL, 2 * HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *page = (char *)(((uintptr_t)map + HUGE_SIZE - 1) & ~(HUGE_SIZE - 1));
	int error = 0;

	if (map == MAP_FAILED)
		return errno;
	*(volatile char *)page = 1;
	if (madvise(page, HUGE_SIZE, MADV_COLLAPSE))
		error = errno;
	munmap(map, 2 * HUGE_SIZE);
	return error;
}

static int enable_size(struct step *s)
{
	return thp_size(s->value == SMALL_FOLIO && shared->range_pages > SMALL_FOLIO);
}

/* EAGAIN: a page that is still being read from swap is not waited for. */
static int collapse_range(struct step *s)
{
	for (int tries = 0; madvise(page_at(s->a), HUGE_SIZE, MADV_COLLAPSE); tries++) {
		if (errno != EAGAIN || tries == COLLAPSE_TRIES)
			return -errno;
		usleep(10000);
	}
	return 0;
}

/* Of process s->a, the range that has page s->b. */
static int collapse_remote(struct step *s)
{
	int pidfd = syscall(SYS_pidfd_open, shared->pids[s->a], 0), error = 0;
	uintptr_t page = (uintptr_t)page_at(s->b);
	struct iovec range = { (void *)(page & ~(uintptr_t)(HUGE_SIZE - 1)), HUGE_SIZE };

	if (pidfd < 0)
		return -errno;
	for (int tries = 0; syscall(SYS_process_madvise, pidfd, &range, 1, MADV_COLLAPSE, 0) < 0; tries++) {
		if (errno != EAGAIN || tries == COLLAPSE_TRIES) {
			error = -errno;
			break;
		}
		usleep(10000);
	}
	close(pidfd);
	return error;
}

/* By the kernel, of process s->a's page s->b; whether it did shows only in what is there then. */
static int split_page(struct step *s)
{
	if (!is_thp(frame_of(s->a, s->b)))
		return -EBUSY;
	if (split_at(shared->pids[s->a], page_at(s->b)))
		return -errno;
	return is_thp(frame_of(s->a, s->b)) ? -EBUSY : 0;
}
