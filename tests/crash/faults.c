/* Stands before the C library's calls that change files, and lets one of them, or all from one on, go wrong.

   Built and loaded with LD_PRELOAD by faults.py; only files below one folder are concerned. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, ERROR, FULL, SHORT, TORN, KILL };

static int kind = COUNT;
static int fault = EIO;
static long place = -1, seen = 0;
static char folder[4096], kept[4096];
static int armed = 0;

void faults_arm(int what, int number, long when, const char *where) {
    kind = what, fault = number, place = when, seen = 0;
    snprintf(folder, sizeof folder, "%s", where);
    armed = 1;
}

long faults_seen(void) { return seen; }

/* Returns the file whose removal went wrong, or nothing. */
const char *faults_kept(void) { return kept; }

static int is_below(const char *path) { return path && !strncmp(path, folder, strlen(folder)); }

static int concerns(int descriptor) {
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

/* Returns whether this call goes wrong; a write may still have to put down its half. */
static int strikes(int writes) {
    long number = __sync_add_and_fetch(&seen, 1);
    if (kind == COUNT || number < place) return 0;
    if (kind == FULL) return writes;
    if (number != place) return 0;
    if (kind == KILL || (kind == TORN && !writes)) raise(SIGKILL);
    return kind == ERROR || writes;
}

#define REAL(name, ...) ((name##_t)dlsym(RTLD_NEXT, #name))
typedef ssize_t (*write_t)(int, const void *, size_t);
typedef ssize_t (*writev_t)(int, const struct iovec *, int);
typedef ssize_t (*pwrite64_t)(int, const void *, size_t, off64_t);
typedef int (*fsync_t)(int);
typedef int (*fdatasync_t)(int);
typedef int (*ftruncate64_t)(int, off64_t);
typedef int (*rename_t)(const char *, const char *);
typedef int (*unlink_t)(const char *);
typedef int (*rmdir_t)(const char *);
typedef int (*mkdir_t)(const char *, mode_t);
typedef int (*open64_t)(const char *, int, ...);

static ssize_t half(int descriptor, const void *content, size_t size) {
    if (kind == ERROR || kind == FULL) {
        errno = kind == FULL ? ENOSPC : fault;
        return -1;
    }
    ssize_t done = REAL(write)(descriptor, content, size > 1 ? size / 2 : size);
    if (kind == TORN) raise(SIGKILL);
    return done;
}

ssize_t write(int descriptor, const void *content, size_t size) {
    if (armed && concerns(descriptor) && strikes(1)) return half(descriptor, content, size);
    return REAL(write)(descriptor, content, size);
}

ssize_t writev(int descriptor, const struct iovec *pieces, int count) {
    if (armed && count && concerns(descriptor) && strikes(1)) return half(descriptor, pieces[0].iov_base, pieces[0].iov_len);
    return REAL(writev)(descriptor, pieces, count);
}

ssize_t pwrite64(int descriptor, const void *content, size_t size, off64_t offset) {
    if (armed && concerns(descriptor) && strikes(1)) {
        if (kind == ERROR || kind == FULL) {
            errno = kind == FULL ? ENOSPC : fault;
            return -1;
        }
        ssize_t done = REAL(pwrite64)(descriptor, content, size > 1 ? size / 2 : size, offset);
        if (kind == TORN) raise(SIGKILL);
        return done;
    }
    return REAL(pwrite64)(descriptor, content, size, offset);
}

ssize_t pwrite(int descriptor, const void *content, size_t size, off_t offset) {
    return pwrite64(descriptor, content, size, offset);
}

#define FAILS(condition)              \
    if (armed && (condition) && strikes(0)) { \
        errno = fault;                \
        return -1;                    \
    }

int fsync(int descriptor) {
    FAILS(concerns(descriptor))
    return REAL(fsync)(descriptor);
}

int fdatasync(int descriptor) {
    FAILS(concerns(descriptor))
    return REAL(fdatasync)(descriptor);
}

int ftruncate64(int descriptor, off64_t size) {
    FAILS(concerns(descriptor))
    return REAL(ftruncate64)(descriptor, size);
}

int ftruncate(int descriptor, off_t size) { return ftruncate64(descriptor, size); }

int rename(const char *from, const char *to) {
    FAILS(is_below(to))
    return REAL(rename)(from, to);
}

int unlink(const char *path) {
    if (armed && is_below(path) && strikes(0)) {
        snprintf(kept, sizeof kept, "%s", path);
        errno = fault;
        return -1;
    }
    return REAL(unlink)(path);
}

int rmdir(const char *path) {
    FAILS(is_below(path))
    return REAL(rmdir)(path);
}

int mkdir(const char *path, mode_t mode) {
    FAILS(is_below(path))
    return REAL(mkdir)(path, mode);
}

int open64(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list more;
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
        if (armed && is_below(path) && (kind == FULL ? seen >= place && access(path, F_OK) : strikes(0))) {
            errno = kind == FULL ? ENOSPC : fault;
            return -1;
        }
    }
    return REAL(open64)(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list more;
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
    }
    return open64(path, flags, mode);
}
