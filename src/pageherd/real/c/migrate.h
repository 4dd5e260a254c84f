/* Migration: move_pages() of one page to the other one of two memory nodes. */

#ifndef MPOL_MF_MOVE
#define MPOL_MF_MOVE (1 << 1)
#define MPOL_MF_MOVE_ALL (1 << 2)
#endif
#define MAX_NODES 64

static int nodes[2]; /* that pages can be moved to */

/* A page of a process (0: the caller) to a node: the node where it is now, or -errno. */
static int move_to(pid_t pid, void *address, int node, int flags)
{
	int status = -EBUSY; /* the kernel does not say more of a page that could not be moved */

	if (syscall(SYS_move_pages, pid, 1UL, &address, &node, &status, flags) < 0)
		return -errno;
	return status;
}

/* The node of a page, or -errno. */
static int node_of(pid_t pid, void *address)
{
	int status = -ENOENT;

	if (syscall(SYS_move_pages, pid, 1UL, &address, NULL, &status, 0) < 0)
		return -errno;
	return status;
}

static int move_away(pid_t pid, void *address, int flags)
{
	int moved = move_to(pid, address, nodes[node_of(pid, address) == nodes[0]], flags);

	return moved < 0 ? moved : 0;
}

/* Find two nodes that the scratch page can be moved to: 0, or why it cannot. */
static int find_nodes(void)
{
	int found = 0, error = 0;

	for (int node = 0; node < MAX_NODES && found < 2; node++) {
		int moved = move_to(0, scratch, node, MPOL_MF_MOVE);

		if (moved == node)
			nodes[found++] = node;
		else if (moved == -ENOSYS)
			error = ENOSYS;
	}
	return found == 2 ? 0 : error ? error : ENODEV;
}

/* What a process moves of its own stays if another process maps it, too.  Kernels differ in what they
 * say of memory without a page: EFAULT is for no memory only. */
static int move_own(struct step *s)
{
	int error = move_away(0, page_at(s->a), MPOL_MF_MOVE);
	unsigned char there;

	return error == -EFAULT && !mincore(page_at(s->a), page_size, &there) ? -ENOENT : error;
}

/* By the kernel, process s->a's page s->b, whoever maps it. */
static int move_any(struct step *s)
{
	pid_t pid = shared->pids[s->a];

	return pid && !move_away(pid, page_at(s->b), MPOL_MF_MOVE_ALL) ? 0 : -EBUSY;
}
