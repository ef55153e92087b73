/* What a confined process may not do any more, and what it still does. Each test confines a child: there is no way back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/confine.h"

enum { FINE, WRONG, NOT_BUILT = 77 };

/* Says why, since the child cannot fail the test itself. */
static int wrong(const char *what, long value)
{
	fprintf(stderr, "%s: %ld, errno %d (%s)\n", what, value, errno, strerror(errno));
	return WRONG;
}

static int run_child(int (*child)(void))
{
	int status;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) _exit(child());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == NOT_BUILT) skip();
	return WEXITSTATUS(status);
}

static int confine(bool programs)
{
	struct error err;
	enum status status = confine_process(programs, &err);
	if (status == STATUS_UNSUPPORTED) return NOT_BUILT;
	return status ? wrong(err.message, status) : FINE;
}

/* With arguments that do nothing where the call is let through. */
static const struct {
	const char *name;
	long number, arguments[4];
} calls[] = {
#ifndef __SANITIZE_ADDRESS__
	{"ptrace", SYS_ptrace, {-1, 0}},
#endif
	{"process_vm_readv", SYS_process_vm_readv, {0, 0, 0, 0}},
	{"process_vm_writev", SYS_process_vm_writev, {0, 0, 0, 0}},
	{"kcmp", SYS_kcmp, {-1, -1}},
	{"perf_event_open", SYS_perf_event_open, {0, -1, -1, -1}},
	{"bpf", SYS_bpf, {-1, 0, 0}},
	{"userfaultfd", SYS_userfaultfd, {-1}},
	{"io_uring_setup", SYS_io_uring_setup, {0, 0}},
	{"init_module", SYS_init_module, {0, 0, 0}},
	{"finit_module", SYS_finit_module, {-1, 0, -1}},
	{"kexec_load", SYS_kexec_load, {0, 99, 0, 0}},
	{"mount", SYS_mount, {0, 0, 0, 0}},
	{"umount2", SYS_umount2, {0, -1}},
	{"chroot", SYS_chroot, {0}},
	{"unshare", SYS_unshare, {CLONE_NEWUSER | 1}},
	{"setns", SYS_setns, {-1, 0}},
	{"keyctl", SYS_keyctl, {-1}},
	{"add_key", SYS_add_key, {0, 0, 0, 0}},
	{"clock_settime", SYS_clock_settime, {-1, 0}},
	{"swapon", SYS_swapon, {0, 0}},
	{"iopl", SYS_iopl, {-1}},
	{"open_by_handle_at", SYS_open_by_handle_at, {-1, 0, 0}},
	{"personality", SYS_personality, {0x0040000}},
	{"socket", SYS_socket, {AF_PACKET, SOCK_STREAM, 0}},
	{"ioctl", SYS_ioctl, {-1, TIOCSTI, 0}},
	{"clone", SYS_clone, {CLONE_NEWUSER | CLONE_THREAD, 0, 0, 0}},
};
enum { CALLS = sizeof calls / sizeof *calls };

static bool is_refused(size_t i)
{
	const long *a = calls[i].arguments;
	errno = 0;
	return syscall(calls[i].number, a[0], a[1], a[2], a[3]) == -1 && errno == EPERM;
}

static int try_forbidden(void)
{
	int before = 0, code;
	for (size_t i = 0; i < CALLS; i++)
		before += is_refused(i);
	if (before > CALLS / 2 + 4) return wrong("so many are refused without a filter that this would show nothing", before);
	if ((code = confine(false))) return code;
	for (size_t i = 0; i < CALLS; i++)
		if (!is_refused(i)) return wrong(calls[i].name, 0);
	errno = 0;
	if (syscall(SYS_clone3, NULL, 0) != -1 || errno != ENOSYS) return wrong("clone3", 0);
	char *const arguments[] = {"true", NULL}, *const environment[] = {NULL};
	errno = 0;
	if (execve("/bin/true", arguments, environment) != -1 || errno != EPERM) return wrong("execve", 0);
	return FINE;
}

static void test_what_is_forbidden(void **state)
{
	(void)state;
	assert_int_equal(run_child(try_forbidden), FINE);
}

static void *add_one(void *context)
{
	++*(int *)context;
	return NULL;
}

static int try_allowed(void)
{
	int code = confine(false), count = 0;
	pthread_t thread;
	if (code) return code;
	if (pthread_create(&thread, NULL, add_one, &count) || pthread_join(thread, NULL) || count != 1)
		return wrong("a thread", count);
	pid_t pid = fork();
	if (pid == 0) _exit(3);
	int status = 0;
	if (waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 3) return wrong("a child", status);
	const int families[] = {AF_INET, AF_INET6, AF_UNIX};
	for (int i = 0; i < 3; i++)
		if (socket(families[i], SOCK_STREAM | SOCK_CLOEXEC, 0) < 0 && errno != EAFNOSUPPORT)
			return wrong("socket", families[i]);
	if (syscall(SYS_personality, 0xffffffffUL) < 0) return wrong("to ask for the personality", 0);
	int bytes;
	if (ioctl(STDIN_FILENO, FIONREAD, &bytes) != 0 && errno == EPERM) return wrong("ioctl", 0);
	if (open("/dev/null", O_RDWR | O_CLOEXEC) < 0) return wrong("open", 0);
	return confine(false); /* once more, as the process does that starts itself again */
}

static void test_what_is_allowed(void **state)
{
	(void)state;
	assert_int_equal(run_child(try_allowed), FINE);
}

static int try_program(void)
{
	int code = confine(true);
	if (code) return code;
	execl("/bin/sh", "sh", "-c", "exit 0", NULL);
	return wrong("execve", -1);
}

static void test_programs(void **state)
{
	(void)state;
	assert_int_equal(run_child(try_program), FINE);
}

struct waiting {
	sem_t go;
	bool refused;
};

static void *try_later(void *context)
{
	struct waiting *waiting = context;
	while (sem_wait(&waiting->go) != 0)
		;
	waiting->refused = is_refused(0) && is_refused(CALLS - 1);
	return NULL;
}

static int try_thread(void)
{
	struct waiting waiting = {0};
	pthread_t thread;
	sem_init(&waiting.go, 0, 0);
	if (pthread_create(&thread, NULL, try_later, &waiting)) return wrong("a thread", 0);
	int code = confine(false);
	sem_post(&waiting.go);
	pthread_join(thread, NULL);
	return code ? code : waiting.refused ? FINE : wrong("a thread that was there before", 0);
}

static void test_threads_that_were_there(void **state)
{
	(void)state;
	assert_int_equal(run_child(try_thread), FINE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_is_forbidden), cmocka_unit_test(test_what_is_allowed),
					   cmocka_unit_test(test_programs), cmocka_unit_test(test_threads_that_were_there)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
