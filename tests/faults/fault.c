/* Makes the n-th file call of a program fail, or kills it there: LD_PRELOAD this. What is counted are calls that make, change,
 * sync, rename or remove something below some directories, of any thread, those of SQLite among them.
 *
 *   FAULT_DIR    the directories, real paths, with colons between; without them nothing is counted
 *   FAULT_AT     n, from 1 on; 0 only counts
 *   FAULT_STACK  instead of the n-th call, the first one from there: a hash that FAULT_STACKS told
 *   FAULT_KIND   kill: the process is killed instead of the call; EIO, EMFILE: the call fails; ENOSPC: it fails, and from then on
 * each that takes room FAULT_READS  with any text reads are counted too FAULT_FULL   a file elsewhere: while it is there, each call
 * that takes room fails with ENOSPC ... FAULT_SPARE  ... but only while this one is there too FAULT_FREE   a file elsewhere: while
 * it is there, it says how many bytes are free FAULT_LOG    a file elsewhere that gets a line for each call: its number, its name,
 * the path FAULT_STACKS a file elsewhere that gets a line for each call: its number, its name, the hash of what called it, and the
 * stack */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "calls.h"
#include "stacks.h"

/* Whether a call takes room on the disk. */
enum room { NO_ROOM, TAKES_ROOM };

static atomic_long calls;
static atomic_bool full, met;

static bool is_below(const char *path)
{
	return is_below_one(setting("FAULT_DIR"), path);
}

static bool is_there(const char *path)
{
	return *path && syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
}

static bool is_full(void)
{
	const char *spare = setting("FAULT_SPARE");
	return is_there(setting("FAULT_FULL")) && (!*spare || is_there(spare));
}

static void log_line(const char *file, const char *line, int length)
{
	int fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (fd < 0) return;
	syscall(SYS_write, fd, line, (size_t)length);
	syscall(SYS_close, fd);
}

static void log_call(long number, const char *name, const char *path)
{
	char line[4400];
	log_line(setting("FAULT_LOG"), line, snprintf(line, sizeof line, "%ld %s %s\n", number, name, path));
}

/* Whether the call is the one, by where it comes from; of all that come from there the first. */
static bool is_from_there(long number, const char *name)
{
	struct stack stack;
	char line[8192];
	stack_read(&stack);
	if (*setting("FAULT_STACKS")) {
		int used = snprintf(line, sizeof line, "%ld %s ", number, name);
		used += stack_print(&stack, line + used, sizeof line - (size_t)used - 1);
		line[used++] = '\n';
		log_line(setting("FAULT_STACKS"), line, used);
	}
	bool there = *setting("FAULT_STACK") && stack.hash == strtoull(setting("FAULT_STACK"), NULL, 16);
	return there && !atomic_exchange(&met, true);
}

static bool is_the_one(long number, const char *name)
{
	if (!*setting("FAULT_STACKS") && !*setting("FAULT_STACK")) return number == atol(setting("FAULT_AT"));
	return is_from_there(number, name);
}

/* The error number that a call on that path is to fail with; 0 for none. */
static int fault(const char *name, const char *path, enum room room)
{
	if (!is_below(path)) return 0;
	long number = atomic_fetch_add(&calls, 1) + 1;
	const char *kind = setting("FAULT_KIND");
	bool here = is_the_one(number, name);
	log_call(number, name, path);
	if (here && strcmp(kind, "kill") == 0) {
		write_coverage();
		kill(getpid(), SIGKILL);
	}
	if (here && strcmp(kind, "EIO") == 0) return EIO;
	if (here && strcmp(kind, "EMFILE") == 0) return EMFILE;
	if (here && strcmp(kind, "ENOSPC") == 0) atomic_store(&full, true);
	return here || (room == TAKES_ROOM && (atomic_load(&full) || is_full())) ? ENOSPC : 0;
}

static int fault_fd(const char *name, int fd, enum room room)
{
	char path[4096];
	int saved = errno;
	path_of(fd, path);
	int number = fault(name, path, room);
	errno = number ? number : saved;
	return number;
}

static int fault_at(const char *name, int directory, const char *path, enum room room)
{
	char whole[8400];
	int saved = errno;
	whole_path(directory, path, whole);
	int number = fault(name, whole, room);
	errno = number ? number : saved;
	return number;
}

/* ---- calls with a descriptor ------------------------------------------------------------------------------------------------- */

#define FD_CALL(name, room, type, parameters, ...)                                                                                 \
	type name parameters                                                                                                       \
	{                                                                                                                          \
		REAL(name);                                                                                                        \
		return fault_fd(#name, fd, room) ? -1 : real(__VA_ARGS__);                                                         \
	}

FD_CALL(write, TAKES_ROOM, ssize_t, (int fd, const void *buffer, size_t bytes), fd, buffer, bytes)
FD_CALL(pwrite, TAKES_ROOM, ssize_t, (int fd, const void *buffer, size_t bytes, off_t offset), fd, buffer, bytes, offset)
FD_CALL(pwrite64, TAKES_ROOM, ssize_t, (int fd, const void *buffer, size_t bytes, off64_t offset), fd, buffer, bytes, offset)
FD_CALL(copy_file_range, TAKES_ROOM, ssize_t, (int from, off64_t *at, int fd, off64_t *to, size_t bytes, unsigned flags), from, at,
	fd, to, bytes, flags)
FD_CALL(fsync, NO_ROOM, int, (int fd), fd)
FD_CALL(fdatasync, NO_ROOM, int, (int fd), fd)
FD_CALL(ftruncate, NO_ROOM, int, (int fd, off_t size), fd, size)
FD_CALL(ftruncate64, NO_ROOM, int, (int fd, off64_t size), fd, size)

#define READ_CALL(name, offset_type)                                                                                               \
	ssize_t name(int fd, void *buffer, size_t bytes, offset_type offset)                                                       \
	{                                                                                                                          \
		REAL(name);                                                                                                        \
		return *setting("FAULT_READS") && fault_fd(#name, fd, NO_ROOM) ? -1 : real(fd, buffer, bytes, offset);             \
	}

READ_CALL(pread, off_t)
READ_CALL(pread64, off64_t)

int posix_fallocate(int fd, off_t offset, off_t bytes)
{
	REAL(posix_fallocate);
	int number = fault_fd("posix_fallocate", fd, TAKES_ROOM);
	return number ? number : real(fd, offset, bytes);
}

int posix_fallocate64(int fd, off64_t offset, off64_t bytes)
{
	REAL(posix_fallocate64);
	int number = fault_fd("posix_fallocate64", fd, TAKES_ROOM);
	return number ? number : real(fd, offset, bytes);
}

/* ---- calls with a path ------------------------------------------------------------------------------------------------------- */

/* A file that is there already takes none. */
static enum room room_of(int directory, const char *path, int flags)
{
	return flags & O_CREAT && syscall(SYS_faccessat, directory, path, F_OK) != 0 ? TAKES_ROOM : NO_ROOM;
}

#define OPEN_CALL(name)                                                                                                            \
	int name(const char *path, int flags, ...)                                                                                 \
	{                                                                                                                          \
		REAL(name);                                                                                                        \
		OPEN_MODE(flags)                                                                                                   \
		return fault_at(#name, AT_FDCWD, path, room_of(AT_FDCWD, path, flags)) ? -1 : real(path, flags, mode);             \
	}

#define OPENAT_CALL(name)                                                                                                          \
	int name(int directory, const char *path, int flags, ...)                                                                  \
	{                                                                                                                          \
		REAL(name);                                                                                                        \
		OPEN_MODE(flags)                                                                                                   \
		return fault_at(#name, directory, path, room_of(directory, path, flags)) ? -1                                      \
											 : real(directory, path, flags, mode);     \
	}

OPEN_CALL(open)
OPEN_CALL(open64)
OPENAT_CALL(openat)
OPENAT_CALL(openat64)

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
	if (number == SYS_openat2) {
		unsigned long long flags;
		memcpy(&flags, (const void *)a[2], sizeof flags); /* the first field of struct open_how */
		if (fault_at("openat2", (int)a[0], (const char *)a[1], room_of((int)a[0], (const char *)a[1], (int)flags)))
			return -1;
	}
	return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

#define PATH_CALL(name, directory, path, room, type, parameters, ...)                                                              \
	type name parameters                                                                                                       \
	{                                                                                                                          \
		REAL(name);                                                                                                        \
		return fault_at(#name, directory, path, room) ? -1 : real(__VA_ARGS__);                                            \
	}

PATH_CALL(rename, AT_FDCWD, to, NO_ROOM, int, (const char *from, const char *to), from, to)
PATH_CALL(renameat, to_fd, to, NO_ROOM, int, (int from_fd, const char *from, int to_fd, const char *to), from_fd, from, to_fd, to)
PATH_CALL(renameat2, to_fd, to, NO_ROOM, int, (int from_fd, const char *from, int to_fd, const char *to, unsigned flags), from_fd,
	  from, to_fd, to, flags)
PATH_CALL(unlink, AT_FDCWD, path, NO_ROOM, int, (const char *path), path)
PATH_CALL(unlinkat, fd, path, NO_ROOM, int, (int fd, const char *path, int flags), fd, path, flags)
PATH_CALL(rmdir, AT_FDCWD, path, NO_ROOM, int, (const char *path), path)
PATH_CALL(remove, AT_FDCWD, path, NO_ROOM, int, (const char *path), path)
PATH_CALL(mkdir, AT_FDCWD, path, room_of(AT_FDCWD, path, O_CREAT), int, (const char *path, mode_t mode), path, mode)
PATH_CALL(mkdirat, fd, path, room_of(fd, path, O_CREAT), int, (int fd, const char *path, mode_t mode), fd, path, mode)

/* ---- how much is free -------------------------------------------------------------------------------------------------------- */

#define FREE_CALL(name, type)                                                                                                      \
	int name(const char *path, struct type *info)                                                                              \
	{                                                                                                                          \
		REAL(name);                                                                                                        \
		int result = real(path, info);                                                                                     \
		FILE *file = result == 0 && is_below(path) ? fopen(setting("FAULT_FREE"), "r") : NULL;                             \
		unsigned long long bytes;                                                                                          \
		if (file && fscanf(file, "%llu", &bytes) == 1) info->f_bavail = bytes / info->f_frsize;                            \
		if (file) fclose(file);                                                                                            \
		return result;                                                                                                     \
	}

FREE_CALL(statvfs, statvfs)
FREE_CALL(statvfs64, statvfs64)
