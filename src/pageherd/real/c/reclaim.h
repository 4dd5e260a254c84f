/* Reclaim of whatever the processes of a test have: they are in a memory cgroup of their own.
 *
 * User space cannot choose a page for reclaim if two processes map it (MADV_PAGEOUT skips it), but
 * it can have everything of a cgroup reclaimed: memory.reclaim (v5.19), memory.high before that, or
 * memory.force_empty of cgroup v1.  Which pages go is the kernel's choice.
 *
 * If the memory controller was off for the children of the root cgroup, it is turned off again. */

#define CGROUPS "/sys/fs/cgroup"
#define RECLAIM_TIMES 3 /* a referenced page is passed over once, a written one is freed later */

static char reclaim_group[96]; /* the folder of the cgroup */
static bool reclaim_v1, reclaim_controls; /* the memory controller was off before */

static int reclaim_write(const char *file, const char *text)
{
	char path[160];

	snprintf(path, sizeof(path), "%.95s/%.40s", reclaim_group, file);
	return write_file(path, text);
}

static void reclaim_close(void)
{
	if (reclaim_group[0])
		rmdir(reclaim_group);
	if (reclaim_controls)
		write_file(CGROUPS "/cgroup.subtree_control", "-memory");
	reclaim_group[0] = reclaim_controls = 0;
}

static int reclaim_open(void)
{
	int error = 0;

	reclaim_v1 = access(CGROUPS "/cgroup.controllers", F_OK) != 0;
	if (reclaim_v1 && access(CGROUPS "/memory/memory.force_empty", F_OK))
		return -errno;
	snprintf(reclaim_group, sizeof(reclaim_group), CGROUPS "%s/pageherd-%d",
		 reclaim_v1 ? "/memory" : "", (int)getpid());
	if (mkdir(reclaim_group, 0700)) {
		reclaim_group[0] = 0;
		return -errno;
	}
	if (!reclaim_v1 && reclaim_write("memory.high", "max")) {
		error = write_file(CGROUPS "/cgroup.subtree_control", "+memory");
		reclaim_controls = !error;
	}
	if (error)
		reclaim_close();
	return error;
}

/* The calling process, and what it forks, are in the cgroup from now on. */
static int reclaim_join(void)
{
	return reclaim_write("cgroup.procs", "0");
}

static int reclaim_all(void)
{
	int error = 0;

	for (int i = 0; i < RECLAIM_TIMES; i++) {
		if (reclaim_v1) {
			error = reclaim_write("memory.force_empty", "0");
			continue;
		}
		error = reclaim_write("memory.reclaim", "64M");
		if (error == -ENOENT) {
			error = reclaim_write("memory.high", "0");
			reclaim_write("memory.high", "max");
		}
	}
	return error == -EAGAIN || error == -EBUSY ? 0 : error; /* not everything could go */
}
