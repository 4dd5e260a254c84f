/* A FOLL_GET or FOLL_PIN write reference held by an O_DIRECT read in flight: the disk is an nbd
 * device that this program serves itself, so the answer comes when the test says so. */

#define NBD_DEVICE "/dev/nbd0"
#define NBD_BLOCK 512
#define NBD_BLOCKS (1 << 16)
#define NBD_TEST_OFFSET (1 << 20) /* the kernel's own reads of the device are elsewhere */

struct nbd {
	int device, direct, server;
	pid_t worker; /* sits in NBD_DO_IT */
	size_t page_size;
	struct {
		char handle[8];
		size_t sent; /* bytes of the answer that have been sent */
		bool waiting;
	} *request; /* MAP_SHARED */
};

/* Wait until the kernel has taken everything that was sent. */
static void nbd_flush(const struct nbd *n)
{
	int left = 1;

	for (int i = 0; i < 5000 && left; i++) {
		if (ioctl(n->server, SIOCOUTQ, &left))
			return;
		usleep(200);
	}
}

static int nbd_send(const struct nbd *n, const void *data, size_t length)
{
	return send(n->server, data, length, MSG_NOSIGNAL) == (ssize_t)length ? 0 : -EIO;
}

static int nbd_reply(const struct nbd *n, const char *handle, uint32_t error)
{
	struct nbd_reply reply = { .magic = htonl(NBD_REPLY_MAGIC), .error = htonl(error) };

	memcpy(&reply.handle, handle, sizeof(reply.handle));
	return nbd_send(n, &reply, sizeof(reply));
}

/* Answer what the kernel reads for itself with zeros, until the test's own request is there. */
static int nbd_receive(const struct nbd *n, int milliseconds)
{
	static const char zeros[1 << 17];
	struct nbd_request request;
	struct pollfd ready = { .fd = n->server, .events = POLLIN };

	while (poll(&ready, 1, milliseconds) > 0) {
		if (recv(n->server, &request, sizeof(request), MSG_WAITALL) != sizeof(request))
			return -EIO;
		if (be64toh(request.from) == NBD_TEST_OFFSET) {
			memcpy(n->request->handle, &request.handle, sizeof(n->request->handle));
			return 0;
		}
		if (nbd_reply(n, (char *)&request.handle, 0) || ntohl(request.len) > sizeof(zeros) ||
		    nbd_send(n, zeros, ntohl(request.len)))
			return -EIO;
	}
	return -ETIMEDOUT;
}

static int nbd_open(struct nbd *n, size_t page_size)
{
	int ends[2];

	n->page_size = page_size;
	n->device = open(NBD_DEVICE, O_RDWR | O_CLOEXEC);
	/* now: an open after NBD_DO_IT would wait for the answer to a look for partitions */
	n->direct = open(NBD_DEVICE, O_RDONLY | O_DIRECT | O_CLOEXEC);
	n->request = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (n->device < 0 || n->direct < 0 || n->request == MAP_FAILED ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return -errno;
	n->server = ends[0];
	if (ioctl(n->device, NBD_SET_BLKSIZE, NBD_BLOCK) ||
	    ioctl(n->device, NBD_SET_SIZE_BLOCKS, NBD_BLOCKS) ||
	    ioctl(n->device, NBD_SET_FLAGS, NBD_FLAG_HAS_FLAGS) ||
	    ioctl(n->device, NBD_SET_SOCK, ends[1]))
		return -errno;
	n->worker = fork();
	if (n->worker == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ends[0]);
		ioctl(n->device, NBD_DO_IT);
		_exit(0);
	}
	close(ends[1]);
	nbd_receive(n, 100); /* what the kernel may read for itself */
	return n->worker < 0 ? -errno : 0;
}

static void nbd_close(const struct nbd *n)
{
	ioctl(n->device, NBD_DISCONNECT);
	kill(n->worker, SIGKILL);
	waitpid(n->worker, NULL, 0);
}

/* Submit the read; it holds its reference on the page until nbd_finish(). */
static int nbd_start_read(const struct nbd *n, void *page)
{
	struct iocb read = {
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = n->direct,
		.aio_buf = (uintptr_t)page,
		.aio_nbytes = n->page_size,
		.aio_offset = NBD_TEST_OFFSET,
	}, *reads = &read;
	struct timespec now = { 0 };
	aio_context_t context = 0;
	struct io_event event;
	int error;

	if (n->request->waiting)
		return -EBUSY;
	if (syscall(SYS_io_setup, 1, &context) || syscall(SYS_io_submit, context, 1, &reads) != 1)
		return -errno;
	if (syscall(SYS_io_getevents, context, 0, 1, &event, &now) == 1)
		return event.res == -EIO ? -EFAULT : event.res; /* no page (EIO until 5.10): none in flight */
	error = nbd_receive(n, 2000);
	n->request->sent = 0;
	n->request->waiting = !error;
	return error;
}

/* The device stores: the first block of the answer; once for each read. */
static int nbd_store(const struct nbd *n, const void *value, size_t length)
{
	char block[NBD_BLOCK] = { 0 };
	int error;

	if (!n->request->waiting || n->request->sent)
		return -EBUSY;
	memcpy(block, value, length);
	error = nbd_reply(n, n->request->handle, 0);
	if (!error)
		error = nbd_send(n, block, sizeof(block));
	n->request->sent = sizeof(block);
	nbd_flush(n);
	return error;
}

/* The read ends: the rest of the answer, or an I/O error if nothing was stored. */
static int nbd_finish(const struct nbd *n)
{
	static const char zeros[1 << 16];
	int error = 0;

	if (!n->request->waiting)
		return 0;
	n->request->waiting = false;
	if (n->request->sent)
		error = nbd_send(n, zeros, n->page_size - n->request->sent);
	else
		error = nbd_reply(n, n->request->handle, EIO);
	nbd_flush(n);
	usleep(2000); /* the completion drops the reference after it took the answer */
	return error;
}
