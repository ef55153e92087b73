/* What the libraries here share that stand between a program and its file calls. */
#ifndef BESAD_TESTS_FAULTS_CALLS_H
#define BESAD_TESTS_FAULTS_CALLS_H

#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static inline const char *setting(const char *name)
{
	const char *value = getenv(name);
	return value ? value : "";
}

/* Whether the path lies below one of the directories, which have colons between. */
static inline bool is_below_one(const char *directories, const char *path)
{
	for (const char *directory = directories; *directory;) {
		size_t length = strcspn(directory, ":");
		if (length && strncmp(path, directory, length) == 0 && (path[length] == '/' || !path[length])) return true;
		directory += length + (directory[length] == ':');
	}
	return false;
}

static inline void path_of(int fd, char path[4096])
{
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, 4095);
	path[length < 0 ? 0 : length] = 0;
}

/* The path as the kernel goes it from the directory. */
static inline void whole_path(int directory, const char *path, char whole[8400])
{
	char above[4096] = "";
	if (*path != '/' && directory == AT_FDCWD) {
		if (!getcwd(above, sizeof above)) *above = 0;
	} else if (*path != '/') {
		path_of(directory, above);
	}
	snprintf(whole, 8400, "%s%s%s", above, *above ? "/" : "", path);
}

/* Of a program that is about to be killed, where it was built with --coverage: what it has run is written at its end alone. */
static inline void write_coverage(void)
{
	void *dump = dlsym(RTLD_DEFAULT, "__gcov_dump");
	if (dump) ((void (*)(void))(uintptr_t)dump)();
}

#define REAL(name)                                                                                                                 \
	static __typeof__(name) *real;                                                                                             \
	if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define OPEN_MODE(flags)                                                                                                           \
	mode_t mode = 0;                                                                                                           \
	if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                                   \
		va_list arguments;                                                                                                 \
		va_start(arguments, flags);                                                                                        \
		mode = va_arg(arguments, mode_t);                                                                                  \
		va_end(arguments);                                                                                                 \
	}

#endif
