/* Long-term write pins taken by io_uring: a registered (fixed) buffer. */

struct ring {
	int fd;
	unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *entries;
	struct io_uring_cqe *completions;
};

static int ring_open(struct ring *r)
{
	struct io_uring_params p = { 0 };
	size_t size;
	char *map;

	r->fd = syscall(SYS_io_uring_setup, 1, &p);
	if (r->fd < 0)
		return -errno;
	if (!(p.features & IORING_FEAT_SINGLE_MMAP)) {
		close(r->fd);
		return -ENOSYS;
	}
	size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	if (size < p.sq_off.array + p.sq_entries * sizeof(unsigned))
		size = p.sq_off.array + p.sq_entries * sizeof(unsigned);
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd,
		   IORING_OFF_SQ_RING);
	r->entries = mmap(NULL, p.sq_entries * sizeof(*r->entries), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQES);
	if (map == MAP_FAILED || r->entries == MAP_FAILED) {
		close(r->fd);
		return -ENOMEM;
	}
	r->sq_tail = (unsigned *)(map + p.sq_off.tail);
	r->sq_mask = (unsigned *)(map + p.sq_off.ring_mask);
	r->sq_array = (unsigned *)(map + p.sq_off.array);
	r->cq_head = (unsigned *)(map + p.cq_off.head);
	r->cq_tail = (unsigned *)(map + p.cq_off.tail);
	r->cq_mask = (unsigned *)(map + p.cq_off.ring_mask);
	r->completions = (struct io_uring_cqe *)(map + p.cq_off.cqes);
	return 0;
}

static int ring_register(const struct ring *r, void *page, size_t length)
{
	struct iovec iov = { .iov_base = page, .iov_len = length };

	return syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, &iov, 1) ? -errno : 0;
}

static int ring_unregister(const struct ring *r)
{
	return syscall(SYS_io_uring_register, r->fd, IORING_UNREGISTER_BUFFERS, NULL, 0) ? -errno : 0;
}

/* One transfer between the registered buffer and a file, and wait until it is done. */
static int ring_transfer(const struct ring *r, unsigned char opcode, int fd, void *buffer,
			 unsigned length)
{
	unsigned tail = *r->sq_tail, slot = tail & *r->sq_mask, head = *r->cq_head;
	int result;

	r->entries[slot] = (struct io_uring_sqe){
		.opcode = opcode,
		.fd = fd,
		.addr = (uintptr_t)buffer,
		.len = length,
	};
	r->sq_array[slot] = slot;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE) == head)
		if (syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0 &&
		    errno != EINTR)
			return -errno;
	result = r->completions[head & *r->cq_mask].res;
	__atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
	return result < 0 ? result : 0;
}

/* The device loads from the pinned page: what WRITE_FIXED puts into a pipe. */
static int ring_load(const struct ring *r, const struct pipe *aside, void *page, void *to,
		     unsigned length)
{
	int error = ring_transfer(r, IORING_OP_WRITE_FIXED, aside->write_end, page, length);

	if (error)
		return error;
	return read(aside->read_end, to, length) < 0 ? -errno : 0;
}

/* The device stores to the pinned page: READ_FIXED of a pipe that holds the bytes. */
static int ring_store(const struct ring *r, const struct pipe *aside, void *page, const void *from,
		      unsigned length)
{
	if (write(aside->write_end, from, length) < 0)
		return -errno;
	return ring_transfer(r, IORING_OP_READ_FIXED, aside->read_end, page, length);
}
