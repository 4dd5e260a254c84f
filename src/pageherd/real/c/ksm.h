/* KSM: ksmd goes over all mergeable memory as often as it is told to, and merges whatever is equal.
 *
 * Between two steps it is off.  Only if nothing else on the machine can be merged it is used at all,
 * so that what it has merged in the end can be unmerged as a whole.
 *
 * ksmd looks twice at a page before it merges it: the content must not have changed meanwhile. */

#define KSM "/sys/kernel/mm/ksm/"
#define KSM_SCANS 2
#define KSM_SLEEP 3600000 /* milliseconds, and more: see ksm_wake() */

static struct settings ksm = {
	.note = "/run/pageherd.ksm",
	.wanted = {
		{ KSM "run", "0" },
		{ KSM "merge_across_nodes", "1" },
		{ KSM "use_zero_pages", "0" },
		{ KSM "smart_scan", "0" }, /* it leaves pages out */
		{ KSM "advisor_mode", "none" }, /* it sets how many pages are looked at */
		{ KSM "pages_to_scan", "1000000" },
		{ KSM "sleep_millisecs", "3600000" },
	},
};

static int ksm_error = ENOSYS;

static long ksm_number(const char *path)
{
	char text[32];

	setting(path, text, sizeof(text));
	return atol(text);
}

/* Whether a process other than this one has memory that KSM may merge. */
static bool others_are_mergeable(void)
{
	DIR *processes = opendir("/proc");
	struct dirent *entry;
	bool found = false;
	char path[64], line[512];

	while (processes && !found && (entry = readdir(processes))) {
		int pid = atoi(entry->d_name);
		FILE *smaps;

		snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
		if (pid <= 0 || pid == getpid() || !(smaps = fopen(path, "re")))
			continue;
		while (!found && fgets(line, sizeof(line), smaps))
			found = !strncmp(line, "VmFlags:", 8) && strstr(line, " mg");
		fclose(smaps);
	}
	if (processes)
		closedir(processes);
	return found;
}

static void ksm_stop(void)
{
	if (!ksm.changed)
		return;
	if (ksm_number(KSM "pages_shared"))
		write_file(KSM "run", "2"); /* of somebody who came meanwhile */
	settings_back(&ksm);
}

/* A page of our own that is equal to no other: ksmd looks at nothing if there is no mergeable memory. */
static int ksm_bait(void)
{
	static void *page = MAP_FAILED;

	if (page != MAP_FAILED)
		return 0;
	page = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return -errno;
	memset(page, 0xa5, page_size);
	if (madvise(page, page_size, MADV_MERGEABLE) || madvise(page, page_size, MADV_DONTFORK))
		return -errno;
	return 0;
}

static int ksm_start(void)
{
	int error = ksm.changed ? 0 : settings_change(&ksm);

	return error ? error : ksm_bait();
}

/* ksmd sleeps until its time is another than the one it fell asleep with: never write one twice. */
static void ksm_wake(void)
{
	static unsigned longer;
	char milliseconds[16];

	snprintf(milliseconds, sizeof(milliseconds), "%u", KSM_SLEEP + ++longer % 1000000);
	write_file(KSM "sleep_millisecs", milliseconds);
}

/* Let ksmd go over everything once more; -ETIME if it does not. */
static int ksm_scan(bool first)
{
	long before = ksm_number(KSM "full_scans");
	double until = seconds_now() + STEP_SECONDS / 2;

	if (first)
		write_file(KSM "run", "1");
	for (int i = 0; ksm_number(KSM "full_scans") == before; i++) {
		if (seconds_now() > until)
			return -ETIME;
		if (i % 50 == (first ? 49 : 0)) /* again, if it came before ksmd slept */
			ksm_wake();
		usleep(500);
	}
	return 0;
}

static int ksm_scans(bool zeros)
{
	int error = 0;

	if (zeros)
		write_file(KSM "use_zero_pages", "1");
	for (int i = 0; i < KSM_SCANS && !error; i++)
		error = ksm_scan(!i);
	write_file(KSM "run", "0");
	ksm_wake(); /* it waits for `run` then, unless it was not asleep yet: then the next scan wakes it */
	if (zeros)
		write_file(KSM "use_zero_pages", "0");
	return error;
}

/* By the kernel: of all pages there are; the constant says whether zero pages come for pages of zeros. */
static int merge_pages(struct step *s)
{
	return ksm_scans(s->constant);
}

/* Whether ksmd is ours to use, and two equal pages become one. */
static void ksm_probe(int pagemap)
{
	int error = access(KSM "run", W_OK) ? -errno : 0;
	char *pages = MAP_FAILED;

	if (!error && (ksm_number(KSM "run") || ksm_number(KSM "pages_shared") || others_are_mergeable()))
		error = -EBUSY;
	if (!error)
		error = ksm_start();
	if (!error)
		pages = mmap(NULL, 2 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages != MAP_FAILED) {
		madvise(pages, 2 * page_size, MADV_MERGEABLE);
		memset(pages, 0x5a, 2 * page_size);
		error = ksm_scans(false);
		if (!error && entry_at(pagemap, pages) != entry_at(pagemap, pages + page_size))
			error = -EOPNOTSUPP;
		munmap(pages, 2 * page_size);
		if (!error)
			error = ksm_scans(false); /* until it has noticed, our children inherit the count */
	}
	ksm_stop();
	ksm_error = -error;
}
