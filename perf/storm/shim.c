/* Preload library of the storm: a wall clock that steps, syncs and writes that take long, for the
 * processes that it is loaded into and for nobody else. RECD_STORM_SHIM names a file of five int64:
 * what is added to CLOCK_REALTIME, what every sync waits, and every write to a regular file, in ns;
 * the device (st_dev) whose files these are; and whether syncs are left out. Monotonic clocks stay. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL

struct control {
    volatile int64_t wall_step_ns, sync_delay_ns, write_delay_ns, device, no_sync;
};

static struct control nothing;
static struct control *control = &nothing;
static int (*real_gettime)(clockid_t, struct timespec *);
static int (*real_fsync)(int), (*real_fdatasync)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("RECD_STORM_SHIM");
    real_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    real_write = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    real_pwrite = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    real_writev = (ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED)
        control = mapped;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = real_gettime(id, now);
    if (failed || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE))
        return failed;
    int64_t ns = now->tv_sec * NS_PER_S + now->tv_nsec + control->wall_step_ns;
    now->tv_sec = ns / NS_PER_S;
    now->tv_nsec = ns % NS_PER_S;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec wall;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &wall))
        return -1;
    now->tv_sec = wall.tv_sec;
    now->tv_usec = wall.tv_nsec / 1000;
    return 0;
}

static void wait_for(int64_t ns) {
    struct timespec span = {ns / NS_PER_S, ns % NS_PER_S};
    if (ns > 0)
        nanosleep(&span, NULL);
}

int fsync(int fd) {
    wait_for(control->sync_delay_ns);
    return control->no_sync ? 0 : real_fsync(fd);
}

int fdatasync(int fd) {
    wait_for(control->sync_delay_ns);
    return control->no_sync ? 0 : real_fdatasync(fd);
}

static void wait_if_file(int fd) {
    struct stat facts;
    if (control->write_delay_ns > 0 && fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode) &&
        (int64_t)facts.st_dev == control->device)
        wait_for(control->write_delay_ns);
}

ssize_t write(int fd, const void *data, size_t size) {
    wait_if_file(fd);
    return real_write(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    wait_if_file(fd);
    return real_pwrite(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) {
    wait_if_file(fd);
    return real_pwrite(fd, data, size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    wait_if_file(fd);
    return real_writev(fd, parts, count);
}
