/* Makes an allocation of a program fail, chosen by what called it: LD_PRELOAD this.
 *
 *   ALLOC_CONTROL  a file with a struct control, which the test maps too and may change at any time
 *   ALLOC_LOG      a file that gets a line for each stack that was not there before: its call site and hash, and the frames;
 *                  and, where the program is ended by a signal, "crash", and the frames of that
 *
 * malloc, calloc, realloc, posix_memalign, aligned_alloc and memalign of all that is linked, libraries among them. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "calls.h"
#include "stacks.h"

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

enum mode { OFF, RECORD, FAIL };

struct control {
	atomic_uint mode, fired; /* fired: how many have failed */
	_Atomic uint64_t hash;   /* of the stack that fails */
	_Atomic uint64_t site;   /* where in its module its first frame lies: what is looked at first, as it takes least */
	atomic_uint lasting;     /* not 0: all that follow fail too, wherever they are from */
	atomic_uint counted;
};

enum { SEEN = 1 << 18 };

static struct control *control;
static int log_fd = -1;
static _Atomic uint64_t seen[SEEN];
static __thread bool inside __attribute__((tls_model("initial-exec")));

/* Tells where it was, and ends as it would have. */
static void crashed(int number)
{
	struct stack stack;
	char line[4096] = "crash ";
	inside = true;
	stack_read(&stack);
	int used = 6 + stack_print(&stack, line + 6, sizeof line - 7);
	line[used++] = '\n';
	syscall(SYS_write, log_fd, line, (size_t)used);
	alarm(5); /* where that hangs */
	write_coverage();
	signal(number, SIG_DFL);
	raise(number);
}

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("ALLOC_CONTROL"), *log = getenv("ALLOC_LOG");
	struct stack stack;
	inside = true;
	stack_read(&stack);
	if (log) log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	const int deadly[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
	for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
		signal(deadly[i], crashed);
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED) control = map;
	if (fd >= 0) close(fd);
	inside = false;
}

/* Whether it was not there yet. */
static bool is_new(uint64_t hash)
{
	for (size_t i = hash % SEEN, tries = 0; tries < SEEN; i = (i + 1) % SEEN, tries++) {
		uint64_t empty = 0;
		if (atomic_compare_exchange_strong(&seen[i], &empty, hash)) return true;
		if (empty == hash) return false;
	}
	return false;
}

static void record(uint64_t site)
{
	struct stack stack;
	char line[4096];
	stack_read(&stack);
	atomic_fetch_add(&control->counted, 1);
	if (!is_new(stack.hash ^ site)) return;
	int used = snprintf(line, sizeof line, "%llx ", (unsigned long long)site);
	used += stack_print(&stack, line + used, sizeof line - (size_t)used - 1);
	line[used++] = '\n';
	syscall(SYS_write, log_fd, line, (size_t)used);
}

static bool is_the_one(uint64_t site)
{
	struct stack stack;
	if (site != atomic_load(&control->site)) return false;
	if (atomic_load(&control->fired)) return false;
	stack_read(&stack);
	unsigned none = 0;
	return stack.hash == atomic_load(&control->hash) && atomic_compare_exchange_strong(&control->fired, &none, 1);
}

static bool fails(void *caller)
{
	if (!control || inside) return false;
	unsigned mode = atomic_load(&control->mode);
	if (mode == OFF) return false;
	if (mode == FAIL && atomic_load(&control->lasting) && atomic_load(&control->fired)) return true;
	int number = errno;
	bool result = false;
	inside = true;
	uint64_t site = frame_of(caller).at;
	if (mode == RECORD)
		record(site);
	else
		result = is_the_one(site);
	inside = false;
	errno = number;
	return result;
}

#define REFUSED (fails(__builtin_return_address(0)) && (errno = ENOMEM))

void *malloc(size_t bytes)
{
	return REFUSED ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
	return REFUSED ? NULL : __libc_calloc(count, bytes);
}

void *realloc(void *old, size_t bytes)
{
	return REFUSED ? NULL : __libc_realloc(old, bytes);
}

void *memalign(size_t alignment, size_t bytes)
{
	return REFUSED ? NULL : __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
	return REFUSED ? NULL : __libc_memalign(alignment, bytes);
}

int posix_memalign(void **ret, size_t alignment, size_t bytes)
{
	void *memory = REFUSED ? NULL : __libc_memalign(alignment, bytes);
	if (!memory) return ENOMEM;
	*ret = memory;
	return 0;
}
