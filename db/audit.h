/* The audit: who has changed what, from where, and who was refused. What is written by a thread that acts for somebody is noted
 * in the transaction that writes it. The newest AUDIT_CHANGES entries are kept, those of refusals apart from them,
 * AUDIT_REFUSALS; and none for longer than AUDIT_DAYS. */
#ifndef BESAD_DB_AUDIT_H
#define BESAD_DB_AUDIT_H

#include "db/db.h"

enum { AUDIT_CHANGES = 100000, AUDIT_REFUSALS = 10000, AUDIT_DAYS = 400 };

/* Somebody who asks for something. */
struct actor {
	const char *who;     /* NULL: nobody was asked for a token */
	const char *peer;    /* the address; or NULL */
	const char *action;  /* "job.cancel" */
	int64_t max_queued;  /* their jobs that may be queued or paused; 0: as many as there may be */
	int64_t max_per_day; /* and that they may submit in 24 hours */
	int64_t max_bytes;   /* that their jobs may hold on the disks; 0: no bound */
	int64_t held_bytes;  /* and do, of those that have ended: db_holdings */

	/* Filled while a thread acts for them. */
	bool noted;           /* a transaction that was committed has an entry of it */
	bool pending;         /* the one that is under way has */
	int64_t wait_seconds; /* where max_per_day was in the way: for how long it is */
	int64_t expected_bytes,
		wanted_bytes; /* where max_bytes was: of jobs that have not ended, and of the one that was refused */
};

/* From here on the calling thread acts for `actor`, which lives until the next call; NULL: for nobody, and nothing is noted. */
void db_act_for(struct actor *);

/* Strings are owned; audit_list_clear frees them. */
struct audit_entry {
	int64_t id;       /* larger than that of every entry before it */
	int64_t at;       /* in milliseconds of the epoch */
	char *who, *peer; /* or NULL */
	char *action;
	char *target;  /* the id of a job or a study; or NULL */
	char *outcome; /* "done", or the name of the problem that was answered */
	int64_t count; /* how many: jobs of a study, or requests that were refused alike; else 1 */
};

struct audit_list {
	struct audit_entry *entries;
	size_t count;
	bool more; /* there are others behind the last one */
};

void audit_list_clear(struct audit_list *);

/* What came of a request that has changed no rows, in a transaction of its own. `refused`: it
 * counts among what was refused, of which fewer are kept. */
enum status db_audit_note(struct db *, const struct actor *, const char *target, const char *outcome, int64_t count, bool refused,
			  struct error *err);

/* Newest first; `before` is the id of the last one seen, or INT64_MAX. */
enum status db_audit_list(struct db *, int64_t before, int limit, struct audit_list *ret, struct error *err);

#endif
