/* Studies: jobs that were submitted together, each with settings of its own. Threads and crash safety are as db.h says. */
#ifndef BESAD_DB_STUDIES_H
#define BESAD_DB_STUDIES_H

#include "db/db.h"

/* Strings are owned; study_clear frees them. */
struct study {
	char id[JOB_ID_BYTES];
	char *name;
	char *spec, *grid; /* JSON, as the client wrote them; NULL in a list */
	int64_t created_at;
	int64_t counts[JOB_STATES]; /* of its jobs */
};

/* One of its jobs. What is forgotten has left its state, its result and its error. */
struct study_row {
	char *settings; /* JSON: what the job has of the grid */
	bool forgotten;
	struct job job; /* id, state, output, progress.fraction, result, error_code and error_message; the rest is 0 */
};

struct study_list {
	struct study *studies;
	size_t count;
	bool more; /* there are others behind the last one */
};

struct study_rows {
	struct study_row *rows; /* in the order of the grid */
	size_t count;
};

void study_clear(struct study *);
void study_list_clear(struct study_list *);
void study_rows_clear(struct study_rows *);

struct study_submission {
	const char *id, *name, *spec, *grid;
	const char *idempotency_key, *request; /* as in struct submission */
	struct {
		struct submission job; /* without a key */
		const char *settings;
	} * jobs;
	size_t count;
};

/* Queues the jobs of a study, all of them or, where *ret_outcome is not INSERT_NEW, none. *ret_id is the study's, for INSERT_NEW
 * and INSERT_REPLAY; *ret_claimed the index of a job whose output is claimed, for INSERT_OUTPUT_CLAIMED. */
enum status db_study_insert(struct db *, const struct study_submission *, int64_t queue_limit, enum insert_outcome *ret_outcome,
			    char ret_id[JOB_ID_BYTES], size_t *ret_claimed, struct error *err);

/* As db_job_find_key. */
enum status db_study_find_key(struct db *, const char *key, const char *request, enum insert_outcome *ret_outcome,
			      char ret_id[JOB_ID_BYTES], struct error *err);

/* Both at one moment. STATUS_NOT_FOUND. */
enum status db_study_get(struct db *, const char *id, struct study *ret, struct study_rows *ret_rows, struct error *err);

/* As db_job_list. */
enum status db_study_list(struct db *, const char *after, int limit, struct study_list *ret, struct error *err);

/* Cancels every job that is not finished, in one transaction. CHANGE_WRONG_STATE where all of them have succeeded or failed. */
enum status db_study_cancel(struct db *, const char *id, enum change_outcome *ret_outcome, struct error *err);

/* Forgets a study with its jobs. CHANGE_WRONG_STATE where one is not finished. */
enum status db_study_delete(struct db *, const char *id, enum change_outcome *ret_outcome, struct error *err);

#endif
