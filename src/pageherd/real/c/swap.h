/* One swap device at a time: a block device or file that the runner formats and turns on. */

static char swap_device[128];
static char swap_label[16]; /* goes into the header, so that a device left on can be recognized */

/* The header that mkswap writes: version 1 in the first page, the magic in its last ten bytes. */
static int swap_format(const char *device)
{
	struct { uint32_t version, last_page, nr_bad; char uuid[16], label[16]; } head = { .version = 1 };
	size_t page = sysconf(_SC_PAGESIZE);
	int fd = open(device, O_RDWR | O_CLOEXEC), error = 0;
	char *first = calloc(1, page);
	off_t size;

	if (fd < 0 || !first)
		return -errno;
	size = lseek(fd, 0, SEEK_END);
	head.last_page = size / page - 1;
	memcpy(head.label, swap_label, sizeof(head.label));
	memcpy(first + 1024, &head, sizeof(head));
	memcpy(first + page - 10, "SWAPSPACE2", 10);
	if (size < (off_t)(10 * page))
		error = -ENOSPC;
	else if (pwrite(fd, first, page, 0) < 0 || fsync(fd))
		error = -errno;
	free(first);
	close(fd);
	return error;
}

/* A zram device has no size before it is used and must be reset after: write to its sysfs file. */
static int swap_zram(const char *device, const char *file, const char *text)
{
	char path[256];

	if (strncmp(device, "/dev/zram", 9))
		return 0;
	snprintf(path, sizeof(path), "/sys/block/%.32s/%s", device + 5, file);
	return write_file(path, text);
}

static int swap_stop(void)
{
	int error = 0;

	do { /* a signal interrupts it */
		error = swap_device[0] && swapoff(swap_device) ? -errno : 0;
	} while (error == -EINTR);
	if (error == -EINVAL)
		error = 0; /* it is off already */
	if (!error && swap_device[0])
		error = swap_zram(swap_device, "reset", "1");
	if (!error)
		swap_device[0] = 0;
	return error;
}

/* Swap on `device` from now on, before any other; the device `none`: not on one of ours. */
static int swap_start(const char *device)
{
	int error;

	if (!strcmp(device, swap_device))
		return 0;
	error = swap_stop();
	if (error || !strcmp(device, "none"))
		return error;
	error = swap_zram(device, "disksize", "67108864");
	if (error)
		return error;
	error = swap_format(device);
	if (!error && swapon(device, SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK))
		error = -errno;
	if (error) {
		swap_zram(device, "reset", "1");
		return error;
	}
	snprintf(swap_device, sizeof(swap_device), "%s", device);
	return 0;
}
