/*
 * /init of the virtual machine: prepares the guest, runs /runner, reports, powers off.
 *
 * What it has to say goes to the result port, one record a line.  A record begins with the byte
 * 0x1e, so that it cannot be taken for a line of the runner: "fact KEY VALUE", "error TEXT" (why
 * the runner could not be started), "start", and at the end "exit N" or "signal N".
 *
 * Files: /modules.list (a line each: name, path, parameters), /arguments (each ends in a zero
 * byte), /programs (the runner's standard input), /runner.  What the runner prints on standard
 * error goes to the console.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define PORT_NAME "pageherd.result"
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#include "ext2.h"

static int result_port = -1;

static void record(const char *format, ...)
{
    char line[4096] = "\x1e";
    va_list arguments;

    va_start(arguments, format);
    int length = 1 + vsnprintf(line + 1, sizeof(line) - 2, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof(line) - 2)
        length = sizeof(line) - 2;
    line[length++] = '\n';
    for (int done = 0; done < length;) {
        ssize_t n = write(result_port, line + done, length - done);
        if (n < 0 && errno != EINTR)
            return;
        done += n > 0 ? n : 0;
    }
}

/* The first line of a file, without its end; an empty string if it cannot be read. */
static const char *first_line(const char *path)
{
    static char line[2048];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, line, sizeof(line) - 1);

    if (fd >= 0)
        close(fd);
    line[n > 0 ? n : 0] = 0;
    line[strcspn(line, "\n")] = 0;
    return line;
}

static int put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, strlen(text));
    close(fd);
    return n < 0 ? -1 : 0;
}

static void mount_all(void)
{
    static const char *const table[][2] = {
        {"proc", "/proc"},
        {"sysfs", "/sys"},
        {"devtmpfs", "/dev"},
        {"debugfs", "/sys/kernel/debug"},
        {"tmpfs", "/tmp"},
        {"tmpfs", "/dev/shm"},
        {"cgroup2", "/sys/fs/cgroup"},
    };

    for (size_t i = 0; i < COUNT(table); i++) {
        mkdir(table[i][1], 0755);
        mount(table[i][0], table[i][1], table[i][0], 0, NULL);
    }
    if (put("/sys/fs/cgroup/cgroup.subtree_control", "+memory") < 0) {
        umount("/sys/fs/cgroup"); /* an old kernel whose v1 has the memory controller */
        mount("cgroup", "/sys/fs/cgroup", "cgroup", 0, "memory");
    }
}

/* Failures are kept until there is a port to report them on. */
static char module_failures[2048];

static void load_modules(void)
{
    FILE *list = fopen("/modules.list", "re");
    char line[512];

    while (list && fgets(line, sizeof(line), list)) {
        line[strcspn(line, "\n")] = 0;
        char *path = strchr(line, ' ');
        if (!path)
            continue;
        *path++ = 0;
        char *parameters = path + strcspn(path, " ");
        if (*parameters)
            *parameters++ = 0;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (syscall(SYS_finit_module, fd, parameters, 0) < 0 && errno != EEXIST) {
            size_t used = strlen(module_failures);
            snprintf(module_failures + used, sizeof(module_failures) - used, "%s%s (%s)",
                     used ? ", " : "", line, strerror(errno));
        }
        close(fd);
        unlink(path); /* its memory is the guest's */
    }
    if (list)
        fclose(list);
}

/* The virtio port named PORT_NAME, which appears a moment after its driver; else the serial one. */
static int open_result_port(void)
{
    char path[400];

    for (int attempt = 0; attempt < 200; attempt++) {
        DIR *ports = opendir("/sys/class/virtio-ports");
        for (struct dirent *port; ports && (port = readdir(ports));) {
            snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", port->d_name);
            if (strcmp(first_line(path), PORT_NAME) == 0) {
                snprintf(path, sizeof(path), "/dev/%s", port->d_name);
                closedir(ports);
                return open(path, O_WRONLY | O_CLOEXEC);
            }
        }
        if (!ports)
            break; /* no such driver */
        closedir(ports);
        usleep(10000);
    }
    int fd = open("/dev/ttyS1", O_WRONLY | O_NOCTTY | O_CLOEXEC);
    struct termios settings;
    if (fd >= 0 && tcgetattr(fd, &settings) == 0) {
        cfmakeraw(&settings);
        cfsetspeed(&settings, B115200);
        tcsetattr(fd, TCSANOW, &settings);
    }
    return fd;
}

/* A disk in memory whose reads and writes end later, by a timer. */
static void make_null_block_device(void)
{
    static const char *const settings[][2] = {
        {"/sys/kernel/config/nullb/nullb0/memory_backed", "1"},
        {"/sys/kernel/config/nullb/nullb0/size", "64"}, /* MiB */
        {"/sys/kernel/config/nullb/nullb0/irqmode", "2"},
        {"/sys/kernel/config/nullb/nullb0/power", "1"},
    };

    mount("configfs", "/sys/kernel/config", "configfs", 0, NULL);
    mkdir("/sys/kernel/config/nullb/nullb0", 0755);
    for (size_t i = 0; i < COUNT(settings); i++)
        if (put(settings[i][0], settings[i][1]) < 0)
            return; /* one that forgets what is written to it is worse than none */
}

/* The runner's file on disk, which wants a file system that tracks what is dirty. */
static void mount_disk(void)
{
    mkdir("/var", 0755);
    mkdir("/var/tmp", 0755);
    if (!ext2_make("/dev/ram0") || mount("/dev/ram0", "/var/tmp", "ext4", 0, NULL))
        record("fact disk %s", strerror(errno));
}

/* A file system on persistent memory, whose files are mapped as they lie there. */
static void mount_dax(void)
{
    mkdir("/dax", 0755);
    for (int attempt = 0; attempt < 100 && access("/dev/pmem0", F_OK); attempt++)
        usleep(access("/sys/bus/nd", F_OK) ? 0 : 10000); /* a moment after its driver */
    if (!ext2_make("/dev/pmem0") || mount("/dev/pmem0", "/dax", "ext4", 0, "dax"))
        record("fact dax %s", strerror(errno));
}

static void bind_edu_to_vfio(void)
{
    put("/sys/bus/pci/drivers/vfio-pci/new_id", "1234 11e8");
    DIR *groups = opendir("/dev/vfio");
    for (struct dirent *group; groups && (group = readdir(groups));)
        if (group->d_name[0] >= '0' && group->d_name[0] <= '9')
            record("fact vfio_group /dev/vfio/%s", group->d_name);
    if (groups)
        closedir(groups);
}

static void set_levers(void)
{
    static const char *const table[][2] = {
        {"/proc/sys/vm/page-cluster", "0"}, /* swap in one page at a time */
        {"/proc/sys/vm/swappiness", "100"},
        {"/proc/sys/vm/compaction_proactiveness", "0"},
        {"/proc/sys/kernel/numa_balancing", "0"},
        {"/proc/sys/kernel/sysrq", "1"},
        {"/proc/sys/kernel/io_uring_disabled", "0"},
        {"/proc/sys/vm/unprivileged_userfaultfd", "1"},
        {"/sys/kernel/mm/transparent_hugepage/enabled", "madvise"},
        {"/sys/kernel/mm/transparent_hugepage/defrag", "madvise"},
        {"/sys/kernel/mm/ksm/run", "0"},
        {"/sys/block/vda/queue/rotational", "0"}, /* or no huge page is swapped out whole */
    };
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    for (size_t i = 0; i < COUNT(table); i++)
        put(table[i][0], table[i][1]);
    ioctl(fd, SIOCSIFFLAGS, &loopback);
    close(fd);
}

static void report_facts(void)
{
    static const char *const lines[][2] = {
        {"cmdline", "/proc/cmdline"},
        {"memory", "/proc/meminfo"},
        {"page_cluster", "/proc/sys/vm/page-cluster"},
        {"swappiness", "/proc/sys/vm/swappiness"},
        {"lru_gen", "/sys/kernel/mm/lru_gen/enabled"},
        {"thp", "/sys/kernel/mm/transparent_hugepage/enabled"},
        {"ksm", "/sys/kernel/mm/ksm/run"},
        {"numa_balancing", "/proc/sys/kernel/numa_balancing"},
        {"nodes", "/sys/devices/system/node/online"},
        {"cpus", "/sys/devices/system/cpu/online"},
        {"cgroup", "/sys/fs/cgroup/cgroup.controllers"},
        {"zram", "/sys/block/zram0/comp_algorithm"},
    };
    static const char *const files[] = {
        "/dev/ram0", "/dev/zram0", "/dev/vda", "/dev/nbd0", "/dev/nullb0", "/dev/loop0",
        "/dev/fuse", "/dev/userfaultfd", "/dev/vfio/vfio", "/proc/kpageflags", "/proc/config.gz",
        "/sys/fs/cgroup/memory.stat", "/sys/kernel/debug/gup_test", "/sys/kernel/debug/bdi",
        "/sys/kernel/debug/split_huge_pages", "/sys/kernel/mm/ksm/run",
    };
    struct utsname name;

    uname(&name);
    record("fact uname %s %s %s %s", name.sysname, name.release, name.version, name.machine);
    record("fact release %s", name.release);
    record("fact modules_failed %s", module_failures);
    for (size_t i = 0; i < COUNT(lines); i++)
        if (access(lines[i][1], R_OK) == 0)
            record("fact %s %s", lines[i][0], first_line(lines[i][1]));
    for (size_t i = 0; i < COUNT(files); i++)
        record("fact has:%s %s", files[i], access(files[i], F_OK) == 0 ? "yes" : "no");
}

static void run(void)
{
    static char text[65536], *arguments[1024] = {"/runner"};
    int fd = open("/arguments", O_RDONLY | O_CLOEXEC), count = 1, status;
    ssize_t length = read(fd, text, sizeof(text) - 1);

    close(fd);
    for (char *at = text; at < text + length && count < 1023; at += strlen(at) + 1)
        arguments[count++] = at;
    record("start");
    pid_t runner = fork();
    if (runner == 0) {
        setsid();
        setenv("PAGEHERD_GUEST", "1", 1);
        if (dup2(open("/programs", O_RDONLY | O_CLOEXEC), 0) == 0 && dup2(result_port, 1) == 1)
            execv(arguments[0], arguments);
        record("error cannot start the runner: %s", strerror(errno));
        _exit(127);
    }
    while (waitpid(-1, &status, 0) != runner) /* orphans end up here too */
        ;
    record("fact tainted %s", first_line("/proc/sys/kernel/tainted"));
    if (WIFSIGNALED(status))
        record("signal %d", WTERMSIG(status));
    else
        record("exit %d", WEXITSTATUS(status));
}

int main(void)
{
    mount_all();
    int console = open("/dev/console", O_RDWR); /* standard error, also of the runner */
    while (console >= 0 && console < 2)
        console = dup(console);
    load_modules();
    result_port = open_result_port();
    if (result_port >= 0) {
        set_levers();
        make_null_block_device();
        mount_disk();
        mount_dax();
        bind_edu_to_vfio();
        report_facts();
        run();
        tcdrain(result_port);
    } else {
        dprintf(2, "pageherd: this kernel has neither a virtio console nor a second serial port\n");
    }
    sync();
    reboot(RB_POWER_OFF);
    reboot(RB_AUTOBOOT);
    return 0;
}
