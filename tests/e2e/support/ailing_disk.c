/* A disk that fails or hangs, for the cache files of a ktrix that is started with this library preloaded.
 *
 * KTRIX_DISK_RULES names a file with lines `OPERATION ERRNO` or `OPERATION hang`, which is read before each
 * operation: open, read, create, write, reserve, rename or unlink; log and errors are
 * writes to the access log and the error log. Calls that never wait find nothing in the
 * page cache while there is a rule for them. A call that hangs goes on when its rule is gone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static long raw(long number, long a, long b, long c, long d, long e, long f)
{
    static long (*real)(long, ...);
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return real(number, a, b, c, d, e, f);
}

/* Objects are in DIR/ab/, fills in DIR/tmp/; the index and the table of purges are not of concern. */
static int concerns(const char *path)
{
    const char *dir = strstr(path, "/cache/");
    return dir && strchr(dir + 7, '/') != NULL;
}

static int concerns_fd(int fd)
{
    char link[64], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return 0;
    path[n] = 0;
    return concerns(path);
}

/* The errno of an operation; -1 while it is to hang, 0 if all is well. */
static int rule(const char *operation)
{
    char text[512], word[32], what[32];
    const char *file = getenv("KTRIX_DISK_RULES");
    int fd = file ? raw(SYS_openat, AT_FDCWD, (long)file, O_RDONLY | O_CLOEXEC, 0, 0, 0) : -1;
    if (fd < 0)
        return 0;
    long n = raw(SYS_read, fd, (long)text, sizeof text - 1, 0, 0, 0);
    raw(SYS_close, fd, 0, 0, 0, 0, 0);
    text[n > 0 ? n : 0] = 0;
    int used;
    for (const char *at = text; sscanf(at, "%31s %31s%n", word, what, &used) == 2; at += used)
        if (!strcmp(word, operation))
            return strcmp(what, "hang") ? atoi(what) : -1;
    return 0;
}

/* Waits while the operation hangs, and says whether it fails; errno is set then. */
static int fails(const char *operation)
{
    int found;
    while ((found = rule(operation)) < 0)
        usleep(5000);
    errno = found;
    return found;
}

int open64(const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    mode_t mode = va_arg(list, int);
    va_end(list);
    if (concerns(path) && fails(flags & O_CREAT ? "create" : "open"))
        return -1;
    return REAL(open64)(path, flags, mode);
}

long syscall(long number, ...)
{
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
    long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    if (number == SYS_openat2 && concerns((const char *)b) && rule("open")) {
        errno = EAGAIN;
        return -1;
    }
    return raw(number, a, b, c, d, e, f);
}

ssize_t preadv2(int fd, const struct iovec *parts, int n, off_t offset, int flags)
{
    if (concerns_fd(fd) && rule("read")) {
        errno = EAGAIN;
        return -1;
    }
    return REAL(preadv2)(fd, parts, n, offset, flags);
}

ssize_t pread64(int fd, void *bytes, size_t n, off64_t offset)
{
    if (concerns_fd(fd) && fails("read"))
        return -1;
    return REAL(pread64)(fd, bytes, n, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t offset)
{
    if (concerns_fd(fd) && fails("write"))
        return -1;
    return REAL(pwrite64)(fd, bytes, n, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t n)
{
    if (concerns_fd(fd) && fails("reserve"))
        return -1;
    return raw(SYS_fallocate, fd, mode, offset, n, 0, 0);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t n)
{
    return fallocate(fd, mode, offset, n);
}

ssize_t write(int fd, const void *bytes, size_t n)
{
    char link[64], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    path[len > 0 ? len : 0] = 0;
    const char *name = strrchr(path, '/');
    if (name && !strcmp(name, "/access.log") && fails("log"))
        return -1;
    if (name && !strcmp(name, "/error.log") && fails("errors"))
        return -1;
    return raw(SYS_write, fd, (long)bytes, n, 0, 0, 0);
}

int rename(const char *from, const char *to)
{
    if (concerns(to) && fails("rename"))
        return -1;
    return REAL(rename)(from, to);
}

int unlink(const char *path)
{
    if (concerns(path) && fails("unlink"))
        return -1;
    return REAL(unlink)(path);
}
