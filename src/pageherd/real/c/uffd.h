/* userfaultfd without a handler: UFFD_FEATURE_SIGBUS says what would have been told to it. */

#include <linux/userfaultfd.h>

#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFDIO_RWPROTECT
struct uffdio_rwprotect {
	struct uffdio_range range;
	__u64 mode;
};
#define UFFDIO_RWPROTECT _IOWR(UFFDIO, 0x09, struct uffdio_rwprotect)
#define UFFDIO_REGISTER_MODE_RWP ((__u64)1 << 3)
#define UFFD_FEATURE_RWP (1 << 17)
#endif
#ifndef UFFDIO_CONTINUE
struct uffdio_continue {
	struct uffdio_range range;
	__u64 mode;
	__s64 mapped;
};
#define UFFDIO_CONTINUE _IOWR(UFFDIO, 0x07, struct uffdio_continue)
#define UFFDIO_REGISTER_MODE_MINOR ((__u64)1 << 2)
#endif
#ifndef UFFDIO_MOVE
struct uffdio_move {
	__u64 dst, src, len, mode;
	__s64 move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif

enum { UFFD_WP_BIT = 57 };

static int uffd = -1;
static pid_t uffd_owner; /* a child has its parent's file, which is not about its memory */

/* What the ioctls say, in the few words of the model. */
static int uffd_result(int returned)
{
	if (returned >= 0)
		return 0;
	if (errno == EEXIST || errno == EBUSY || errno == EAGAIN)
		return -EBUSY;
	return -EFAULT;
}

static void uffd_close(void)
{
	if (uffd_owner == getpid())
		close(uffd);
	uffd_owner = 0;
}

static int uffd_open(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features | UFFD_FEATURE_SIGBUS };
	int error;

	uffd_close();
	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0)
		return -errno;
	uffd_owner = getpid();
	error = uffd_result(ioctl(uffd, UFFDIO_API, &api));
	if (error)
		uffd_close(); /* who is refused its features may have one without */
	return error;
}

static int uffd_register(void *page, size_t size, uint64_t mode)
{
	struct uffdio_register range = { .range = { (uintptr_t)page, size },
					 .mode = mode };

	if (uffd_owner != getpid() && uffd_open(0))
		return -EFAULT;
	return uffd_result(ioctl(uffd, UFFDIO_REGISTER, &range));
}

static int uffd_protect(void *page, size_t size, bool on)
{
	struct uffdio_writeprotect range = { .range = { (uintptr_t)page, size },
					     .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0 };

	if (uffd_owner != getpid())
		return -EFAULT;
	return uffd_result(ioctl(uffd, UFFDIO_WRITEPROTECT, &range));
}

static int uffd_rwprotect(void *page, size_t size, bool on)
{
	struct uffdio_rwprotect range = { .range = { (uintptr_t)page, size }, .mode = on };

	if (uffd_owner != getpid())
		return -EFAULT;
	return uffd_result(ioctl(uffd, UFFDIO_RWPROTECT, &range));
}

static int uffd_copy(void *page, void *from, size_t size)
{
	struct uffdio_copy copy = { .dst = (uintptr_t)page, .src = (uintptr_t)from, .len = size };

	if (uffd_owner != getpid())
		return -EFAULT;
	return uffd_result(ioctl(uffd, UFFDIO_COPY, &copy));
}

static int uffd_continue(void *page, size_t size)
{
	struct uffdio_continue range = { .range = { (uintptr_t)page, size } };

	if (uffd_owner != getpid())
		return -EFAULT;
	return uffd_result(ioctl(uffd, UFFDIO_CONTINUE, &range));
}

static int uffd_move(void *to, void *from, size_t size)
{
	struct uffdio_move move = { .dst = (uintptr_t)to, .src = (uintptr_t)from, .len = size };

	if (uffd_owner != getpid())
		return -EFAULT;
	return uffd_result(ioctl(uffd, UFFDIO_MOVE, &move));
}

/* Bit 57 of this process's pagemap (v5.14 and later). */
static int uffd_wp_bit(void *page)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t word = 0;

	if (pagemap < 0)
		return -errno;
	if (pread(pagemap, &word, sizeof(word), (uintptr_t)page / page_size * sizeof(word)) < 0)
		word = 0;
	close(pagemap);
	return word >> UFFD_WP_BIT & 1;
}

/* Whether anonymous memory can be write-protected; and whether pagemap tells it. */
static int uffd_works(int *bit)
{
	int error;

	*(volatile char *)scratch = 1;
	error = -uffd_open(0);
	if (!error)
		error = -uffd_register(scratch, page_size, UFFDIO_REGISTER_MODE_WP);
	if (!error)
		error = -uffd_protect(scratch, page_size, true);
	*bit = !error && uffd_wp_bit(scratch) == 1 ? 0 : EOPNOTSUPP;
	uffd_close(); /* and nothing is registered any more */
	return error;
}

/* Whether all access to anonymous memory can be tracked. */
static int uffd_rwp_works(void)
{
	int error = -uffd_open(UFFD_FEATURE_RWP);

	if (!error)
		error = -uffd_register(scratch, page_size, UFFDIO_REGISTER_MODE_RWP);
	uffd_close();
	return error;
}

/* Whether a mapping of a memfd can be told to map what the page cache has. */
static int uffd_minor_works(void)
{
	int fd = memfd_create("pageherd", MFD_CLOEXEC);
	char *page = MAP_FAILED;
	int error = fd < 0 || ftruncate(fd, page_size) ? errno : 0;

	if (!error)
		page = mmap(NULL, page_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (!error && page == MAP_FAILED)
		error = errno;
	if (!error)
		error = -uffd_open(0);
	if (!error)
		error = -uffd_register(page, page_size, UFFDIO_REGISTER_MODE_MINOR);
	uffd_close();
	if (page != MAP_FAILED)
		munmap(page, page_size);
	close(fd);
	return error;
}
