/* The queue in the database: idempotency, claims, order, every transition of a job's state, recovery, lists. */
#include "tests/unit/database.h"

#include "base/clock.h"

static void test_idempotency(void **state)
{
	struct fixture *f = *state;
	char first[JOB_ID_BYTES], second[JOB_ID_BYTES];
	struct job job = {0};
	enum insert_outcome outcome;
	assert_int_equal(submit(f, "a", 0, false, "key", "{\"x\":1}", first), INSERT_NEW);
	assert_int_equal(submit(f, "b", 0, false, "key", "{\"x\":1}", second), INSERT_REPLAY);
	assert_string_equal(first, second);
	assert_int_equal(submit(f, "b", 0, false, "key", "{\"x\":2}", NULL), INSERT_KEY_REUSED);
	assert_int_equal(submit(f, "b", 0, false, "other", "{\"x\":1}", NULL), INSERT_NEW);

	OK(db_job_find_key(f->db, "key", "{\"x\":1}", &outcome, &job, &f->err));
	assert_int_equal(outcome, INSERT_REPLAY);
	assert_string_equal(job.id, first);
	job_clear(&job);
	OK(db_job_find_key(f->db, "key", "{}", &outcome, &job, &f->err));
	assert_int_equal(outcome, INSERT_KEY_REUSED);
	/* A besad that did not sort them stored them as they came. */
	assert_int_equal(submit(f, "c", 0, false, "earlier", "{\"y\":{\"b\":1,\"a\":2},\"x\":[1]}", first), INSERT_NEW);
	assert_int_equal(submit(f, "d", 0, false, "earlier", "{\"x\":[1],\"y\":{\"a\":2,\"b\":1}}", second), INSERT_REPLAY);
	assert_string_equal(first, second);
	assert_int_equal(submit(f, "d", 0, false, "earlier", "{\"x\":[1],\"y\":{\"a\":2,\"b\":2}}", NULL), INSERT_KEY_REUSED);
	OK(db_job_find_key(f->db, "unknown", "{}", &outcome, &job, &f->err));
	assert_int_equal(outcome, INSERT_NEW);
	expect_events(f, first, "job.queued");
}

static void test_output_claims(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	struct job job;
	enum change_outcome outcome;
	assert_int_equal(submit(f, "a/b", 0, false, NULL, NULL, id), INSERT_NEW);
	assert_int_equal(submit(f, "a/b", 0, false, NULL, NULL, NULL), INSERT_OUTPUT_CLAIMED);
	assert_int_equal(submit(f, "a/b/c", 0, false, NULL, NULL, NULL), INSERT_OUTPUT_CLAIMED);
	assert_int_equal(submit(f, "a", 0, false, NULL, NULL, NULL), INSERT_OUTPUT_CLAIMED);
	assert_int_equal(submit(f, "a/bc", 0, false, NULL, NULL, NULL), INSERT_NEW);
	assert_int_equal(submit(f, "a/b", 0, true, NULL, NULL, NULL), INSERT_NEW);

	/* A finished job claims nothing; its retry claims again. */
	assert_int_equal(submit(f, "r", 0, false, NULL, NULL, id), INSERT_NEW);
	OK(db_job_cancel(f->db, id, &outcome, &job, &f->err));
	job_clear(&job);
	assert_int_equal(submit(f, "r", 0, false, NULL, NULL, NULL), INSERT_NEW);
	OK(db_job_retry(f->db, id, 9, &outcome, &job, &f->err));
	assert_int_equal(outcome, CHANGE_OUTPUT_CLAIMED);
	assert_int_equal(job.state, JOB_CANCELLED);
	job_clear(&job);
}

static void test_queue_limit(void **state)
{
	struct fixture *f = *state;
	char output[2] = "a", id[JOB_ID_BYTES];
	struct job job;
	enum change_outcome outcome;
	for (; output[0] < 'f'; output[0]++)
		assert_int_equal(submit(f, output, 0, false, NULL, NULL, id), INSERT_NEW);
	assert_int_equal(submit(f, "x", 0, false, NULL, NULL, NULL), INSERT_QUEUE_FULL);
	OK(db_job_cancel(f->db, id, &outcome, &job, &f->err));
	job_clear(&job);
	assert_int_equal(submit(f, "x", 0, false, NULL, NULL, NULL), INSERT_NEW);
	OK(db_job_retry(f->db, id, 5, &outcome, &job, &f->err));
	assert_int_equal(outcome, CHANGE_QUEUE_FULL);
	job_clear(&job);
}

static void test_priority_then_age(void **state)
{
	struct fixture *f = *state;
	char a[JOB_ID_BYTES], b[JOB_ID_BYTES], c[JOB_ID_BYTES], d[JOB_ID_BYTES];
	submit(f, "a", 0, false, NULL, NULL, a);
	submit(f, "b", 5, false, NULL, NULL, b);
	submit(f, "c", 5, false, NULL, NULL, c);
	submit(f, "d", -5, false, NULL, NULL, d);
	claim(f, b);
	claim(f, c);
	claim(f, a);
	claim(f, d);
	claim(f, NULL);
}

static void test_life_of_a_job(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	struct job job;
	char **blocks;
	size_t count;
	struct job_progress progress = {.phase = "pruning", .block = 1, .blocks = 2, .fraction = 0.5, .eta_seconds = 3};
	submit(f, "a", 0, false, NULL, NULL, id);
	claim(f, id);
	OK(db_event_append(f->db, id, &(struct new_event){"block.started", "{\"block\":0}", 1, false}, NULL, &f->err));
	OK(db_block_commit(f->db, id, 0, "{\"block\":0}", 1, NULL, &f->err));
	assert_int_equal(db_block_commit(f->db, id, 0, "{\"block\":0}", 1, NULL, &f->err), STATUS_INTERNAL);
	assert_int_equal(db_block_commit(f->db, id, 2, "{\"block\":2}", 1, NULL, &f->err), STATUS_INTERNAL);
	assert_int_equal(db_block_commit(f->db, id, 1, "not json", 1, NULL, &f->err), STATUS_INTERNAL);
	OK(db_block_commit(f->db, id, 1, "{\"block\":1}", 1, &progress, &f->err));
	OK(db_block_list(f->db, id, &blocks, &count, &f->err));
	assert_int_equal(count, 2);
	assert_string_equal(blocks[1], "{\"block\":1}");
	text_list_free(blocks, count);
	OK(db_job_finish(f->db, id, JOB_SUCCEEDED, "{\"seconds\":1}", NULL, NULL, &f->err));
	assert_int_equal(db_job_finish(f->db, id, JOB_CANCELLED, NULL, NULL, NULL, &f->err), STATUS_INTERNAL);

	OK(db_job_get(f->db, id, &job, &f->err));
	assert_int_equal(job.state, JOB_SUCCEEDED);
	assert_string_equal(job.result, "{\"seconds\":1}");
	assert_int_equal(job.blocks_done, 2);
	assert_int_equal(job.attempt, 1);
	assert_string_equal(job.progress.phase, "pruning");
	assert_true(job.progress.fraction == 1.0);
	assert_true(job.created_at > 0 && job.started_at >= job.created_at && job.finished_at >= job.started_at);
	job_clear(&job);
	expect_events(f, id, "job.queued job.started block.started block.finished block.finished job.succeeded");
	expect_sound(f);
}

static void test_failure_keeps_every_character(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	struct event_list list;
	struct job job;
	submit(f, "a", 0, false, NULL, NULL, id);
	claim(f, id);
	OK(db_job_finish(f->db, id, JOB_FAILED, NULL, "io", "a \"quoted\" \\ name\n", &f->err));
	OK(db_event_list(f->db, id, 2, 1, &list, &f->err));
	assert_string_equal(list.events[0].data, "{\"code\":\"io\",\"message\":\"a \\\"quoted\\\" \\\\ name\\n\"}");
	assert_int_equal(list.state, JOB_FAILED);
	event_list_clear(&list);
	OK(db_job_get(f->db, id, &job, &f->err));
	assert_string_equal(job.error_message, "a \"quoted\" \\ name\n");
	job_clear(&job);
}

static void test_cancel_retry_delete(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	struct job job;
	enum change_outcome outcome;
	submit(f, "a", 0, false, NULL, NULL, id);
	claim(f, id);
	OK(db_block_commit(f->db, id, 0, "{}", 1, NULL, &f->err));
	OK(db_job_delete(f->db, id, &outcome, &f->err));
	assert_int_equal(outcome, CHANGE_WRONG_STATE);
	OK(db_job_retry(f->db, id, 5, &outcome, &job, &f->err));
	assert_int_equal(outcome, CHANGE_WRONG_STATE);
	job_clear(&job);
	for (int i = 0; i < 2; i++) {
		OK(db_job_cancel(f->db, id, &outcome, &job, &f->err));
		assert_int_equal(outcome, CHANGE_DONE);
		assert_int_equal(job.state, JOB_CANCELLING);
		job_clear(&job);
	}
	OK(db_job_finish(f->db, id, JOB_CANCELLED, NULL, NULL, NULL, &f->err));
	OK(db_job_cancel(f->db, id, &outcome, &job, &f->err));
	assert_int_equal(outcome, CHANGE_DONE);
	job_clear(&job);

	OK(db_job_retry(f->db, id, 5, &outcome, &job, &f->err));
	assert_int_equal(outcome, CHANGE_DONE);
	assert_int_equal(job.state, JOB_QUEUED);
	assert_int_equal(job.blocks_done, 1);
	assert_int_equal(job.finished_at, 0);
	job_clear(&job);
	claim(f, id);
	OK(db_job_finish(f->db, id, JOB_SUCCEEDED, "{}", NULL, NULL, &f->err));
	OK(db_job_cancel(f->db, id, &outcome, &job, &f->err));
	assert_int_equal(outcome, CHANGE_WRONG_STATE);
	job_clear(&job);
	expect_events(f, id, "job.queued job.started block.finished job.cancelled job.queued job.started job.succeeded");

	OK(db_job_delete(f->db, id, &outcome, &f->err));
	assert_int_equal(outcome, CHANGE_DONE);
	assert_int_equal(db_job_get(f->db, id, &job, &f->err), STATUS_NOT_FOUND);
	assert_int_equal(db_job_delete(f->db, id, &outcome, &f->err), STATUS_NOT_FOUND);
	assert_int_equal(scalar(f, "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM blocks)"), 0);
}

static void test_recovery(void **state)
{
	struct fixture *f = *state;
	char a[JOB_ID_BYTES], b[JOB_ID_BYTES], c[JOB_ID_BYTES];
	struct job job;
	enum change_outcome outcome;
	struct recovery recovery;
	submit(f, "a", 2, false, NULL, NULL, a);
	submit(f, "b", 1, false, NULL, NULL, b);
	submit(f, "c", 0, false, NULL, NULL, c);
	claim(f, a);
	claim(f, b);
	OK(db_job_cancel(f->db, b, &outcome, &job, &f->err));
	job_clear(&job);
	reopen(f);
	OK(db_recover(f->db, true, 5, &recovery, &f->err));
	assert_int_equal(recovery.requeued, 2);
	assert_int_equal(recovery.failed, 0);
	assert_int_equal(state_of(f, a), JOB_QUEUED);
	assert_int_equal(state_of(f, b), JOB_CANCELLED);
	assert_int_equal(state_of(f, c), JOB_QUEUED);
	claim(f, a);
	OK(db_job_get(f->db, a, &job, &f->err));
	assert_int_equal(job.attempt, 2);
	job_clear(&job);
	expect_events(f, a, "job.queued job.started job.queued job.started");
	expect_events(f, b, "job.queued job.started job.cancelled");
}

/* One attempt that ends with the process, after it has told of `type` where that is not NULL. */
static void crash(struct fixture *f, const char *id, const char *type, const char *data, int64_t max_attempts, struct recovery *ret)
{
	const struct new_event event = {.type = type, .data = data, .at = 1};
	claim(f, id);
	if (type) OK(db_event_append(f->db, id, &event, NULL, &f->err));
	reopen(f);
	OK(db_recover(f->db, true, max_attempts, ret, &f->err));
}

static void test_crashes_in_a_row(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	struct job job;
	struct recovery recovery;
	enum change_outcome outcome;
	submit(f, "a", 0, false, NULL, NULL, id);
	crash(f, id, "block.started", "{}", 2, &recovery);
	/* What gets on breaks the row: a block, an evaluation, a later step of the tune; a stop is no crash. */
	claim(f, id);
	OK(db_block_commit(f->db, id, 0, "{}", 1, NULL, &f->err));
	reopen(f);
	OK(db_recover(f->db, true, 2, &recovery, &f->err));
	crash(f, id, "tune.step", "{\"step\":7}", 2, &recovery);
	crash(f, id, "tune.step", "{\"step\":7}", 2, &recovery);
	crash(f, id, "tune.step", "{\"step\":8}", 2, &recovery);
	crash(f, id, NULL, NULL, 2, &recovery);
	crash(f, id, "eval.finished", "{}", 2, &recovery);
	crash(f, id, NULL, NULL, 2, &recovery);
	claim(f, id);
	OK(db_job_requeue(f->db, id, &f->err));
	assert_int_equal(state_of(f, id), JOB_QUEUED);
	assert_int_equal(recovery.failed, 0);

	crash(f, id, "block.started", "{}", 0, &recovery);
	assert_int_equal(state_of(f, id), JOB_QUEUED);
	crash(f, id, "block.started", "{}", 2, &recovery);
	assert_int_equal(recovery.requeued, 0);
	assert_int_equal(recovery.failed, 1);
	assert_string_equal(recovery.id, id);
	OK(db_job_get(f->db, id, &job, &f->err));
	assert_int_equal(job.state, JOB_FAILED);
	assert_string_equal(job.error_code, "crashed");
	assert_int_equal(job.blocks_done, 1);
	job_clear(&job);

	/* A retry begins anew. */
	OK(db_job_retry(f->db, id, 10, &outcome, NULL, &f->err));
	crash(f, id, NULL, NULL, 2, &recovery);
	assert_int_equal(state_of(f, id), JOB_QUEUED);
	crash(f, id, NULL, NULL, 2, &recovery);
	assert_int_equal(state_of(f, id), JOB_FAILED);
}

static void test_an_end_in_order_is_no_crash(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	struct recovery recovery;
	submit(f, "a", 0, false, NULL, NULL, id);
	for (int i = 0; i < 3; i++) {
		crash(f, id, NULL, NULL, 2, &recovery);
		assert_int_equal(state_of(f, id), JOB_QUEUED);
		claim(f, id);
		OK(db_job_requeue(f->db, id, &f->err));
	}
	/* Nor is one of which nothing could be written. */
	for (int i = 0; i < 3; i++) {
		crash(f, id, NULL, NULL, 2, &recovery);
		assert_int_equal(state_of(f, id), JOB_QUEUED);
		claim(f, id);
		reopen(f);
		OK(db_recover(f->db, false, 2, &recovery, &f->err));
		assert_int_equal(recovery.requeued, 1);
	}
	crash(f, id, NULL, NULL, 2, &recovery);
	crash(f, id, NULL, NULL, 2, &recovery);
	assert_int_equal(state_of(f, id), JOB_FAILED);
}

static enum job_state pause_it(struct fixture *f, const char *id, enum change_outcome wanted)
{
	struct job job;
	enum change_outcome outcome;
	OK(db_job_pause(f->db, id, &outcome, &job, &f->err));
	assert_int_equal(outcome, wanted);
	enum job_state state = job.state;
	job_clear(&job);
	return state;
}

static enum job_state resume_it(struct fixture *f, const char *id, int64_t limit, enum change_outcome wanted)
{
	struct job job;
	enum change_outcome outcome;
	OK(db_job_resume(f->db, id, limit, &outcome, &job, &f->err));
	assert_int_equal(outcome, wanted);
	enum job_state state = job.state;
	job_clear(&job);
	return state;
}

static void test_pause_and_resume(void **state)
{
	struct fixture *f = *state;
	char first[JOB_ID_BYTES], second[JOB_ID_BYTES];
	struct job job;
	struct recovery recovery;
	enum change_outcome outcome;
	submit(f, "a", 0, false, NULL, NULL, first);
	submit(f, "b", 0, false, NULL, NULL, second);

	/* One that waits is not claimed, and keeps its output. */
	assert_int_equal(pause_it(f, first, CHANGE_DONE), JOB_PAUSED);
	assert_int_equal(pause_it(f, first, CHANGE_DONE), JOB_PAUSED);
	assert_int_equal(submit(f, "a", 0, false, NULL, NULL, NULL), INSERT_OUTPUT_CLAIMED);
	claim(f, second);
	claim(f, NULL);
	assert_int_equal(resume_it(f, first, 0, CHANGE_QUEUE_FULL), JOB_PAUSED);
	assert_int_equal(resume_it(f, first, 1, CHANGE_DONE), JOB_QUEUED);
	assert_int_equal(resume_it(f, first, 1, CHANGE_DONE), JOB_QUEUED);
	expect_events(f, first, "job.queued job.paused job.queued");

	/* One that runs ends first; also by a crash. */
	assert_int_equal(pause_it(f, second, CHANGE_DONE), JOB_PAUSING);
	assert_int_equal(pause_it(f, second, CHANGE_DONE), JOB_PAUSING);
	OK(db_job_requeue(f->db, second, &f->err));
	assert_int_equal(state_of(f, second), JOB_PAUSED);
	claim(f, first);
	assert_int_equal(pause_it(f, first, CHANGE_DONE), JOB_PAUSING);
	reopen(f);
	OK(db_recover(f->db, true, 1, &recovery, &f->err));
	assert_int_equal(recovery.requeued, 1);
	assert_int_equal(state_of(f, first), JOB_PAUSED);
	claim(f, NULL);
	expect_events(f, first, "job.queued job.paused job.queued job.started job.paused");

	/* Resumed too early, it runs on in another attempt. */
	assert_int_equal(resume_it(f, first, 9, CHANGE_DONE), JOB_QUEUED);
	claim(f, first);
	assert_int_equal(pause_it(f, first, CHANGE_DONE), JOB_PAUSING);
	assert_int_equal(resume_it(f, first, 0, CHANGE_DONE), JOB_RUNNING);
	OK(db_job_requeue(f->db, first, &f->err));
	claim(f, first);

	/* What has just succeeded is not paused, and a paused one can be cancelled, not retried or deleted. */
	assert_int_equal(pause_it(f, first, CHANGE_DONE), JOB_PAUSING);
	OK(db_job_finish(f->db, first, JOB_SUCCEEDED, "{}", NULL, NULL, &f->err));
	assert_int_equal(pause_it(f, first, CHANGE_WRONG_STATE), JOB_SUCCEEDED);
	assert_int_equal(resume_it(f, first, 9, CHANGE_WRONG_STATE), JOB_SUCCEEDED);
	OK(db_job_retry(f->db, second, 9, &outcome, &job, &f->err));
	assert_int_equal(outcome, CHANGE_WRONG_STATE);
	job_clear(&job);
	OK(db_job_delete(f->db, second, &outcome, &f->err));
	assert_int_equal(outcome, CHANGE_WRONG_STATE);
	OK(db_job_cancel(f->db, second, &outcome, &job, &f->err));
	assert_int_equal(job.state, JOB_CANCELLED);
	job_clear(&job);
	expect_events(f, second, "job.queued job.started job.paused job.cancelled");
	expect_sound(f);
}

/* `job` is running, and fails; when it is to be tried again, by what the function says and the job itself. */
static int64_t fail_it(struct fixture *f, const char *id, int64_t most, int64_t delay)
{
	int64_t at = -1;
	struct job job;
	OK(db_job_fail(f->db, id, "io", "no \"disk\"", &(struct retry_rule){most, delay}, &at, &f->err));
	OK(db_job_get(f->db, id, &job, &f->err));
	assert_int_equal(job.state, at ? JOB_QUEUED : JOB_FAILED);
	assert_int_equal(job.retry_at, at);
	assert_int_equal(job.error_code != NULL, at == 0);
	job_clear(&job);
	return at;
}

static void expect_delay(int64_t before, int64_t at, int64_t delay)
{
	assert_in_range(at, before + delay, unix_milliseconds() + delay);
}

static void test_failures_are_tried_again(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES], other[JOB_ID_BYTES];
	struct job job;
	enum change_outcome outcome;
	struct event_list events;
	int64_t next = -1, now = unix_milliseconds();
	submit(f, "a", 1, false, NULL, NULL, id);
	submit(f, "b", 0, false, NULL, NULL, other);
	OK(db_job_next_retry(f->db, &next, &f->err));
	assert_int_equal(next, 0);

	/* It waits for its time, also behind a restart, and others run meanwhile. */
	claim(f, id);
	int64_t at = fail_it(f, id, 2, 1000000);
	expect_delay(now, at, 1000000);
	OK(db_event_list(f->db, id, 2, 9, &events, &f->err));
	assert_int_equal(events.count, 1);
	assert_non_null(strstr(events.events[0].data, "{\"reason\":\"failed\",\"code\":\"io\",\"message\":\"no \\\"disk\\\"\","));
	event_list_clear(&events);
	reopen(f);
	struct recovery recovery;
	OK(db_recover(f->db, true, 1, &recovery, &f->err));
	OK(db_job_next_retry(f->db, &next, &f->err));
	assert_int_equal(next, at);
	claim(f, other);
	claim(f, NULL);

	/* The next wait is twice as long, never more than an hour, and so often in a row; what was paused and goes on waits no
	 * more. */
	assert_int_equal(pause_it(f, id, CHANGE_DONE), JOB_PAUSED);
	assert_int_equal(resume_it(f, id, 9, CHANGE_DONE), JOB_QUEUED);
	claim(f, id);
	now = unix_milliseconds();
	at = fail_it(f, id, 2, 1000000);
	expect_delay(now, at, 2000000);
	assert_int_equal(pause_it(f, id, CHANGE_DONE), JOB_PAUSED);
	assert_int_equal(resume_it(f, id, 9, CHANGE_DONE), JOB_QUEUED);
	claim(f, id);
	now = unix_milliseconds();
	at = fail_it(f, id, 3, 1000000);
	expect_delay(now, at, 3600000);
	OK(db_job_cancel(f->db, id, &outcome, &job, &f->err));
	assert_int_equal(job.state, JOB_CANCELLED);
	job_clear(&job);
	OK(db_job_next_retry(f->db, &next, &f->err));
	assert_int_equal(next, 0);

	/* A retry begins a new row, and so does a finished block; a job that is to end otherwise has failed. */
	OK(db_job_retry(f->db, id, 9, &outcome, &job, &f->err));
	assert_int_equal(job.retry_at, 0);
	job_clear(&job);
	claim(f, id);
	assert_true(fail_it(f, id, 1, 0) > 0);
	claim(f, id);
	OK(db_block_commit(f->db, id, 0, "{}", 1, &(struct job_progress){0}, &f->err));
	assert_true(fail_it(f, id, 1, 0) > 0);
	claim(f, id);
	assert_int_equal(fail_it(f, id, 1, 0), 0);
	assert_int_equal(pause_it(f, other, CHANGE_DONE), JOB_PAUSING);
	assert_int_equal(fail_it(f, other, 9, 0), 0);
	expect_sound(f);
}

static void test_list_pages(void **state)
{
	struct fixture *f = *state;
	const struct job_filter all = {.state = -1}, queued = {.state = JOB_QUEUED};
	char ids[4][JOB_ID_BYTES], output[2] = "a";
	struct job_list list;
	struct job job;
	enum change_outcome outcome;
	int64_t counts[JOB_STATES];
	for (int i = 0; i < 4; i++, output[0]++)
		submit(f, output, 0, false, NULL, NULL, ids[i]);
	OK(db_job_cancel(f->db, ids[1], &outcome, &job, &f->err));
	job_clear(&job);

	OK(db_job_list(f->db, &all, NULL, 3, &list, &f->err));
	assert_int_equal(list.count, 3);
	assert_true(list.more);
	assert_string_equal(list.jobs[0].id, ids[3]);
	assert_string_equal(list.jobs[2].id, ids[1]);
	job_list_clear(&list);
	OK(db_job_list(f->db, &all, ids[1], 3, &list, &f->err));
	assert_int_equal(list.count, 1);
	assert_false(list.more);
	assert_string_equal(list.jobs[0].id, ids[0]);
	job_list_clear(&list);
	OK(db_job_list(f->db, &queued, ids[3], 2, &list, &f->err));
	assert_int_equal(list.count, 2);
	assert_false(list.more);
	assert_string_equal(list.jobs[1].id, ids[0]);
	job_list_clear(&list);

	OK(db_job_counts(f->db, counts, &f->err));
	assert_int_equal(counts[JOB_QUEUED], 3);
	assert_int_equal(counts[JOB_CANCELLED], 1);
	assert_int_equal(counts[JOB_RUNNING], 0);
}

/* The ids of a list, which has no more pages, as the last letters of their outputs. */
static void expect_list(struct fixture *f, int state, const char *metadata, const char *outputs)
{
	struct job_list list;
	char found[16] = "";
	OK(db_job_list(f->db, &(struct job_filter){state, metadata}, NULL, 10, &list, &f->err));
	for (size_t i = 0; i < list.count; i++)
		strcat(found, list.jobs[i].output);
	assert_false(list.more);
	job_list_clear(&list);
	assert_string_equal(found, outputs);
}

static void test_list_by_metadata(void **state)
{
	struct fixture *f = *state;
	static const char *const specs[] = {"{\"metadata\":{\"team\":\"a\",\"run\":\"1\"}}",
					    "{\"metadata\":{\"team\":\"a\",\"run\":\"2\"}}",
					    "{\"metadata\":{\"team\":\"b\",\"run\":\"1\"}}",
					    "{\"metadata\":{\"\\\"k\\u00e4\":\"\"}}",
					    "{\"metadata\":null}",
					    "{}"};
	char ids[6][JOB_ID_BYTES], output[2] = "a";
	struct job job;
	enum insert_outcome outcome;
	enum change_outcome changed;
	for (int i = 0; i < 6; i++, output[0]++) {
		db_new_id(f->db, ids[i]);
		OK(db_job_insert(f->db, &(struct submission){.id = ids[i], .spec = specs[i], .output = output}, 9, &outcome, &job,
				 &f->err));
		job_clear(&job);
	}
	expect_list(f, -1, NULL, "fedcba");
	expect_list(f, -1, "{\"team\":\"a\"}", "ba");
	expect_list(f, -1, "{\"run\":\"1\"}", "ca");
	expect_list(f, -1, "{\"run\":\"1\",\"team\":\"a\"}", "a");
	expect_list(f, -1, "{\"run\":\"2\",\"team\":\"b\"}", "");
	expect_list(f, -1, "{\"1\":\"run\"}", "");
	expect_list(f, -1, "{\"\\\"k\xc3\xa4\":\"\"}", "d");
	OK(db_job_cancel(f->db, ids[0], &changed, &job, &f->err));
	job_clear(&job);
	expect_list(f, JOB_QUEUED, "{\"team\":\"a\"}", "b");
	expect_list(f, JOB_CANCELLED, "{\"team\":\"a\"}", "a");
	OK(db_job_delete(f->db, ids[0], &changed, &f->err));
	assert_int_equal(scalar(f, "SELECT count(*) FROM metadata"), 5);
	expect_list(f, -1, "{\"team\":\"a\"}", "b");
}

static bool is_forgettable(struct fixture *f, bool program)
{
	struct ended_job *jobs;
	size_t count;
	OK(db_ended_list(f->db, &(struct ended_filter){-1, INT64_MAX, program}, &jobs, &count, &f->err));
	free(jobs);
	return count > 0;
}

static void test_who_is_to_be_told_keeps_a_job(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	struct job job;
	enum insert_outcome inserted;
	enum change_outcome outcome;
	db_new_id(f->db, id);
	const struct submission submission = {.id = id, .output = "a", .spec = "{\"notify\":{\"url\":\"http://localhost/\"}}"};
	OK(db_job_insert(f->db, &submission, 9, &inserted, &job, &f->err));
	job_clear(&job);
	OK(db_job_cancel(f->db, id, &outcome, &job, &f->err));
	job_clear(&job);
	assert_false(is_forgettable(f, false));
	struct notification told = {.url = "http://localhost/"};
	memcpy(told.job_id, id, sizeof told.job_id);
	OK(db_notification_done(f->db, &told, &f->err));
	assert_true(is_forgettable(f, false));
	assert_false(is_forgettable(f, true));
	told.url = "";
	OK(db_notification_done(f->db, &told, &f->err));
	assert_true(is_forgettable(f, true));
}

struct log_lines {
	char text[256];
	int count;
};

static enum status take_line(void *context, int64_t at, bool is_note, const char *kind, const char *text, struct error *err)
{
	struct log_lines *lines = context;
	(void)err;
	assert_true(at > 0);
	size_t used = strlen(lines->text);
	snprintf(lines->text + used, sizeof lines->text - used, "%s%s;", kind, is_note ? text : "");
	lines->count++;
	return STATUS_OK;
}

static void test_log(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES], other[JOB_ID_BYTES];
	struct log_lines lines = {0};
	enum change_outcome outcome;
	int64_t before, after;
	submit(f, "a", 0, false, NULL, NULL, id);
	submit(f, "b", 0, false, NULL, NULL, other);
	OK(db_job_note(f->db, id, "info", " a", &f->err));
	OK(db_job_note(f->db, id, "warning", " b", &f->err));
	OK(db_job_note(f->db, other, "error", " of another", &f->err));
	claim(f, id);
	OK(db_event_append(f->db, id, &(struct new_event){"block.step", "{}", 1, false}, NULL, &f->err));
	OK(db_job_note(f->db, id, "info", " c", &f->err));
	OK(db_job_log(f->db, id, take_line, &lines, &f->err));
	assert_string_equal(lines.text, "job.queued;info a;warning b;job.started;info c;");
	OK(db_job_bytes(f->db, id, &before, &f->err));
	for (int i = 0; i < 1200; i++)
		OK(db_job_note(f->db, id, "info", "x", &f->err));
	lines = (struct log_lines){0};
	OK(db_job_log(f->db, id, take_line, &lines, &f->err));
	assert_int_equal(lines.count, 2 + 1000);
	OK(db_job_bytes(f->db, id, &after, &f->err));
	assert_int_equal(after - before, 1000 - 6);
	OK(db_job_finish(f->db, id, JOB_CANCELLED, NULL, NULL, NULL, &f->err));
	OK(db_job_delete(f->db, id, &outcome, &f->err));
	OK(db_job_note(f->db, id, "info", "too late", &f->err));
	assert_int_equal(db_job_log(f->db, id, take_line, &lines, &f->err), STATUS_NOT_FOUND);
	assert_int_equal(scalar(f, "SELECT count(*) FROM notes"), 1);
	expect_sound(f);
}

/* Nothing is claimed, also behind a restart, and what is claimed already goes its way. */
static void test_drain(void **state)
{
	struct fixture *f = *state;
	char running[JOB_ID_BYTES], waiting[JOB_ID_BYTES];
	int64_t since, again;
	submit(f, "a", 0, false, NULL, NULL, running);
	claim(f, running);
	OK(db_drain_get(f->db, &since, &f->err));
	assert_int_equal(since, 0);
	OK(db_drain_set(f->db, false, &since, &f->err));
	assert_int_equal(since, 0);
	int64_t before = unix_milliseconds();
	OK(db_drain_set(f->db, true, &since, &f->err));
	assert_true(since >= before && since <= unix_milliseconds());
	OK(db_drain_set(f->db, true, &again, &f->err));
	assert_int_equal(again, since);
	assert_int_equal(submit(f, "b", 0, false, NULL, NULL, waiting), INSERT_NEW);
	claim(f, NULL);
	OK(db_job_requeue(f->db, running, &f->err));
	claim(f, NULL);
	reopen(f);
	OK(db_drain_get(f->db, &again, &f->err));
	assert_int_equal(again, since);
	claim(f, NULL);
	expect_events(f, waiting, "job.queued");
	OK(db_drain_set(f->db, false, &since, &f->err));
	assert_int_equal(since, 0);
	claim(f, running);
	claim(f, waiting);
	expect_sound(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_failures_are_tried_again),
		TEST(test_idempotency),
		TEST(test_output_claims),
		TEST(test_queue_limit),
		TEST(test_priority_then_age),
		TEST(test_life_of_a_job),
		TEST(test_failure_keeps_every_character),
		TEST(test_cancel_retry_delete),
		TEST(test_recovery),
		TEST(test_crashes_in_a_row),
		TEST(test_an_end_in_order_is_no_crash),
		TEST(test_pause_and_resume),
		TEST(test_list_pages),
		TEST(test_list_by_metadata),
		TEST(test_who_is_to_be_told_keeps_a_job),
		TEST(test_log),
		TEST(test_drain),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
