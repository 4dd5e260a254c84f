/* What this kernel and this user can do: everything is tried once, no version is believed. */

static void report(const char *what, int error)
{
	printf("have %s %d\n", what, error);
	fflush(stdout); /* if the next probe hangs, it is known which */
}

static void report_cpu(int cpu)
{
	char name[16];

	snprintf(name, sizeof(name), "cpu-%d", cpu);
	report(name, cpu < nr_cpus ? 0 : ENODEV);
}

/* Whether clearing soft-dirty bits clears them; the file is there without CONFIG_MEM_SOFT_DIRTY. */
static int soft_dirty_works(int pagemap)
{
	uint64_t word = 0;
	int error = -write_file("/proc/self/clear_refs", "4");

	if (error)
		return error;
	word = entry_at(pagemap, scratch);
	if (word >> 55 & 1)
		return EOPNOTSUPP;
	*(volatile char *)scratch = 2;
	word = entry_at(pagemap, scratch);
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

/* Whether a guard region can be had, and memory that may be dropped. */
static int guard_works(void)
{
	void *page = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int error = 0;

	if (page == MAP_FAILED || madvise(page, page_size, MADV_GUARD_INSTALL))
		error = errno;
	munmap(page, page_size);
	return error;
}

static int droppable_works(void)
{
	void *page = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return errno;
	munmap(page, page_size);
	return 0;
}

/* A page of the running kernel is never poisoned: only a guest is told that it may be. */
static int memory_failure_works(void)
{
	char *page = getenv("PAGEHERD_GUEST") ? mmap(NULL, page_size, PROT_READ | PROT_WRITE,
						     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
	int error = 0;

	if (page == MAP_FAILED)
		return EPERM;
	*(volatile char *)page = 1;
	if (madvise(page, page_size, MADV_SOFT_OFFLINE))
		error = errno;
	munmap(page, page_size);
	return error;
}

/* Try everything once and say what is there: 0, or the errno that tells what is missing. */
static void probe(void)
{
	struct utsname name;
	uint64_t word = 0;
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), error = 0, no_bit;

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
	report("guard", guard_works());
	report("droppable", droppable_works());
	report("memory-failure", memory_failure_works());
	report("soft-dirty", soft_dirty_works(pagemap));
	report("forced-writes", forced_write_works());
	report("tmpfile", -disk_file_open());
	report("dax", -dax_file_open());
	report("hugetlb", -huge_page_works());
	error = find_nodes();
	report("nodes", error);
	report("nodes-of-all", error ? error : -move_away(0, scratch, MPOL_MF_MOVE_ALL));
	error = 0;
	thp_probe(pagemap);
	report("thp", thp_error);
	report("thp-shmem", shmem_error);
	report("thp-split", split_error);
	report("collapse", thp_error ? thp_error : collapse_works());
	report("userfaultfd", uffd_works(&no_bit));
	report("uffd-wp-bit", no_bit);
	report("uffd-minor", uffd_minor_works());
	report("uffd-rwp", uffd_rwp_works());
	ksm_probe(pagemap);
	report("ksm", ksm_error);
	ask(kpageflags, frame_in(entry_at(pagemap, scratch)) * sizeof(word), &word);
	report("ksm-flag", word >> KPF_KSM & 1 ? EINVAL : 0); /* 6.12 says it of every anonymous page */
	for (int i = 0; i < MAX_REFERENCES && !error; i++)
		error = pipe_open(&pipes[i]) || pipe_open(&rests[i]) || pipe_open(&asides[i]) ? errno : 0;
	for (int i = 0; i < MAX_CROWDS && !error; i++)
		error = -pipe_open(&crowds[i]);
	if (!error)
		fcntl(crowds[0].write_end, F_SETPIPE_SZ, PAGES_IN_PIPE * page_size);
	report("pipe", error);
	error = 0;
	for (int i = 0; i < MAX_REFERENCES && !error; i++)
		error = -ring_open(&rings[i]);
	have_ring = !error;
	report("io_uring", error);
	error = -reclaim_open();
	have_reclaim = !error;
	report("cgroup-reclaim", error);
	error = -nbd_open(&nbd, page_size);
	have_nbd = !error;
	report("nbd", error);
	/* last: a child that has these files would keep every mapping alive */
	error = -vfio_open(&vfio, page_size);
	have_vfio = !error;
	report("vfio", error);
	fflush(stdout);
}
