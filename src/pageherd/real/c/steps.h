/* What a process does: the verbs of a program.  Each gives 0 or -errno; docs/real.md lists them. */

#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_HWPOISON
#define MADV_HWPOISON 100
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

static __thread sigjmp_buf on_fault;
static __thread volatile sig_atomic_t guarded;

static int result_of(long returned)
{
	return returned < 0 ? -errno : 0;
}

static void fault_handler(int signal)
{
	if (guarded)
		siglongjmp(on_fault, signal);
	_exit(99);
}

/* What a step works on: one page, all the memory that it stands for, or a range. */
static size_t extent_of(struct step *s)
{
	return s->span > 1 ? HUGE_SIZE : size_at(s->a);
}

/* Touch the first bytes of every page; -EILSEQ if not all gave or did the same. */
static int touch(struct step *s, bool write)
{
	volatile char *from = page_at(s->a);
	const volatile size_t size = huge[s->a] ? page_size : extent_of(s);
	volatile size_t at = 0;
	bool unlike = false;

	switch (sigsetjmp(on_fault, 1)) {
	case 0:
		break;
	case SIGBUS: /* of a userfaultfd, if there is one: told to it, and to be done again */
		guarded = 0;
		return at ? -EILSEQ : uffd_owner == getpid() ? -ERESTART : -EFAULT;
	default:
		guarded = 0;
		return at ? -EILSEQ : -EFAULT;
	}
	guarded = 1;
	for (; at < size; at += page_size) {
		volatile value_t *word = (volatile value_t *)(from + at);

		if (write)
			*word = (value_t)s->value;
		else if (at)
			unlike |= *word != s->seen;
		else
			s->seen = *word;
	}
	guarded = 0;
	return unlike ? -EILSEQ : 0;
}

static int read_page(struct step *s)
{
	return touch(s, false);
}

static int write_page(struct step *s)
{
	return touch(s, true);
}

static int map_page(struct step *s)
{
	void *map;

	vacate(s->a);
	map = mmap(page_at(s->a), extent_of(s), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (map == MAP_FAILED)
		return -errno;
	if (!shared->range_pages)
		madvise(map, page_size, MADV_NOHUGEPAGE); /* EINVAL where the kernel has none */
	return 0;
}

static int map_droppable(struct step *s)
{
	void *map;

	vacate(s->a);
	map = mmap(page_at(s->a), extent_of(s), PROT_READ | PROT_WRITE,
		   MAP_DROPPABLE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (map == MAP_FAILED)
		return -errno;
	if (!shared->range_pages)
		madvise(map, page_size, MADV_NOHUGEPAGE);
	return 0;
}

/* The file's page s->b; the constant says whether private or shared. */
static int map_file(struct step *s)
{
	size_t size = file_kind == OF_HUGE_PAGES ? HUGE_SIZE : extent_of(s);
	void *map;

	if (file_kind != OF_HUGE_PAGES)
		vacate(s->a);
	map = mmap(page_at(s->a), size, PROT_READ | PROT_WRITE, s->constant | MAP_FIXED, test_file,
		   file_offset(s->b));
	if (map == MAP_FAILED)
		return -errno;
	if (file_kind == OF_HUGE_PAGES)
		huge[s->a] = true;
	if (file_kind == ON_DISK)
		madvise(map, page_size, MADV_RANDOM); /* no readahead, and so no large folios */
	return 0;
}

static int map_huge(struct step *s)
{
	void *map = mmap(page_at(s->a), HUGE_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_HUGETLB | MAP_HUGE_2MB, -1, 0);

	if (map == MAP_FAILED)
		return -errno;
	huge[s->a] = true;
	return 0;
}

/* The first bytes of every page of memory that the file's page stands for. */
static int read_test_file(struct step *s)
{
	value_t seen = 0, first = 0;
	int error = 0;

	for (int i = 0; i < shared->width[s->a] && !error; i++) {
		error = result_of(pread(test_file, &seen, sizeof(seen), file_offset(s->a) + i * page_size));
		first = i ? first : seen;
		if (!error && seen != first)
			error = -EILSEQ;
	}
	s->seen = first;
	return error;
}

static int write_test_file(struct step *s)
{
	value_t value = (value_t)s->value;
	int error = 0;

	for (int i = 0; i < shared->width[s->a] && !error; i++)
		error = result_of(pwrite(test_file, &value, sizeof(value), file_offset(s->a) + i * page_size));
	return error;
}

static int sync_test_file(struct step *s)
{
	unsigned int how = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;

	return result_of(sync_file_range(test_file, (off_t)s->a * file_unit(), file_unit(), how));
}

static int unmap_page(struct step *s)
{
	int error = result_of(munmap(page_at(s->a), extent_of(s)));

	huge[s->a] = false;
	*width_at(s->a) = shared->width[s->a];
	return error;
}

static int protect_page(struct step *s)
{
	return result_of(mprotect(page_at(s->a), extent_of(s), s->value));
}

static int move_page(struct step *s)
{
	size_t size = extent_of(s), before = s->span > 1 ? size : size_at(s->b);
	char *map;

	map = mremap(page_at(s->a), size, size, MREMAP_MAYMOVE | MREMAP_FIXED, page_at(s->b));
	if (map == MAP_FAILED && errno == EINVAL && huge[s->b]) { /* a part of a huge page is in the way */
		vacate(s->b);
		map = mremap(page_at(s->a), size, size, MREMAP_MAYMOVE | MREMAP_FIXED, page_at(s->b));
	}
	if (map == MAP_FAILED)
		return -errno;
	if (before > size && !huge[s->b])
		munmap(map + size, before - size);
	huge[s->b] = huge[s->a];
	huge[s->a] = false;
	if (s->span == 1) {
		*width_at(s->b) = *width_at(s->a);
		*width_at(s->a) = shared->width[s->a];
	}
	return 0;
}

static int advise_page(struct step *s)
{
	return result_of(madvise(page_at(s->a), extent_of(s), s->constant));
}

/* From v6.12 on at the latest the caller gets SIGBUS for what has become of its dirty page. */
static int fail_page(struct step *s)
{
	int error;

	if (sigsetjmp(on_fault, 1))
		return guarded = 0;
	guarded = 1;
	error = advise_page(s);
	guarded = 0;
	return !error || error == -EFAULT || error == -ENOMEM ? error : -EBUSY; /* EIO, EHWPOISON, ... */
}

static int merge_all(struct step *s)
{
	return prctl(67 /* PR_SET_MEMORY_MERGE */, s->constant, 0, 0, 0) ? -EFAULT : 0;
}

static int lock_page(struct step *s)
{
	return result_of(mlock(page_at(s->a), extent_of(s)));
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

/* How much of a page's memory a reference is to: all of it, but of a hugetlb page a small page. */
static size_t reach_of(int page)
{
	return huge[page] ? page_size : size_at(page);
}

static int taken(struct step *s, enum kind kind, int error)
{
	if (!error)
		shared->references[s->b] = (struct reference){ .kind = kind, .page = s->a, .thread = s->thread, .length = reach_of(s->a),
							.read_only = s->constant == VFIO_DMA_MAP_FLAG_READ };
	return error;
}

static int take_pipe(struct step *s)
{
	size_t size = reach_of(s->a), most = PAGES_IN_PIPE * page_size;
	char *from = page_at(s->a);
	int error = pipe_take(&pipes[s->b], from, size < most ? size : most);

	if (!error && size > most && pipe_take(&rests[s->b], from + most, size - most))
		error = -EILSEQ; /* a part of it only */
	return taken(s, PIPE, error);
}

static int take_ring(struct step *s)
{
	return have_ring ? taken(s, RING, ring_register(&rings[s->b], page_at(s->a), reach_of(s->a))) : -ENOSYS;
}

static int take_vfio(struct step *s)
{
	if (!have_vfio)
		return -ENOSYS;
	return taken(s, VFIO, vfio_map(&vfio, VFIO_PAGE(s->b), page_at(s->a), reach_of(s->a), s->constant));
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
	for (size_t at = 0; r->kind == RING && at < r->length; at += page_size) {
		char *to = (char *)page_at(r->page) + at;
		int error = ring_store(&rings[s->a], &asides[s->a], to, &value, sizeof(value));

		if (error || at + page_size == r->length)
			return error;
	}
	if (r->kind == VFIO)
		return vfio_store(&vfio, VFIO_PAGE(s->a), &value, sizeof(value));
	if (r->kind == NBD)
		return nbd_store(&nbd, &value, sizeof(value));
	return -EFAULT; /* no reference, or a pipe: nothing writes through it */
}

static int tee_reference(struct step *s)
{
	struct reference *r = &shared->references[s->a];
	int in = r->teed / PAGES_IN_PIPE;

	if (r->kind != PIPE)
		return -EFAULT;
	for (int i = 0; i < s->value; i++) {
		if (tee(pipes[s->a].read_end, crowds[in].write_end, 1, SPLICE_F_NONBLOCK) >= 0)
			r->teed++;
		else if (errno != EAGAIN || ++in == MAX_CROWDS)
			return -errno;
		else if (fcntl(crowds[in].write_end, F_SETPIPE_SZ, PAGES_IN_PIPE * page_size) < 0)
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
		pipe_release(&rests[s->a]);
		return pipe_release(&pipes[s->a]);
	}
	if (kind == RING)
		return ring_unregister(&rings[s->a]);
	if (kind == VFIO)
		return vfio_unmap(&vfio, VFIO_PAGE(s->a), r->length);
	if (kind == NBD)
		return nbd_finish(&nbd);
	return -EFAULT; /* there is no reference */
}

/* What is read from or written to another process: the whole memory of a page. */
static char bounce[HUGE_SIZE];

static size_t remote_size(struct step *s)
{
	size_t size = shared->mapped_width[s->a][s->b] * page_size;

	return size == page_size ? sizeof(value_t) : size;
}

/* Whether all that was asked for was transferred: 0, the error, or -EILSEQ if a part was. */
static int whole(ssize_t got, size_t size)
{
	return got < 0 ? -errno : (size_t)got == size ? 0 : -EILSEQ;
}

static int look_at_bounce(struct step *s, size_t size, int error)
{
	value_t value = *(value_t *)bounce;

	s->seen = value;
	for (size_t at = 0; at < size && !error; at += page_size)
		if (*(value_t *)(bounce + at) != value)
			return -EILSEQ;
	return error;
}

static void fill_bounce(struct step *s, size_t size)
{
	memset(bounce, 0, size);
	for (size_t at = 0; at < size; at += page_size)
		*(value_t *)(bounce + at) = (value_t)s->value;
}

static int remote_read(struct step *s)
{
	size_t size = remote_size(s);
	struct iovec here = { bounce, size }, there = { page_at(s->b), size };
	ssize_t got = process_vm_readv(shared->pids[s->a], &here, 1, &there, 1, 0);

	return look_at_bounce(s, size, whole(got, size));
}

static int remote_write(struct step *s)
{
	size_t size = remote_size(s);
	struct iovec here = { bounce, size }, there = { page_at(s->b), size };

	fill_bounce(s, size);
	return whole(process_vm_writev(shared->pids[s->a], &here, 1, &there, 1, 0), size);
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
	size_t size = remote_size(s);
	int fd = open_memory(s->a, O_RDONLY), error;

	if (fd < 0)
		return -errno;
	error = whole(pread(fd, bounce, size, (off_t)page_at(s->b)), size);
	close(fd);
	error = look_at_bounce(s, size, error);
	return error == -EIO ? -EFAULT : error;
}

static int poke(struct step *s)
{
	size_t size = remote_size(s);
	int fd = open_memory(s->a, O_RDWR), error;

	if (fd < 0)
		return -errno;
	fill_bounce(s, size);
	error = whole(pwrite(fd, bounce, size, (off_t)page_at(s->b)), size);
	close(fd);
	return error == -EIO ? -EFAULT : error;
}

static int fork_process(struct step *s);

static int swap_off(struct step *s)
{
	(void)s;
	return swap_stop();
}

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

/* The end of write-back puts a page into the batch of whatever CPU the interrupt came to, ksmd one
 * that it has copied into that of its own. */
static void drain_everywhere(void)
{
	for (int cpu = 0; cpu < nr_cpus; cpu++)
		drain(cpu);
}

static int drain_batches(struct step *s)
{
	if (s->value < 0)
		drain_all();
	else
		drain(s->value % MAX_CPUS);
	return 0;
}

static int reclaim_pages(struct step *s)
{
	(void)s;
	return have_reclaim ? reclaim_all() : -ENOSYS;
}

static int open_userfaultfd(struct step *s)
{
	return uffd_open(s->value);
}

static int register_page(struct step *s)
{
	return uffd_register(page_at(s->a), size_at(s->a), s->constant);
}

/* The constant says whether on or off. */
static int write_protect_page(struct step *s)
{
	return uffd_protect(page_at(s->a), size_at(s->a), s->constant);
}

static int rwprotect_page(struct step *s)
{
	return uffd_rwprotect(page_at(s->a), size_at(s->a), s->constant);
}

static int fill_page(struct step *s)
{
	value_t page[4096 / sizeof(value_t)] = { (value_t)s->value };

	return uffd_copy(page_at(s->a), page, page_size);
}

static int map_cached_page(struct step *s)
{
	return uffd_continue(page_at(s->a), size_at(s->a));
}

static int move_by_uffd(struct step *s)
{
	return uffd_move(page_at(s->b), page_at(s->a), page_size);
}

static int look_at_wp_bit(struct step *s)
{
	int bit = uffd_wp_bit(page_at(s->a));

	s->seen = bit;
	return bit < 0 ? bit : 0;
}

static int count_merging(struct step *s)
{
	char text[32] = "";
	int fd = open("/proc/self/ksm_merging_pages", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	s->seen = n > 0 ? atoi(text) : -EINVAL; /* there is no such file: nothing to read */
	return n > 0 ? 0 : -EINVAL;
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
	{ .name = "mmap_file", .run = map_file, .constant = MAP_PRIVATE },
	{ .name = "mmap_shared", .run = map_file, .constant = MAP_SHARED },
	{ .name = "mmap_hugetlb", .run = map_huge },
	{ .name = "mmap_droppable", .run = map_droppable },
	{ .name = "read_file", .run = read_test_file, .reads = true },
	{ .name = "write_file", .run = write_test_file },
	{ .name = "sync_file", .run = sync_test_file },
	{ .name = "munmap", .run = unmap_page },
	{ .name = "mprotect", .run = protect_page },
	{ .name = "mremap", .run = move_page },
	{ .name = "dontneed", .run = advise_page, .constant = MADV_DONTNEED },
	{ .name = "dontfork", .run = advise_page, .constant = MADV_DONTFORK },
	{ .name = "dofork", .run = advise_page, .constant = MADV_DOFORK },
	{ .name = "wipeonfork", .run = advise_page, .constant = MADV_WIPEONFORK },
	{ .name = "free", .run = advise_page, .constant = MADV_FREE },
	{ .name = "guard", .run = advise_page, .constant = MADV_GUARD_INSTALL },
	{ .name = "unguard", .run = advise_page, .constant = MADV_GUARD_REMOVE },
	{ .name = "hwpoison", .run = fail_page, .constant = MADV_HWPOISON },
	{ .name = "soft_offline", .run = fail_page, .constant = MADV_SOFT_OFFLINE },
	{ .name = "mergeable", .run = advise_page, .constant = MADV_MERGEABLE },
	{ .name = "merge_any", .run = merge_all, .constant = 1 },
	{ .name = "unmerge_any", .run = merge_all },
	{ .name = "unmergeable", .run = advise_page, .constant = MADV_UNMERGEABLE },
	{ .name = "pageout", .run = advise_page, .constant = MADV_PAGEOUT },
	{ .name = "hugepage", .run = advise_page, .constant = MADV_HUGEPAGE },
	{ .name = "nohugepage", .run = advise_page, .constant = MADV_NOHUGEPAGE },
	{ .name = "collapse", .run = collapse_range },
	{ .name = "process_madvise_collapse", .run = collapse_remote },
	{ .name = "split", .run = split_page },
	{ .name = "mthp", .run = enable_size },
	{ .name = "reclaim", .run = reclaim_pages },
	{ .name = "populate_read", .run = advise_page, .constant = MADV_POPULATE_READ },
	{ .name = "populate_write", .run = advise_page, .constant = MADV_POPULATE_WRITE },
	{ .name = "mlock", .run = lock_page },
	{ .name = "clear_soft_dirty", .run = clear_soft_dirty },
	{ .name = "pagemap", .run = nothing }, /* the facts after every step say it */
	{ .name = "userfaultfd", .run = open_userfaultfd },
	{ .name = "uffd_register", .run = register_page, .constant = UFFDIO_REGISTER_MODE_WP },
	{ .name = "uffd_register_rwp", .run = register_page, .constant = UFFDIO_REGISTER_MODE_RWP },
	{ .name = "uffd_rwprotect", .run = rwprotect_page, .constant = 1 },
	{ .name = "uffd_rwunprotect", .run = rwprotect_page },
	{ .name = "uffd_protect", .run = write_protect_page, .constant = 1 },
	{ .name = "uffd_unprotect", .run = write_protect_page },
	{ .name = "uffd_register_minor", .run = register_page, .constant = UFFDIO_REGISTER_MODE_MINOR },
	{ .name = "uffd_continue", .run = map_cached_page },
	{ .name = "uffd_copy", .run = fill_page },
	{ .name = "uffd_move", .run = move_by_uffd },
	{ .name = "pagemap_wp", .run = look_at_wp_bit, .reads = true },
	{ .name = "ksm_merging_pages", .run = count_merging, .reads = true },
	{ .name = "move", .run = move_own },
	{ .name = "migrate", .run = move_any },
	{ .name = "ksm", .run = merge_pages },
	{ .name = "ksm_zero", .run = merge_pages, .constant = true },
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
