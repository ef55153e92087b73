/* The job queue and the event log, in one SQLite file.
 *
 * Threads. Every function may be called from any thread. One connection, guarded by a mutex, does all writes and checkpoints
 * (SQLite before 3.51.3 can corrupt a WAL when two connections do); readers use a pool of read-only connections and never wait
 * for a writer.
 *
 * Crash safety. Every change of a job's state, and every finished block, is one transaction together with the event that tells
 * of it, synced before the function returns. So what a client has been told is never lost, event ids have no gap, and the rows
 * agree with the events at any moment of a crash. */
#ifndef BESAD_DB_DB_H
#define BESAD_DB_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct db;

enum { DB_PAGE_BYTES = 4 << 20 }; /* a list of jobs or events ends, with `more`, once its texts have more */

enum { JOB_ID_BYTES = 27 }; /* 26 characters and the 0: a ULID in lower case, so ids sort by age */

enum job_state {
	JOB_QUEUED,
	JOB_RUNNING,
	JOB_CANCELLING,
	JOB_PAUSING,
	JOB_PAUSED,
	JOB_SUCCEEDED,
	JOB_FAILED,
	JOB_CANCELLED,
	JOB_STATES
};

const char *job_state_name(enum job_state);
bool job_state_parse(const char *name, enum job_state *ret);
static inline bool job_state_is_final(enum job_state state)
{
	return state >= JOB_SUCCEEDED;
}
bool job_id_is_valid(const char *id);

struct job_progress {
	char phase[32]; /* "" until the first attempt reports one */
	int block, blocks;
	double fraction;
	double eta_seconds; /* < 0 where it is not known */
};

/* A row of the queue. Strings are owned; job_clear frees them. Times are milliseconds since 1970, 0 for not yet. */
struct job {
	char id[JOB_ID_BYTES];
	enum job_state state;
	char *name; /* NULL when the client gave none */
	int priority;
	char *spec;   /* JSON, resolved */
	char *places; /* where its names led when it was submitted: JSON (engine/spec/restore.h); NULL for a job of an earlier
			 version */
	char *output; /* relative to the output root */
	bool overwrite;
	int attempt;     /* 0 until claimed */
	int blocks_done; /* committed blocks: where the next attempt goes on */
	struct job_progress progress;
	char *result; /* JSON, NULL until it succeeded */
	char *error_code, *error_message;
	int64_t created_at, started_at, finished_at;
	int64_t retry_at; /* it is queued, and not claimed before: it failed by what may pass; 0 */
	char *depends_on; /* the ids of those that must succeed before it runs, an array, JSON */
	char *waits_for;  /* those of them that have not */
};

struct job_list {
	struct job *jobs;
	size_t count;
	bool more; /* there are others behind the last one */
};

void job_clear(struct job *);
void job_list_clear(struct job_list *);

/* ---- life of the database ----------------------------------------------------------------------------------------------- */

/* Opens or makes the file, brings its schema up to date, and refuses one that is not besad's or is from a newer besad. On a full
 * disk it is opened so that nothing need be written, and until it is closed reading waits for writing. */
enum status db_open(const char *path, struct db **ret, struct error *err);
void db_close(struct db *); /* takes NULL; no call may be under way */

/* Is the file whole, as far as a quick look tells? STATUS_INVALID says what is damaged. For a start behind an unclean end:
 * nobody else may use it, and nothing of it is changed. STATUS_OK where there is none. */
enum status db_quick_check(const char *path, struct error *err);

/* Everything that can be looked at, in one snapshot of a file that may be in use; nothing is changed. `problem` is told each
 * thing that is wrong, `job`, which may be NULL, every job. STATUS_INVALID for what is no database of besad's,
 * STATUS_UNSUPPORTED for a newer one's. */
struct stored_job {
	char id[JOB_ID_BYTES];
	enum job_state state;
	int blocks_done;
	int blocks; /* of its model; 0 where no attempt has come so far */
};
typedef void db_problem(void *context, const char *text);
typedef enum status db_stored_job(void *context, const struct stored_job *, struct error *err);
struct db_verifier {
	db_problem *problem;
	db_stored_job *job;
	void *context;
};
enum status db_verify(const char *path, const struct db_verifier *, int64_t *ret_version, struct error *err);

/* A copy, as one file that must not be there yet, of one that may be in use. Not synced. */
enum status db_copy(const char *from, const char *to, struct error *err);

/* `committed` is called after each commit that appended an event of that job, or removed the job, on the committing thread and
 * with no lock of the database held. Set once, before other threads use `db`; NULL for none. */
void db_set_listener(struct db *, void (*committed)(void *context, const char *job_id), void *context);

/* `relieve` makes room on a full disk, and says whether it did: then what ends, cancels or forgets a job, and an event that must
 * not be lost, is tried once more; nothing that a client asks for anew is. Called with no lock held. Set once, before other
 * threads use `db`. */
void db_set_relief(struct db *, bool (*relieve)(void *context), void *context);

/* After the process has ended: cancelling jobs are cancelled, pausing ones paused, running ones are queued again. Where it has
 * `died`, and did not only fail to write what came of its job, one whose last `max_attempts` attempts (0: no limit) all ended
 * so, without a block finished, an evaluation told or a step of the tune beyond earlier ones, has failed instead, code
 * `crashed`. Call before anything else uses the queue, by the one process that holds the state directory. */
struct recovery {
	int requeued; /* or cancelled, or paused */
	int failed;
	char id[JOB_ID_BYTES]; /* of the last job that failed so; "" */
};
enum status db_recover(struct db *, bool died, int64_t max_attempts, struct recovery *ret, struct error *err);

/* Does a read transaction succeed? */
enum status db_check(struct db *, struct error *err);

/* How the last transaction that wrote failed, where the next one may fail likewise: STATUS_NO_SPACE, STATUS_BUSY or STATUS_IO. */
enum status db_trouble(struct db *);

/* Does a transaction that writes, and changes nothing, succeed? */
enum status db_probe(struct db *, struct error *err);

/* ---- the queue ---------------------------------------------------------------------------------------------------------- */

/* A new id, larger than every id before it, even when the clock stepped back. */
void db_new_id(struct db *, char ret[JOB_ID_BYTES]);

struct submission {
	const char *id;
	const char *name; /* or NULL */
	int priority;
	const char *spec;
	const char *places; /* or NULL */
	const char *output;
	bool overwrite;
	int64_t expected_bytes;        /* that its output will take, about */
	const char *idempotency_key;   /* or NULL */
	const char *request;           /* what the client sent, in one canonical form: compared when the key comes again */
	const char *const *depends_on; /* ids of jobs, each once: it is not claimed before they all have succeeded, and fails as
					  soon as one has not */
	size_t n_depends_on;
};

enum insert_outcome {
	INSERT_NEW,
	INSERT_REPLAY,         /* same key, same request: the job of then */
	INSERT_KEY_REUSED,     /* same key, other request */
	INSERT_OUTPUT_CLAIMED, /* an unfinished job writes to that output, above it or below it */
	INSERT_QUEUE_FULL,
	INSERT_DEPENDENCY_UNKNOWN, /* it depends on a job that is not there */
	INSERT_DEPENDENCY_FAILED,  /* or that has failed or was cancelled */
	INSERT_QUOTA_QUEUED,       /* whom the thread acts for (db/audit.h) has as many that wait as they may */
	INSERT_QUOTA_DAY,          /* or has submitted as many */
	INSERT_QUOTA_BYTES,        /* or would hold more than they may */
};

/* Queues a job with its job.queued event. *ret is filled for INSERT_NEW and INSERT_REPLAY; of a job that it cannot depend on it
 * has the id, and the state where there is one. */
enum status db_job_insert(struct db *, const struct submission *, int64_t queue_limit, enum insert_outcome *ret_outcome,
			  struct job *ret, struct error *err);

/* What db_job_insert would say of the key alone: INSERT_NEW (unknown), INSERT_REPLAY (*ret is filled) or INSERT_KEY_REUSED. */
enum status db_job_find_key(struct db *, const char *key, const char *request, enum insert_outcome *ret_outcome, struct job *ret,
			    struct error *err);

enum status db_job_get(struct db *, const char *id, struct job *ret, struct error *err); /* STATUS_NOT_FOUND */

struct job_filter {
	int state;            /* of enum job_state; < 0 for all */
	const char *metadata; /* an object of texts, JSON: those that have all of these; or NULL */
};

/* Newest first; `after` NULL or the id of the last job seen (it need not exist any more). */
enum status db_job_list(struct db *, const struct job_filter *, const char *after, int limit, struct job_list *ret,
			struct error *err);

enum status db_job_counts(struct db *, int64_t ret[JOB_STATES], struct error *err);

/* Claims the queued job of the highest priority that is not to wait (retry_at, depends_on), the oldest among equals: running,
 * attempt + 1, job.started.
 * *ret_found says whether there was one; none is found while the queue is drained. */
enum status db_job_claim(struct db *, bool *ret_found, struct job *ret, struct error *err);

/* Drained, in milliseconds of the epoch since when; 0: it is not. It outlasts the process. Behind db_drain_set no job is
 * claimed, or any may be; what is so already stays as it is. */
enum status db_drain_get(struct db *, int64_t *ret_since, struct error *err);
enum status db_drain_set(struct db *, bool drained, int64_t *ret_since, struct error *err);

/* When the first of the queued jobs that wait is to be tried again; 0 where none does. */
enum status db_job_next_retry(struct db *, int64_t *ret, struct error *err);

/* The running attempt of the job computes on that device. */
enum status db_job_set_device(struct db *, const char *id, const char *device, struct error *err);

/* Until when they ended, in milliseconds of the epoch; -1: none of these. */
struct ended_filter {
	int64_t succeeded_by;
	int64_t failed_by; /* or were cancelled */
	bool program;      /* whether the operator's program is told of ends */
};

struct ended_job {
	char id[JOB_ID_BYTES];
	enum job_state state;
	int64_t finished_at;
};

/* Jobs that have ended so, and of whose end nobody is still to be told, in the order in which they ended. *ret, of *ret_count,
 * is the caller's to free; NULL for none. */
enum status db_ended_list(struct db *, const struct ended_filter *, struct ended_job **ret, size_t *ret_count, struct error *err);

/* What the rows of a job hold, with its events, blocks and log, about; 0 where there is no such job. */
enum status db_job_bytes(struct db *, const char *id, int64_t *ret, struct error *err);

/* The bytes of the file that are in use, not those of its journal. */
enum status db_bytes(struct db *, int64_t *ret, struct error *err);

/* Gives room that deleted rows have left back to the file system, at once where no reader is in the way. Nothing where the file
 * was made by an earlier version. */
enum status db_shrink(struct db *, struct error *err);

enum change_outcome {
	CHANGE_DONE,
	CHANGE_WRONG_STATE,
	CHANGE_OUTPUT_CLAIMED, /* retry only */
	CHANGE_QUEUE_FULL,     /* retry and resume only */
	CHANGE_QUOTA,          /* retry only: INSERT_QUOTA_QUEUED */
	CHANGE_QUOTA_BYTES,    /* and INSERT_QUOTA_BYTES */
	CHANGE_DEPENDENCY,     /* retry only: of those that it waits for, one has failed, was cancelled or is forgotten */
};

/* However a job comes to fail or be cancelled, those that depend on it, and on those, fail in the same transaction, code
 * `dependency`. */

/* queued, paused -> cancelled, running, pausing -> cancelling; cancelling and cancelled stay. *ret is the job as it is then.
 * STATUS_NOT_FOUND. */
enum status db_job_cancel(struct db *, const char *id, enum change_outcome *ret_outcome, struct job *ret, struct error *err);

/* queued -> paused, running -> pausing; pausing and paused stay. */
enum status db_job_pause(struct db *, const char *id, enum change_outcome *ret_outcome, struct job *ret, struct error *err);

/* paused -> queued, pausing -> running, whose attempt ends all the same and is followed by another; queued and running stay. */
enum status db_job_resume(struct db *, const char *id, int64_t queue_limit, enum change_outcome *ret_outcome, struct job *ret,
			  struct error *err);

/* failed or cancelled -> queued; committed blocks are kept. */
enum status db_job_retry(struct db *, const char *id, int64_t queue_limit, enum change_outcome *ret_outcome, struct job *ret,
			 struct error *err);

/* Forgets a finished job with its events and blocks. No job waits for it any more. */
enum status db_job_delete(struct db *, const char *id, enum change_outcome *ret_outcome, struct error *err);

/* running -> queued, because the daemon stops; cancelling -> cancelled; pausing -> paused. */
enum status db_job_requeue(struct db *, const char *id, struct error *err);

/* running, cancelling or pausing -> `state`, which is final, with the event that says so. `result` is JSON for JOB_SUCCEEDED;
 * `code` and `message` are set for JOB_FAILED. */
enum status db_job_finish(struct db *, const char *id, enum job_state state, const char *result, const char *code,
			  const char *message, struct error *err);

/* When a job that failed by what may pass is tried again: first after so many milliseconds, then after twice as long each time,
 * up to an hour. */
struct retry_rule {
	int64_t most; /* times in a row, with no block finished in between; 0: never */
	int64_t first_delay;
};

/* A running job has failed: by the rule it is queued again with an event that tells why, and *ret_retry_at says when it may be
 * claimed, or, 0, it is finished as failed, as one that is cancelling or pausing is. */
enum status db_job_fail(struct db *, const char *id, const char *code, const char *message, const struct retry_rule *,
			int64_t *ret_retry_at, struct error *err);

enum status db_job_set_progress(struct db *, const char *id, const struct job_progress *, struct error *err);

/* ---- notifications: whom to tell of a job's end: the operator's program, and `notify.url` of its spec; noted in the
 * transaction that ends the job ---- */

struct notification {
	char job_id[JOB_ID_BYTES];
	char *url;      /* "" for the program */
	int attempts;   /* that failed */
	int64_t due_at; /* in milliseconds of the epoch */
};
void notification_clear(struct notification *);

/* Of those whose `url` is not skipped, the one that is due first, whether or not its time has come; *ret_found says whether
 * there is any. */
typedef bool notification_skip(void *context, const char *url);
enum status db_notification_next(struct db *, notification_skip *, void *context, bool *ret_found, struct notification *ret,
				 struct error *err);
/* It was delivered, or is given up. */
enum status db_notification_done(struct db *, const struct notification *, struct error *err);
/* It failed once more, and is due again at that time. */
enum status db_notification_delay(struct db *, const struct notification *, int64_t due_at, struct error *err);

/* ---- events and blocks -------------------------------------------------------------------------------------------------- */

struct stored_event {
	int64_t id; /* 1, 2, 3 … within its job */
	char *type;
	int64_t created_at;
	char *data; /* JSON */
};

struct event_list {
	struct stored_event *events;
	size_t count;
	bool more;            /* there are others behind the last one */
	enum job_state state; /* of the job, and the id of its newest event, in the same snapshot */
	int64_t last;
};

void event_list_clear(struct event_list *);

struct new_event {
	const char *type, *data; /* data is JSON */
	int64_t at;              /* milliseconds since 1970 */
	bool optional;           /* not worth the room that is kept for what must be written */
};

/* Appends one event, and the progress where it is not NULL. STATUS_NOT_FOUND when there is no such job. */
enum status db_event_append(struct db *, const char *id, const struct new_event *, const struct job_progress *, struct error *err);

/* Block `block` is finished: its report row, block.finished and blocks_done, all or nothing. A block that is already committed,
 * or that is not the next one, is STATUS_INTERNAL. */
enum status db_block_commit(struct db *, const char *id, int block, const char *data, int64_t at, const struct job_progress *,
			    struct error *err);

/* Up to `limit` events with ids above `after`, in order, and no more once they have more data than `bytes`, or DB_PAGE_BYTES.
 * STATUS_NOT_FOUND. */
enum status db_event_list(struct db *, const char *id, int64_t after, int limit, struct event_list *ret, struct error *err);
enum status db_event_batch(struct db *, const char *id, int64_t after, int limit, size_t bytes, struct event_list *ret,
			   struct error *err);

/* The data of the finished blocks, or of the job's events of that type, in order, as *ret_count strings of JSON; freed with
 * text_list_free. STATUS_NOT_FOUND. */
enum status db_block_list(struct db *, const char *id, char ***ret, size_t *ret_count, struct error *err);
enum status db_event_data(struct db *, const char *id, const char *type, char ***ret, size_t *ret_count, struct error *err);
void text_list_free(char **texts, size_t count);

/* ---- the log of a job --------------------------------------------------------------------------------------------------- */

/* Notes a line of the job's log behind its newest event; of more than 1000 the oldest go. `level` is info, warning or error.
 * Nothing where there is no such job. */
enum status db_job_note(struct db *, const char *id, const char *level, const char *text, struct error *err);

/* Calls `take` with the events of the job, but not those of a block's start and of steps, and with its notes, in the order in
 * which they were written: the type and the data of an event, the level and the text of a note. STATUS_NOT_FOUND, or how `take`
 * fails. */
typedef enum status db_log_line(void *context, int64_t at, bool is_note, const char *kind, const char *text, struct error *err);
enum status db_job_log(struct db *, const char *id, db_log_line *take, void *context, struct error *err);

/* ---- timings: how long what has run took ---------------------------------------------------------------------------------- */

/* Of one job. */
struct timing {
	char *spec, *places, *result; /* as in struct job */
	int attempt;
	int64_t blocks;       /* that are finished */
	double block_seconds; /* the mean of theirs */
	char *block;          /* the data of the last of them, JSON; NULL for none */
};

struct timing_list {
	struct timing *timings;
	size_t count;
};

/* Those of the up to `limit` newest jobs that ran on that device alone, the newest first; freed with timing_list_clear. */
enum status db_timings(struct db *, const char *device, int limit, struct timing_list *ret, struct error *err);
void timing_list_clear(struct timing_list *);

#endif
