/* A V4L2 device without a kernel driver: preloaded into a program, this library answers for the
 * paths named in RECD_V4L2_SHIM ("path=socket;path=socket") and passes every ioctl on to a scripted
 * device behind that socket. Knows nothing about formats or frames itself.
 *
 * The file descriptor that the program sees is an eventfd of the device, readable while a filled
 * buffer waits, so that poll, select and epoll work untouched. Buffers are a memfd of the device.
 * Not covered: dup of the descriptor, fork without exec, read() (refused, as uvcvideo does).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#undef open
#undef open64
#undef openat
#undef openat64
#undef mmap
#undef mmap64

enum { MOST_FD = 4096, MOST_BYTES = 8192, OP_OPEN = 1, OP_IOCTL = 2 };

/* Wire format, little endian as the machine: request header, then the argument, then for the
 * extended controls their array. The reply repeats argument and array as the device left them. */
struct ask {
    uint32_t op, flags;
    uint64_t request;
    uint32_t argument_bytes, array_bytes;
};
struct answer {
    int32_t error;
    uint32_t argument_bytes, array_bytes;
};

struct device {
    int link, memory, held, nonblocking, gone;
    pthread_mutex_t turn;
};

static struct device *table[MOST_FD];
static pthread_mutex_t table_turn = PTHREAD_MUTEX_INITIALIZER;

static int (*real_openat)(int, const char *, int, ...);
static int (*real_ioctl)(int, unsigned long, ...);
static int (*real_close)(int);
static void *(*real_mmap)(void *, size_t, int, int, int, off_t);
static ssize_t (*real_read)(int, void *, size_t);

__attribute__((constructor)) static void find_real(void)
{
    real_openat = dlsym(RTLD_NEXT, "openat");
    real_ioctl = dlsym(RTLD_NEXT, "ioctl");
    real_close = dlsym(RTLD_NEXT, "close");
    real_mmap = dlsym(RTLD_NEXT, "mmap");
    real_read = dlsym(RTLD_NEXT, "read");
}

static struct device *device_of(int fd)
{
    return fd >= 0 && fd < MOST_FD ? __atomic_load_n(&table[fd], __ATOMIC_ACQUIRE) : NULL;
}

/* Socket of the device behind `path`, links resolved; 0 when the path is not ours. */
static int socket_of(const char *path, char *out, size_t room)
{
    const char *map = getenv("RECD_V4L2_SHIM");
    char resolved[PATH_MAX];
    if (!map || !path)
        return 0;
    if (!realpath(path, resolved))
        snprintf(resolved, sizeof resolved, "%s", path);
    while (*map) {
        const char *end = strchrnul(map, ';'), *equals = memchr(map, '=', end - map);
        if (equals) {
            size_t n = equals - map;
            if ((strlen(path) == n && !memcmp(path, map, n)) ||
                (strlen(resolved) == n && !memcmp(resolved, map, n))) {
                snprintf(out, room, "%.*s", (int)(end - equals - 1), equals + 1);
                return 1;
            }
        }
        map = *end ? end + 1 : end;
    }
    return 0;
}

/* Opening handshake: the device answers with an error, or with [eventfd, memfd]. */
static int handshake(int link, int flags, int fds[2])
{
    struct ask ask = {.op = OP_OPEN, .flags = (uint32_t)flags};
    struct answer answer;
    char control[CMSG_SPACE(2 * sizeof(int))];
    struct iovec iov = {&answer, sizeof answer};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1,
                             .msg_control = control, .msg_controllen = sizeof control};
    if (send(link, &ask, sizeof ask, MSG_NOSIGNAL) != sizeof ask)
        return ENODEV;
    ssize_t got;
    do
        got = recvmsg(link, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got != sizeof answer)
        return ENODEV;
    if (answer.error)
        return answer.error;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_len != CMSG_LEN(2 * sizeof(int)))
        return EPROTO;
    memcpy(fds, CMSG_DATA(header), 2 * sizeof(int));
    return 0;
}

static int open_device(const char *path, const char *name, int flags)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fds[2], link = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (link < 0)
        return -1;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", name);
    int error = connect(link, (struct sockaddr *)&address, sizeof address) ? ENOENT : 0;
    if (!error)
        error = handshake(link, flags, fds);
    struct device *device = error ? NULL : calloc(1, sizeof *device);
    if (!error && (!device || fds[0] >= MOST_FD))
        error = EMFILE;
    if (error) {
        free(device);
        real_close(link);
        errno = error;
        return -1;
    }
    device->link = link;
    device->memory = fds[1];
    device->nonblocking = !!(flags & O_NONBLOCK);
    /* Held only so that /proc/PID/fd names the device, where the path exists. */
    device->held = real_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    pthread_mutex_init(&device->turn, NULL);
    if (!(flags & O_CLOEXEC))
        fcntl(fds[0], F_SETFD, 0);
    pthread_mutex_lock(&table_turn);
    __atomic_store_n(&table[fds[0]], device, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&table_turn);
    return fds[0];
}

static int open_any(int folder, const char *path, int flags, mode_t mode)
{
    char name[sizeof((struct sockaddr_un *)0)->sun_path];
    if (socket_of(path, name, sizeof name))
        return open_device(path, name, flags);
    return real_openat(folder, path, flags, mode);
}

#define MODE_OF(flags)                                                                             \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                       \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode = va_arg(rest, mode_t);                                                               \
        va_end(rest);                                                                              \
    }

int open(const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_any(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_any(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}
int openat(int folder, const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_any(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_any(folder, path, flags | O_LARGEFILE, mode);
}
int __open_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags)
{
    return open_any(AT_FDCWD, path, flags | O_LARGEFILE, 0);
}

/* One ioctl there and back. Returns 0 or the error number. */
static int exchange(struct device *device, unsigned long request, void *argument, size_t bytes,
                    void *array, size_t array_bytes)
{
    char packet[MOST_BYTES];
    struct ask ask = {OP_IOCTL, 0, request, (uint32_t)bytes, (uint32_t)array_bytes};
    struct answer answer;
    if (sizeof ask + bytes + array_bytes > sizeof packet)
        return EINVAL;
    memcpy(packet, &ask, sizeof ask);
    if (bytes)
        memcpy(packet + sizeof ask, argument, bytes);
    if (array_bytes)
        memcpy(packet + sizeof ask + bytes, array, array_bytes);
    pthread_mutex_lock(&device->turn);
    ssize_t got = device->gone ? 0 : send(device->link, packet, sizeof ask + bytes + array_bytes,
                                          MSG_NOSIGNAL);
    if (got > 0)
        do
            got = recv(device->link, packet, sizeof packet, 0);
        while (got < 0 && errno == EINTR);
    if (got <= 0)
        device->gone = 1;
    pthread_mutex_unlock(&device->turn);
    if (got < (ssize_t)sizeof answer)
        return ENODEV;
    memcpy(&answer, packet, sizeof answer);
    if (answer.argument_bytes == bytes && bytes)
        memcpy(argument, packet + sizeof answer, bytes);
    if (answer.array_bytes == array_bytes && array_bytes)
        memcpy(array, packet + sizeof answer + bytes, array_bytes);
    return answer.error;
}

static int is_extended(unsigned long request)
{
    return request == VIDIOC_G_EXT_CTRLS || request == VIDIOC_S_EXT_CTRLS ||
           request == VIDIOC_TRY_EXT_CTRLS;
}

static int device_ioctl(int fd, struct device *device, unsigned long request, void *argument)
{
    if (_IOC_TYPE(request) != 'V')
        return ENOTTY;
    if (is_extended(request)) {
        struct v4l2_ext_controls *all = argument;
        struct v4l2_ext_control *controls = all->controls;
        int error = exchange(device, request, all, sizeof *all, controls,
                             all->count * sizeof *controls);
        all->controls = controls;
        return error;
    }
    for (;;) {
        int error = exchange(device, request, argument, _IOC_SIZE(request), NULL, 0);
        if (request != VIDIOC_DQBUF || error != EAGAIN || device->nonblocking)
            return error;
        struct pollfd wait[2] = {{fd, POLLIN, 0}, {device->link, POLLIN, 0}};
        if (poll(wait, 2, -1) < 0)
            return errno;
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    struct device *device = device_of(fd);
    if (!device)
        return real_ioctl(fd, request, argument);
    /* Callers that keep the request in an int hand it over sign-extended. */
    int error = device_ioctl(fd, device, (uint32_t)request, argument);
    if (!error)
        return 0;
    errno = error;
    return -1;
}

void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    struct device *device = device_of(fd);
    return real_mmap(at, length, protection, flags, device ? device->memory : fd, offset);
}
void *mmap64(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    return mmap(at, length, protection, flags, fd, offset);
}

ssize_t read(int fd, void *into, size_t bytes)
{
    if (!device_of(fd))
        return real_read(fd, into, bytes);
    errno = EINVAL;
    return -1;
}

int close(int fd)
{
    struct device *device = device_of(fd);
    if (device) {
        pthread_mutex_lock(&table_turn);
        __atomic_store_n(&table[fd], NULL, __ATOMIC_RELEASE);
        pthread_mutex_unlock(&table_turn);
        real_close(device->link);
        real_close(device->memory);
        if (device->held >= 0)
            real_close(device->held);
        pthread_mutex_destroy(&device->turn);
        free(device);
    }
    return real_close(fd);
}
