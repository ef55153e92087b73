/* Notes, in their order, all that a program does to the files below some directories, and what it sends to its clients: LD_PRELOAD
 * this. powercut_disk.py makes of it what a disk has when the power goes at any of these calls.
 *
 *   POWERCUT_DIR   the directories, real paths, with colons between
 *   POWERCUT_LOG   a file elsewhere that gets the records
 *
 * A record is a struct record, two names and bytes. Calls are made one by one, so that their order is that of the records. What a
 * program does by other calls than these is not noticed; whoever reads the records compares what they come to with what is
 * there. */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "calls.h"

/* Files and directories are named by their inodes. */
enum kind {
	CREATED = 'C',   /* file `b` in directory `a` as the first name */
	MADE = 'M',      /* the same of a directory */
	TRUNCATED = 'T', /* `a` to `b` bytes */
	WRITTEN = 'W',   /* the bytes to `a` at `b` */
	ALLOCATED = 'A', /* `c` bytes of `a` from `b` on */
	UNLINKED = 'U',  /* the first name in `a` */
	RENAMED = 'R',   /* the first name in `a` to the second in `b`, with the flags `c` */
	SYNCED = 'F',    /* `a` */
	SENT = 'S',      /* the bytes over the socket `a` */
};

struct record {
	uint8_t kind, unused[3];
	uint32_t bytes;
	uint64_t a, b, c;
	uint32_t names[2];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;

static void open_log(void)
{
	if (log_fd < 0)
		log_fd = (int)syscall(SYS_openat, AT_FDCWD, setting("POWERCUT_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
				      0666);
}

/* Under the lock. */
static void note(struct record record, const char *first, const char *second, const void *bytes)
{
	int number = errno;
	open_log();
	record.names[0] = first ? (uint32_t)strlen(first) : 0;
	record.names[1] = second ? (uint32_t)strlen(second) : 0;
	struct iovec parts[] = {{&record, sizeof record},
				{(char *)first, record.names[0]},
				{(char *)second, record.names[1]},
				{(void *)bytes, record.bytes}};
	size_t whole = sizeof record + record.names[0] + record.names[1] + record.bytes;
	if (syscall(SYS_writev, log_fd, parts, 4) != (long)whole) abort(); /* no record is worth more than one that lacks some */
	errno = number;
}

static bool is_below(const char *path)
{
	return is_below_one(setting("POWERCUT_DIR"), path);
}

static bool fd_is_below(int fd)
{
	char path[4096];
	int number = errno;
	path_of(fd, path);
	errno = number;
	return is_below(path);
}

static uint64_t inode_of(int fd)
{
	struct stat st;
	int number = errno;
	uint64_t inode = fstat(fd, &st) == 0 ? st.st_ino : 0;
	errno = number;
	return inode;
}

/* ---- calls with a descriptor ------------------------------------------------------------------------------------------------- */

/* `noted` sees `result`, after the call. */
#define FD_CALL(name, type, parameters, noted, ...)                                                                                \
	type name parameters                                                                                                       \
	{                                                                                                                          \
		REAL(name);                                                                                                        \
		if (!fd_is_below(fd)) return real(__VA_ARGS__);                                                                    \
		pthread_mutex_lock(&lock);                                                                                         \
		type result = real(__VA_ARGS__);                                                                                   \
		if (result >= 0) noted;                                                                                            \
		pthread_mutex_unlock(&lock);                                                                                       \
		return result;                                                                                                     \
	}

static void note_written(int fd, const void *buffer, ssize_t bytes, uint64_t at)
{
	note((struct record){.kind = WRITTEN, .a = inode_of(fd), .b = at, .bytes = (uint32_t)bytes}, NULL, NULL, buffer);
}

static void note_plain_write(int fd, const void *buffer, ssize_t bytes)
{
	note_written(fd, buffer, bytes, (uint64_t)(lseek(fd, 0, SEEK_CUR) - bytes));
}

/* Where the kernel has copied what, is read again. */
static void note_copied(int fd, const off64_t *to, ssize_t bytes)
{
	off64_t end = to ? *to : lseek(fd, 0, SEEK_CUR);
	char *copy = malloc((size_t)bytes + 1);
	if (!copy || pread(fd, copy, (size_t)bytes, end - bytes) != bytes) abort();
	note_written(fd, copy, bytes, (uint64_t)(end - bytes));
	free(copy);
}

static void note_sync(int fd)
{
	note((struct record){.kind = SYNCED, .a = inode_of(fd)}, NULL, NULL, NULL);
}

static void note_size(int fd, uint64_t size)
{
	note((struct record){.kind = TRUNCATED, .a = inode_of(fd), .b = size}, NULL, NULL, NULL);
}

static void note_sent(int fd, const void *buffer, size_t bytes);

static bool is_socket(int fd)
{
	struct stat st;
	int number = errno;
	bool is = fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
	errno = number;
	return is;
}

ssize_t write(int fd, const void *buffer, size_t bytes)
{
	REAL(write);
	if (is_socket(fd)) note_sent(fd, buffer, bytes);
	if (!fd_is_below(fd)) return real(fd, buffer, bytes);
	pthread_mutex_lock(&lock);
	ssize_t result = real(fd, buffer, bytes);
	if (result >= 0) note_plain_write(fd, buffer, result);
	pthread_mutex_unlock(&lock);
	return result;
}

FD_CALL(pwrite, ssize_t, (int fd, const void *buffer, size_t bytes, off_t offset),
	note_written(fd, buffer, result, (uint64_t)offset), fd, buffer, bytes, offset)
FD_CALL(pwrite64, ssize_t, (int fd, const void *buffer, size_t bytes, off64_t offset),
	note_written(fd, buffer, result, (uint64_t)offset), fd, buffer, bytes, offset)
FD_CALL(copy_file_range, ssize_t, (int from, off64_t *at, int fd, off64_t *to, size_t bytes, unsigned flags),
	note_copied(fd, to, result), from, at, fd, to, bytes, flags)
FD_CALL(fsync, int, (int fd), note_sync(fd), fd)
FD_CALL(fdatasync, int, (int fd), note_sync(fd), fd)
FD_CALL(ftruncate, int, (int fd, off_t size), note_size(fd, (uint64_t)size), fd, size)
FD_CALL(ftruncate64, int, (int fd, off64_t size), note_size(fd, (uint64_t)size), fd, size)

static int allocate(int (*real)(int, off64_t, off64_t), int fd, off64_t offset, off64_t bytes)
{
	if (!fd_is_below(fd)) return real(fd, offset, bytes);
	pthread_mutex_lock(&lock);
	int number = real(fd, offset, bytes);
	if (number == 0)
		note((struct record){.kind = ALLOCATED, .a = inode_of(fd), .b = (uint64_t)offset, .c = (uint64_t)bytes}, NULL, NULL,
		     NULL);
	pthread_mutex_unlock(&lock);
	return number;
}

int posix_fallocate(int fd, off_t offset, off_t bytes)
{
	REAL(posix_fallocate);
	return allocate(real, fd, offset, bytes);
}

int posix_fallocate64(int fd, off64_t offset, off64_t bytes)
{
	REAL(posix_fallocate64);
	return allocate(real, fd, offset, bytes);
}

/* ---- what clients are told --------------------------------------------------------------------------------------------------- */

/* Before it is sent, so that what a client knows at a record is told by those in front of it. */
static void note_sent(int fd, const void *buffer, size_t bytes)
{
	pthread_mutex_lock(&lock);
	note((struct record){.kind = SENT, .a = inode_of(fd), .bytes = (uint32_t)bytes}, NULL, NULL, buffer);
	pthread_mutex_unlock(&lock);
}

ssize_t send(int fd, const void *buffer, size_t bytes, int flags)
{
	REAL(send);
	note_sent(fd, buffer, bytes);
	return real(fd, buffer, bytes, flags);
}

static void note_parts(int fd, const struct iovec *parts, size_t count)
{
	for (size_t i = 0; i < count && is_socket(fd); i++)
		note_sent(fd, parts[i].iov_base, parts[i].iov_len);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	REAL(sendmsg);
	note_parts(fd, message->msg_iov, message->msg_iovlen);
	return real(fd, message, flags);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
	REAL(writev);
	note_parts(fd, parts, (size_t)count);
	return real(fd, parts, count);
}

/* ---- calls with a path ------------------------------------------------------------------------------------------------------- */

/* Splits a path into its directory's inode and the name there; 0 where it does not lie below one of the directories, or the
 * directory is not there. */
static uint64_t split(int directory, const char *path, char whole[8400], const char **ret_name)
{
	struct stat st;
	int number = errno;
	whole_path(directory, path, whole);
	size_t length = strlen(whole);
	while (length > 1 && whole[length - 1] == '/')
		whole[--length] = 0;
	char *slash = strrchr(whole, '/');
	bool below = slash && is_below(whole);
	if (below) {
		*slash = 0;
		*ret_name = slash + 1;
	}
	uint64_t inode = below && stat(*whole ? whole : "/", &st) == 0 ? st.st_ino : 0;
	errno = number;
	return inode;
}

/* Notes what an open has done to a file that was, or was not, there before. */
static void note_open(uint64_t parent, const char *name, int fd, int flags, bool there)
{
	if (fd < 0) return;
	if (!there && flags & O_CREAT)
		note((struct record){.kind = CREATED, .a = parent, .b = inode_of(fd)}, name, NULL, NULL);
	else if (flags & O_TRUNC)
		note_size(fd, 0);
}

/* `call` opens the path. */
#define NOTED_OPEN(directory, path, flags, call)                                                                                   \
	char whole[8400];                                                                                                          \
	const char *name = NULL;                                                                                                   \
	uint64_t parent = (flags) & (O_CREAT | O_TRUNC) ? split(directory, path, whole, &name) : 0;                                \
	if (!parent) return call;                                                                                                  \
	pthread_mutex_lock(&lock);                                                                                                 \
	bool there = syscall(SYS_faccessat, directory, path, F_OK) == 0;                                                           \
	int fd = (int)call;                                                                                                        \
	note_open(parent, name, fd, flags, there);                                                                                 \
	pthread_mutex_unlock(&lock);                                                                                               \
	return fd

#define OPEN_CALL(function)                                                                                                        \
	int function(const char *path, int flags, ...)                                                                             \
	{                                                                                                                          \
		REAL(function);                                                                                                    \
		OPEN_MODE(flags)                                                                                                   \
		NOTED_OPEN(AT_FDCWD, path, flags, real(path, flags, mode));                                                        \
	}

#define OPENAT_CALL(function)                                                                                                      \
	int function(int directory, const char *path, int flags, ...)                                                              \
	{                                                                                                                          \
		REAL(function);                                                                                                    \
		OPEN_MODE(flags)                                                                                                   \
		NOTED_OPEN(directory, path, flags, real(directory, path, flags, mode));                                            \
	}

OPEN_CALL(open)
OPEN_CALL(open64)
OPENAT_CALL(openat)
OPENAT_CALL(openat64)

typedef long (*syscall_fn)(long number, ...);

static long open2(syscall_fn real, const long a[6])
{
	unsigned long long flags;
	memcpy(&flags, (const void *)a[2], sizeof flags); /* the first field of struct open_how */
	NOTED_OPEN((int)a[0], (const char *)a[1], (int)flags, real(SYS_openat2, a[0], a[1], a[2], a[3], a[4], a[5]));
}

/* openat2 has no function of its own. */
long syscall(long number, ...)
{
	REAL(syscall);
	va_list arguments;
	long a[6];
	va_start(arguments, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(arguments, long);
	va_end(arguments);
	return number == SYS_openat2 ? open2(real, a) : real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int note_unlink(int directory, const char *path, int (*call)(void *context), void *context)
{
	char whole[8400];
	const char *name;
	uint64_t parent = split(directory, path, whole, &name);
	if (!parent) return call(context);
	pthread_mutex_lock(&lock);
	int result = call(context);
	if (result == 0) note((struct record){.kind = UNLINKED, .a = parent}, name, NULL, NULL);
	pthread_mutex_unlock(&lock);
	return result;
}

struct unlinking {
	int (*plain)(const char *path);
	int (*at)(int fd, const char *path, int flags);
	int fd, flags;
	const char *path;
};

static int do_unlink(void *context)
{
	const struct unlinking *u = context;
	return u->plain ? u->plain(u->path) : u->at(u->fd, u->path, u->flags);
}

#define UNLINK_CALL(name)                                                                                                          \
	int name(const char *path)                                                                                                 \
	{                                                                                                                          \
		REAL(name);                                                                                                        \
		return note_unlink(AT_FDCWD, path, do_unlink, &(struct unlinking){.plain = real, .path = path});                   \
	}

UNLINK_CALL(unlink)
UNLINK_CALL(rmdir)
UNLINK_CALL(remove)

int unlinkat(int fd, const char *path, int flags)
{
	REAL(unlinkat);
	return note_unlink(fd, path, do_unlink, &(struct unlinking){.at = real, .fd = fd, .path = path, .flags = flags});
}

static void note_made(uint64_t parent, const char *name, int directory, const char *path)
{
	struct stat st;
	if (fstatat(directory, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
		note((struct record){.kind = MADE, .a = parent, .b = st.st_ino}, name, NULL, NULL);
}

int mkdirat(int fd, const char *path, mode_t mode)
{
	REAL(mkdirat);
	char whole[8400];
	const char *name;
	uint64_t parent = split(fd, path, whole, &name);
	if (!parent) return real(fd, path, mode);
	pthread_mutex_lock(&lock);
	int result = real(fd, path, mode);
	if (result == 0) note_made(parent, name, fd, path);
	pthread_mutex_unlock(&lock);
	return result;
}

int mkdir(const char *path, mode_t mode)
{
	return mkdirat(AT_FDCWD, path, mode);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	REAL(renameat2);
	char whole_from[8400], whole_to[8400];
	const char *from_name, *to_name;
	uint64_t from_parent = split(from_fd, from, whole_from, &from_name), to_parent = split(to_fd, to, whole_to, &to_name);
	if (!from_parent || !to_parent) return real(from_fd, from, to_fd, to, flags);
	pthread_mutex_lock(&lock);
	int result = real(from_fd, from, to_fd, to, flags);
	if (result == 0)
		note((struct record){.kind = RENAMED, .a = from_parent, .b = to_parent, .c = flags}, from_name, to_name, NULL);
	pthread_mutex_unlock(&lock);
	return result;
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	return renameat2(from_fd, from, to_fd, to, 0);
}

int rename(const char *from, const char *to)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}
