/* The n-th allocation of the engine fails, or the n-th of its file calls: by `--wrap` of the linker, which tests that include this
 * are linked with, and by base/file.h's table; or the n-th operation of a backend (tests/unit/failing_backend.h). What is allocated
 * meanwhile is counted, so that what a failure leaves behind is seen. What libraries allocate is their own, but for cJSON's, which
 * goes through base/json.c. */
#ifndef BESAD_TESTS_FAILING_H
#define BESAD_TESTS_FAILING_H

#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum failing_what { FAILING_ALLOCATIONS, FAILING_CALLS, FAILING_OPERATIONS, FAILING_KINDS };

/* Points are counted from 1 on. */
enum { FAILING_POINTS = 1 << 20, FAILING_FRAMES = 12, FAILING_DEEP = 24, FAILING_LIVE = 1 << 20 };

static struct {
	pthread_mutex_t lock;
	bool on, recording;
	enum failing_what what;
	long count, at;         /* points that were met; the one that fails, or 0 */
	uint64_t *stacks;       /* a set, of those that were met while recording */
	long *firsts, n_firsts; /* the points at which a stack was met first */
	uint64_t *callers;      /* a set, of all that calls in stacks return to, of earlier recordings as well */
	bool *fresh;            /* of each of `firsts`: a call of its stack was in none before */
	void **live;            /* a set: what is allocated and not yet freed */
	long n_live;
	char where[600]; /* the frames of the point that failed, for addr2line -e */
} failing = {.lock = PTHREAD_MUTEX_INITIALIZER};

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void __real_free(void *);
char *__real_strdup(const char *);
char *__real_strndup(const char *, size_t);
int __real_vasprintf(char **, const char *, va_list);
void *__real_aligned_alloc(size_t, size_t);
int __real_posix_memalign(void **, size_t, size_t);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);
void __wrap_free(void *);
char *__wrap_strdup(const char *);
char *__wrap_strndup(const char *, size_t);
int __wrap_asprintf(char **, const char *, ...);
void *__wrap_aligned_alloc(size_t, size_t);
int __wrap_posix_memalign(void **, size_t, size_t);

/* Where a key is in a set of open addressing, or its free place. */
static size_t failing_slot(const uint64_t *set, uint64_t key)
{
	size_t i = (size_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 44);
	while (set[i] && set[i] != key)
		i = (i + 1) % FAILING_LIVE;
	return i;
}

/* Adds a key; was it there? */
static bool failing_know(uint64_t *set, uint64_t key)
{
	size_t slot = failing_slot(set, key);
	bool known = set[slot] != 0;
	set[slot] = key;
	return known;
}

static void failing_record(void)
{
	void *frames[FAILING_DEEP + 2];
	int count = backtrace(frames, FAILING_DEEP + 2);
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	for (int i = 2; i < count && i < FAILING_FRAMES + 2; i++)
		hash = (hash ^ (uint64_t)(uintptr_t)frames[i]) * UINT64_C(0x100000001b3);
	if (failing_know(failing.stacks, hash | 1) || failing.n_firsts == FAILING_POINTS) return;
	bool fresh = false;
	for (int i = 2; i < count; i++)
		fresh = !failing_know(failing.callers, (uint64_t)(uintptr_t)frames[i]) || fresh;
	failing.fresh[failing.n_firsts] = fresh;
	failing.firsts[failing.n_firsts++] = failing.count;
}

extern char __executable_start;

static void failing_tell_where(void)
{
	void *frames[FAILING_FRAMES];
	int count = backtrace(frames, FAILING_FRAMES), used = 0;
	for (int i = 2; i < count && used < (int)sizeof failing.where - 20; i++)
		used += snprintf(failing.where + used, sizeof failing.where - (size_t)used, " %#tx",
				 (char *)frames[i] - &__executable_start - 1);
}

/* Is this the point that is to fail? */
static bool failing_meet(enum failing_what what)
{
	if (!failing.on || failing.what != what) return false;
	pthread_mutex_lock(&failing.lock);
	failing.count++;
	if (failing.recording) failing_record();
	bool fails = failing.count == failing.at;
	if (fails) failing_tell_where();
	pthread_mutex_unlock(&failing.lock);
	return fails;
}

static void *failing_born(void *memory)
{
	if (!failing.on || !memory) return memory;
	pthread_mutex_lock(&failing.lock);
	failing.live[failing_slot((uint64_t *)failing.live, (uint64_t)(uintptr_t)memory)] = memory;
	failing.n_live++;
	pthread_mutex_unlock(&failing.lock);
	return memory;
}

static void failing_died(void *memory)
{
	if (!failing.on || !memory) return;
	uint64_t *set = (uint64_t *)failing.live;
	pthread_mutex_lock(&failing.lock);
	size_t i = failing_slot(set, (uint64_t)(uintptr_t)memory);
	if (set[i]) {
		failing.n_live--;
		set[i] = 0;
		/* What lies behind may have been put there for want of this place. */
		for (i = (i + 1) % FAILING_LIVE; set[i]; i = (i + 1) % FAILING_LIVE) {
			uint64_t key = set[i];
			set[i] = 0;
			set[failing_slot(set, key)] = key;
		}
	}
	pthread_mutex_unlock(&failing.lock);
}

#define FAILING_NULL(call)                                                                                                         \
	do {                                                                                                                       \
		if (failing_meet(FAILING_ALLOCATIONS)) {                                                                           \
			errno = ENOMEM;                                                                                            \
			return NULL;                                                                                               \
		}                                                                                                                  \
		return failing_born(call);                                                                                         \
	} while (0)

void *__wrap_malloc(size_t size)
{
	FAILING_NULL(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
	FAILING_NULL(__real_calloc(count, size));
}

char *__wrap_strdup(const char *text)
{
	FAILING_NULL(__real_strdup(text));
}

char *__wrap_strndup(const char *text, size_t size)
{
	FAILING_NULL(__real_strndup(text, size));
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
	FAILING_NULL(__real_aligned_alloc(alignment, size));
}

void *__wrap_realloc(void *memory, size_t size)
{
	if (failing_meet(FAILING_ALLOCATIONS)) {
		errno = ENOMEM;
		return NULL;
	}
	failing_died(memory);
	return failing_born(__real_realloc(memory, size));
}

void __wrap_free(void *memory)
{
	failing_died(memory);
	__real_free(memory);
}

int __wrap_posix_memalign(void **ret, size_t alignment, size_t size)
{
	if (failing_meet(FAILING_ALLOCATIONS)) return ENOMEM;
	int result = __real_posix_memalign(ret, alignment, size);
	if (!result) failing_born(*ret);
	return result;
}

int __wrap_asprintf(char **ret, const char *format, ...)
{
	if (failing_meet(FAILING_ALLOCATIONS)) {
		*ret = (char *)1; /* the contents of the pointer are undefined then */
		errno = ENOMEM;
		return -1;
	}
	va_list args;
	va_start(args, format);
	int result = vasprintf(ret, format, args);
	va_end(args);
	if (result >= 0) failing_born(*ret);
	return result;
}

/* ---- files
 * -------------------------------------------------------------------------------------------------------------------- */

static struct file_calls failing_real;

static ssize_t failing_pread(int fd, void *buffer, size_t bytes, off_t offset)
{
	if (!failing_meet(FAILING_CALLS)) return failing_real.pread(fd, buffer, bytes, offset);
	errno = EIO;
	return -1;
}

static ssize_t failing_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
	if (!failing_meet(FAILING_CALLS)) return failing_real.pwrite(fd, buffer, bytes, offset);
	errno = EIO;
	return -1;
}

static int failing_fsync(int fd)
{
	(void)fd; /* a test does not wait for the disk */
	if (!failing_meet(FAILING_CALLS)) return 0;
	errno = EIO;
	return -1;
}

static int failing_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	if (!failing_meet(FAILING_CALLS)) return failing_real.renameat2(from_dir, from, to_dir, to, flags);
	errno = EIO;
	return -1;
}

static int failing_fallocate(int fd, off_t offset, off_t bytes)
{
	return failing_meet(FAILING_CALLS) ? EIO : failing_real.fallocate(fd, offset, bytes);
}

static int failing_openat2(int directory, const char *path, const struct open_how *how, size_t size)
{
	if (!failing_meet(FAILING_CALLS)) return failing_real.openat2(directory, path, how, size);
	errno = EIO;
	return -1;
}

/* ---- use
 * ---------------------------------------------------------------------------------------------------------------------- */

static void failing_begin(void)
{
	void *frames[2];
	(void)backtrace(frames, 2); /* which allocates at its first call */
	failing.stacks = __real_calloc(FAILING_LIVE, sizeof *failing.stacks);
	failing.live = __real_calloc(FAILING_LIVE, sizeof *failing.live);
	failing.firsts = __real_calloc(FAILING_POINTS, sizeof *failing.firsts);
	failing.callers = __real_calloc(FAILING_LIVE, sizeof *failing.callers);
	failing.fresh = __real_calloc(FAILING_POINTS, sizeof *failing.fresh);
	failing_real = file_calls;
	file_calls = (struct file_calls){failing_pread,     failing_pwrite,    failing_fsync,
					 failing_renameat2, failing_fallocate, failing_openat2};
}

static void failing_end(void)
{
	__real_free(failing.stacks);
	__real_free(failing.live);
	__real_free(failing.firsts);
	__real_free(failing.callers);
	__real_free(failing.fresh);
	file_calls = failing_real;
}

/* From now on points of this kind are counted: `at` fails, or none where it is 0, when it is recorded where they are. */
static void failing_start(enum failing_what what, long at)
{
	failing.what = what;
	failing.at = at;
	failing.recording = at == 0;
	failing.count = 0;
	failing.n_live = 0;
	failing.where[0] = '\0';
	memset(failing.live, 0, FAILING_LIVE * sizeof *failing.live);
	if (failing.recording) {
		failing.n_firsts = 0;
		memset(failing.stacks, 0, FAILING_LIVE * sizeof *failing.stacks);
	}
	failing.on = true;
}

static void failing_stop(void)
{
	failing.on = false;
}

#endif
