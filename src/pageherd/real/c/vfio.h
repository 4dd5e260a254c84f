/* Long-term pins taken by VFIO, for reading only or for writing, and a device that uses them:
 * QEMU's `edu` device behind an IOMMU copies between memory and a buffer of its own. */

#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_TARGET 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_DMA_RUN 1
#define EDU_DMA_TO_MEMORY 2
#define EDU_BUFFER 0x40000

#define VFIO_PAGE(n) (0x1000000ULL + (uint64_t)(n) * 0x200000) /* device address of reference n */
#define VFIO_BOUNCE VFIO_PAGE(64)

struct vfio {
	int container, group, device;
	volatile unsigned char *registers;
	size_t registers_size;
	void *bounce; /* memory of the conductor that the device may always use */
};

/* The first group that has a device node: its number and the address of its device. */
static int vfio_find(char *group, size_t group_size, char *address, size_t address_size)
{
	struct dirent *entry;
	char path[288];
	DIR *directory;

	group[0] = address[0] = 0;
	directory = opendir("/dev/vfio");
	while (directory && (entry = readdir(directory)))
		if (isdigit((unsigned char)entry->d_name[0]))
			snprintf(group, group_size, "%.31s", entry->d_name);
	if (directory)
		closedir(directory);
	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%.16s/devices", group);
	directory = opendir(path);
	while (directory && (entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			snprintf(address, address_size, "%.63s", entry->d_name);
	if (directory)
		closedir(directory);
	return group[0] && address[0] ? 0 : -ENOENT;
}

static int vfio_map(const struct vfio *v, uint64_t device_address, void *page, size_t length,
		    unsigned flags)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = flags,
		.vaddr = (uintptr_t)page,
		.iova = device_address,
		.size = length,
	};

	return ioctl(v->container, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
}

static int vfio_unmap(const struct vfio *v, uint64_t device_address, size_t length)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = device_address,
		.size = length,
	};

	if (ioctl(v->container, VFIO_IOMMU_UNMAP_DMA, &unmap))
		return -errno;
	return unmap.size == length ? 0 : -ENOENT; /* until 6.1 only the process that mapped it may */
}

static int vfio_open(struct vfio *v, size_t page_size)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	struct vfio_region_info bar = { .argsz = sizeof(bar), .index = VFIO_PCI_BAR0_REGION_INDEX };
	struct vfio_region_info config = { .argsz = sizeof(config),
					   .index = VFIO_PCI_CONFIG_REGION_INDEX };
	char group[32], address[64], path[64];
	uint16_t command = 0x6; /* memory space and bus master */
	int error = vfio_find(group, sizeof(group), address, sizeof(address));

	if (error)
		return error;
	snprintf(path, sizeof(path), "/dev/vfio/%.16s", group);
	v->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	v->group = open(path, O_RDWR | O_CLOEXEC);
	if (v->container < 0 || v->group < 0 ||
	    ioctl(v->group, VFIO_GROUP_GET_STATUS, &status))
		return -errno;
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return -EBUSY;
	if (ioctl(v->group, VFIO_GROUP_SET_CONTAINER, &v->container) ||
	    ioctl(v->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return -errno;
	v->device = ioctl(v->group, VFIO_GROUP_GET_DEVICE_FD, address);
	if (v->device < 0 || ioctl(v->device, VFIO_DEVICE_GET_REGION_INFO, &bar) ||
	    ioctl(v->device, VFIO_DEVICE_GET_REGION_INFO, &config) ||
	    pwrite(v->device, &command, sizeof(command), config.offset + PCI_COMMAND) < 0)
		return -errno;
	v->registers_size = bar.size;
	v->registers = mmap(NULL, bar.size, PROT_READ | PROT_WRITE, MAP_SHARED, v->device, bar.offset);
	v->bounce = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (v->registers == MAP_FAILED || v->bounce == MAP_FAILED)
		return -errno;
	return vfio_map(v, VFIO_BOUNCE, v->bounce, page_size,
			VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
}

/* Give the device back, and with the container every pin. */
static void vfio_close(const struct vfio *v, size_t page_size)
{
	munmap((void *)v->registers, v->registers_size);
	munmap(v->bounce, page_size);
	close(v->device);
	close(v->group);
	close(v->container);
}

/* One DMA transfer, polled until the device is done. */
static void edu_copy(const struct vfio *v, uint64_t source, uint64_t target, uint64_t length,
		     unsigned command)
{
	*(volatile uint64_t *)(v->registers + EDU_DMA_SOURCE) = source;
	*(volatile uint64_t *)(v->registers + EDU_DMA_TARGET) = target;
	*(volatile uint64_t *)(v->registers + EDU_DMA_COUNT) = length;
	*(volatile uint64_t *)(v->registers + EDU_DMA_COMMAND) = command | EDU_DMA_RUN;
	while (*(volatile uint64_t *)(v->registers + EDU_DMA_COMMAND) & EDU_DMA_RUN)
		usleep(1000);
}

/* The device loads from the page at `device_address`. */
static int vfio_load(const struct vfio *v, uint64_t device_address, void *to, size_t length)
{
	edu_copy(v, device_address, EDU_BUFFER, length, 0);
	edu_copy(v, EDU_BUFFER, VFIO_BOUNCE, length, EDU_DMA_TO_MEMORY);
	memcpy(to, v->bounce, length);
	return 0;
}

/* The device stores to the page at `device_address`. */
static int vfio_store(const struct vfio *v, uint64_t device_address, const void *from, size_t length)
{
	memcpy(v->bounce, from, length);
	edu_copy(v, VFIO_BOUNCE, EDU_BUFFER, length, 0);
	edu_copy(v, EDU_BUFFER, device_address, length, EDU_DMA_TO_MEMORY);
	return 0;
}
