/* What becomes of a job's events (engine/job/recorder.h), and their journal in a file (engine/job/journal.h). */
#include "engine/job/journal.h"
#include "tests/unit/scratch.h"

#define OK(call)                                                                                                                   \
	do {                                                                                                                       \
		struct error err;                                                                                                  \
		if ((call) != STATUS_OK) fail_msg("%s", err.message);                                                              \
	} while (0)

/* One attempt's recorder over the journal in `path`. */
struct attempt {
	struct journal journal;
	struct recorder recorder;
	struct engine_sink sink;
};

static void begin(struct attempt *attempt, const char *path)
{
	struct event_store store = {&attempt->journal, journal_find, journal_append};
	OK(journal_open(path, &attempt->journal, &err));
	OK(recorder_open(&attempt->recorder, &store, attempt->journal.blocks_done, &err));
	attempt->sink =
		(struct engine_sink){.context = &attempt->recorder, .event = recorder_event, .commit_block = recorder_block};
	struct event started = event_job_started(attempt->journal.attempts + 1, attempt->journal.blocks_done);
	OK(event_tell(&attempt->sink, &started, &err));
}

static void end(struct attempt *attempt)
{
	recorder_close(&attempt->recorder);
	journal_close(&attempt->journal);
}

static void tell(struct attempt *attempt, struct event event)
{
	OK(event_tell(&attempt->sink, &event, &err));
}

static enum status commit_with(struct attempt *attempt, int block, double loss, struct error *err)
{
	static double seconds;
	cJSON *data = cJSON_CreateObject(), *phases;
	cJSON_AddNumberToObject(data, "block", block);
	cJSON_AddNumberToObject(data, "loss", loss);
	cJSON_AddNumberToObject(data, "seconds", ++seconds); /* never the same */
	phases = cJSON_AddObjectToObject(data, "phases");
	cJSON_AddNumberToObject(phases, "load", seconds);
	struct event event = event_block_finished(data);
	enum status status = attempt->sink.commit_block(attempt->sink.context, block, &event, err);
	cJSON_Delete(event.data);
	return status;
}

static enum status commit(struct attempt *attempt, int block)
{
	struct error err;
	return commit_with(attempt, block, 1 / 3.0, &err);
}

/* The types of the journal's events, in order. */
static void expect(const char *path, const char *wanted)
{
	char *text, types[1000] = "";
	size_t bytes;
	OK(file_slurp(path, 1 << 20, &text, &bytes, &err));
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		cJSON *event = cJSON_Parse(line);
		if (*types) strcat(types, " ");
		strcat(types, cJSON_GetStringValue(cJSON_GetObjectItem(event, "type")));
		cJSON_Delete(event);
	}
	free(text);
	assert_string_equal(types, wanted);
}

static void tell_all(struct attempt *attempt)
{
	cJSON *score = cJSON_Parse("{\"acc\":0.25,\"questions\":4}");
	tell(attempt, event_warning("careful"));
	tell(attempt, event_evaluation("wiki", "dense", 1 / 3.0));
	tell(attempt, event_task("arc", "dense", score));
	tell(attempt, event_block_started(0, 2, attempt->journal.attempts));
	cJSON_Delete(score);
}

static void test_told_once(void **state)
{
	const char *path = scratch_path(*state, "events.jsonl");
	struct attempt attempt;
	for (int i = 0; i < 3; i++) { /* three attempts, each of which comes to all of it twice */
		begin(&attempt, path);
		assert_int_equal(attempt.journal.attempts, i + 1);
		tell_all(&attempt);
		tell_all(&attempt);
		end(&attempt);
	}
	begin(&attempt, path);
	tell(&attempt, event_evaluation("wiki", "dense", 1 / 7.0)); /* other data, another event */
	tell(&attempt, event_evaluation("wiki", "pruned", 1 / 3.0));
	end(&attempt);
	expect(path, "job.started warning eval.finished task.finished block.started block.started"
		     " job.started block.started block.started job.started block.started block.started"
		     " job.started eval.finished eval.finished");
}

static void test_blocks_in_turn(void **state)
{
	const char *path = scratch_path(*state, "events.jsonl");
	struct attempt attempt;
	begin(&attempt, path);
	assert_int_equal(commit(&attempt, 1), STATUS_INTERNAL);
	assert_int_equal(commit(&attempt, 0), STATUS_OK);
	assert_int_equal(commit(&attempt, 0), STATUS_INTERNAL);
	end(&attempt);
	begin(&attempt, path);
	assert_int_equal(attempt.journal.blocks_done, 1);
	assert_int_equal(commit(&attempt, 2), STATUS_INTERNAL);
	assert_int_equal(commit(&attempt, 1), STATUS_OK);
	assert_int_equal(attempt.journal.blocks_done, 2);
	end(&attempt);
	expect(path, "job.started block.finished job.started block.finished");
}

static void append(const char *path, const char *text)
{
	FILE *file = fopen(path, "a");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

/* What a kill left behind the last newline is as if it had never been; a line out of its place is none of ours. */
static void test_torn_and_foreign_lines(void **state)
{
	const char *path = scratch_path(*state, "events.jsonl");
	struct attempt attempt;
	struct journal journal;
	struct error err;
	begin(&attempt, path);
	tell(&attempt, event_warning("one"));
	end(&attempt);
	append(path, "{\"id\":3,\"type\":\"warning\",\"data\":{\"message\":\"two\"}}");
	begin(&attempt, path);
	tell(&attempt, event_warning("two"));
	end(&attempt);
	expect(path, "job.started warning job.started warning");

	append(path, "{\"id\":9,\"type\":\"warning\",\"data\":{}}\n");
	assert_int_equal(journal_open(path, &journal, &err), STATUS_INVALID);
	assert_non_null(strstr(err.message, "event 5"));
}

/* A power cut may keep of what was not synced the end, and zeros in front of it. */
static void test_holes(void **state)
{
	static const char rest[] = "\0\0\0\0\0\0\0\0age\":\"two\"}}\n{\"id\":4,\"type\":\"warning\",\"data\":{}}\n";
	const char *path = scratch_path(*state, "events.jsonl");
	struct attempt attempt;
	begin(&attempt, path);
	tell(&attempt, event_warning("one"));
	end(&attempt);
	FILE *file = fopen(path, "a");
	assert_non_null(file);
	assert_int_equal(fwrite(rest, 1, sizeof rest - 1, file), sizeof rest - 1);
	assert_int_equal(fclose(file), 0);
	begin(&attempt, path);
	assert_int_equal(attempt.journal.last_id, 3);
	end(&attempt);
	expect(path, "job.started warning job.started");
}

/* Blocks that were told and not saved are done again: they are compared, and not kept again. */
static void test_blocks_done_again(void **state)
{
	const char *path = scratch_path(*state, "events.jsonl");
	struct attempt attempt;
	struct error err;
	begin(&attempt, path);
	assert_int_equal(commit(&attempt, 0), STATUS_OK);
	assert_int_equal(commit(&attempt, 1), STATUS_OK);
	end(&attempt);
	begin(&attempt, path);
	assert_int_equal(commit(&attempt, 0), STATUS_OK);
	assert_int_equal(commit_with(&attempt, 1, 0.5, &err), STATUS_INVALID);
	assert_non_null(strstr(err.message, "block 1 "));
	assert_non_null(strstr(err.message, "loss 0.3333"));
	assert_non_null(strstr(err.message, "0.5"));
	assert_int_equal(commit(&attempt, 1), STATUS_OK);
	assert_int_equal(commit(&attempt, 2), STATUS_OK);
	assert_int_equal(attempt.journal.blocks_done, 3);
	end(&attempt);
	expect(path, "job.started block.finished block.finished job.started block.finished");
}

/* An upgrade between the two may have added to what is told of a block, and of its layers. */
static void test_blocks_told_by_another_version(void **state)
{
	(void)state;
	struct error err;
	cJSON *told = cJSON_Parse("{\"block\":0,\"loss\":0.5,\"layers\":{\"q\":{\"zeros\":8}}}");
	cJSON *more = cJSON_Parse("{\"block\":0,\"loss\":0.5,\"layers\":{\"q\":{\"zeros\":8,\"bits\":4}},\"new\":1}");
	cJSON *other = cJSON_Parse("{\"block\":0,\"loss\":0.5,\"layers\":{\"q\":{\"zeros\":9,\"bits\":4}},\"new\":1}");
	cJSON *less = cJSON_Parse("{\"block\":0,\"loss\":0.5}");
	assert_int_equal(event_check_block(told, more, &err), STATUS_OK);
	assert_int_equal(event_check_block(told, other, &err), STATUS_INVALID);
	assert_int_equal(event_check_block(told, less, &err), STATUS_INVALID);
	cJSON_Delete(told);
	cJSON_Delete(more);
	cJSON_Delete(other);
	cJSON_Delete(less);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_told_once),
		SCRATCH_TEST(test_blocks_in_turn),
		SCRATCH_TEST(test_blocks_done_again),
		SCRATCH_TEST(test_blocks_told_by_another_version),
		SCRATCH_TEST(test_torn_and_foreign_lines),
		SCRATCH_TEST(test_holes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
