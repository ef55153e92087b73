/* `besad backup`, `besad check` and `besad restore`: a copy of the state directory, the way back, and whether either is whole. A
 * backup is a directory: besad.db, jobs/ID/…, and a manifest of these. Each returns the exit status. */
#ifndef BESAD_DAEMON_BACKUP_H
#define BESAD_DAEMON_BACKUP_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/place.h"
#include "daemon/options.h"

int backup(const struct options *);
int check(const struct options *);   /* check.c */
int restore(const struct options *); /* restore.c */

/* Copies a file durably, and compares what lies there then with what was read. */
enum status copy_checked(const struct file *from, const struct place *to, const char *name, struct error *err);

/* Looks at a backup or a state directory, as `besad check` does; *ret_problems: how much is wrong. */
struct check_report {
	bool backup;
	int64_t version; /* of the database */
	int jobs, checkpoints;
	cJSON *problems;    /* texts; the caller's to free, also after a failure */
	char unusable[400]; /* the first of those that are not of one job's checkpoint alone; "" for none */
};
enum status check_directory(const char *directory, struct check_report *ret, struct error *err);

#endif
