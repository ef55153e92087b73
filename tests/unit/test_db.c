/* The database: its file and schema, ids, events, timings, threads, and what a kill leaves behind. The queue: test_db_queue.c. */
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/database.h"

#include "base/place.h"
#include "db/internal.h"

static void test_pragmas(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(scalar(f, "SELECT application_id FROM pragma_application_id"), 0x62657361);
	assert_int_equal(scalar(f, "SELECT user_version FROM pragma_user_version"), 15);
	assert_int_equal(scalar(f, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"), 1);
	assert_int_equal(scalar(f, "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND name IN"
				   " ('jobs', 'events', 'blocks') AND strict"),
			 3);
}

static void test_refuses_other_files(void **state)
{
	struct fixture *f = *state;
	struct db *db = NULL;
	char path[96];
	sqlite3 *handle;
	snprintf(path, sizeof path, "%s/other.db", f->directory);
	assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
	assert_int_equal(sqlite3_exec(handle, "CREATE TABLE t (x)", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(db_open(path, &db, &f->err), STATUS_INVALID);
	assert_int_equal(sqlite3_exec(handle, "DROP TABLE t; PRAGMA application_id = 1650815841; PRAGMA user_version = 99", NULL,
				      NULL, NULL),
			 SQLITE_OK);
	sqlite3_close(handle);
	assert_int_equal(db_open(path, &db, &f->err), STATUS_UNSUPPORTED);
	assert_non_null(strstr(f->err.message, "newer"));
	assert_int_equal(place_replace(&PLACE(path), NULL, "not a database, but long enough to be looked at", 47, &f->err),
			 STATUS_OK);
	assert_int_equal(db_open(path, &db, &f->err), STATUS_INVALID);
	assert_null(db);
}

static void test_ids_grow(void **state)
{
	struct fixture *f = *state;
	char last[JOB_ID_BYTES] = "", id[JOB_ID_BYTES];
	for (int i = 0; i < 10000; i++) {
		db_new_id(f->db, id);
		assert_true(job_id_is_valid(id));
		assert_true(strcmp(last, id) < 0);
		strcpy(last, id);
	}
	/* An id from the future, as after a clock that stepped back: the next one is larger all the same. */
	struct submission future = {.id = "7zzzzzzzzz0123456789abcdez", .spec = "{}", .output = "future"};
	struct job job;
	enum insert_outcome outcome;
	OK(db_job_insert(f->db, &future, 5, &outcome, &job, &f->err));
	job_clear(&job);
	reopen(f);
	db_new_id(f->db, id);
	assert_string_equal(id, "7zzzzzzzzz0123456789abcdf0");
}

static void test_id_validity(void **state)
{
	(void)state;
	assert_true(job_id_is_valid("01hzzzzzzz0123456789abcdef"));
	assert_false(job_id_is_valid(""));
	assert_false(job_id_is_valid("01hzzzzzzz0123456789abcde"));
	assert_false(job_id_is_valid("01hzzzzzzz0123456789abcdefg"));
	assert_false(job_id_is_valid("81hzzzzzzz0123456789abcdef"));
	assert_false(job_id_is_valid("01Hzzzzzzz0123456789abcdef"));
	assert_false(job_id_is_valid("01hzzzzzzz0123456789abcde/"));
}

/* How long blocks took on a device; a job that has been on two tells nothing of either. */
static void test_timings(void **state)
{
	struct fixture *f = *state;
	char first[JOB_ID_BYTES], second[JOB_ID_BYTES], moved[JOB_ID_BYTES];
	struct timing_list list;
	submit(f, "a", 2, false, NULL, NULL, first);
	submit(f, "b", 1, false, NULL, NULL, second);
	submit(f, "c", 0, false, NULL, NULL, moved);
	claim(f, first);
	OK(db_timings(f->db, "A", 10, &list, &f->err));
	assert_int_equal(list.count, 0);
	timing_list_clear(&list);
	OK(db_job_set_device(f->db, first, "A", &f->err));
	OK(db_block_commit(f->db, first, 0, "{\"seconds\":1}", 1, NULL, &f->err));
	OK(db_block_commit(f->db, first, 1, "{\"seconds\":4,\"last\":true}", 1, NULL, &f->err));
	OK(db_job_finish(f->db, first, JOB_SUCCEEDED, "{\"seconds\":9}", NULL, NULL, &f->err));
	claim(f, second);
	OK(db_job_set_device(f->db, second, "A", &f->err));
	OK(db_job_finish(f->db, second, JOB_FAILED, NULL, "internal", "?", &f->err));
	claim(f, moved);
	OK(db_job_set_device(f->db, moved, "A", &f->err));
	OK(db_block_commit(f->db, moved, 0, "{\"seconds\":100}", 1, NULL, &f->err));
	OK(db_job_requeue(f->db, moved, &f->err));
	claim(f, moved);
	OK(db_job_set_device(f->db, moved, "B", &f->err));

	OK(db_timings(f->db, "A", 10, &list, &f->err));
	assert_int_equal(list.count, 2);
	assert_int_equal(list.timings[0].blocks, 0);
	assert_null(list.timings[0].block);
	assert_null(list.timings[0].result);
	assert_int_equal(list.timings[1].blocks, 2);
	assert_true(list.timings[1].block_seconds == 2.5);
	assert_string_equal(list.timings[1].block, "{\"seconds\":4,\"last\":true}");
	assert_string_equal(list.timings[1].result, "{\"seconds\":9}");
	assert_int_equal(list.timings[1].attempt, 1);
	timing_list_clear(&list);
	OK(db_timings(f->db, "A", 1, &list, &f->err));
	assert_int_equal(list.count, 1);
	timing_list_clear(&list);
	OK(db_timings(f->db, "B", 10, &list, &f->err));
	assert_int_equal(list.count, 0);
	timing_list_clear(&list);
	assert_int_equal(db_job_set_device(f->db, "00000000000000000000000000", "A", &f->err), STATUS_NOT_FOUND);
}

/* How many have ended by then, the first of them in `id`. */
static size_t ended(struct fixture *f, int64_t succeeded_by, int64_t failed_by, char id[JOB_ID_BYTES])
{
	struct ended_job *jobs;
	size_t count;
	OK(db_ended_list(f->db, &(struct ended_filter){succeeded_by, failed_by, false}, &jobs, &count, &f->err));
	if (count) memcpy(id, jobs[0].id, JOB_ID_BYTES);
	for (size_t i = 1; i < count; i++)
		assert_true(jobs[i].finished_at >= jobs[i - 1].finished_at);
	free(jobs);
	return count;
}

static int64_t file_bytes(const char *path)
{
	struct stat info;
	assert_int_equal(stat(path, &info), 0);
	return info.st_size;
}

static void test_deleted_rows_give_room_back(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES], waits[JOB_ID_BYTES], found_id[JOB_ID_BYTES], text[20000];
	struct job job;
	enum change_outcome outcome;
	int64_t rows = 0, before = 0, after = 0;
	snprintf(text, sizeof text, "{\"x\":\"%*s\"}", 19000, "");
	submit(f, "a", 0, false, NULL, NULL, id);
	submit(f, "b", 0, false, NULL, NULL, waits);
	for (int i = 0; i < 50; i++)
		OK(db_event_append(f->db, id, &(struct new_event){"warning", text, 1, false}, NULL, &f->err));
	assert_int_equal(ended(f, INT64_MAX, INT64_MAX, found_id), 0);
	OK(db_job_cancel(f->db, id, &outcome, &job, &f->err));
	job_clear(&job);
	assert_int_equal(ended(f, INT64_MAX, -1, found_id), 0);
	assert_int_equal(ended(f, -1, 1, found_id), 0);
	assert_int_equal(ended(f, -1, INT64_MAX, found_id), 1);
	assert_string_equal(found_id, id);
	OK(db_job_bytes(f->db, id, &rows, &f->err));
	assert_true(rows > 50 * 19000 && rows < 60 * 19000);
	OK(db_job_bytes(f->db, "01hzzzzzzz0123456789abcdef", &rows, &f->err));
	assert_int_equal(rows, 0);
	int64_t pages = scalar(f, "SELECT page_count FROM pragma_page_count");
	OK(db_bytes(f->db, &before, &f->err));
	OK(db_job_delete(f->db, id, &outcome, &f->err));
	assert_true(scalar(f, "SELECT freelist_count FROM pragma_freelist_count") > 100);
	OK(db_bytes(f->db, &after, &f->err));
	assert_true(after < before - 50 * 19000);
	sqlite3 *other; /* what it reads stays in the file for as long as it does */
	assert_int_equal(sqlite3_open(f->path, &other), SQLITE_OK);
	assert_int_equal(sqlite3_exec(other, "PRAGMA wal_checkpoint; BEGIN; SELECT count(*) FROM jobs", NULL, NULL, NULL),
			 SQLITE_OK);
	OK(db_shrink(f->db, &f->err));
	assert_true(file_bytes(f->path) > after);
	assert_int_equal(sqlite3_close(other), SQLITE_OK);
	OK(db_shrink(f->db, &f->err));
	assert_int_equal(scalar(f, "SELECT freelist_count FROM pragma_freelist_count"), 0);
	assert_true(scalar(f, "SELECT page_count FROM pragma_page_count") < pages - 100);
	assert_int_equal(file_bytes(f->path), after);
}

static void test_event_pages(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	struct event_list list;
	submit(f, "a", 0, false, NULL, NULL, id);
	for (int i = 0; i < 5; i++)
		OK(db_event_append(f->db, id, &(struct new_event){"warning", "{}", 1, false}, NULL, &f->err));
	assert_int_equal(
		db_event_append(f->db, "01hzzzzzzz0123456789abcdef", &(struct new_event){"warning", "{}", 1, false}, NULL, &f->err),
		STATUS_NOT_FOUND);
	assert_int_equal(db_event_append(f->db, id, &(struct new_event){"warning", "{", 1, false}, NULL, &f->err), STATUS_INTERNAL);
	OK(db_event_list(f->db, id, 2, 3, &list, &f->err));
	assert_int_equal(list.count, 3);
	assert_int_equal(list.events[0].id, 3);
	assert_true(list.more);
	assert_int_equal(list.state, JOB_QUEUED);
	event_list_clear(&list);
	OK(db_event_list(f->db, id, 3, 3, &list, &f->err));
	assert_int_equal(list.count, 3);
	assert_false(list.more);
	event_list_clear(&list);
	OK(db_event_list(f->db, id, INT64_MAX, 3, &list, &f->err));
	assert_int_equal(list.count, 0);
	event_list_clear(&list);
	assert_int_equal(db_event_list(f->db, "01hzzzzzzz0123456789abcdef", 0, 3, &list, &f->err), STATUS_NOT_FOUND);
}

static void test_data_of_a_type(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES], other[JOB_ID_BYTES];
	char **texts;
	size_t count;
	submit(f, "a", 0, false, NULL, NULL, id);
	submit(f, "b", 0, false, NULL, NULL, other);
	OK(db_event_append(f->db, id, &(struct new_event){"eval.finished", "{\"x\":1}", 1, false}, NULL, &f->err));
	OK(db_event_append(f->db, id, &(struct new_event){"warning", "{\"x\":2}", 1, false}, NULL, &f->err));
	OK(db_event_append(f->db, id, &(struct new_event){"eval.finished", "{\"x\":3}", 1, false}, NULL, &f->err));
	OK(db_event_append(f->db, other, &(struct new_event){"eval.finished", "{\"x\":4}", 1, false}, NULL, &f->err));
	OK(db_event_data(f->db, id, "eval.finished", &texts, &count, &f->err));
	assert_int_equal(count, 2);
	assert_string_equal(texts[0], "{\"x\":1}");
	assert_string_equal(texts[1], "{\"x\":3}");
	text_list_free(texts, count);
	OK(db_event_data(f->db, other, "warning", &texts, &count, &f->err));
	assert_int_equal(count, 0);
	text_list_free(texts, count);
	assert_int_equal(db_event_data(f->db, "01hzzzzzzz0123456789abcdef", "warning", &texts, &count, &f->err), STATUS_NOT_FOUND);
}

/* ---- threads and crashes ------------------------------------------------------------------------------------------------- */

enum { WRITERS = 4, WRITES = 50 };

struct heard {
	pthread_mutex_t lock;
	int commits;
};

static void hear(void *context, const char *job_id)
{
	struct heard *heard = context;
	if (!job_id_is_valid(job_id)) return;
	pthread_mutex_lock(&heard->lock);
	heard->commits++;
	pthread_mutex_unlock(&heard->lock);
}

struct writer {
	struct db *db;
	const char *id;
	int failures;
};

static void *write_and_read(void *context)
{
	struct writer *writer = context;
	struct error err;
	for (int i = 0; i < WRITES; i++) {
		struct event_list list;
		writer->failures += db_event_append(writer->db, writer->id, &(struct new_event){"warning", "{}", 1, false}, NULL,
						    &err) != STATUS_OK;
		if (db_event_list(writer->db, writer->id, 0, 1000, &list, &err) != STATUS_OK) {
			writer->failures++;
			continue;
		}
		for (size_t e = 0; e < list.count; e++)
			writer->failures += list.events[e].id != (int64_t)e + 1;
		event_list_clear(&list);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	pthread_t threads[WRITERS];
	struct writer writers[WRITERS];
	struct heard heard = {.lock = PTHREAD_MUTEX_INITIALIZER};
	submit(f, "a", 0, false, NULL, NULL, id);
	db_set_listener(f->db, hear, &heard);
	for (int i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){.db = f->db, .id = id};
		assert_int_equal(pthread_create(&threads[i], NULL, write_and_read, &writers[i]), 0);
	}
	for (int i = 0; i < WRITERS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(writers[i].failures, 0);
	}
	assert_int_equal(heard.commits, WRITERS * WRITES);
	assert_int_equal(scalar(f, "SELECT last_event FROM jobs"), WRITERS * WRITES + 1);
	expect_sound(f);
}

/* Appends and commits until it is killed; tells the parent of each commit by a byte. */
static void write_until_killed(const char *path, const char *id, int fd)
{
	struct db *db;
	struct error err;
	if (db_open(path, &db, &err) != STATUS_OK) _exit(1);
	struct job job;
	if (db_job_get(db, id, &job, &err) != STATUS_OK) _exit(1);
	for (int block = job.blocks_done;; block++) {
		if (db_event_append(db, id, &(struct new_event){"block.started", "{}", 1, false}, NULL, &err) != STATUS_OK)
			_exit(1);
		if (db_block_commit(db, id, block, "{}", 1, NULL, &err) != STATUS_OK) _exit(1);
		if (write(fd, "", 1) != 1) _exit(1);
	}
}

static void test_kill_loses_nothing_acknowledged(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	int acknowledged = 0;
	submit(f, "a", 0, false, NULL, NULL, id);
	for (int round = 0; round < 10; round++) {
		int fds[2], status;
		char bytes[4096];
		ssize_t got;
		db_close(f->db);
		assert_int_equal(pipe(fds), 0);
		pid_t child = fork();
		if (child == 0) write_until_killed(f->path, id, fds[1]);
		close(fds[1]);
		for (int i = 0; i <= round; i++) {
			assert_int_equal(read(fds[0], bytes, 1), 1);
			acknowledged++;
		}
		usleep((useconds_t)(rand() % 3000));
		kill(child, SIGKILL);
		while ((got = read(fds[0], bytes, sizeof bytes)) > 0)
			acknowledged += (int)got;
		close(fds[0]);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status));

		OK(db_open(f->path, &f->db, &f->err));
		expect_sound(f);
		int64_t done = scalar(f, "SELECT blocks_done FROM jobs");
		assert_true(done == acknowledged || done == acknowledged + 1);
		acknowledged = (int)done;
	}
}

static bool give_up_ballast(void *context)
{
	bool *ballast = context, was = *ballast;
	*ballast = false;
	return was;
}

/* Two transactions meet the full disk side by side, and the first of them to say so gives up the ballast: it is there for the
 * other, too. */
static void test_room_is_made_for_all_that_failed(void **state)
{
	struct fixture *f = *state;
	bool ballast = true;
	db_set_relief(f->db, give_up_ballast, &ballast);
	unsigned first = write_reliefs(f->db), second = write_reliefs(f->db);
	assert_false(write_again(f->db, STATUS_BUSY, &first));
	assert_true(ballast);
	assert_true(write_again(f->db, STATUS_NO_SPACE, &first));
	assert_false(ballast);
	assert_true(write_again(f->db, STATUS_NO_SPACE, &second));
	assert_false(write_again(f->db, STATUS_NO_SPACE, &first));
	assert_false(write_again(f->db, STATUS_NO_SPACE, &second));
	unsigned late = write_reliefs(f->db);
	assert_false(write_again(f->db, STATUS_NO_SPACE, &late));
}

/* ---- whether a file is whole ---------------------------------------------------------------------------------------------- */

/* What a kill leaves of the fixture's database: "killed.db", and its journal, which holds all that was written. */
static void leave_killed(struct fixture *f, char path[128])
{
	snprintf(path, 128, "%s/killed.db", f->directory);
	for (int i = 0; i < 2; i++) {
		char from[128], to[160], *text;
		size_t bytes;
		snprintf(from, sizeof from, "%s%s", f->path, i ? "-wal" : "");
		snprintf(to, sizeof to, "%s%s", path, i ? "-wal" : "");
		OK(file_slurp(from, 16 << 20, &text, &bytes, &f->err));
		OK(place_replace(&PLACE(to), NULL, text, bytes, &f->err));
		free(text);
	}
}

static void test_a_quick_look_changes_nothing(void **state)
{
	struct fixture *f = *state;
	char path[128], journal[160], *before, *after;
	size_t bytes, bytes_after;
	submit(f, "a", 0, false, NULL, NULL, NULL);
	leave_killed(f, path);
	snprintf(journal, sizeof journal, "%s-wal", path);
	OK(file_slurp(journal, 16 << 20, &before, &bytes, &f->err));
	assert_true(bytes > 4096);
	OK(db_quick_check(path, &f->err));
	OK(file_slurp(journal, 16 << 20, &after, &bytes_after, &f->err));
	assert_int_equal(bytes, bytes_after);
	assert_memory_equal(before, after, bytes);
	free(after);
	free(before);
	struct db *db = NULL;
	int64_t counts[JOB_STATES];
	OK(db_open(path, &db, &f->err));
	OK(db_job_counts(db, counts, &f->err));
	assert_int_equal(counts[JOB_QUEUED], 1);
	db_close(db);

	static const char damage[] = "no page of a database";
	struct file file;
	OK(file_open_write(path, &file, &f->err));
	OK(file_write(&file, damage, sizeof damage, file.size - 4096, &f->err));
	OK(file_write(&file, damage, sizeof damage, file.size - 8192, &f->err));
	file_close(&file);
	assert_int_equal(db_quick_check(path, &f->err), STATUS_INVALID);
	assert_non_null(strstr(f->err.message, "killed.db is damaged: "));
	OK(place_replace(&PLACE(path), NULL, damage, sizeof damage, &f->err));
	assert_int_equal(db_quick_check(path, &f->err), STATUS_INVALID);
	OK(place_remove(&PLACE(path), NULL, &f->err));
	OK(db_quick_check(path, &f->err));
}

struct verified {
	int problems, jobs, blocks_done;
	char problem[200];
};

static void take_problem(void *context, const char *text)
{
	struct verified *v = context;
	v->problems++;
	snprintf(v->problem, sizeof v->problem, "%.199s", text);
}

static enum status take_job(void *context, const struct stored_job *job, struct error *err)
{
	struct verified *v = context;
	(void)err;
	v->jobs++;
	v->blocks_done += job->blocks_done;
	return STATUS_OK;
}

static void verify(struct fixture *f, const char *path, struct verified *ret)
{
	int64_t version = 0;
	const struct db_verifier verifier = {take_problem, take_job, ret};
	*ret = (struct verified){0};
	OK(db_verify(path, &verifier, &version, &f->err));
	assert_int_equal(version, 15);
}

/* Of a database that is written to meanwhile. */
static void test_a_copy_is_whole(void **state)
{
	struct fixture *f = *state;
	char path[128], id[JOB_ID_BYTES];
	struct verified v;
	submit(f, "a", 0, false, NULL, NULL, id);
	claim(f, id);
	OK(db_block_commit(f->db, id, 0, "{\"block\":0}", 1, NULL, &f->err));
	OK(write_begin(f->db, &f->err)); /* nobody waits for a writer */
	snprintf(path, sizeof path, "%s/copy.db", f->directory);
	OK(db_copy(f->path, path, &f->err));
	verify(f, f->path, &v);
	assert_int_equal(v.problems, 0);
	OK(write_end(f->db, STATUS_OK, NULL, &f->err));
	submit(f, "b", 0, false, NULL, NULL, NULL);
	verify(f, path, &v);
	assert_int_equal(v.problems, 0);
	assert_int_equal(v.jobs, 1);
	assert_int_equal(v.blocks_done, 1);
	char beside[160];
	snprintf(beside, sizeof beside, "%s-wal", path);
	assert_false(path_exists(beside));

	sqlite3 *handle;
	static const char *const wrong[][2] = {
		{"UPDATE jobs SET blocks_done = 2", "2 blocks are done, and other ones are stored"},
		{"UPDATE jobs SET blocks_done = 1; DELETE FROM events WHERE id = 1", "its events are not those up to 3"},
	};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
		assert_int_equal(sqlite3_exec(handle, wrong[i][0], NULL, NULL, NULL), SQLITE_OK);
		sqlite3_close(handle);
		verify(f, path, &v);
		assert_int_equal(v.problems, 1);
		assert_non_null(strstr(v.problem, wrong[i][1]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_pragmas),
		TEST(test_refuses_other_files),
		TEST(test_ids_grow),
		cmocka_unit_test(test_id_validity),
		TEST(test_timings),
		TEST(test_deleted_rows_give_room_back),
		TEST(test_event_pages),
		TEST(test_data_of_a_type),
		TEST(test_threads),
		TEST(test_kill_loses_nothing_acknowledged),
		TEST(test_room_is_made_for_all_that_failed),
		TEST(test_a_quick_look_changes_nothing),
		TEST(test_a_copy_is_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
