/* The conductor: hands each step to the process that must do it, waits, and prints what it gave. */

static volatile sig_atomic_t stop_signal;

static void stop_handler(int signal)
{
	stop_signal = signal;
}

/* Whether we were told to stop, or nobody reads what we print any more. */
static bool stopped(void)
{
	struct pollfd out = { .fd = STDOUT_FILENO };

	if (!stop_signal && poll(&out, 1, 0) > 0 && out.revents & POLLERR)
		stop_signal = SIGPIPE;
	return stop_signal;
}

/* Wait for the end of a process; false if it does not come. */
static bool wait_gone(int process)
{
	for (int i = 0; i < STEP_SECONDS * 1000; i++) {
		pid_t pid = waitpid(shared->pids[process], NULL, WNOHANG);

		if (pid == shared->pids[process] || (pid < 0 && errno == ECHILD)) {
			shared->pids[process] = 0;
			return true;
		}
		usleep(i < 100 ? 50 : 1000);
	}
	return false;
}

static void print_step(int i)
{
	struct step *s = &shared->steps[i];

	printf("step %d %d %d", i, s->result, s->reads ? s->seen : 0);
	if (shared->facts)
		print_facts();
	putchar('\n');
}

/* The thread that does a step: the one named, but a VFIO mapping is undone by its own process. */
static struct thread *poster(struct step *s)
{
	struct reference *r = &shared->references[s->a];

	if (s->run == release_reference && r->kind == VFIO)
		return &shared->threads[r->thread];
	return &shared->threads[s->thread];
}

static void post(struct step *s)
{
	struct thread *t = s->by;

	t->queue[t->posted] = s;
	__atomic_store_n(&t->posted, t->posted + 1, __ATOMIC_RELEASE);
	futex_wake(&t->posted);
}

/* Whether the process ended by itself, which it should not; it is waited for then. */
static bool has_died(int process)
{
	if (waitpid(shared->pids[process], NULL, WNOHANG) <= 0)
		return false;
	shared->pids[process] = 0; /* the number may be another's now */
	return true;
}

/* Whether the step's thread finished all that was posted to it, or its process left as it should;
 * false: it hangs, its process died, or we are to stop. */
static bool finished(struct step *s)
{
	double until = seconds_now() + STEP_SECONDS;
	struct thread *t = s->by;
	uint32_t done;

	if (s->run == leave)
		return wait_gone(t->process);
	while ((done = __atomic_load_n(&t->done, __ATOMIC_ACQUIRE)) != t->posted) {
		if (seconds_now() > until || stopped() || has_died(t->process))
			return false;
		futex_wait(&t->done, done);
	}
	return true;
}

/* Run the steps from `first` to before `last`, which belong to one group or are one; false: hang. */
static bool run_steps(int first, int last)
{
	static struct written written;
	bool elsewhere = false;
	struct step *s;

	written.count = 0;
	for (int i = first; i < last; i++) {
		s = &shared->steps[i];
		s->by = s->thread == KERNEL ? NULL : poster(s);
		if (s->run == reclaim_pages)
			may_write_all(&written);
		if (s->constant == MADV_PAGEOUT)
			for (int page = s->a; page < s->a + s->span; page++)
				may_write(&written, s->by->process, page);
		if (s->thread != KERNEL)
			post(s);
		else if ((s->result = s->run(s)) == -ETIME) /* ksmd does not go on */
			return false;
		elsewhere |= s->run == merge_pages; /* ksmd copies and unlocks pages on its own CPU */
	}
	__atomic_store_n(&shared->release, shared->steps[first].group, __ATOMIC_RELEASE);
	for (int i = first; i < last; i++) {
		s = &shared->steps[i];
		if (s->thread != KERNEL && !finished(s))
			return false;
	}
	for (int i = 0; i < written.count; i++)
		settle(written.frames[i]);
	if ((elsewhere || written.count) && shared->drain)
		drain_everywhere();
	return true;
}

/* Start the processes that no step forks; false if one could not be. */
static bool start_all(void)
{
	for (int t = 0; t < shared->nr_threads; t++)
		shared->threads[t].posted = shared->threads[t].done = 0;
	for (int n = 0; n < shared->nr_processes; n++) {
		shared->pids[n] = 0;
		memcpy(shared->mapped_width[n], shared->width, sizeof(shared->width));
	}
	for (int i = 0; i < shared->nr_steps; i++)
		if (shared->steps[i].run == fork_process)
			shared->pids[shared->steps[i].a] = -1;
	for (int n = 0; n < shared->nr_processes; n++)
		if (shared->pids[n] < 0)
			shared->pids[n] = 0; /* some step forks it */
		else if (start_process(n, 0))
			return false;
	return true;
}

/* Once through the program; false when a step did not return. */
static bool run_once(void)
{
	int last;

	file_renew();
	if (!start_all())
		return false;
	drain_all();
	for (int i = 0; i < shared->nr_steps; i = last) {
		for (last = i + 1; shared->steps[i].group && last < shared->nr_steps; last++)
			if (shared->steps[last].group != shared->steps[i].group)
				break;
		if (!run_steps(i, last)) {
			if (!stopped())
				printf("hang %d\n", i);
			return false;
		}
		if (shared->drain)
			drain_all();
		for (int j = i; j < last; j++)
			print_step(j);
	}
	return true;
}

/* Kill every process of the test and give every reference back; false: something stays. */
static bool clean_up(void)
{
	struct step s = { 0 };
	bool clean = true, mapped = false;

	for (int n = 0; n < shared->nr_processes; n++)
		if (shared->pids[n] > 0)
			kill(shared->pids[n], SIGKILL);
	if (have_nbd)
		nbd_finish(&nbd);
	for (int n = 0; n < shared->nr_processes; n++)
		if (shared->pids[n] > 0)
			clean &= wait_gone(n);
	for (s.a = 0; s.a < MAX_REFERENCES; s.a++) {
		if (shared->references[s.a].kind == VFIO)
			mapped = true; /* the process that may unmap it is gone */
		else
			release_reference(&s);
	}
	if (mapped) {
		vfio_close(&vfio, page_size);
		have_vfio = !vfio_open(&vfio, page_size);
	}
	file_give_back();
	return clean && (have_vfio || !mapped);
}

/* Run it as often as it asks for; the runner's exit code if it cannot go on, else 0. */
static int run_program(void)
{
	bool whole = true, clean = true;

	if (shared->range_pages)
		huge_prepare();
	printf("program %s\n", shared->id);
	for (int i = 0; i < shared->repeat && whole && clean && !stopped(); i++) {
		if (i)
			puts("again");
		whole = run_once();
		clean = clean_up();
	}
	if (stopped())
		return 128 + stop_signal;
	if (shared->range_pages && huge_failures_now() != huge_failures)
		puts("no-huge");
	puts(clean ? "end" : "stuck");
	fflush(stdout);
	return clean ? 0 : 4;
}
