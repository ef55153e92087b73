/* Who may be able to read a file with a secret in it. As root, which can be somebody else for a while. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/secret.h"

enum { USER = 65534, GROUP = 54321, OTHER_GROUP = 54322 };

static char directory[] = "/tmp/besad-secret-XXXXXX", path[PATH_MAX];

static int make_file(void **state)
{
	(void)state;
	if (!mkdtemp(directory) || chmod(directory, 0755) != 0) return -1;
	snprintf(path, sizeof path, "%s/secret", directory);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path) == 0 && rmdir(directory) == 0 ? 0 : -1;
}

/* What is said of the file, which is to have that mode. */
static enum status checked(mode_t mode)
{
	struct error err;
	assert_int_equal(chmod(path, mode), 0);
	enum status status = secret_check(path, &err);
	if (!status) return status;
	assert_non_null(strstr(err.message, path));
	assert_non_null(strstr(err.message, "others can read or write it"));
	return status;
}

static void test_of_its_owner(void **state)
{
	(void)state;
	assert_int_equal(checked(0600), STATUS_OK);
	assert_int_equal(checked(0400), STATUS_OK);
	assert_int_equal(checked(0711), STATUS_OK);
	for (mode_t bit = 1; bit <= 040; bit <<= 1)
		assert_int_equal(checked(0600 | bit), bit == 1 || bit == 010 ? STATUS_OK : STATUS_INVALID);
}

static void test_not_there(void **state)
{
	struct error err;
	(void)state;
	assert_int_equal(secret_check("/nowhere/there", &err), STATUS_NOT_FOUND);
}

static void test_no_file(void **state)
{
	struct error err;
	(void)state;
	assert_int_equal(secret_check("/dev/null", &err), STATUS_OK);
}

/* Whom systemd has read it, its access list says, and the group's bits are only what that may allow at most. */
static void test_credential(void **state)
{
	char longer[sizeof directory + 1];
	(void)state;
	assert_int_equal(setenv("CREDENTIALS_DIRECTORY", directory, 1), 0);
	assert_int_equal(checked(0440), STATUS_OK);
	snprintf(longer, sizeof longer, "%.*s", (int)(strlen(directory) - 1), directory); /* a name's beginning is not it */
	assert_int_equal(mkdir(longer, 0700), 0);
	assert_int_equal(setenv("CREDENTIALS_DIRECTORY", longer, 1), 0);
	assert_int_equal(checked(0440), STATUS_INVALID);
	assert_int_equal(rmdir(longer), 0);
	assert_int_equal(checked(0440), STATUS_INVALID);
	assert_int_equal(setenv("CREDENTIALS_DIRECTORY", "/proc", 1), 0);
	assert_int_equal(checked(0440), STATUS_INVALID);
	assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
}

/* What is said to a user in the groups `own` and `extra`, 0 for none. */
static enum status told(uid_t owner, mode_t mode, gid_t own, gid_t extra)
{
	struct error err;
	assert_int_equal(chown(path, owner, GROUP), 0);
	assert_int_equal(chmod(path, mode), 0);
	assert_int_equal(setgroups(extra ? 1 : 0, &extra), 0);
	assert_int_equal(setegid(own), 0);
	assert_int_equal(seteuid(USER), 0);
	enum status status = secret_check(path, &err);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(setegid(0), 0);
	return status;
}

/* What is root's, the group that besad is in may read: that is how besad comes to read it. */
static void test_lent_to_a_group(void **state)
{
	(void)state;
	if (geteuid() != 0) skip();
	assert_int_equal(told(0, 0640, USER, GROUP), STATUS_OK);
	assert_int_equal(told(0, 0640, GROUP, 0), STATUS_OK);
	assert_int_equal(told(0, 0640, USER, 0), STATUS_INVALID);
	assert_int_equal(told(0, 0640, USER, OTHER_GROUP), STATUS_INVALID);
	assert_int_equal(told(0, 0660, USER, GROUP), STATUS_INVALID);
	assert_int_equal(told(0, 0644, USER, GROUP), STATUS_INVALID);
	assert_int_equal(told(USER, 0640, USER, GROUP), STATUS_INVALID); /* its owner could take that back */
	assert_int_equal(told(USER, 0600, USER, GROUP), STATUS_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_of_its_owner), cmocka_unit_test(test_not_there),       cmocka_unit_test(test_no_file),
		cmocka_unit_test(test_credential),   cmocka_unit_test(test_lent_to_a_group),
	};
	return cmocka_run_group_tests(tests, make_file, remove_file);
}
