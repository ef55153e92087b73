/* Studies in the database: all jobs or none, keys, the table of rows through a job's life and beyond, cancel, forget. */
#include "tests/unit/database.h"

#include "db/studies.h"

enum { JOBS = 3, LIMIT = 5 };

/* Submits a study of JOBS jobs that write to below `output`; its id goes to `id`. */
static enum insert_outcome submit_study(struct fixture *f, const char *output, const char *key, const char *request,
					char id[JOB_ID_BYTES])
{
	static char outputs[JOBS][64], ids[JOBS][JOB_ID_BYTES], settings[JOBS][32];
	char study[JOB_ID_BYTES];
	size_t claimed;
	enum insert_outcome outcome;
	struct study_submission new = {
		.id = study, .name = "test", .spec = "{}", .grid = "{}", .idempotency_key = key, .request = request, .count = JOBS};
	db_new_id(f->db, study);
	new.jobs = calloc(JOBS, sizeof *new.jobs);
	for (int i = 0; i < JOBS; i++) {
		db_new_id(f->db, ids[i]);
		snprintf(outputs[i], sizeof outputs[i], "%s/%d", output, i + 1);
		snprintf(settings[i], sizeof settings[i], "{\"i\":%d}", i);
		new.jobs[i].job = (struct submission){.id = ids[i], .spec = "{\"model\":\"m\"}", .output = outputs[i]};
		new.jobs[i].settings = settings[i];
	}
	OK(db_study_insert(f->db, &new, LIMIT, &outcome, id, &claimed, &f->err));
	if (outcome == INSERT_OUTPUT_CLAIMED) assert_int_equal(claimed, 1);
	free(new.jobs);
	return outcome;
}

static void get(struct fixture *f, const char *id, struct study *study, struct study_rows *rows)
{
	OK(db_study_get(f->db, id, study, rows, &f->err));
	assert_int_equal(rows->count, JOBS);
}

static void clear(struct study *study, struct study_rows *rows)
{
	study_clear(study);
	study_rows_clear(rows);
}

static void test_all_or_none(void **state)
{
	struct fixture *f = *state;
	struct study study;
	struct study_rows rows;
	char id[JOB_ID_BYTES], next[JOB_ID_BYTES];
	assert_int_equal(submit_study(f, "s", NULL, NULL, id), INSERT_NEW);
	get(f, id, &study, &rows);
	assert_string_equal(study.name, "test");
	assert_int_equal(study.counts[JOB_QUEUED], JOBS);
	for (int i = 0; i < JOBS; i++) {
		char settings[32];
		snprintf(settings, sizeof settings, "{\"i\":%d}", i);
		assert_string_equal(rows.rows[i].settings, settings);
		assert_false(rows.rows[i].forgotten);
		expect_events(f, rows.rows[i].job.id, "job.queued");
	}
	clear(&study, &rows);

	/* The queue takes 2 more, and a study has 3. */
	assert_int_equal(submit_study(f, "t", NULL, NULL, next), INSERT_QUEUE_FULL);
	assert_int_equal(scalar(f, "SELECT count(*) FROM jobs"), JOBS);
	assert_int_equal(scalar(f, "SELECT count(*) FROM studies"), 1);
	assert_int_equal(scalar(f, "SELECT count(*) FROM study_jobs"), JOBS);

	/* The second output of it is another job's. */
	enum change_outcome outcome;
	OK(db_study_cancel(f->db, id, &outcome, &f->err));
	assert_int_equal(submit(f, "u/2", 0, false, NULL, NULL, NULL), INSERT_NEW);
	assert_int_equal(submit_study(f, "u", NULL, NULL, next), INSERT_OUTPUT_CLAIMED);
	assert_int_equal(scalar(f, "SELECT count(*) FROM jobs"), JOBS + 1);
	assert_int_equal(scalar(f, "SELECT count(*) FROM studies"), 1);
	assert_int_equal(db_study_get(f->db, "00000000000000000000000000", &study, &rows, &f->err), STATUS_NOT_FOUND);
	expect_sound(f);
}

static void test_key(void **state)
{
	struct fixture *f = *state;
	char first[JOB_ID_BYTES], again[JOB_ID_BYTES];
	enum insert_outcome outcome;
	assert_int_equal(submit_study(f, "s", "key", "{\"a\":1,\"b\":2}", first), INSERT_NEW);
	assert_int_equal(submit_study(f, "t", "key", "{\"a\":1,\"b\":2}", again), INSERT_REPLAY);
	assert_string_equal(first, again);
	assert_int_equal(submit_study(f, "t", "key", "{\"a\":2,\"b\":2}", again), INSERT_KEY_REUSED);
	OK(db_study_find_key(f->db, "key", "{\"a\":1,\"b\":2}", &outcome, again, &f->err));
	assert_int_equal(outcome, INSERT_REPLAY);
	assert_string_equal(first, again);
	OK(db_study_find_key(f->db, "other", "{}", &outcome, again, &f->err));
	assert_int_equal(outcome, INSERT_NEW);
	assert_int_equal(submit(f, "j", 0, false, "key", "{}", NULL), INSERT_NEW); /* jobs have keys of their own */
	assert_int_equal(scalar(f, "SELECT count(*) FROM studies"), 1);
}

static void test_rows_outlive_jobs(void **state)
{
	struct fixture *f = *state;
	struct study study;
	struct study_rows rows;
	struct study_list list;
	struct job job;
	bool found;
	enum change_outcome outcome;
	char id[JOB_ID_BYTES], second[JOB_ID_BYTES];
	submit_study(f, "s", NULL, NULL, id);
	OK(db_job_claim(f->db, &found, &job, &f->err));
	OK(db_job_finish(f->db, job.id, JOB_SUCCEEDED, "{\"zeros\":7}", NULL, NULL, &f->err));
	OK(db_job_delete(f->db, job.id, &outcome, &f->err));
	assert_int_equal(outcome, CHANGE_DONE);
	get(f, id, &study, &rows);
	assert_true(rows.rows[0].forgotten);
	assert_string_equal(rows.rows[0].job.id, job.id);
	assert_int_equal(rows.rows[0].job.state, JOB_SUCCEEDED);
	assert_string_equal(rows.rows[0].job.result, "{\"zeros\":7}");
	assert_int_equal(study.counts[JOB_SUCCEEDED], 1);
	assert_int_equal(study.counts[JOB_QUEUED], JOBS - 1);
	clear(&study, &rows);
	job_clear(&job);

	OK(db_job_claim(f->db, &found, &job, &f->err));
	OK(db_job_finish(f->db, job.id, JOB_FAILED, NULL, "numeric", "a NaN", &f->err));
	get(f, id, &study, &rows);
	assert_string_equal(rows.rows[1].job.error_code, "numeric");
	assert_false(rows.rows[1].forgotten);
	clear(&study, &rows);
	job_clear(&job);

	OK(db_study_delete(f->db, id, &outcome, &f->err));
	assert_int_equal(outcome, CHANGE_WRONG_STATE);
	assert_int_equal(scalar(f, "SELECT count(*) FROM jobs"), JOBS - 1);
	OK(db_study_cancel(f->db, id, &outcome, &f->err));
	assert_int_equal(submit_study(f, "s", NULL, NULL, second), INSERT_NEW); /* what is finished claims nothing */
	OK(db_study_list(f->db, NULL, 1, &list, &f->err));
	assert_int_equal(list.count, 1);
	assert_true(list.more);
	assert_string_equal(list.studies[0].id, second);
	study_list_clear(&list);
	OK(db_study_list(f->db, second, 9, &list, &f->err));
	assert_int_equal(list.count, 1);
	assert_false(list.more);
	assert_string_equal(list.studies[0].id, id);
	assert_int_equal(list.studies[0].counts[JOB_CANCELLED], 1);
	study_list_clear(&list);

	OK(db_study_delete(f->db, id, &outcome, &f->err));
	assert_int_equal(outcome, CHANGE_DONE);
	assert_int_equal(scalar(f, "SELECT count(*) FROM jobs"), JOBS);
	assert_int_equal(scalar(f, "SELECT count(*) FROM study_jobs"), JOBS);
	assert_int_equal(db_study_delete(f->db, id, &outcome, &f->err), STATUS_NOT_FOUND);
	expect_sound(f);
}

static void heard(void *context, const char *job_id)
{
	(void)job_id;
	++*(int *)context;
}

static void test_cancel(void **state)
{
	struct fixture *f = *state;
	struct study study;
	struct study_rows rows;
	struct job job;
	bool found;
	enum change_outcome outcome;
	char id[JOB_ID_BYTES];
	int news = 0;
	db_set_listener(f->db, heard, &news);
	submit_study(f, "s", NULL, NULL, id);
	assert_int_equal(news, JOBS);
	OK(db_job_claim(f->db, &found, &job, &f->err));
	job_clear(&job);
	news = 0;
	for (int i = 0; i < 2; i++) { /* again changes nothing */
		OK(db_study_cancel(f->db, id, &outcome, &f->err));
		assert_int_equal(outcome, CHANGE_DONE);
		assert_int_equal(news, JOBS - 1); /* of those that it ended */
	}
	get(f, id, &study, &rows);
	assert_int_equal(rows.rows[0].job.state, JOB_CANCELLING);
	assert_int_equal(rows.rows[1].job.state, JOB_CANCELLED);
	assert_int_equal(rows.rows[2].job.state, JOB_CANCELLED);
	expect_events(f, rows.rows[2].job.id, "job.queued job.cancelled");
	clear(&study, &rows);
	assert_int_equal(db_study_cancel(f->db, "00000000000000000000000000", &outcome, &f->err), STATUS_NOT_FOUND);

	assert_int_equal(submit_study(f, "t", NULL, NULL, id), INSERT_NEW);
	for (int i = 0; i < JOBS; i++) {
		OK(db_job_claim(f->db, &found, &job, &f->err));
		OK(db_job_finish(f->db, job.id, JOB_SUCCEEDED, "{}", NULL, NULL, &f->err));
		job_clear(&job);
	}
	OK(db_study_cancel(f->db, id, &outcome, &f->err));
	assert_int_equal(outcome, CHANGE_WRONG_STATE);
	db_set_listener(f->db, NULL, NULL);
	expect_sound(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_all_or_none), TEST(test_key), TEST(test_rows_outlive_jobs), TEST(test_cancel)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
