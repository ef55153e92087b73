/* The audit: what is noted, and in whose transaction; what is forgotten; and the quotas that are counted in it. */
#include "tests/unit/database.h"

#include <pthread.h>

#include "db/audit.h"
#include "db/outputs.h"
#include "db/studies.h"

static struct audit_list entries(struct fixture *f)
{
	struct audit_list list;
	OK(db_audit_list(f->db, INT64_MAX, 100, &list, &f->err));
	return list;
}

static void expect_entry(const struct audit_entry *entry, const char *who, const char *action, const char *target,
			 const char *outcome)
{
	if (who)
		assert_string_equal(entry->who, who);
	else
		assert_null(entry->who);
	assert_string_equal(entry->action, action);
	if (target)
		assert_string_equal(entry->target, target);
	else
		assert_null(entry->target);
	assert_string_equal(entry->outcome, outcome);
	assert_true(entry->at > 0);
}

static enum change_outcome cancel(struct fixture *f, const char *id)
{
	struct job job;
	enum change_outcome outcome;
	OK(db_job_cancel(f->db, id, &outcome, &job, &f->err));
	job_clear(&job);
	return outcome;
}

static void test_changes(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	enum change_outcome outcome;
	struct actor alice = {.who = "alice", .peer = "192.0.2.1", .action = "job.submit"}, nobody = {.action = "job.cancel"};
	db_act_for(&alice);
	assert_int_equal(submit(f, "a", 0, false, "key", "{}", id), INSERT_NEW);
	assert_true(alice.noted);
	alice.noted = false;
	assert_int_equal(submit(f, "a", 0, false, "key", "{}", NULL), INSERT_REPLAY); /* changes nothing, and is not noted */
	assert_int_equal(submit(f, "a", 0, false, NULL, NULL, NULL), INSERT_OUTPUT_CLAIMED);
	assert_false(alice.noted || alice.pending);
	db_act_for(&nobody);
	assert_int_equal(cancel(f, id), CHANGE_DONE);
	assert_true(nobody.noted);
	db_act_for(NULL);
	OK(db_job_delete(f->db, id, &outcome, &f->err)); /* by besad itself */
	OK(db_audit_note(f->db, &alice, id, "wrong-state", 1, false, &f->err));
	struct audit_list list = entries(f);
	assert_int_equal(list.count, 3);
	assert_false(list.more);
	expect_entry(&list.entries[0], "alice", "job.submit", id, "wrong-state");
	expect_entry(&list.entries[1], NULL, "job.cancel", id, "done");
	assert_null(list.entries[1].peer);
	expect_entry(&list.entries[2], "alice", "job.submit", id, "done");
	assert_string_equal(list.entries[2].peer, "192.0.2.1");
	int64_t newest = list.entries[0].id;
	audit_list_clear(&list);
	OK(db_audit_list(f->db, newest, 1, &list, &f->err));
	assert_int_equal(list.count, 1);
	assert_true(list.more);
	assert_true(list.entries[0].id < newest);
	audit_list_clear(&list);
	expect_sound(f);
}

static void run(struct fixture *f, const char *sql)
{
	sqlite3 *handle;
	assert_int_equal(sqlite3_open(f->path, &handle), SQLITE_OK);
	if (sqlite3_exec(handle, sql, NULL, NULL, NULL) != SQLITE_OK) fail_msg("%s: %s", sql, sqlite3_errmsg(handle));
	sqlite3_close(handle);
}

/* Where the entry cannot be written, nothing is: they are one transaction. */
static void test_one_transaction(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	struct job job;
	enum change_outcome outcome;
	struct actor alice = {.who = "alice", .action = "job.cancel"};
	assert_int_equal(submit(f, "a", 0, false, NULL, NULL, id), INSERT_NEW);
	run(f, "CREATE TRIGGER no_entry BEFORE INSERT ON audit BEGIN SELECT raise(ABORT, 'no'); END");
	db_act_for(&alice);
	assert_int_not_equal(db_job_cancel(f->db, id, &outcome, &job, &f->err), STATUS_OK);
	assert_false(alice.noted || alice.pending);
	db_act_for(NULL);
	assert_int_equal(state_of(f, id), JOB_QUEUED);
	expect_events(f, id, "job.queued");
	run(f, "DROP TRIGGER no_entry");
}

static void *cancel_elsewhere(void *context)
{
	void **both = context;
	cancel(both[0], both[1]);
	return NULL;
}

static void test_other_threads_act_for_nobody(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	pthread_t thread;
	struct actor alice = {.who = "alice", .action = "job.cancel"};
	assert_int_equal(submit(f, "a", 0, false, NULL, NULL, id), INSERT_NEW);
	db_act_for(&alice);
	assert_int_equal(pthread_create(&thread, NULL, cancel_elsewhere, (void *[]){f, id}), 0);
	pthread_join(thread, NULL);
	db_act_for(NULL);
	assert_int_equal(scalar(f, "SELECT count(*) FROM audit"), 0);
}

static void test_bounds(void **state)
{
	struct fixture *f = *state;
	const struct actor alice = {.who = "alice", .action = "gc"};
	run(f, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100200)"
	       " INSERT INTO audit (at, action, outcome, count, refused) SELECT strftime('%s') * 1000, 'x', 'done', 1, 0 FROM n");
	run(f, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10200)"
	       " INSERT INTO audit (at, action, outcome, count, refused) SELECT strftime('%s') * 1000, 'x', 'no', 1, 1 FROM n");
	run(f, "UPDATE audit SET at = 0 WHERE id BETWEEN 110000 AND 110004");        /* refusals of long ago */
	run(f, "UPDATE audit SET action = 'job.submit' WHERE id BETWEEN 11 AND 17"); /* a quota counts them */
	for (int i = 0; i < 64; i++)
		OK(db_audit_note(f->db, &alice, NULL, "no", 1, true, &f->err));
	assert_in_range(scalar(f, "SELECT count(*) FROM audit WHERE refused"), AUDIT_REFUSALS - 5, AUDIT_REFUSALS + 64);
	assert_int_equal(scalar(f, "SELECT count(*) FROM audit WHERE at = 0"), 0);
	assert_int_equal(scalar(f, "SELECT count(*) FROM audit WHERE NOT refused"), 100200); /* whatever is refused, they stay */
	for (int i = 0; i < 64; i++)
		OK(db_audit_note(f->db, &alice, NULL, "done", 1, false, &f->err));
	assert_in_range(scalar(f, "SELECT count(*) FROM audit WHERE NOT refused"), AUDIT_CHANGES, AUDIT_CHANGES + 64);
	assert_int_equal(scalar(f, "SELECT min(id) > 200 FROM audit WHERE NOT refused AND action = 'x'"), 1); /* the oldest went */
	assert_int_equal(scalar(f, "SELECT count(*) FROM audit WHERE action = 'job.submit'"), 7);
}

static void test_queued_quota(void **state)
{
	struct fixture *f = *state;
	char first[JOB_ID_BYTES], second[JOB_ID_BYTES];
	enum change_outcome outcome;
	struct job job;
	struct actor bob = {.who = "bob", .action = "job.submit", .max_queued = 2}, eve = bob;
	eve.who = "eve";
	db_act_for(&bob);
	assert_int_equal(submit(f, "a", 0, false, NULL, NULL, first), INSERT_NEW);
	assert_int_equal(submit(f, "b", 0, false, NULL, NULL, second), INSERT_NEW);
	assert_int_equal(submit(f, "c", 0, false, NULL, NULL, NULL), INSERT_QUOTA_QUEUED);
	OK(db_job_pause(f->db, first, &outcome, &job, &f->err)); /* it waits all the same */
	job_clear(&job);
	assert_int_equal(submit(f, "c", 0, false, NULL, NULL, NULL), INSERT_QUOTA_QUEUED);
	db_act_for(&eve);
	assert_int_equal(submit(f, "c", 0, false, NULL, NULL, NULL), INSERT_NEW);
	db_act_for(&bob);
	assert_int_equal(cancel(f, first), CHANGE_DONE);
	assert_int_equal(submit(f, "d", 0, false, NULL, NULL, NULL), INSERT_NEW);
	OK(db_job_retry(f->db, first, 100, &outcome, &job, &f->err));
	assert_int_equal(outcome, CHANGE_QUOTA);
	job_clear(&job);
	claim(f, second);
	OK(db_job_retry(f->db, first, 100, &outcome, &job, &f->err));
	assert_int_equal(outcome, CHANGE_DONE);
	job_clear(&job);
	db_act_for(NULL);
	expect_sound(f);
}

static enum insert_outcome submit_study(struct fixture *f, const char *name, size_t count)
{
	struct study_submission new = {
		.name = name, .spec = "{}", .grid = "{}", .jobs = calloc(count, sizeof *new.jobs), .count = count};
	char study[JOB_ID_BYTES], ids[8][JOB_ID_BYTES], outputs[8][16], ret[JOB_ID_BYTES];
	enum insert_outcome outcome;
	size_t claimed;
	db_new_id(f->db, study);
	new.id = study;
	for (size_t i = 0; i < count; i++) {
		db_new_id(f->db, ids[i]);
		snprintf(outputs[i], sizeof outputs[i], "%s-%zu", name, i);
		new.jobs[i].settings = "{}";
		new.jobs[i].job = (struct submission){.id = ids[i], .name = name, .spec = "{}", .output = outputs[i]};
	}
	OK(db_study_insert(f->db, &new, 100, &outcome, ret, &claimed, &f->err));
	free(new.jobs);
	return outcome;
}

static void test_daily_quota(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	enum change_outcome outcome;
	struct actor bob = {.who = "bob", .action = "job.submit", .max_per_day = 4};
	db_act_for(&bob);
	assert_int_equal(submit(f, "a", 0, false, "key", "{}", id), INSERT_NEW);
	assert_int_equal(cancel(f, id), CHANGE_DONE);
	OK(db_job_delete(f->db, id, &outcome, &f->err)); /* it counts all the same; what it was undone by does not */
	run(f, "UPDATE audit SET action = 'job.delete' WHERE id > 1");
	assert_int_equal(submit(f, "a", 0, false, "key", "{}", id), INSERT_NEW);
	bob.action = "study.submit";
	assert_int_equal(submit_study(f, "three", 3), INSERT_QUOTA_DAY);
	assert_int_equal(scalar(f, "SELECT count(*) FROM jobs"), 1);
	assert_in_range(bob.wait_seconds, 24 * 3600 - 10, 24 * 3600 + 1);
	assert_int_equal(submit_study(f, "two", 2), INSERT_NEW);
	bob.action = "job.submit";
	assert_int_equal(submit(f, "b", 0, false, NULL, NULL, NULL), INSERT_QUOTA_DAY);
	assert_int_equal(submit(f, "a", 0, false, "key", "{}", NULL), INSERT_REPLAY); /* nothing new */
	run(f, "UPDATE audit SET at = at - 86400001 WHERE id = 1");
	assert_int_equal(submit(f, "b", 0, false, NULL, NULL, NULL), INSERT_NEW);
	db_act_for(NULL);
	assert_int_equal(scalar(f, "SELECT count FROM audit WHERE action = 'study.submit'"), 2);
	expect_sound(f);
}

static enum insert_outcome submit_large(struct fixture *f, const char *output, int64_t bytes, char id[JOB_ID_BYTES])
{
	struct job job = {0};
	enum insert_outcome outcome;
	db_new_id(f->db, id);
	const struct submission submission = {
		.id = id, .name = "large", .spec = "{}", .output = output, .overwrite = true, .expected_bytes = bytes};
	OK(db_job_insert(f->db, &submission, 100, &outcome, &job, &f->err));
	job_clear(&job);
	return outcome;
}

/* The outputs that `who` has, and jobs that left something, joined by spaces. */
static void expect_holdings(struct fixture *f, const char *who, const char *wanted)
{
	char text[256] = "";
	struct holding *list;
	size_t count;
	OK(db_holdings(f->db, who, &list, &count, &f->err));
	for (size_t i = 0; i < count; i++) {
		strcat(text, i ? " " : "");
		strcat(text, list[i].output ? list[i].output : "-");
	}
	assert_string_equal(text, wanted);
	holdings_free(list, count);
}

static void test_bytes_quota(void **state)
{
	struct fixture *f = *state;
	char first[JOB_ID_BYTES], second[JOB_ID_BYTES], third[JOB_ID_BYTES];
	enum change_outcome outcome;
	struct job job;
	struct actor bob = {.who = "bob", .action = "job.submit", .max_bytes = 100, .held_bytes = 30},
		     eve = {.who = "eve", .action = "job.submit"};
	db_act_for(&bob);
	assert_int_equal(submit_large(f, "a", 40, first), INSERT_NEW);
	assert_int_equal(submit_large(f, "b", 31, second), INSERT_QUOTA_BYTES);
	assert_int_equal(bob.expected_bytes, 40);
	assert_int_equal(bob.wanted_bytes, 31);
	assert_int_equal(submit_large(f, "b", 30, second), INSERT_NEW); /* exactly */
	assert_int_equal(submit_large(f, "c", 1, third), INSERT_QUOTA_BYTES);
	assert_int_equal(submit_large(f, "c", 0, third), INSERT_NEW); /* it makes no output */
	assert_int_equal(cancel(f, second), CHANGE_DONE);
	assert_int_equal(submit_large(f, "d", 25, third), INSERT_NEW);
	OK(db_job_retry(f->db, second, 100, &outcome, &job, &f->err)); /* 30 again are too many now */
	assert_int_equal(outcome, CHANGE_QUOTA_BYTES);
	assert_int_equal(bob.wanted_bytes, 30);
	job_clear(&job);
	expect_holdings(f, "bob", "-");
	db_act_for(&eve); /* has no bound */
	assert_int_equal(submit_large(f, "e", INT64_C(1) << 40, third), INSERT_NEW);
	/* What it came to stays hers when the job is forgotten, and becomes his who replaces it. */
	db_act_for(NULL);
	claim(f, first);
	run(f, "UPDATE jobs SET state = 'succeeded', finished_at = 1, result = '{}' WHERE output = 'a'");
	expect_holdings(f, "bob", "a -");
	OK(db_job_delete(f->db, first, &outcome, &f->err));
	expect_holdings(f, "bob", "a -");
	db_act_for(&eve);
	assert_int_equal(submit_large(f, "a", 1, third), INSERT_NEW);
	db_act_for(NULL);
	run(f, "UPDATE jobs SET state = 'succeeded', finished_at = 1, result = '{}' WHERE output = 'a'");
	expect_holdings(f, "bob", "-");
	expect_holdings(f, "eve", "a");
	struct holding *list;
	size_t count;
	OK(db_holdings(f->db, "eve", &list, &count, &f->err));
	list[0].job_id[0] = '!'; /* another one's by now */
	OK(db_output_gone(f->db, &list[0], &f->err));
	expect_holdings(f, "eve", "a");
	strcpy(list[0].job_id, third);
	OK(db_output_gone(f->db, &list[0], &f->err));
	expect_holdings(f, "eve", "");
	holdings_free(list, count);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_changes),    TEST(test_one_transaction), TEST(test_other_threads_act_for_nobody),
		TEST(test_bounds),     TEST(test_queued_quota),    TEST(test_daily_quota),
		TEST(test_bytes_quota)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
