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

/* The flags of a frame; of a THP with those of its first page that only that one has until 6.9. */
static uint64_t flags_of(uint64_t frame)
{
	const uint64_t heads = 1 << KPF_DIRTY | 1 << KPF_SWAPCACHE | 1 << KPF_WRITEBACK;
	uint64_t flags = 0, before[RANGE_WIDTH] = { 0 };
	int tails = frame % RANGE_WIDTH; /* at most */

	ask(kpageflags, frame * sizeof(flags), &flags);
	if ((flags >> KPF_COMPOUND_TAIL & 1) == 0 || (flags >> KPF_THP & 1) == 0)
		return flags;
	if (pread(kpageflags, before, tails * sizeof(flags), (frame - tails) * sizeof(flags)) < 0)
		return flags;
	while (--tails > 0 && before[tails] >> KPF_COMPOUND_TAIL & 1)
		;
	return tails < 0 ? flags : flags | (before[tails] & heads);
}

/* The frames that a step may write to swap. */
struct written {
	uint64_t frames[MAX_PROCESSES * MAX_PAGES * RANGE_WIDTH];
	int count;
};

static void may_write(struct written *w, int process, int page)
{
	uint64_t entries[RANGE_WIDTH];
	int pagemap = open_pagemap(process), width = shared->mapped_width[process][page];
	off_t at = (uintptr_t)page_at(page) / page_size * sizeof(*entries);

	if (pagemap < 0)
		return;
	if (pread(pagemap, entries, width * sizeof(*entries), at) == (ssize_t)(width * sizeof(*entries)))
		for (int i = 0; i < width && w->count < (int)(sizeof(w->frames) / sizeof(*w->frames)); i++)
			if (frame_in(entries[i]))
				w->frames[w->count++] = frame_in(entries[i]);
	close(pagemap);
}

static void may_write_all(struct written *w)
{
	for (int n = 0; n < shared->nr_processes; n++)
		for (int page = 0; shared->pids[n] && page < shared->nr_pages; page++)
			may_write(w, n, page);
}

/* Wait until a frame is no longer under write-back. */
static void settle(uint64_t frame)
{
	for (int i = 0; frame && flags_of(frame) >> KPF_WRITEBACK & 1 && i < 5000; i++)
		usleep(100);
}

/* Whether one PMD entry maps what is at this address, as smaps says of the mapping around it: 1, 0,
 * or 2 where it does not tell (v6.1 to v6.5 count no page of memory without access). */
static int is_pmd_mapped(FILE *smaps, const void *address)
{
	unsigned long from, to, at = (unsigned long)address, size, sum = 0;
	bool here = false;
	char line[512], access[5] = "";

	if (!smaps)
		return 0;
	rewind(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx %4s", &from, &to, access) == 3)
			here = from <= at && at < to;
		else if (here && (sscanf(line, "AnonHugePages: %lu kB", &size) == 1 ||
				  sscanf(line, "ShmemPmdMapped: %lu kB", &size) == 1))
			sum += size;
		else if (here && !strncmp(line, "VmFlags:", 8))
			return strncmp(access, "---", 3) ? sum > 0 : 2;
	}
	return 0;
}

static FILE *open_smaps(int process)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/smaps", shared->pids[process]);
	return fopen(path, "re");
}

/* What pages that stand for one must have in common: the kind of entry, and what the frame is. */
static uint64_t kind_of(uint64_t entry, uint64_t count, uint64_t flags)
{
	const uint64_t marks = 1 << KPF_ANON | 1 << KPF_THP | 1 << KPF_ZERO_PAGE | 1 << KPF_KSM;
	const uint64_t small = 1 << KPF_DIRTY | 1 << KPF_SWAPCACHE | 1ULL << 34; /* anon-exclusive */

	flags &= flags >> KPF_THP & 1 ? marks : marks | small;
	return flags >> KPF_ZERO_PAGE & 1 ? entry >> 61 << 56 : entry >> 61 << 56 ^ count << 40 ^ flags;
}

/* How many of the pages of memory that a page stands for are not as the first one. */
static int count_unlike(const uint64_t *entries, int width, uint64_t first)
{
	static uint64_t counts[RANGE_WIDTH], flags[RANGE_WIDTH];
	int unlike = 0, run;

	for (int i = 0; i < width; i += run) {
		uint64_t frame = frame_in(entries[i]);

		for (run = 1; frame && i + run < width && frame_in(entries[i + run]) == frame + run; run++)
			;
		memset(counts, 0, run * sizeof(*counts));
		memset(flags, 0, run * sizeof(*flags));
		if (frame && (pread(kpagecount, counts, run * sizeof(*counts), frame * sizeof(*counts)) < 0 ||
			      pread(kpageflags, flags, run * sizeof(*flags), frame * sizeof(*flags)) < 0))
			return 0; /* nobody may look */
		for (int j = 0; j < run; j++)
			unlike += kind_of(entries[i + j], counts[j], flags[j]) != first;
	}
	return unlike;
}

/* One page of a process: pagemap, kpagecount and kpageflags, where there are huge ranges of what it
 * begins with, whether one PMD entry maps it, and how many of its pages are not like the first one. */
static void print_page(int process, int page, int pagemap, FILE *smaps)
{
	uint64_t entries[RANGE_WIDTH] = { 0 }, frame, count = 0, flags = 0;
	int width = shared->mapped_width[process][page];
	off_t at = (uintptr_t)page_at(page) / page_size * sizeof(*entries);

	if (pagemap < 0 || pread(pagemap, entries, width * sizeof(*entries), at) < 0)
		entries[0] = 0;
	frame = frame_in(entries[0]);
	if (frame) {
		ask(kpagecount, frame * sizeof(count), &count);
		flags = flags_of(frame);
		if (file_kind == DAX && !(flags & (1 << KPF_ANON | 1 << KPF_ZERO_PAGE)))
			flags = 1 << KPF_NOPAGE; /* kernels do not agree in what they say of a device's memory */
	}
	printf(" | %d.%d %llx %lld %llx", process, page, (unsigned long long)entries[0], (long long)count,
	       (unsigned long long)flags);
	if (shared->range_pages)
		printf(" %d %d", is_pmd_mapped(smaps, page_at(page)),
		       width > 1 ? count_unlike(entries, width, kind_of(entries[0], count, flags)) : 0);
}

/* What the kernel says of every page of every process. */
static void print_facts(void)
{
	for (int n = 0; n < shared->nr_processes; n++) {
		FILE *smaps;
		int pagemap;

		if (!shared->pids[n])
			continue;
		pagemap = open_pagemap(n);
		smaps = shared->range_pages ? open_smaps(n) : NULL;
		for (int page = 0; page < shared->nr_pages; page++)
			print_page(n, page, pagemap, smaps);
		if (pagemap >= 0)
			close(pagemap);
		if (smaps)
			fclose(smaps);
	}
}
