/* What each call of the database comes to where one of its statements fails, where its commit does, and where an allocation does,
 * one after the other: it says so, nothing of it is in the file, and the next call is as good as ever. Or it goes on, and has done
 * what it was asked. */
#include "tests/unit/database.h"

#include "db/audit.h"
#include "db/outputs.h"
#include "db/studies.h"

/* ---- faults -------------------------------------------------------------------------------------------------------------- */

enum { STATEMENT, COMMIT, ALLOCATION };
enum { FAULTS = 3 };

static const char *const fault_names[] = {"statement", "commit", "allocation"};
static int kind;
static int countdown; /* the fault is at 1; 0: there is none */

static bool strikes(int where)
{
	return kind == where && countdown && --countdown == 0;
}

static int begin_statement(unsigned what, void *handle, void *statement, void *text)
{
	(void)what, (void)statement, (void)text;
	if (strikes(STATEMENT)) sqlite3_interrupt(handle);
	return 0;
}

static int begin_commit(void *context)
{
	(void)context;
	return strikes(COMMIT); /* else it becomes a rollback */
}

static int watch_connection(sqlite3 *handle, char **error, const struct sqlite3_api_routines *routines)
{
	(void)error, (void)routines;
	sqlite3_trace_v2(handle, SQLITE_TRACE_STMT, begin_statement, handle);
	sqlite3_commit_hook(handle, begin_commit, NULL);
	return SQLITE_OK;
}

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { KINDS = 2 }; /* without allocations: their malloc cannot be replaced */
#else
enum { KINDS = 3 };

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

void *malloc(size_t bytes)
{
	return strikes(ALLOCATION) ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
	return strikes(ALLOCATION) ? NULL : __libc_calloc(count, bytes);
}

void *realloc(void *old, size_t bytes)
{
	return strikes(ALLOCATION) ? NULL : __libc_realloc(old, bytes);
}
#endif

/* ---- what calls are tried on ----------------------------------------------------------------------------------------------- */

/* Jobs are made in the states that a call wants. */
struct subject {
	struct fixture *f;
	char id[JOB_ID_BYTES], dependant[JOB_ID_BYTES], output[32];
	struct notification told;
	int made;
};

static void insert(struct subject *s, const char *spec, const char *needed, char id[JOB_ID_BYTES])
{
	struct fixture *f = s->f;
	char new_id[JOB_ID_BYTES];
	struct job job;
	enum insert_outcome outcome;
	db_new_id(f->db, new_id);
	snprintf(s->output, sizeof s->output, "out-%d", ++s->made);
	struct submission submission = {
		.id = new_id, .spec = spec, .output = s->output, .depends_on = &needed, .n_depends_on = needed != NULL};
	OK(db_job_insert(f->db, &submission, 1000, &outcome, &job, &f->err));
	assert_int_equal(outcome, INSERT_NEW);
	strcpy(id, job.id);
	job_clear(&job);
}

/* Whatever else there is, is over; one job is queued, which is to be told of, and one depends on it. */
static void queued(struct subject *s)
{
	struct fixture *f = s->f;
	enum change_outcome outcome;
	struct job_list list;
	struct job job;
	OK(db_job_list(f->db, &(struct job_filter){.state = -1}, NULL, 1000, &list, &f->err));
	for (size_t i = 0; i < list.count; i++) {
		OK(db_job_cancel(f->db, list.jobs[i].id, &outcome, &job, &f->err));
		if (job.state == JOB_CANCELLING) OK(db_job_requeue(f->db, job.id, &f->err));
		job_clear(&job);
		OK(db_job_delete(f->db, list.jobs[i].id, &outcome, &f->err));
	}
	job_list_clear(&list);
	insert(s, "{\"notify\":{\"url\":\"http://localhost/\"}}", NULL, s->id);
	insert(s, "{}", s->id, s->dependant);
}

static void running(struct subject *s)
{
	struct fixture *f = s->f;
	queued(s);
	claim(f, s->id);
	OK(db_job_set_device(f->db, s->id, "cpu", &f->err));
	OK(db_block_commit(f->db, s->id, 0, "{\"block\":0,\"seconds\":1}", 1, NULL, &f->err));
	OK(db_job_note(f->db, s->id, "info", "a note", &f->err));
}

static void cancelling(struct subject *s)
{
	struct fixture *f = s->f;
	enum change_outcome outcome;
	struct job job;
	running(s);
	OK(db_job_cancel(f->db, s->id, &outcome, &job, &f->err));
	job_clear(&job);
}

static void pausing(struct subject *s)
{
	struct fixture *f = s->f;
	enum change_outcome outcome;
	struct job job;
	running(s);
	OK(db_job_pause(f->db, s->id, &outcome, &job, &f->err));
	job_clear(&job);
}

static void paused(struct subject *s)
{
	struct fixture *f = s->f;
	pausing(s);
	OK(db_job_requeue(f->db, s->id, &f->err));
}

static void failed(struct subject *s)
{
	struct fixture *f = s->f;
	running(s);
	OK(db_job_finish(f->db, s->id, JOB_FAILED, NULL, "io", "it is broken", &f->err));
}

static void succeeded(struct subject *s)
{
	struct fixture *f = s->f;
	running(s);
	OK(db_job_finish(f->db, s->id, JOB_SUCCEEDED, "{\"seconds\":2}", NULL, NULL, &f->err));
}

static bool skip_none(void *context, const char *url)
{
	(void)context, (void)url;
	return false;
}

static void told(struct subject *s)
{
	struct fixture *f = s->f;
	bool found;
	succeeded(s);
	notification_clear(&s->told);
	OK(db_notification_next(f->db, skip_none, NULL, &found, &s->told, &f->err));
	assert_true(found);
}

static struct study_submission study_of(struct subject *s, char id[JOB_ID_BYTES], char job_id[JOB_ID_BYTES])
{
	static __typeof__(*((struct study_submission *)0)->jobs) job[1];
	db_new_id(s->f->db, id);
	db_new_id(s->f->db, job_id);
	job[0].job = (struct submission){.id = job_id, .spec = "{}", .output = "study"};
	job[0].settings = "{}";
	return (struct study_submission){.id = id,
					 .name = "s",
					 .spec = "{}",
					 .grid = "{}",
					 .idempotency_key = "key",
					 .request = "{}",
					 .jobs = job,
					 .count = 1};
}

static void with_study(struct subject *s)
{
	struct fixture *f = s->f;
	char id[JOB_ID_BYTES], job[JOB_ID_BYTES];
	enum insert_outcome outcome;
	size_t claimed;
	struct study_list list;
	enum change_outcome changed;
	OK(db_study_list(f->db, NULL, 10, &list, &f->err));
	for (size_t i = 0; i < list.count; i++) {
		OK(db_study_cancel(f->db, list.studies[i].id, &changed, &f->err));
		OK(db_study_delete(f->db, list.studies[i].id, &changed, &f->err));
	}
	study_list_clear(&list);
	struct study_submission new = study_of(s, id, job);
	OK(db_study_insert(f->db, &new, 1000, &outcome, s->id, &claimed, &f->err));
	assert_int_equal(outcome, INSERT_NEW);
}

static void cancelled_study(struct subject *s)
{
	struct fixture *f = s->f;
	enum change_outcome outcome;
	with_study(s);
	OK(db_study_cancel(f->db, s->id, &outcome, &f->err));
}

/* ---- the calls ------------------------------------------------------------------------------------------------------------- */

#define CALL(name, ...)                                                                                                            \
	static enum status name(struct subject *s, struct error *err)                                                              \
	{                                                                                                                          \
		struct db *db = s->f->db;                                                                                          \
		__VA_ARGS__                                                                                                        \
	}

/* Of a call that fills a job. */
#define JOB_CALL(name, call)                                                                                                       \
	CALL(name, struct job job; enum change_outcome outcome = CHANGE_DONE; enum status status = call;                           \
	     if (!status) job_clear(&job); assert_int_equal(outcome, CHANGE_DONE); return status;)

#define TEXTS_CALL(name, call)                                                                                                     \
	CALL(name, char **texts; size_t count; enum status status = call; if (!status) text_list_free(texts, count); return status;)

static const struct new_event event = {.type = "warning", .data = "{}", .at = 1};
static const struct job_progress progress = {.phase = "prune", .block = 1, .blocks = 2, .fraction = 0.5, .eta_seconds = 1};
static const struct retry_rule once = {.most = 1, .first_delay = 1000}, never = {0};

CALL(call_insert, char id[JOB_ID_BYTES]; struct job job; enum insert_outcome outcome; const char *needed = s->id; db_new_id(db, id);
     struct submission new = {.id = id,
			      .spec = "{}",
			      .places = "{}",
			      .output = "new",
			      .idempotency_key = id,
			      .request = "{}",
			      .depends_on = &needed,
			      .n_depends_on = 1};
     enum status status = db_job_insert(db, &new, 1000, &outcome, &job, err); if (!status) job_clear(&job); return status;)
CALL(call_find_key, struct job job; enum insert_outcome outcome;
     return db_job_find_key(db, "no such key", "{}", &outcome, &job, err);)
JOB_CALL(call_get, db_job_get(db, s->id, &job, err))
CALL(call_list, struct job_list list; const struct job_filter filter = {-1, "{\"of\":\"none\"}"};
     enum status status = db_job_list(db, &filter, NULL, 2, &list, err); if (!status) job_list_clear(&list); return status;)
CALL(call_list_all, struct job_list list; const struct job_filter filter = {-1, NULL};
     enum status status = db_job_list(db, &filter, NULL, 1, &list, err); if (!status) job_list_clear(&list); return status;)
CALL(call_counts, int64_t counts[JOB_STATES]; return db_job_counts(db, counts, err);)
CALL(call_claim, struct job job; bool found = false; enum status status = db_job_claim(db, &found, &job, err);
     if (!status && found) job_clear(&job); return status;)
CALL(call_drain_get, int64_t since; return db_drain_get(db, &since, err);)
CALL(call_drain, int64_t since; return db_drain_set(db, true, &since, err);)
CALL(call_undrain, int64_t since; return db_drain_set(db, false, &since, err);)
CALL(call_next_retry, int64_t at; return db_job_next_retry(db, &at, err);)
CALL(call_set_device, return db_job_set_device(db, s->id, "other", err);)
CALL(call_ended, struct ended_job *jobs; size_t count; const struct ended_filter any = {INT64_MAX, INT64_MAX, true};
     enum status status = db_ended_list(db, &any, &jobs, &count, err); if (!status) free(jobs); return status;)
CALL(call_job_bytes, int64_t bytes; return db_job_bytes(db, s->id, &bytes, err);)
CALL(call_bytes, int64_t bytes; return db_bytes(db, &bytes, err);)
CALL(call_shrink, return db_shrink(db, err);)
CALL(call_check, return db_check(db, err);)
CALL(call_probe, return db_probe(db, err);)
JOB_CALL(call_cancel, db_job_cancel(db, s->id, &outcome, &job, err))
JOB_CALL(call_pause, db_job_pause(db, s->id, &outcome, &job, err))
JOB_CALL(call_resume, db_job_resume(db, s->id, 1000, &outcome, &job, err))
JOB_CALL(call_retry, db_job_retry(db, s->id, 1000, &outcome, &job, err))
CALL(call_delete, enum change_outcome outcome; return db_job_delete(db, s->id, &outcome, err);)
CALL(call_requeue, return db_job_requeue(db, s->id, err);)
CALL(call_succeed, return db_job_finish(db, s->id, JOB_SUCCEEDED, "{}", NULL, NULL, err);)
CALL(call_finish_failed, return db_job_finish(db, s->id, JOB_FAILED, NULL, "io", "it is broken", err);)
CALL(call_fail_once, int64_t at; return db_job_fail(db, s->id, "io", "it is broken", &once, &at, err);)
CALL(call_fail, int64_t at; return db_job_fail(db, s->id, "io", "it is broken", &never, &at, err);)
CALL(call_set_progress, return db_job_set_progress(db, s->id, &progress, err);)
CALL(call_recover, struct recovery recovery; return db_recover(db, true, 1, &recovery, err);)
CALL(call_recover_forever, struct recovery recovery; return db_recover(db, true, 0, &recovery, err);)
CALL(call_next, struct notification next; bool found;
     enum status status = db_notification_next(db, skip_none, NULL, &found, &next, err);
     if (!status && found) notification_clear(&next); return status;)
CALL(call_told, return db_notification_done(db, &s->told, err);)
CALL(call_delay, return db_notification_delay(db, &s->told, 5, err);)
CALL(call_event, return db_event_append(db, s->id, &event, &progress, err);)
CALL(call_block, return db_block_commit(db, s->id, 1, "{}", 1, &progress, err);)
CALL(call_events, struct event_list list; enum status status = db_event_list(db, s->id, 0, 100, &list, err);
     if (!status) event_list_clear(&list); return status;)
TEXTS_CALL(call_blocks, db_block_list(db, s->id, &texts, &count, err))
TEXTS_CALL(call_data, db_event_data(db, s->id, "job.queued", &texts, &count, err))
CALL(call_note, return db_job_note(db, s->id, "info", "text", err);)
CALL(call_timings, struct timing_list list; enum status status = db_timings(db, "cpu", 5, &list, err);
     if (!status) timing_list_clear(&list); return status;)
CALL(call_audit, struct audit_list list; enum status status = db_audit_list(db, INT64_MAX, 2, &list, err);
     if (!status) audit_list_clear(&list); return status;)
CALL(call_audit_note, const struct actor actor = {.who = "alice", .action = "gc"};
     return db_audit_note(db, &actor, NULL, "done", 1, true, err);)
CALL(call_holdings, struct holding *list; size_t count; enum status status = db_holdings(db, "alice", &list, &count, err);
     if (!status) holdings_free(list, count); return status;)
CALL(call_gone, char output[32]; strcpy(output, s->output); const struct holding gone = {.output = output};
     return db_output_gone(db, &gone, err);)
CALL(call_study, char id[JOB_ID_BYTES]; char job[JOB_ID_BYTES]; char made[JOB_ID_BYTES]; enum insert_outcome outcome;
     size_t claimed; struct study_submission new = study_of(s, id, job); new.idempotency_key = id; new.jobs[0].job.output = id;
     return db_study_insert(db, &new, 1000, &outcome, made, &claimed, err);)
CALL(call_study_key, char id[JOB_ID_BYTES]; enum insert_outcome outcome;
     return db_study_find_key(db, "key", "{}", &outcome, id, err);)
CALL(call_study_get, struct study study; struct study_rows rows; enum status status = db_study_get(db, s->id, &study, &rows, err);
     if (!status) study_clear(&study), study_rows_clear(&rows); return status;)
CALL(call_studies, struct study_list list; enum status status = db_study_list(db, NULL, 5, &list, err);
     if (!status) study_list_clear(&list); return status;)
CALL(call_study_cancel, enum change_outcome outcome; return db_study_cancel(db, s->id, &outcome, err);)
CALL(call_study_delete, enum change_outcome outcome; return db_study_delete(db, s->id, &outcome, err);)

static enum status take_line(void *context, int64_t at, bool is_note, const char *kind_of, const char *text, struct error *err)
{
	(void)context, (void)at, (void)is_note, (void)kind_of, (void)text, (void)err;
	return STATUS_OK;
}
CALL(call_log, return db_job_log(db, s->id, take_line, NULL, err);)

static const struct {
	const char *name;
	void (*prepare)(struct subject *);
	enum status (*call)(struct subject *, struct error *);
} calls[] = {
#define ROW(prepare, call)                                                                                                         \
	{                                                                                                                          \
#call, prepare, call                                                                                               \
	}
	ROW(queued, call_insert),
	ROW(queued, call_find_key),
	ROW(failed, call_get),
	ROW(running, call_list),
	ROW(running, call_list_all),
	ROW(running, call_counts),
	ROW(queued, call_claim),
	ROW(queued, call_drain_get),
	ROW(queued, call_drain),
	ROW(queued, call_undrain),
	ROW(running, call_next_retry),
	ROW(running, call_set_device),
	ROW(failed, call_ended),
	ROW(running, call_job_bytes),
	ROW(queued, call_bytes),
	ROW(queued, call_shrink),
	ROW(queued, call_check),
	ROW(queued, call_probe),
	ROW(queued, call_cancel),
	ROW(running, call_cancel),
	ROW(queued, call_pause),
	ROW(running, call_pause),
	ROW(paused, call_resume),
	ROW(pausing, call_resume),
	ROW(failed, call_retry),
	ROW(failed, call_delete),
	ROW(running, call_requeue),
	ROW(cancelling, call_requeue),
	ROW(pausing, call_requeue),
	ROW(running, call_succeed),
	ROW(running, call_finish_failed),
	ROW(running, call_fail_once),
	ROW(running, call_fail),
	ROW(running, call_set_progress),
	ROW(running, call_recover),
	ROW(cancelling, call_recover),
	ROW(pausing, call_recover),
	ROW(running, call_recover_forever),
	ROW(succeeded, call_next),
	ROW(told, call_told),
	ROW(told, call_delay),
	ROW(running, call_event),
	ROW(running, call_block),
	ROW(running, call_events),
	ROW(running, call_blocks),
	ROW(running, call_data),
	ROW(running, call_note),
	ROW(running, call_log),
	ROW(succeeded, call_timings),
	ROW(running, call_audit),
	ROW(running, call_audit_note),
	ROW(succeeded, call_holdings),
	ROW(succeeded, call_gone),
	ROW(queued, call_study),
	ROW(with_study, call_study_key),
	ROW(with_study, call_study_get),
	ROW(with_study, call_studies),
	ROW(with_study, call_study_cancel),
	ROW(cancelled_study, call_study_delete)};

/* ---- the test --------------------------------------------------------------------------------------------------------------- */

static int64_t version(sqlite3_stmt *statement)
{
	assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
	int64_t value = sqlite3_column_int64(statement, 0);
	sqlite3_reset(statement);
	return value;
}

/* Is the status that of the fault? SQLite's json_valid says no where it has no memory, which is a constraint that is not met
 * (docs/reliability.md). */
static bool is_told(enum status status, const struct error *err)
{
	if (kind == ALLOCATION) return status == STATUS_NO_MEMORY || strstr(err->message, "json_valid");
	return status == (kind == COMMIT ? STATUS_INTERNAL : STATUS_IO);
}

/* A recovery has a transaction for each job. */
static bool is_in_steps(size_t i)
{
	return calls[i].call == call_recover || calls[i].call == call_recover_forever;
}

/* Tries a call until no fault comes to pass any more; returns how many have. */
static int try_all(struct subject *s, size_t i, sqlite3_stmt *changes)
{
	int met = 0;
	calls[i].prepare(s);
	/* Of allocations all of the first, and fewer of those that follow. */
	for (int n = 1;; n += kind == ALLOCATION && !getenv("LONG") ? 1 + n / 8 : 1) {
		struct error err = {.message = ""};
		int64_t before = version(changes);
		countdown = n;
		enum status status = calls[i].call(s, &err);
		bool struck = countdown == 0;
		countdown = 0;
		if (status && !struck) fail_msg("%s fails without a fault: %s", calls[i].name, err.message);
		if (status && !err.message[0]) fail_msg("%s, %s %d: nothing is said of it", calls[i].name, fault_names[kind], n);
		if (status && !is_told(status, &err))
			fail_msg("%s, %s %d: status %s: %s", calls[i].name, fault_names[kind], n, status_name(status), err.message);
		bool changed = version(changes) != before;
		if (status && changed && !is_in_steps(i))
			fail_msg("%s, %s %d: it failed (%s), and the file was changed", calls[i].name, fault_names[kind], n,
				 err.message);
		if (!struck) return met;
		met++;
		if (!status || changed) calls[i].prepare(s);
	}
}

static void test_faults(void **state)
{
	struct fixture *f = *state;
	struct subject s = {.f = f};
	struct actor alice = {.who = "alice",
			      .peer = "::1",
			      .action = "job.submit",
			      .max_queued = 1000,
			      .max_per_day = 1000000,
			      .max_bytes = 1 << 30};
	int met[FAULTS] = {0};
	sqlite3 *watcher;
	sqlite3_stmt *changes;
	assert_int_equal(sqlite3_open_v2(f->path, &watcher, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(watcher, "PRAGMA data_version", -1, &changes, NULL), SQLITE_OK);
	db_act_for(&alice);
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		for (kind = 0; kind < KINDS; kind++)
			met[kind] += try_all(&s, i, changes);
	db_act_for(NULL);
	for (kind = 0; kind < KINDS; kind++) {
		print_message("%s: %d faults\n", fault_names[kind], met[kind]);
		assert_true(met[kind] >= 20);
	}
	sqlite3_finalize(changes);
	sqlite3_close(watcher);
	notification_clear(&s.told);
	expect_sound(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_faults)};
	sqlite3_auto_extension((void (*)(void))watch_connection);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
