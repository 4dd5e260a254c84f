/* A small empty ext2 on a block device, for a guest in which there is no mkfs.  ext4 mounts it, too. */

#define EXT2_BLOCK 4096
#define EXT2_BLOCKS 1024
#define EXT2_INODES 32
#define EXT2_FIRST_INODE 11
#define EXT2_ROOT 2

/* Where things lie, in blocks; the superblock is in the first one. */
enum { EXT2_GROUP = 1, EXT2_BLOCK_MAP, EXT2_INODE_MAP, EXT2_INODE_TABLE, EXT2_ROOT_FOLDER, EXT2_USED };

static uint8_t ext2[EXT2_USED * EXT2_BLOCK];

static void ext2_put(int block, int at, int bytes, uint32_t value)
{
    for (int i = 0; i < bytes; i++)
        ext2[block * EXT2_BLOCK + at + i] = value >> 8 * i;
}

/* One bit for each block or inode; those beyond the last one count as used. */
static void ext2_map(int block, int used, int all)
{
    for (int i = 0; i < 8 * EXT2_BLOCK; i++)
        if (i < used || i >= all)
            ext2[block * EXT2_BLOCK + i / 8] |= 1 << i % 8;
}

static void ext2_super(void)
{
    static const struct {
        int at, bytes;
        uint32_t value;
    } fields[] = {
        {0, 4, EXT2_INODES},
        {4, 4, EXT2_BLOCKS},
        {12, 4, EXT2_BLOCKS - EXT2_USED},              /* free */
        {16, 4, EXT2_INODES - (EXT2_FIRST_INODE - 1)}, /* free */
        {24, 4, 2},                                    /* blocks of 1024 << 2 bytes */
        {28, 4, 2},
        {32, 4, 8 * EXT2_BLOCK}, /* blocks of a group */
        {36, 4, 8 * EXT2_BLOCK},
        {40, 4, EXT2_INODES},
        {54, 2, 0xffff}, /* no check after so many mounts */
        {56, 2, 0xef53},
        {58, 2, 1}, /* clean */
        {60, 2, 1}, /* errors: go on */
        {76, 4, 1}, /* revision */
        {84, 4, EXT2_FIRST_INODE},
        {88, 2, 128}, /* bytes of an inode */
        {96, 4, 2},   /* folders have the types of files */
    };

    for (size_t i = 0; i < COUNT(fields); i++)
        ext2_put(0, 1024 + fields[i].at, fields[i].bytes, fields[i].value);
}

static void ext2_group(void)
{
    ext2_put(EXT2_GROUP, 0, 4, EXT2_BLOCK_MAP);
    ext2_put(EXT2_GROUP, 4, 4, EXT2_INODE_MAP);
    ext2_put(EXT2_GROUP, 8, 4, EXT2_INODE_TABLE);
    ext2_put(EXT2_GROUP, 12, 2, EXT2_BLOCKS - EXT2_USED);
    ext2_put(EXT2_GROUP, 14, 2, EXT2_INODES - (EXT2_FIRST_INODE - 1));
    ext2_put(EXT2_GROUP, 16, 2, 1); /* folders */
    ext2_map(EXT2_BLOCK_MAP, EXT2_USED, EXT2_BLOCKS);
    ext2_map(EXT2_INODE_MAP, EXT2_FIRST_INODE - 1, EXT2_INODES);
}

static void ext2_root(void)
{
    int inode = (EXT2_ROOT - 1) * 128;

    ext2_put(EXT2_INODE_TABLE, inode, 2, 040755);
    ext2_put(EXT2_INODE_TABLE, inode + 4, 4, EXT2_BLOCK);
    ext2_put(EXT2_INODE_TABLE, inode + 26, 2, 2);               /* links */
    ext2_put(EXT2_INODE_TABLE, inode + 28, 4, EXT2_BLOCK / 512); /* sectors */
    ext2_put(EXT2_INODE_TABLE, inode + 40, 4, EXT2_ROOT_FOLDER);
    for (int dots = 1; dots <= 2; dots++) { /* "." and ".." */
        int at = dots == 1 ? 0 : 12;

        ext2_put(EXT2_ROOT_FOLDER, at, 4, EXT2_ROOT);
        ext2_put(EXT2_ROOT_FOLDER, at + 4, 2, dots == 1 ? 12 : EXT2_BLOCK - 12);
        ext2_put(EXT2_ROOT_FOLDER, at + 6, 1, dots);
        ext2_put(EXT2_ROOT_FOLDER, at + 7, 1, 2);
        ext2_put(EXT2_ROOT_FOLDER, at + 8, dots, '.' | '.' << 8);
    }
}

/* Write it; false if it could not be written. */
static bool ext2_make(const char *device)
{
    int fd = open(device, O_WRONLY | O_CLOEXEC);
    bool written;

    ext2_super();
    ext2_group();
    ext2_root();
    written = fd >= 0 && write(fd, ext2, sizeof(ext2)) == (ssize_t)sizeof(ext2);
    if (fd >= 0)
        close(fd);
    return written;
}
