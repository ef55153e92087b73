/* What the files of db/ share, grouped by the file that owns it. */
#ifndef BESAD_DB_INTERNAL_H
#define BESAD_DB_INTERNAL_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "db/db.h"

/* ---- db.c: connections, transactions, statements ------------------------------------------------------------------------ */

enum { CACHED_STATEMENTS = 96 }; /* more than there are: one connection may have to do all (`alone`) */

struct connection {
	sqlite3 *handle;
	struct {
		const char *sql;
		sqlite3_stmt *statement;
	} cache[CACHED_STATEMENTS];
	struct connection *next; /* in the pool */

	/* Of the writer: other jobs than the one that write_end is told of, of which the transaction under way has news. */
	char (*told)[JOB_ID_BYTES];
	size_t n_told;
};

struct db {
	char *path;
	pthread_mutex_t write_lock;
	struct connection writer;
	bool alone; /* the writer reads, too, under its lock: there was no room for more connections */
	pthread_mutex_t pool_lock;
	struct connection *pool; /* idle readers */
	pthread_mutex_t id_lock;
	uint8_t last_id[16]; /* big-endian: 48 bits of milliseconds, 80 random */
	void (*committed)(void *context, const char *job_id);
	void *context;
	bool (*relieve)(void *context);
	void *relief;
	pthread_mutex_t relief_lock; /* held while room is made, so that who failed meanwhile hears of it */
	unsigned reliefs;            /* how often room was made */
	bool uncut;                  /* whether pages that are free may still lie in the file; under write_lock */
	atomic_int trouble;          /* the status of the last transaction that wrote, where others may fail as it did */
};

/* Who waits for longer says so, and tries again as it sees fit: writers wait for each other, and requests for them. */
#define BUSY_TIMEOUT "PRAGMA busy_timeout = 2000"

/* A connection of its own, for one thread, with SQLite's flags and behind these statements. Closed also where it was cleared. */
enum status connection_open(struct connection *, const char *path, int flags, const char *pragmas, struct error *err);
void connection_close(struct connection *);

/* A write transaction: holds the write lock from write_begin to write_end, which commits when `status` is STATUS_OK and rolls back
 * otherwise, and returns what the whole came to. After a commit the listener hears of `job_id`, unless it is NULL, and of the
 * writer's `told`. */
enum status write_begin(struct db *, struct error *err);
enum status write_end(struct db *, enum status status, const char *job_id, struct error *err);

/* Has a transaction that came to `status` failed for want of room, and is there more room now, made for it or for another that
 * failed beside it (db_set_relief)? Then it is worth another try. *reliefs is what write_reliefs said before the first. */
bool write_again(struct db *, enum status status, unsigned *reliefs);
unsigned write_reliefs(struct db *);

/* A read transaction: one snapshot, on a connection of its own. */
enum status read_begin(struct db *, struct connection **ret, struct error *err);
void read_end(struct db *, struct connection *);

/* A statement for `sql`, ready to be stepped, with parameters bound by `types`: s text (NULL is null), i int64_t, d double.
 * `sql` has static storage: statements are cached by its address. NULL, and `err` filled, on failure. */
sqlite3_stmt *query(struct connection *, struct error *err, const char *sql, const char *types, ...);

/* Steps to the next row; *ret_row says whether there was one. */
enum status query_step(struct connection *, sqlite3_stmt *, bool *ret_row, struct error *err);

/* The first column of its only row, 0 without one. A NULL statement fails as `query` did. */
enum status query_integer(struct connection *, sqlite3_stmt *, int64_t *ret, struct error *err);

/* Runs a statement that returns no rows. *ret_changes, where not NULL, is the number of rows changed. */
enum status execute(struct connection *, struct error *err, int *ret_changes, const char *sql, const char *types, ...);

enum status sqlite_error(struct connection *, const char *what, struct error *err);

/* A copy of a column's text, NULL for null. STATUS_NO_MEMORY where it cannot be had. */
enum status column_copy(sqlite3_stmt *, int column, char **ret, struct error *err);

/* ---- schema.c ----------------------------------------------------------------------------------------------------------- */

/* Is it a database that this besad may write to? STATUS_INVALID, or STATUS_UNSUPPORTED for that of a newer one. Writes nothing. */
enum status schema_check(struct connection *, const char *path, struct error *err);
enum status schema_version(struct connection *, const char *path, int64_t *ret,
			   struct error *err);                    /* the same, and of which version it is */
enum status schema_touch(struct connection *, struct error *err); /* in a write transaction: writes a page and changes nothing */
enum status schema_migrate(struct connection *, const char *path, struct error *err);

/* ---- id.c --------------------------------------------------------------------------------------------------------------- */

void id_init(struct db *, const char *largest); /* `largest` id in use, or NULL */

/* ---- jobs.c ------------------------------------------------------------------------------------------------------------- */

/* Reads one job inside a transaction; STATUS_NOT_FOUND. */
enum status job_read(struct connection *, const char *id, struct job *ret, struct error *err);

/* Inside a write transaction: queues a job, or says in *ret_outcome why not; and cancels one that was read, or says that it is
 * finished.
 * *ret_event: whether an event was appended. */
enum status job_insert(struct connection *, const struct submission *, int64_t queue_limit, enum insert_outcome *ret_outcome,
		       struct job *ret, struct error *err);
enum status job_cancel(struct connection *, const struct job *, enum change_outcome *ret_outcome, bool *ret_event,
		       struct error *err);

/* {"code": …, "message": …}, as the event job.failed has it. */
enum status failure_json(struct connection *, const char *code, const char *message, char **ret, struct error *err);

/* Is what was stored with a key the same request? */
enum status same_request(const char *stored, const char *request, bool *ret, struct error *err);

/* The text of a column, cut where there is no room for more; "" for null. */
void copy_text(sqlite3_stmt *, int column, char *to, size_t size);

/* ---- dependencies.c: jobs that wait for others. All inside a transaction ----------------------------------------------------- */

/* Can a job that is new depend on those? *ret_outcome is INSERT_NEW, or which of them it cannot depend on is in *ret
 * (db_job_insert). */
enum status dependencies_check(struct connection *, const struct submission *, enum insert_outcome *ret_outcome, struct job *ret,
			       struct error *err);
enum status dependencies_insert(struct connection *, const struct submission *, struct error *err);

/* Job `id` has succeeded: those that waited for it alone may be claimed. */
enum status dependencies_met(struct connection *, const char *id, struct error *err);

/* Job `id` has ended otherwise, as `state` says: those that wait for it fail, and those that wait for them. */
enum status dependants_fail(struct connection *, const char *id, enum job_state state, struct error *err);

/* Is one of those that the job waits for not going to succeed, as it is? */
enum status dependencies_are_lost(struct connection *, const char *id, bool *ret, struct error *err);

/* ---- audit.c: of whom the calling thread acts for (db_act_for). Inside a write transaction ---------------------------------- */

/* It has changed that. */
enum status audit_change(struct connection *, const char *target, int64_t count, struct error *err);
void audit_end(bool committed); /* the transaction is over */
const char *audit_who(void);    /* NULL for nobody */

/* Is a limit of theirs in the way of one more job that is queued, or of so many that are submitted? */
enum status quota_queued(struct connection *, bool *ret_over, struct error *err);
enum status quota_day(struct connection *, int64_t jobs, bool *ret_over, struct error *err);

/* Or of a job that is expected to hold so many bytes; `again`: of that one, which has ended, once more. */
enum status quota_bytes(struct connection *, int64_t wanted, const char *again, bool *ret_over, struct error *err);

/* ---- events.c ----------------------------------------------------------------------------------------------------------- */

/* Appends an event inside a write transaction. */
enum status event_insert(struct connection *, const char *id, const char *type, const char *data, struct error *err);
enum status progress_write(struct connection *, const char *id, const struct job_progress *, struct error *err);

/* ---- outputs.c ---------------------------------------------------------------------------------------------------------- */

/* Does an unfinished job write to `output`, to a directory in it, or to one that holds it? */
enum status output_is_claimed(struct connection *, const char *output, bool *ret, struct error *err);

#endif
