/* Files below roots: what is found, what links may do, and that none leads out, by openat2 and by walking. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/scratch.h"

#include "base/place.h"

struct fixture {
	struct scratch scratch;
	char root[96], other[96];
	char *roots[3];
};

static struct file_calls real_calls;
static bool without_openat2;

static int missing_openat2(int directory, const char *path, const struct open_how *how, size_t size)
{
	(void)directory;
	(void)path;
	(void)how;
	(void)size;
	errno = ENOSYS;
	return -1;
}

static void link_to(struct scratch *s, const char *target, const char *name)
{
	assert_int_equal(symlink(target, scratch_path(s, name)), 0);
}

/* root/m/{config.json, inner -> ../blobs/1, absolute -> root/blobs/1, out -> ../../secret, up/…}, root/blobs/1, secret beside
 * the root. */
static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct scratch *s = &f->scratch;
	char target[160];
	strcpy(s->directory, "/tmp/besad-test-XXXXXX");
	assert_non_null(mkdtemp(s->directory));
	snprintf(f->root, sizeof f->root, "%s/root", s->directory);
	snprintf(f->other, sizeof f->other, "%s/other", s->directory);
	f->roots[0] = f->root;
	f->roots[1] = f->other;
	SUCCEEDS(directory_make(scratch_path(s, "root/m/deep"), &s->err));
	SUCCEEDS(directory_make(scratch_path(s, "root/blobs"), &s->err));
	SUCCEEDS(directory_make(scratch_path(s, "other/only"), &s->err));
	SUCCEEDS(directory_make(scratch_path(s, "rootless"), &s->err));
	scratch_text(s, "secret", "secret");
	scratch_text(s, "rootless/x", "secret");
	scratch_text(s, "root/m/config.json", "{}");
	scratch_text(s, "root/blobs/1", "blob");
	link_to(s, "../blobs/1", "root/m/inner");
	link_to(s, "../../m/inner", "root/m/deep/chain");
	link_to(s, "../../secret", "root/m/out");
	link_to(s, "../../rootless/x", "root/m/prefix");
	link_to(s, "loop", "root/m/loop");
	link_to(s, "nowhere", "root/m/dangling");
	link_to(s, "blobs", "root/alias");
	link_to(s, "../../root/blobs", "root/m/around");
	snprintf(target, sizeof target, "%s/blobs/1", f->root);
	link_to(s, target, "root/m/absolute");
	snprintf(target, sizeof target, "%s/secret", s->directory);
	link_to(s, target, "root/m/absolute-out");
	link_to(s, s->directory, "root/all");
	real_calls = file_calls;
	if (without_openat2) file_calls.openat2 = missing_openat2;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	file_calls = real_calls;
	SUCCEEDS(directory_remove(s->directory, &s->err));
	free(f);
	return 0;
}

static void expect_text(struct fixture *f, const char *path, const char *expected)
{
	struct scratch *s = &f->scratch;
	struct place root = {f->root, "."};
	char *text;
	size_t bytes;
	SUCCEEDS(place_slurp(&root, path, 100, &text, &bytes, &s->err));
	assert_string_equal(text, expected);
	free(text);
}

static void test_links(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct place root = {f->root, "."};
	struct file file;
	static const char *const out[] = {"m/out",      "m/prefix",   "m/absolute-out",
					  "all/secret", "m/around/1", "all/root/m/config.json"};
	expect_text(f, "m/config.json", "{}");
	expect_text(f, "m/inner", "blob");
	expect_text(f, "m/deep/chain", "blob");
	expect_text(f, "m/absolute", "blob");
	expect_text(f, "alias/1", "blob");
	for (size_t i = 0; i < sizeof out / sizeof *out; i++)
		FAILS(STATUS_INVALID, "a link leads out of the root", place_open(&root, out[i], &file, &s->err));
	FAILS(STATUS_IO, "m/loop", place_open(&root, "m/loop", &file, &s->err));
	FAILS(STATUS_NOT_FOUND, "m/dangling", place_open(&root, "m/dangling", &file, &s->err));
	FAILS(STATUS_INVALID, "not a regular file", place_open(&root, "m", &file, &s->err));
	assert_true(place_has(&root, "m/dangling"));
	assert_true(place_has(&root, "m/out")); /* what is behind it is not told */
	assert_false(place_has(&root, "m/none"));
	assert_false(place_has(&root, "all/secret"));
}

static void expect_place(struct fixture *f, const char *here, const char *text, const char *root, const char *path)
{
	struct scratch *s = &f->scratch;
	struct place place;
	SUCCEEDS(place_find(f->roots, here, text, &place, &s->err));
	assert_string_equal(place.root, root);
	assert_string_equal(place.path, path);
	place_free(&place);
}

static void test_find(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct place place;
	char path[200];
	expect_place(f, NULL, "m", f->root, "m");
	expect_place(f, NULL, ".//m/./deep/", f->root, "m/deep");
	expect_place(f, NULL, "only", f->other, "only");
	snprintf(path, sizeof path, "%s/m/config.json", f->root);
	expect_place(f, NULL, path, f->root, "m/config.json");
	expect_place(f, NULL, f->root, f->root, ".");
	expect_place(f, f->other, "only", f->other, "only");
	FAILS(STATUS_NOT_FOUND, "'m' is not there", place_find(f->roots, f->other, "m", &place, &s->err));
	FAILS(STATUS_INVALID, "empty", place_find(f->roots, NULL, "", &place, &s->err));
	FAILS(STATUS_INVALID, "'..'", place_find(f->roots, NULL, "m/../m", &place, &s->err));
	FAILS(STATUS_INVALID, "'m/out' leads out of its root by a link", place_find(f->roots, NULL, "m/out", &place, &s->err));
	FAILS(STATUS_INVALID, "outside the roots", place_find(f->roots, NULL, "/etc/passwd", &place, &s->err));
	snprintf(path, sizeof path, "%sless/x", f->root);
	FAILS(STATUS_INVALID, "outside the roots", place_find(f->roots, NULL, path, &place, &s->err));
	FAILS(STATUS_NOT_FOUND, "'none' is not there", place_find(f->roots, NULL, "none", &place, &s->err));
	/* What no file can be called is not there either, and nothing is said of the root. */
	char name[301];
	memset(name, 'a', 300);
	name[300] = 0;
	FAILS(STATUS_NOT_FOUND, "aaa' is not there", place_find(f->roots, NULL, name, &place, &s->err));
	char deep[601] = "", told[640];
	for (int i = 0; i < 300; i++)
		strcat(deep, "a/");
	snprintf(told, sizeof told, "'%s' is not there", deep);
	FAILS(STATUS_NOT_FOUND, told, place_find(f->roots, NULL, deep, &place, &s->err));
}

static void test_writing(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct place root = {f->root, "."}, inner = {f->root, "m/deep"};
	struct file file;
	SUCCEEDS(place_make(&root, "new/a/b", &s->err));
	SUCCEEDS(place_make(&root, "new/a/b", &s->err));
	SUCCEEDS(place_replace(&root, "new/a/b/file", "text", 4, &s->err));
	SUCCEEDS(place_replace(&root, "new/a/b/file", "more", 4, &s->err));
	expect_text(f, "new/a/b/file", "more");
	assert_false(place_has(&root, "new/a/b/file.tmp"));
	FAILS(STATUS_INVALID, "leads out", place_make(&root, "all/made", &s->err));
	FAILS(STATUS_INVALID, "leads out", place_create(&root, "all/made", 3, &file, &s->err));
	FAILS(STATUS_IO, "m/inner", place_create(&root, "m/inner", 3, &file, &s->err)); /* nothing is written through a link */
	FAILS(STATUS_IO, "m/out", place_open_write(&root, "m/out", &file, &s->err));
	FAILS(STATUS_NOT_FOUND, "m/config.json", place_make(&root, "m/config.json/x", &s->err));
	expect_text(f, "blobs/1", "blob");

	SUCCEEDS(place_rename(&root, "new", &inner, "moved", PLACE_NEW, &s->err));
	expect_text(f, "m/deep/moved/a/b/file", "more");
	FAILS(STATUS_EXISTS, "m/deep/moved", place_rename(&root, "blobs", &inner, "moved", PLACE_NEW, &s->err));
	SUCCEEDS(place_rename(&root, "blobs", &inner, "moved", PLACE_SWAP, &s->err));
	expect_text(f, "m/deep/moved/1", "blob");
	expect_text(f, "blobs/a/b/file", "more");
	FAILS(STATUS_INVALID, "leads out", place_rename(&root, "blobs", &root, "all/blobs", PLACE_NEW, &s->err));
	link_to(s, "../../..", "root/m/deep/moved/up");
	SUCCEEDS(place_remove(&inner, NULL, &s->err)); /* links go, what they lead to stays */
	SUCCEEDS(place_remove(&inner, NULL, &s->err));
	assert_true(path_exists(scratch_path(s, "root/m/config.json")));
	assert_true(path_exists(scratch_path(s, "secret")));
}

/* ---- while somebody swaps links --------------------------------------------------------------------------------------------- */

struct swapper {
	const struct fixture *f;
	atomic_bool stop;
};

/* root/m/file is by turns a file, a link inside and a link out; root/team a directory and a link out. */
static void *swap(void *context)
{
	struct swapper *swapper = context;
	char names[5][160];
	static const char *const files[] = {"root/.file", "root/.link", "root/m/file", "root/.out", "root/team"};
	for (int i = 0; i < 5; i++)
		snprintf(names[i], sizeof names[i], "%s/%s", swapper->f->scratch.directory, files[i]);
	while (!atomic_load(&swapper->stop)) {
		int fd = open(names[0], O_CREAT | O_WRONLY | O_TRUNC, 0600);
		if (fd >= 0 && write(fd, "fine", 4) == 4) rename(names[0], names[2]);
		if (fd >= 0) close(fd);
		if (symlink("../../secret", names[1]) == 0) rename(names[1], names[2]);
		if (symlink("..", names[3]) == 0) renameat2(AT_FDCWD, names[3], AT_FDCWD, names[4], RENAME_EXCHANGE);
		renameat2(AT_FDCWD, names[3], AT_FDCWD, names[4], RENAME_EXCHANGE);
		unlink(names[3]);
	}
	return NULL;
}

static void test_swapped_links(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct place root = {f->root, "."};
	struct swapper swapper = {.f = f};
	pthread_t thread;
	int read = 0, refused = 0;
	scratch_text(s, "root/m/file", "fine");
	SUCCEEDS(place_make(&root, "team", &s->err));
	assert_int_equal(pthread_create(&thread, NULL, swap, &swapper), 0);
	for (int i = 0; i < 1000; i++) {
		struct file file;
		char text[8] = "";
		if (place_open(&root, "m/file", &file, &s->err) == STATUS_OK) {
			read++;
			if (file.size)
				assert_int_equal(file_read(&file, text, file.size < 6 ? (size_t)file.size : 6, 0, &s->err),
						 STATUS_OK);
			assert_string_not_equal(text, "secret");
			file_close(&file);
		} else {
			refused++;
		}
		if (place_make(&root, "work", &s->err) == STATUS_OK) {
			place_rename(&root, "work", &root, "team/out", PLACE_NEW, &s->err);
			place_remove(&root, "team/out", &s->err);
		}
	}
	atomic_store(&swapper.stop, true);
	pthread_join(thread, NULL);
	assert_false(path_exists(scratch_path(s, "out"))); /* nothing came out of the root */
	assert_true(path_exists(scratch_path(s, "secret")));
	print_message("%d read, %d refused\n", read, refused);
}

#define PLACE_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

/* A client learns names below the root, and nothing of where that is. */
static void test_hide(void **state)
{
	(void)state;
	static const struct {
		const char *root, *path, *message, *told;
	} cases[] = {
		{"/srv/models", "a/b", "/srv/models/a/b/config.json: is wrong", "config.json: is wrong"},
		{"/srv/models", "a/b", "/srv/models/a/b: holds nothing", "b: holds nothing"},
		{"/srv/models", "a/b", "'x' is in /srv/models/a/b/1 and in /srv/models/a/b/2", "'x' is in 1 and in 2"},
		{"/srv/models", "a/b", "/srv/models/a/b/x: a link leads out of the root /srv/models; do",
		 "x: a link leads out of the root models; do"},
		{"/srv/models", ".", "/srv/models/x, /srv/models", "x, models"},
		{"/", "srv/a", "/srv/a/x: is wrong / missing", "x: is wrong / missing"},
		{"/srv", "a", "another text", "another text"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct place place = {(char *)cases[i].root, (char *)cases[i].path};
		struct error err;
		error_set(&err, STATUS_INVALID, "%s", cases[i].message);
		place_hide(&place, &err);
		assert_string_equal(err.message, cases[i].told);
	}
}

static int broken_openat2(int directory, const char *path, const struct open_how *how, size_t size)
{
	(void)directory, (void)path, (void)how, (void)size;
	errno = EIO;
	return -1;
}

/* What cannot be looked at is not taken for absent. */
static void test_look(void **state)
{
	struct fixture *f = *state;
	struct place root = {f->root, "."};
	struct error err;
	bool there = false;
	assert_int_equal(place_look(&root, NULL, &there, &err), STATUS_OK);
	assert_true(there);
	assert_int_equal(place_look(&root, "none", &there, &err), STATUS_OK);
	assert_false(there);
	if (without_openat2) return;
	file_calls.openat2 = broken_openat2;
	assert_int_equal(place_look(&root, "none", &there, &err), STATUS_IO);
	assert_non_null(strstr(err.message, "Input/output error"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		PLACE_TEST(test_look),       PLACE_TEST(test_links),   PLACE_TEST(test_find),
		cmocka_unit_test(test_hide), PLACE_TEST(test_writing), PLACE_TEST(test_swapped_links),
	};
	int failed = cmocka_run_group_tests_name("openat2", tests, NULL, NULL);
	without_openat2 = true;
	return failed + cmocka_run_group_tests_name("walking", tests, NULL, NULL);
}
