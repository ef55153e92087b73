#include "base/confine.h"

#ifdef BESAD_SECCOMP
#include <errno.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* Those that the architecture, or the library, does not know are passed over. */
static const char *const forbidden[] = {
#ifndef __SANITIZE_ADDRESS__ /* which looks for leaks by it */
	"ptrace",
#endif
	/* other processes, and what looks into the kernel */
	"process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "perf_event_open", "lookup_dcookie", "bpf", "userfaultfd",
	"syslog", "io_uring_setup", "io_uring_enter", "io_uring_register",
	/* the kernel itself */
	"init_module", "finit_module", "delete_module", "create_module", "get_kernel_syms", "query_module", "kexec_load",
	"kexec_file_load", "reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "iopl", "ioperm", "modify_ldt",
	/* keys */
	"add_key", "request_key", "keyctl",
	/* mounts and namespaces */
	"mount", "umount2", "umount", "pivot_root", "chroot", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree",
	"mount_setattr", "unshare", "setns", "open_by_handle_at", "fanotify_init", "fanotify_mark",
	/* the machine's clock and name */
	"settimeofday", "clock_settime", "clock_settime64", "clock_adjtime", "clock_adjtime64", "adjtimex", "stime", "sethostname",
	"setdomainname",
	/* what nobody needs */
	"vhangup", "nfsservctl", "uselib", "ustat", "sysfs", "_sysctl", "vm86", "vm86old", "vmsplice"};

static int forbid(scmp_filter_ctx filter, const char *name, int how)
{
	int number = seccomp_syscall_resolve_name(name);
	return number == __NR_SCMP_ERROR ? 0 : seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint32_t)how), number, 0);
}

static int forbid_where(scmp_filter_ctx filter, const char *name, struct scmp_arg_cmp condition)
{
	return seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), seccomp_syscall_resolve_name(name), 1, condition);
}

/* A process in a new namespace. What clone3 is asked for lies in memory, where a filter does not look: libraries do without it. */
static int forbid_namespaces(scmp_filter_ctx filter)
{
	static const uint64_t kinds[] = {CLONE_NEWNS,   CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
					 CLONE_NEWUSER, CLONE_NEWPID,    CLONE_NEWNET};
	int failed = forbid(filter, "clone3", ENOSYS);
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds && !failed; i++)
		failed = forbid_where(filter, "clone", SCMP_A0(SCMP_CMP_MASKED_EQ, kinds[i], kinds[i]));
	return failed;
}

/* Calls that are forbidden with some arguments alone. */
static int forbid_some(scmp_filter_ctx filter)
{
	static const uint64_t families[] = {AF_PACKET, AF_KEY, AF_VSOCK, AF_ALG};
	static const uint64_t requests[] = {TIOCSTI, TIOCLINUX}; /* which type into a terminal */
	const uint64_t ask = 0xffffffff, word = 0xffffffff;
	int failed = forbid_where(filter, "personality", SCMP_A0(SCMP_CMP_NE, ask));
	for (size_t i = 0; i < sizeof families / sizeof *families && !failed; i++)
		failed = forbid_where(filter, "socket", SCMP_A0(SCMP_CMP_MASKED_EQ, word, families[i]));
	for (size_t i = 0; i < sizeof requests / sizeof *requests && !failed; i++)
		failed = forbid_where(filter, "ioctl", SCMP_A1(SCMP_CMP_MASKED_EQ, word, requests[i]));
	return failed;
}

static int fill(scmp_filter_ctx filter, bool programs)
{
	int failed = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!failed) failed = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(EPERM));
	for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden && !failed; i++)
		failed = forbid(filter, forbidden[i], EPERM);
	if (!failed && !programs) failed = forbid(filter, "execve", EPERM);
	if (!failed && !programs) failed = forbid(filter, "execveat", EPERM);
	if (!failed) failed = forbid_namespaces(filter);
	return failed ? failed : forbid_some(filter);
}

enum status confine_process(bool programs, struct error *err)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	if (!filter) return error_set(err, STATUS_NO_MEMORY, "no memory for a filter of system calls");
	int failed = fill(filter, programs);
	if (!failed) failed = seccomp_load(filter);
	seccomp_release(filter);
	if (!failed) return STATUS_OK;
	return error_set(
		err, STATUS_IO,
		"no filter of system calls is taken, by the kernel or by the filter of a service manager (SystemCallFilter= "
		"must have seccomp): %s",
		strerror(-failed));
}
#else
enum status confine_process(bool programs, struct error *err)
{
	(void)programs;
	return error_set(err, STATUS_UNSUPPORTED, "built without libseccomp");
}
#endif
