/* Files: whole transfers over short and interrupted ones, durable replacement, and what each failing system call leaves behind. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/scratch.h"

#include "base/place.h"
#include "base/watch.h"

static int calls_left; /* of the faulty call, before it fails */
static int fault;      /* the error number it fails with */

static ssize_t short_pread(int fd, void *buffer, size_t bytes, off_t offset)
{
	if (++calls_left % 2) {
		errno = EINTR;
		return -1;
	}
	return pread(fd, buffer, bytes > 3 ? 3 : bytes, offset);
}

static ssize_t short_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
	if (++calls_left % 2) {
		errno = EINTR;
		return -1;
	}
	return pwrite(fd, buffer, bytes > 3 ? 3 : bytes, offset);
}

static ssize_t failing_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
	(void)fd;
	(void)buffer;
	(void)bytes;
	(void)offset;
	errno = fault;
	return -1;
}

static int failing_fsync(int fd)
{
	(void)fd;
	errno = fault;
	return -1;
}

static int failing_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	(void)from_dir, (void)from, (void)to_dir, (void)to, (void)flags;
	errno = fault;
	return -1;
}

static int failing_fallocate(int fd, off_t offset, off_t bytes)
{
	(void)fd;
	(void)offset;
	(void)bytes;
	return fault;
}

static int flagless_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	if (flags == 0) return renameat2(from_dir, from, to_dir, to, 0);
	errno = EINVAL;
	return -1;
}

static struct file_calls real_calls;

static int setup(void **state)
{
	real_calls = file_calls;
	calls_left = 0;
	return scratch_setup(state);
}

static int teardown(void **state)
{
	file_calls = real_calls;
	return scratch_teardown(state);
}

static void assert_content(struct scratch *s, const char *name, const char *expected)
{
	char *text;
	size_t bytes;
	SUCCEEDS(file_slurp(scratch_path(s, name), 1000, &text, &bytes, &s->err));
	assert_int_equal(bytes, strlen(expected));
	assert_string_equal(text, expected);
	free(text);
}

static void test_read_and_write(void **state)
{
	struct scratch *s = *state;
	struct file file = {0};
	char back[11] = "";
	file_close(&file); /* a zeroed struct is closed */
	SUCCEEDS(file_create(scratch_path(s, "a"), 20, &file, &s->err));
	assert_int_equal(file.size, 20);
	file_calls.pwrite = short_pwrite;
	file_calls.pread = short_pread;
	SUCCEEDS(file_write(&file, "0123456789", 10, 10, &s->err));
	SUCCEEDS(file_read(&file, back, 10, 10, &s->err));
	assert_string_equal(back, "0123456789");
	FAILS(STATUS_IO, "/a ends at byte 20, 5 bytes short", file_read(&file, back, 10, 15, &s->err));
	SUCCEEDS(file_sync(&file, &s->err));
	file_close(&file);
	file_close(&file);
	assert_int_equal(file.fd, -1);
}

/* Who may put a link where besad makes a file of its own would have it write over any of its files. */
static void test_no_link_is_written_through(void **state)
{
	struct scratch *s = *state;
	struct file file;
	char *text;
	size_t bytes;
	scratch_text(s, "kept", "kept");
	assert_int_equal(symlink("kept", scratch_path(s, "link")), 0);
	assert_int_equal(symlink("new", scratch_path(s, "dangling")), 0);
	FAILS(STATUS_IO, "/link", file_open_write(scratch_path(s, "link"), &file, &s->err));
	FAILS(STATUS_IO, "/link", file_create(scratch_path(s, "link"), 10, &file, &s->err));
	FAILS(STATUS_IO, "/dangling", file_create(scratch_path(s, "dangling"), 10, &file, &s->err));
	SUCCEEDS(file_slurp(scratch_path(s, "kept"), 100, &text, &bytes, &s->err));
	assert_string_equal(text, "kept");
	free(text);
	assert_false(path_exists(scratch_path(s, "new")));
}

static void test_open_refuses(void **state)
{
	struct scratch *s = *state;
	struct file file;
	char *text;
	size_t bytes;
	FAILS(STATUS_NOT_FOUND, "/none", file_open_read(scratch_path(s, "none"), &file, &s->err));
	FAILS(STATUS_NOT_FOUND, "/none", file_open_write(scratch_path(s, "none"), &file, &s->err));
	FAILS(STATUS_INVALID, "not a regular file", file_open_read(s->directory, &file, &s->err));
	assert_int_equal(mkfifo(scratch_path(s, "fifo"), 0600), 0);
	FAILS(STATUS_INVALID, "not a regular file", file_open_read(s->path, &file, &s->err));
	scratch_text(s, "six", "sixsix");
	FAILS(STATUS_INVALID, "6 bytes are more than the 5 allowed", file_slurp(s->path, 5, &text, &bytes, &s->err));
}

static void test_full_disk(void **state)
{
	struct scratch *s = *state;
	struct file file;
	fault = ENOSPC;
	file_calls.fallocate = failing_fallocate;
	FAILS(STATUS_NO_SPACE, "cannot allocate 4096 bytes", file_create(scratch_path(s, "big"), 4096, &file, &s->err));
	assert_false(path_exists(scratch_path(s, "big")));
	file_calls.fallocate = real_calls.fallocate;

	scratch_text(s, "old", "old");
	file_calls.pwrite = failing_pwrite;
	FAILS(STATUS_NO_SPACE, "/old", place_replace(&PLACE(scratch_path(s, "old")), NULL, "newer", 5, &s->err));
	file_calls.pwrite = real_calls.pwrite;
	assert_content(s, "old", "old");
	assert_false(path_exists(scratch_path(s, "old.tmp")));
}

static void test_replace(void **state)
{
	struct scratch *s = *state;
	SUCCEEDS(place_replace(&PLACE(scratch_path(s, "r")), NULL, "first", 5, &s->err));
	SUCCEEDS(place_replace(&PLACE(scratch_path(s, "r")), NULL, "2nd", 3, &s->err));
	assert_content(s, "r", "2nd");
	SUCCEEDS(place_replace(&PLACE(scratch_path(s, "empty")), NULL, "", 0, &s->err));
	assert_content(s, "empty", "");
	fault = EIO;
	file_calls.fsync = failing_fsync;
	FAILS(STATUS_IO, "cannot sync", place_replace(&PLACE(scratch_path(s, "r")), NULL, "third", 5, &s->err));
	file_calls.fsync = real_calls.fsync;
	file_calls.renameat2 = failing_renameat2;
	FAILS(STATUS_IO, "cannot rename", place_replace(&PLACE(scratch_path(s, "r")), NULL, "third", 5, &s->err));
	file_calls.renameat2 = real_calls.renameat2;
	assert_content(s, "r", "2nd");
}

static void stop_at_second(void *context)
{
	atomic_bool *stop = context;
	static int beats;
	if (++beats == 2) atomic_store(stop, true);
}

/* A copy of a large file ends soon after it is told to stop, and tells that it gets on. */
static void test_copy_is_stopped(void **state)
{
	struct scratch *s = *state;
	const int64_t size = 200 << 20, much = 64 << 20;
	char from[96], to[96];
	atomic_bool stop = false;
	const struct watch watch = {.stop = &stop, .beat = stop_at_second, .context = &stop};
	struct file source, target;
	struct stat info;
	snprintf(from, sizeof from, "%s/from", s->directory);
	snprintf(to, sizeof to, "%s/to", s->directory);
	SUCCEEDS(file_create(from, 0, &source, &s->err));
	assert_int_equal(ftruncate(source.fd, size), 0);
	SUCCEEDS(file_create(to, 0, &target, &s->err));
	watch_set(&watch);
	FAILS(STATUS_CANCELLED, "to", file_copy_bytes(&source, 0, &target, 0, size, &s->err));
	watch_set(NULL);
	assert_int_equal(fstat(target.fd, &info), 0);
	assert_true(info.st_size > 0 && info.st_size <= much);
	SUCCEEDS(file_copy_bytes(&source, 0, &target, 0, much, &s->err));
	file_close(&source);
	file_close(&target);
}

static void test_copy(void **state)
{
	struct scratch *s = *state;
	char to[96], *text;
	size_t bytes, size = (2 << 20) + 7;
	char *data = malloc(size);
	assert_non_null(data);
	for (size_t i = 0; i < size; i++)
		data[i] = (char)(i * 2654435761u >> 13);
	scratch_write(s, "from", data, size);
	snprintf(to, sizeof to, "%s/to", s->directory);
	struct file source, target;
	SUCCEEDS(file_open_read(scratch_path(s, "from"), &source, &s->err));
	SUCCEEDS(file_create(to, source.size, &target, &s->err));
	SUCCEEDS(file_copy_bytes(&source, 0, &target, 0, source.size, &s->err));
	SUCCEEDS(file_copy_bytes(&source, 7, &target, 3, 2, &s->err));
	file_close(&source);
	file_close(&target);
	SUCCEEDS(file_slurp(to, size, &text, &bytes, &s->err));
	assert_int_equal(bytes, size);
	memcpy(data + 3, data + 7, 2);
	assert_memory_equal(text, data, size);
	free(text);
	free(data);
}

static void test_renames(void **state)
{
	struct scratch *s = *state;
	char a[96], b[96];
	snprintf(a, sizeof a, "%s/a", s->directory);
	snprintf(b, sizeof b, "%s/b", s->directory);
	scratch_text(s, "a", "A");
	for (int flagless = 0; flagless < 2; flagless++) {
		if (flagless) file_calls.renameat2 = flagless_renameat2;
		SUCCEEDS(place_rename(&PLACE(a), NULL, &PLACE(b), NULL, PLACE_NEW, &s->err));
		assert_content(s, "b", "A");
		scratch_text(s, "a", "B");
		FAILS(STATUS_EXISTS, "/b", place_rename(&PLACE(a), NULL, &PLACE(b), NULL, PLACE_NEW, &s->err));
		assert_content(s, "b", "A");
		SUCCEEDS(place_rename(&PLACE(b), NULL, &PLACE(a), NULL, PLACE_REPLACE, &s->err));
		assert_content(s, "a", "A");
	}
	file_calls.renameat2 = real_calls.renameat2;
	scratch_text(s, "b", "B");
	SUCCEEDS(place_rename(&PLACE(a), NULL, &PLACE(b), NULL, PLACE_SWAP, &s->err));
	assert_content(s, "a", "B");
	assert_content(s, "b", "A");
}

static ino_t synced[8];
static int n_synced;

static int noting_fsync(int fd)
{
	struct stat info;
	if (fstat(fd, &info) == 0 && n_synced < 8) synced[n_synced++] = info.st_ino;
	return fsync(fd);
}

/* A name that has moved is durable when both directories are: where it is now, then where it was. */
static void test_renames_between_directories(void **state)
{
	struct scratch *s = *state;
	char a[96], b[96];
	struct stat from, to;
	snprintf(a, sizeof a, "%s/from", s->directory);
	snprintf(b, sizeof b, "%s/to", s->directory);
	assert_int_equal(mkdir(a, 0700), 0);
	assert_int_equal(mkdir(b, 0700), 0);
	assert_int_equal(stat(a, &from), 0);
	assert_int_equal(stat(b, &to), 0);
	scratch_text(s, "from/x", "X");
	file_calls.fsync = noting_fsync;
	n_synced = 0;
	SUCCEEDS(place_rename(&PLACE(a), "x", &PLACE(b), "y", PLACE_NEW, &s->err));
	assert_int_equal(n_synced, 2);
	assert_int_equal(synced[0], to.st_ino);
	assert_int_equal(synced[1], from.st_ino);
	n_synced = 0;
	SUCCEEDS(place_rename(&PLACE(b), "y", &PLACE(b), "z", PLACE_NEW, &s->err));
	assert_int_equal(n_synced, 1);
	file_calls.fsync = real_calls.fsync;
}

static void test_directories(void **state)
{
	struct scratch *s = *state;
	char deep[96];
	snprintf(deep, sizeof deep, "%s/d/e/f", s->directory);
	SUCCEEDS(directory_make(deep, &s->err));
	SUCCEEDS(directory_make(deep, &s->err));
	SUCCEEDS(directory_sync(deep, &s->err));
	scratch_text(s, "d/e/f/file", "x");
	scratch_text(s, "kept", "kept");
	assert_int_equal(symlink("../kept", scratch_path(s, "d/link")), 0);
	FAILS(STATUS_EXISTS, "not a directory", directory_make(scratch_path(s, "kept"), &s->err));
	SUCCEEDS(directory_remove(scratch_path(s, "d"), &s->err));
	assert_false(path_exists(scratch_path(s, "d")));
	assert_content(s, "kept", "kept"); /* a link is removed, not what it points to */
	SUCCEEDS(directory_remove(scratch_path(s, "d"), &s->err));
}

#define FILE_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FILE_TEST(test_read_and_write),  FILE_TEST(test_open_refuses), FILE_TEST(test_no_link_is_written_through),
		FILE_TEST(test_full_disk),       FILE_TEST(test_replace),      FILE_TEST(test_copy),
		FILE_TEST(test_copy_is_stopped), FILE_TEST(test_renames),      FILE_TEST(test_renames_between_directories),
		FILE_TEST(test_directories),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
