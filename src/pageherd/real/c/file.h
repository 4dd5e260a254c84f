/* The file of a test, which every process has open: a memfd (of huge pages or not), a file on disk or on persistent
 * memory; the pool. */

#define HUGE_SIZE (2UL << 20)
#define HUGE_PAGES 16 /* added to the pool for the programs that use it, and taken away at the end */
#define POOL_OF "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define POOL POOL_OF "nr_hugepages"

#ifndef MAP_HUGE_2MB
#define MAP_HUGE_2MB (21 << 26)
#endif

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21 << 26)
#endif

#ifndef STATX_ATTR_DAX
#define STATX_ATTR_DAX 0x00200000
#endif

#ifndef RAMFS_MAGIC
#define RAMFS_MAGIC 0x858458f6
#endif

static int test_file = -1;
static int memfd = -1, disk_file = -1, dax_file = -1, huge_file = -1;
static enum { MEMFD, ON_DISK, DAX, OF_HUGE_PAGES } file_kind; /* which of them is the program's */
static bool huge[MAX_PAGES]; /* which pages of this process are huge; a child inherits it */
static long pool_before = -1; /* the pool's size before we changed it */
static long pool_wanted = -1; /* how many pages it must have; -1: as many as a program takes */
static int pool_error;	      /* why the program's huge pages could not be had */

/* A file without a name on a file system that has a disk; its pages are read one by one. */
static int disk_file_open(void)
{
	static const char *const folders[] = { "/var/tmp", "/tmp" };
	struct statfs on;

	for (size_t i = 0; disk_file < 0 && i < sizeof(folders) / sizeof(*folders); i++) {
		disk_file = open(folders[i], O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		if (disk_file < 0 || (!fstatfs(disk_file, &on) && on.f_type != TMPFS_MAGIC && on.f_type != RAMFS_MAGIC))
			continue;
		close(disk_file);
		disk_file = -1;
	}
	if (disk_file < 0)
		return -ENODEV;
	posix_fadvise(disk_file, 0, 0, POSIX_FADV_RANDOM);
	return 0;
}

/* A file without a name that is mapped as it lies in persistent memory; a guest has the file system. */
static int dax_file_open(void)
{
	struct statx found;

	dax_file = open("/dax", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (dax_file < 0 || statx(dax_file, "", AT_EMPTY_PATH, 0, &found))
		return -errno;
	return found.stx_attributes & STATX_ATTR_DAX ? 0 : -EOPNOTSUPP;
}

/* How much one of its pages is. */
static size_t file_unit(void)
{
	return file_kind == OF_HUGE_PAGES ? HUGE_SIZE : (size_t)page_size;
}

/* Where a page of the file is: page after page, or beside huge ranges as its addresses lie. */
static off_t file_offset(int page)
{
	if (!shared->range_pages)
		return (off_t)page * file_unit();
	return (off_t)(page < MAX_PAGES ? shared->place[page] : MAX_PAGES * PAGE_GAP) * page_size;
}

/* Each run of a program begins with a file of zeros. */
static void file_renew(void)
{
	if (memfd < 0)
		memfd = memfd_create("pageherd", MFD_CLOEXEC);
	if (file_kind == OF_HUGE_PAGES)
		huge_file = memfd_create("pageherd", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	test_file = (int[]){ memfd, disk_file, dax_file, huge_file }[file_kind];
	if (ftruncate(test_file, 0) || ftruncate(test_file, file_offset(MAX_PAGES)))
		test_file = -1; /* every step that needs it fails */
}

/* Huge pages and what is reserved of them go back to the pool. */
static void file_give_back(void)
{
	if (huge_file >= 0)
		close(huge_file);
	huge_file = -1;
}

static int pool_resize(long pages)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", pages);
	return write_file(POOL, text);
}

static long pool_number(const char *path)
{
	FILE *file = fopen(path, "re");
	long pages = -1;

	if (file && fscanf(file, "%ld", &pages) != 1)
		pages = -1;
	if (file)
		fclose(file);
	return pages;
}

static long pool_size(void)
{
	return pool_number(POOL);
}

/* Whether the pool has `pages` and nobody else has any of them, or could get more. */
static bool pool_is_idle(long pages)
{
	return pool_size() == pages && pool_number(POOL_OF "free_hugepages") == pages &&
	       pool_number(POOL_OF "resv_hugepages") == 0 &&
	       pool_number(POOL_OF "nr_overcommit_hugepages") == 0;
}

static void pool_stop(void)
{
	if (pool_before >= 0)
		pool_resize(pool_before);
	pool_before = -1;
}

static int pool_start(void)
{
	long before = pool_before >= 0 ? pool_before : pool_size();
	long wanted = pool_wanted >= 0 ? pool_wanted : before + HUGE_PAGES;
	int error;

	if (before < 0)
		return -ENOSYS;
	if (pool_before >= 0 && pool_size() == wanted)
		return 0;
	if (pool_wanted >= 0 && !pool_is_idle(pool_size()))
		return -EBUSY;
	error = pool_resize(wanted);
	pool_before = before;
	if (!error && pool_size() < wanted)
		error = -ENOMEM;
	if (!error && pool_wanted >= 0 && !pool_is_idle(wanted))
		error = -EBUSY;
	if (error)
		pool_stop();
	return error;
}

/* Whether a huge page can be mapped and touched. */
static int huge_page_works(void)
{
	int error = pool_start();
	char *map;

	if (error)
		return error;
	map = mmap(NULL, HUGE_SIZE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB, -1, 0);
	if (map == MAP_FAILED)
		error = -errno;
	else {
		*(volatile char *)map = 1;
		munmap(map, HUGE_SIZE);
	}
	pool_stop();
	return error;
}

static __thread int self; /* the thread of the test that runs here */

static int *width_at(int page)
{
	return &shared->mapped_width[shared->threads[self].process][page];
}

static size_t size_at(int page)
{
	return huge[page] ? HUGE_SIZE : *width_at(page) * page_size;
}

/* A mapping of a huge page cannot be replaced in part; nor is what was moved here of this page's width. */
static void vacate(int page)
{
	if (huge[page] || *width_at(page) != shared->width[page])
		munmap(page_at(page), size_at(page));
	huge[page] = false;
	*width_at(page) = shared->width[page];
}
