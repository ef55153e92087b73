/* How an output gets its name: what may be replaced, what is kept aside, and what a crash between two renames leaves. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/scratch.h"

#include "engine/output/publish.h"

struct fixture {
	struct scratch scratch;
	char root[96];
	struct place top, work, out, aside;
};

static struct file_calls real_calls;

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct scratch *s = &f->scratch;
	strcpy(s->directory, "/tmp/besad-test-XXXXXX");
	assert_non_null(mkdtemp(s->directory));
	snprintf(f->root, sizeof f->root, "%s/root", s->directory);
	f->top = (struct place){f->root, "."};
	f->work = (struct place){f->root, ".besad-job"};
	f->out = (struct place){f->root, "team/out"};
	f->aside = (struct place){f->root, ".besad-replaced-1-job"};
	SUCCEEDS(directory_make(scratch_path(s, "root/.besad-job"), &s->err));
	scratch_text(s, "root/.besad-job/new", "new");
	real_calls = file_calls;
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

/* An earlier output of besad's. */
static void make_old(struct fixture *f)
{
	struct scratch *s = &f->scratch;
	SUCCEEDS(directory_make(scratch_path(s, "root/team/out/additional_chat_templates"), &s->err));
	scratch_text(s, "root/team/out/additional_chat_templates/rag.jinja", "");
	SUCCEEDS(directory_make(scratch_path(s, "root/team/out/archive/additional_chat_templates"), &s->err));
	scratch_text(s, "root/team/out/besad.json",
		     "{\"besad_version\": \"0.1.0\", \"directories\": [\"additional_chat_templates\", \"archive\", "
		     "\"archive/additional_chat_templates\"]}");
	scratch_text(s, "root/team/out/old", "old");
}

static void assert_published(struct fixture *f, bool replaced)
{
	assert_true(place_has(&f->out, "new"));
	assert_false(place_has(&f->out, "old"));
	assert_false(place_has(&f->work, NULL));
	assert_int_equal(place_has(&f->aside, "old"), replaced);
}

static void test_new(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	bool replaced;
	SUCCEEDS(publish_try(&f->top, &f->out, "job", &s->err));
	assert_false(path_exists(scratch_path(s, "root/team"))); /* trying leaves nothing behind */
	assert_false(path_exists(scratch_path(s, "root/.besad-try-job")));
	SUCCEEDS(publish(&f->work, &f->out, &f->aside, true, &replaced, &s->err));
	assert_false(replaced);
	assert_published(f, false);
}

/* What one leaves that is killed goes with the next in that directory, once it is old; or from any place when asked for. */
static void test_tries_that_were_cut_off(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	const struct timespec long_ago[2] = {{.tv_sec = time(NULL) - 600}, {.tv_sec = time(NULL) - 600}};
	make_old(f);
	for (const char **name = (const char *[]){"root/.besad-try-a", "root/team/.besad-try-a", "root/team/.besad-try-b", NULL};
	     *name; name++)
		SUCCEEDS(directory_make(scratch_path(s, *name), &s->err));
	assert_int_equal(utimensat(AT_FDCWD, scratch_path(s, "root/team/.besad-try-a"), long_ago, 0), 0);
	SUCCEEDS(publish_try(&f->top, &f->out, "job", &s->err));
	assert_false(path_exists(scratch_path(s, "root/team/.besad-try-a")));
	assert_true(path_exists(scratch_path(s, "root/team/.besad-try-b"))); /* somebody may be at it */
	assert_true(path_exists(scratch_path(s, "root/.besad-try-a")));
	SUCCEEDS(publish_sweep_tries(&f->top, 0, &s->err));
	assert_false(path_exists(scratch_path(s, "root/.besad-try-a")));
	assert_true(path_exists(scratch_path(s, "root/team/out")));
	FAILS(STATUS_NOT_FOUND, "", publish_sweep_tries(&(struct place){f->root, "nowhere"}, 0, &s->err));
}

static void test_replaces_its_own(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	bool replaced;
	make_old(f);
	FAILS(STATUS_EXISTS, "team/out", publish(&f->work, &f->out, &f->aside, false, &replaced, &s->err));
	assert_true(place_has(&f->work, "new"));
	SUCCEEDS(publish_try(&f->top, &f->out, "job", &s->err));
	SUCCEEDS(publish_check(&f->out, &s->err));
	SUCCEEDS(publish(&f->work, &f->out, &f->aside, true, &replaced, &s->err));
	assert_true(replaced);
	assert_published(f, true);
}

static void test_leaves_what_is_not_its_own(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	bool replaced;
	make_old(f);
	SUCCEEDS(directory_make(scratch_path(s, "root/team/out/other-job"), &s->err));
	FAILS(STATUS_EXISTS, "directory 'other-job'", publish(&f->work, &f->out, &f->aside, true, &replaced, &s->err));
	SUCCEEDS(place_remove(&f->out, "other-job", &s->err));
	SUCCEEDS(directory_make(scratch_path(s, "root/team/out/additional_chat_templates/mine"), &s->err));
	FAILS(STATUS_EXISTS, "directory 'additional_chat_templates/mine'", publish_check(&f->out, &s->err));
	SUCCEEDS(place_remove(&f->out, "additional_chat_templates/mine", &s->err));
	SUCCEEDS(publish_check(&f->out, &s->err));
	for (const char **report = (const char *[]){"{}", "not JSON", "{\"job\": \"x\"}", NULL}; *report; report++) {
		scratch_text(s, "root/team/out/besad.json", *report);
		FAILS(STATUS_EXISTS, "besad did not make it", publish_check(&f->out, &s->err));
	}
	assert_int_equal(unlink(scratch_path(s, "root/team/out/besad.json")), 0);
	FAILS(STATUS_EXISTS, "besad did not make it", publish(&f->work, &f->out, &f->aside, true, &replaced, &s->err));
	/* The directory above holds other outputs. */
	struct place team = {f->root, "team"};
	FAILS(STATUS_EXISTS, "'team' exists", publish_check(&team, &s->err));
	assert_int_equal(symlink("team/out", scratch_path(s, "root/link")), 0);
	struct place link = {f->root, "link"};
	FAILS(STATUS_EXISTS, "not a directory", publish_check(&link, &s->err));
	assert_true(place_has(&f->out, "old"));
	assert_true(place_has(&f->work, "new"));
}

static int calls_until_failure;

static int no_exchange(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	if (flags & RENAME_EXCHANGE) {
		errno = EINVAL;
		return -1;
	}
	if (calls_until_failure-- == 0) {
		errno = EIO;
		return -1;
	}
	return real_calls.renameat2(from_dir, from, to_dir, to, flags);
}

/* Where the file system cannot exchange: the old one first goes aside, and a crash in between is mended by the next attempt. */
static void test_without_exchange(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	bool replaced;
	make_old(f);
	file_calls.renameat2 = no_exchange;
	calls_until_failure = 1;
	FAILS(STATUS_IO, "team/out", publish(&f->work, &f->out, &f->aside, true, &replaced, &s->err));
	assert_true(place_has(&f->aside, "old"));
	assert_true(place_has(&f->work, "new"));
	calls_until_failure = -1;
	SUCCEEDS(publish(&f->work, &f->out, &f->aside, true, &replaced, &s->err));
	assert_published(f, true);
}

static int only_exchange(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	if (flags & RENAME_EXCHANGE) return real_calls.renameat2(from_dir, from, to_dir, to, flags);
	errno = EIO;
	return -1;
}

static void test_crash_behind_the_exchange(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	bool replaced;
	make_old(f);
	file_calls.renameat2 = only_exchange;
	FAILS(STATUS_IO, "replaced", publish(&f->work, &f->out, &f->aside, true, &replaced, &s->err));
	file_calls = real_calls;
	SUCCEEDS(publish_rest(&f->work, &f->aside, &s->err));
	assert_published(f, true);
	SUCCEEDS(publish_rest(&f->work, &f->aside, &s->err));
}

static void test_places(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct place linked = {f->root, "away/out"}, file = {f->root, "file/out"};
	SUCCEEDS(directory_make(scratch_path(s, "elsewhere"), &s->err));
	assert_int_equal(symlink("../elsewhere", scratch_path(s, "root/away")), 0);
	scratch_text(s, "root/file", "");
	FAILS(STATUS_INVALID, "leads out", publish_try(&f->top, &linked, "job", &s->err));
	FAILS(STATUS_INVALID, "has a file where a directory is needed", publish_try(&f->top, &file, "job", &s->err));
	/* A parent that becomes a link while the job waits. */
	bool replaced;
	FAILS(STATUS_INVALID, "leads out", publish(&f->work, &linked, &f->aside, false, &replaced, &s->err));
	assert_false(path_exists(scratch_path(s, "elsewhere/out")));
	assert_true(place_has(&f->work, "new"));
}

static void test_sweep(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	char *fresh = publish_aside_name("job"), *next = publish_aside_name("job");
	assert_non_null(fresh);
	assert_string_not_equal(fresh, next);
	free(next);
	for (const char **name = (const char *[]){".besad-replaced-1-a", fresh, ".besad-replaced-x", ".besad-other", NULL}; *name;
	     name++) {
		SUCCEEDS(place_make(&f->top, *name, &s->err));
	}
	SUCCEEDS(publish_sweep(&f->top, 1000, &s->err));
	assert_false(place_has(&f->top, ".besad-replaced-1-a"));
	assert_true(place_has(&f->top, fresh));
	assert_true(place_has(&f->top, ".besad-replaced-x"));
	assert_true(place_has(&f->top, ".besad-other"));
	assert_true(place_has(&f->work, "new"));
	SUCCEEDS(publish_sweep(&f->top, 0, &s->err));
	assert_false(place_has(&f->top, fresh));
	free(fresh);
}

#define PUBLISH_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PUBLISH_TEST(test_new),
		PUBLISH_TEST(test_tries_that_were_cut_off),
		PUBLISH_TEST(test_replaces_its_own),
		PUBLISH_TEST(test_leaves_what_is_not_its_own),
		PUBLISH_TEST(test_without_exchange),
		PUBLISH_TEST(test_crash_behind_the_exchange),
		PUBLISH_TEST(test_places),
		PUBLISH_TEST(test_sweep),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
