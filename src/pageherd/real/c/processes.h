/* The processes and threads of a test: each waits for steps, does them, and dies with the conductor. */

static void *thread_main(void *argument)
{
	struct thread *t;
	uint32_t done = 0;

	self = (int)(intptr_t)argument;
	t = &shared->threads[self];
	run_on_cpu(t->cpu);
	for (;;) {
		uint32_t posted = __atomic_load_n(&t->posted, __ATOMIC_ACQUIRE);

		if (posted == done) {
			futex_wait(&t->posted, posted);
			continue;
		}
		while (done != posted) {
			struct step *s = t->queue[done];

			if (s->group)
				while (__atomic_load_n(&shared->release, __ATOMIC_ACQUIRE) != (uint32_t)s->group)
					;
			s->result = s->run(s);
			__atomic_store_n(&t->done, ++done, __ATOMIC_RELEASE);
		}
		futex_wake(&t->done);
	}
	return NULL;
}

/* Ctrl-C is for the conductor; and who is alone, however that came, has nothing left to do. */
static void become_a_process(void)
{
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != conductor)
		_exit(97);
	if (have_reclaim)
		reclaim_join();
}

/* The first thread of process `n` goes on here; the others are started. */
static void process_main(int n)
{
	pthread_t started;
	int first = -1;

	become_a_process();
	for (int t = 0; t < shared->nr_threads; t++) {
		if (shared->threads[t].process != n)
			continue;
		if (first < 0)
			first = t;
		else if (pthread_create(&started, NULL, thread_main, (void *)(intptr_t)t))
			_exit(98);
	}
	if (first < 0)
		_exit(96); /* a process of no thread: nothing will be asked of it */
	thread_main((void *)(intptr_t)first);
}

/* fork(), but the child is the conductor's to wait for. */
static int start_process(int n, int flags)
{
	pid_t pid = syscall(SYS_clone, flags | SIGCHLD, 0, NULL, NULL, 0);

	if (pid < 0)
		return -errno;
	if (pid == 0)
		process_main(n);
	shared->pids[n] = pid;
	return 0;
}

static int fork_process(struct step *s)
{
	memcpy(shared->mapped_width[s->a], shared->mapped_width[shared->threads[self].process],
	       sizeof(shared->mapped_width[s->a]));
	return start_process(s->a, CLONE_PARENT);
}
