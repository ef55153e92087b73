/* Jobs that wait for others: who is claimed when, how failures spread, in whatever way a job ends, and what a retry takes. */
#include "tests/unit/database.h"

#include "db/studies.h"

/* Submits a job that depends on those, of which there may be two; *ret is what db_job_insert fills. */
static enum insert_outcome submit_after(struct fixture *f, const char *output, const char *first, const char *second,
					struct job *ret)
{
	char id[JOB_ID_BYTES];
	const char *ids[] = {first, second};
	enum insert_outcome outcome;
	db_new_id(f->db, id);
	struct submission submission = {.id = id,
					.name = "test",
					.spec = "{\"model\":\"m\"}",
					.output = output,
					.depends_on = ids,
					.n_depends_on = second ? 2 : 1};
	*ret = (struct job){0};
	OK(db_job_insert(f->db, &submission, 100, &outcome, ret, &f->err));
	return outcome;
}

static void after(struct fixture *f, const char *output, const char *first, const char *second, char id[JOB_ID_BYTES])
{
	struct job job;
	assert_int_equal(submit_after(f, output, first, second, &job), INSERT_NEW);
	strcpy(id, job.id);
	job_clear(&job);
}

static void finish(struct fixture *f, const char *id, enum job_state state)
{
	bool failed = state == JOB_FAILED;
	OK(db_job_finish(f->db, id, state, state == JOB_SUCCEEDED ? "{}" : NULL, failed ? "io" : NULL, failed ? "no" : NULL,
			 &f->err));
}

static void expect_job(struct fixture *f, const char *id, enum job_state state, const char *depends_on, const char *waits_for)
{
	struct job job;
	OK(db_job_get(f->db, id, &job, &f->err));
	assert_int_equal(job.state, state);
	assert_string_equal(job.depends_on, depends_on);
	assert_string_equal(job.waits_for, waits_for);
	job_clear(&job);
}

/* It has failed because of `needed`. */
static void expect_lost(struct fixture *f, const char *id, const char *needed, const char *how)
{
	struct job job;
	char message[96];
	OK(db_job_get(f->db, id, &job, &f->err));
	snprintf(message, sizeof message, "it depends on job %s, which %s", needed, how);
	assert_int_equal(job.state, JOB_FAILED);
	assert_string_equal(job.error_code, "dependency");
	assert_string_equal(job.error_message, message);
	assert_true(job.finished_at > 0);
	job_clear(&job);
	expect_events(f, id, "job.queued job.failed");
}

static enum job_state change(struct fixture *f, const char *id,
			     enum status (*fn)(struct db *, const char *, enum change_outcome *, struct job *, struct error *))
{
	enum change_outcome outcome;
	struct job job;
	OK(fn(f->db, id, &outcome, &job, &f->err));
	assert_int_equal(outcome, CHANGE_DONE);
	enum job_state state = job.state;
	job_clear(&job);
	return state;
}

static enum change_outcome retry(struct fixture *f, const char *id)
{
	enum change_outcome outcome;
	struct job job;
	OK(db_job_retry(f->db, id, 100, &outcome, &job, &f->err));
	job_clear(&job);
	return outcome;
}

static void test_waits_in_its_place(void **state)
{
	struct fixture *f = *state;
	char a[JOB_ID_BYTES], b[JOB_ID_BYTES], c[JOB_ID_BYTES], d[JOB_ID_BYTES], list[2 * JOB_ID_BYTES + 8];
	submit(f, "a", 0, false, NULL, NULL, a);
	submit(f, "b", -1, false, NULL, NULL, b);
	after(f, "c", b, a, c);
	submit(f, "d", 0, false, NULL, NULL, d);
	snprintf(list, sizeof list, "[\"%s\",\"%s\"]", a, b);
	expect_job(f, c, JOB_QUEUED, list, list);
	claim(f, a);
	finish(f, a, JOB_SUCCEEDED);
	claim(f, d); /* it goes past the one that waits */
	claim(f, b);
	claim(f, NULL);
	finish(f, b, JOB_SUCCEEDED);
	finish(f, d, JOB_SUCCEEDED);
	submit(f, "e", 0, false, NULL, NULL, d);
	expect_job(f, c, JOB_QUEUED, list, "[]");
	claim(f, c); /* and is still in front of those that came behind it */
	expect_job(f, c, JOB_RUNNING, list, "[]");
	expect_sound(f);
}

static void test_what_cannot_be_depended_on(void **state)
{
	struct fixture *f = *state;
	static const char unknown[] = "01m85j1whand51sh74m987j2rq";
	char a[JOB_ID_BYTES], b[JOB_ID_BYTES];
	struct job job;
	submit(f, "a", 0, false, NULL, NULL, a);
	submit(f, "b", 0, false, NULL, NULL, b);
	assert_int_equal(submit_after(f, "c", a, unknown, &job), INSERT_DEPENDENCY_UNKNOWN);
	assert_string_equal(job.id, unknown);
	change(f, b, db_job_cancel);
	assert_int_equal(submit_after(f, "c", a, b, &job), INSERT_DEPENDENCY_FAILED);
	assert_string_equal(job.id, b);
	assert_int_equal(job.state, JOB_CANCELLED);
	assert_int_equal(scalar(f, "SELECT count(*) FROM jobs"), 2); /* none of these left anything */
	assert_int_equal(scalar(f, "SELECT count(*) FROM dependencies"), 0);
	claim(f, a);
	finish(f, a, JOB_SUCCEEDED);
	after(f, "c", a, NULL, b);
	claim(f, b); /* what has succeeded already is not waited for */
}

static int told;

static void count_told(void *context, const char *id)
{
	(void)context;
	(void)id;
	told++;
}

static void test_failure_spreads(void **state)
{
	struct fixture *f = *state;
	char a[JOB_ID_BYTES], b[JOB_ID_BYTES], c[JOB_ID_BYTES], d[JOB_ID_BYTES], e[JOB_ID_BYTES];
	submit(f, "a", 0, false, NULL, NULL, a);
	after(f, "b", a, NULL, b);
	after(f, "c", b, NULL, c);
	after(f, "d", a, c, d);
	submit(f, "e", 0, false, NULL, NULL, e);
	assert_int_equal(change(f, c, db_job_pause), JOB_PAUSED);
	claim(f, a);
	db_set_listener(f->db, count_told, NULL);
	told = 0;
	finish(f, a, JOB_FAILED);
	assert_int_equal(told, 4);
	expect_lost(f, b, a, "has failed");
	expect_lost(f, d, a, "has failed");
	assert_int_equal(state_of(f, c), JOB_FAILED);
	expect_events(f, c, "job.queued job.paused job.failed");
	assert_int_equal(state_of(f, e), JOB_QUEUED);
	assert_int_equal(scalar(f, "SELECT count(*) FROM notifications"), 4); /* of each end the operator's program is told */
	expect_sound(f);
}

static void test_cancelled_in_each_way(void **state)
{
	struct fixture *f = *state;
	char a[JOB_ID_BYTES], b[JOB_ID_BYTES], c[JOB_ID_BYTES];
	submit(f, "a", 0, false, NULL, NULL, a); /* queued */
	after(f, "b", a, NULL, b);
	assert_int_equal(change(f, a, db_job_cancel), JOB_CANCELLED);
	expect_lost(f, b, a, "was cancelled");
	submit(f, "a", 0, false, NULL, NULL, a); /* waiting */
	after(f, "b", a, NULL, b);
	after(f, "c", b, NULL, c);
	assert_int_equal(change(f, b, db_job_cancel), JOB_CANCELLED);
	expect_lost(f, c, b, "was cancelled");
	after(f, "c", a, NULL, c);
	claim(f, a); /* running */
	assert_int_equal(change(f, a, db_job_cancel), JOB_CANCELLING);
	assert_int_equal(state_of(f, c), JOB_QUEUED);
	OK(db_job_requeue(f->db, a, &f->err));
	expect_lost(f, c, a, "was cancelled");
	submit(f, "a", 0, false, NULL, NULL, a); /* and as the process ended */
	after(f, "b", a, NULL, b);
	claim(f, a);
	change(f, a, db_job_cancel);
	reopen(f);
	struct recovery recovery;
	OK(db_recover(f->db, true, 3, &recovery, &f->err));
	expect_lost(f, b, a, "was cancelled");
	expect_sound(f);
}

static void test_crashes(void **state)
{
	struct fixture *f = *state;
	struct recovery recovery;
	char a[JOB_ID_BYTES], b[JOB_ID_BYTES];
	submit(f, "a", 0, false, NULL, NULL, a);
	after(f, "b", a, NULL, b);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(state_of(f, b), JOB_QUEUED);
		claim(f, a);
		reopen(f);
		OK(db_recover(f->db, true, 2, &recovery, &f->err));
	}
	assert_int_equal(recovery.failed, 1);
	expect_lost(f, b, a, "has failed");
}

/* One that is tried again has not failed. */
static void test_tried_again(void **state)
{
	struct fixture *f = *state;
	char a[JOB_ID_BYTES], b[JOB_ID_BYTES];
	int64_t retry_at;
	submit(f, "a", 0, false, NULL, NULL, a);
	after(f, "b", a, NULL, b);
	claim(f, a);
	OK(db_job_fail(f->db, a, "io", "no", &(struct retry_rule){1, 0}, &retry_at, &f->err));
	assert_int_equal(state_of(f, b), JOB_QUEUED);
	claim(f, a);
	OK(db_job_fail(f->db, a, "io", "no", &(struct retry_rule){1, 0}, &retry_at, &f->err));
	expect_lost(f, b, a, "has failed");
}

static void test_retry(void **state)
{
	struct fixture *f = *state;
	enum change_outcome outcome;
	char a[JOB_ID_BYTES], b[JOB_ID_BYTES];
	submit(f, "a", 0, false, NULL, NULL, a);
	after(f, "b", a, NULL, b);
	claim(f, a);
	finish(f, a, JOB_FAILED);
	assert_int_equal(retry(f, b), CHANGE_DEPENDENCY);
	assert_int_equal(state_of(f, b), JOB_FAILED);
	assert_int_equal(retry(f, a), CHANGE_DONE);
	assert_int_equal(state_of(f, b), JOB_FAILED); /* it is not queued by itself */
	assert_int_equal(retry(f, b), CHANGE_DONE);
	claim(f, a);
	claim(f, NULL);
	finish(f, a, JOB_SUCCEEDED);
	claim(f, b);
	finish(f, b, JOB_FAILED);
	/* What has succeeded may be forgotten, and was all the same. */
	OK(db_job_delete(f->db, a, &outcome, &f->err));
	assert_int_equal(retry(f, b), CHANGE_DONE);
	claim(f, b);
	finish(f, b, JOB_FAILED);

	submit(f, "a", 0, false, NULL, NULL, a);
	after(f, "c", a, NULL, b);
	claim(f, a);
	finish(f, a, JOB_FAILED);
	OK(db_job_delete(f->db, a, &outcome, &f->err));
	assert_int_equal(retry(f, b), CHANGE_DEPENDENCY); /* what failed and is forgotten will not succeed */
	OK(db_job_delete(f->db, b, &outcome, &f->err));
	assert_int_equal(scalar(f, "SELECT count(*) FROM dependencies"), 1);
	expect_sound(f);
}

static void test_a_study_is_cancelled(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES], of_study[JOB_ID_BYTES], after_it[JOB_ID_BYTES];
	enum insert_outcome inserted;
	enum change_outcome outcome;
	size_t claimed;
	db_new_id(f->db, id);
	db_new_id(f->db, of_study);
	struct study_submission study = {.id = id, .name = "", .spec = "{}", .grid = "{}", .count = 1};
	study.jobs = calloc(1, sizeof *study.jobs);
	assert_non_null(study.jobs);
	study.jobs->job = (struct submission){.id = of_study, .name = "", .spec = "{}", .output = "s"};
	study.jobs->settings = "{}";
	OK(db_study_insert(f->db, &study, 100, &inserted, id, &claimed, &f->err));
	free(study.jobs);
	after(f, "b", of_study, NULL, after_it);
	OK(db_study_cancel(f->db, id, &outcome, &f->err));
	expect_lost(f, after_it, of_study, "was cancelled");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_waits_in_its_place),
		TEST(test_what_cannot_be_depended_on),
		TEST(test_failure_spreads),
		TEST(test_cancelled_in_each_way),
		TEST(test_crashes),
		TEST(test_tried_again),
		TEST(test_retry),
		TEST(test_a_study_is_cancelled),

	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
