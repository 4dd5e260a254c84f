/* What the kernel says of pages: pagemap, kpagecount and kpageflags. */

#define FRAME_MASK ((1ULL << 55) - 1)

static int kpagecount = -1, kpageflags = -1;

static bool ask(int fd, off_t offset, uint64_t *word)
{
	return fd >= 0 && pread(fd, word, sizeof(*word), offset) == sizeof(*word);
}

/* What pagemap says of an address; 0 if it says nothing. */
static uint64_t entry_at(int pagemap, const void *address)
{
	uint64_t entry = 0;

	ask(pagemap, (uintptr_t)address / page_size * sizeof(entry), &entry);
	return entry;
}

static uint64_t frame_in(uint64_t entry)
{
	return entry >> 63 ? entry & FRAME_MASK : 0;
}

static int open_pagemap(int process)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", shared->pids[process]);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static uint64_t frame_of(int process, int page)
{
	int pagemap = open_pagemap(process);
	uint64_t entry = entry_at(pagemap, page_at(page));

	if (pagemap >= 0)
		close(pagemap);
	return frame_in(entry);
}

/* The frames that a step may write to swap. */
struct written {
	uint64_t frames[MAX_PROCESSES * MAX_PAGES];
	int count;
};

static void may_write_all(struct written *w)
{
	for (int n = 0; n < shared->nr_processes; n++)
		for (int page = 0; shared->pids[n] && page < shared->nr_pages; page++)
			w->frames[w->count++] = frame_of(n, page);
}

/* Wait until a frame is no longer under write-back. */
static void settle(uint64_t frame)
{
	uint64_t flags = 1 << KPF_WRITEBACK;

	for (int i = 0; frame && flags >> KPF_WRITEBACK & 1 && i < 5000; i++)
		if (!ask(kpageflags, frame * sizeof(flags), &flags))
			return;
		else if (flags >> KPF_WRITEBACK & 1)
			usleep(100);
}

/* pagemap, kpagecount and kpageflags of every page of every process. */
static void print_facts(void)
{
	for (int n = 0; n < shared->nr_processes; n++) {
		int pagemap;

		if (!shared->pids[n])
			continue;
		pagemap = open_pagemap(n);
		for (int page = 0; page < shared->nr_pages; page++) {
			uint64_t entry = entry_at(pagemap, page_at(page)), frame = frame_in(entry);
			uint64_t count = 0, flags = 0;

			if (frame) {
				ask(kpagecount, frame * sizeof(count), &count);
				ask(kpageflags, frame * sizeof(flags), &flags);
			}
			printf(" | %d.%d %llx %lld %llx", n, page, (unsigned long long)entry,
			       (long long)count, (unsigned long long)flags);
		}
		if (pagemap >= 0)
			close(pagemap);
	}
}
