/* Settings of the kernel that are changed for a time.  What they were before stands in a file until
 * they are back, for the next run to find if this one is killed (host_swap.py). */

#define MAX_SETTINGS 20

struct settings {
	const char *note; /* the file */
	const char *wanted[MAX_SETTINGS][2]; /* a path and a value each; ends with NULL */
	char before[MAX_SETTINGS][32]; /* empty: there is no such setting */
	bool changed;
};

/* What a setting is; of a list of words the one in brackets. */
static void setting(const char *path, char *value, size_t size)
{
	char text[256] = "", *from = text, *end;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[length > 0 ? length : 0] = 0;
	if (strchr(text, '['))
		from = strchr(text, '[') + 1;
	end = from + strcspn(from, "] \n");
	*end = 0;
	snprintf(value, size, "%s", from);
}

static void settings_back(struct settings *s)
{
	for (int i = 0; s->changed && s->wanted[i][0]; i++)
		if (s->before[i][0])
			write_file(s->wanted[i][0], s->before[i]);
	if (s->changed)
		unlink(s->note);
	s->changed = false;
}

/* Note the settings as they are; false: the file could not be written. */
static bool settings_note(struct settings *s)
{
	int fd = open(s->note, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	bool good = fd >= 0;

	for (int i = 0; s->wanted[i][0]; i++) {
		setting(s->wanted[i][0], s->before[i], sizeof(s->before[i]));
		if (good && s->before[i][0])
			good = dprintf(fd, "%s %s\n", s->wanted[i][0], s->before[i]) > 0;
	}
	if (fd >= 0)
		close(fd);
	return good;
}

/* Change them: 0, or -errno and they are as before. */
static int settings_change(struct settings *s)
{
	int error = 0;

	if (access(s->wanted[0][0], W_OK))
		return -errno;
	mkdir("/run", 0755); /* a guest has none */
	if (!settings_note(s))
		return -EROFS;
	s->changed = true;
	for (int i = 0; s->wanted[i][0]; i++)
		if (s->before[i][0] && strcmp(s->before[i], s->wanted[i][1]))
			error = error ? error : write_file(s->wanted[i][0], s->wanted[i][1]);
	if (error)
		settings_back(s);
	return error;
}
