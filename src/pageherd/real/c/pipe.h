/* References taken by vmsplice(): the pipe buffer holds FOLL_GET references on the page. */

struct pipe { int read_end, write_end; };

static int pipe_open(struct pipe *p)
{
	int fds[2];

	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC))
		return -errno;
	p->read_end = fds[0];
	p->write_end = fds[1];
	return 0;
}

/* One reference to each page of the memory at `from`; -EILSEQ: to some of them only. */
static int pipe_take(const struct pipe *p, void *from, size_t length)
{
	struct iovec iov = { .iov_base = from, .iov_len = length };
	ssize_t taken;

	if (length > (size_t)getpagesize() && fcntl(p->write_end, F_SETPIPE_SZ, length) < 0)
		return -errno;
	taken = vmsplice(p->write_end, &iov, 1, SPLICE_F_NONBLOCK);
	if (taken > 0 && (size_t)taken < length)
		return -EILSEQ;
	return taken < 0 ? -errno : 0;
}

/* Look at the first bytes through the reference, and leave it in the pipe. */
static int pipe_look(const struct pipe *p, const struct pipe *aside, void *to, size_t length)
{
	if (tee(p->read_end, aside->write_end, length, SPLICE_F_NONBLOCK) < 0)
		return -errno;
	return read(aside->read_end, to, length) < 0 ? -errno : 0;
}

/* Give every reference in the pipe back without touching the pages. */
static int pipe_release(const struct pipe *p)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	ssize_t moved;

	if (null < 0)
		return -errno;
	do {
		moved = splice(p->read_end, NULL, null, NULL, 1 << 20, SPLICE_F_NONBLOCK);
	} while (moved > 0);
	close(null);
	return 0;
}
