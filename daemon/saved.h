/* The files of a job's checkpoint (engine/prune/savepoint.h) as they were at one moment, also while the job runs and replaces
 * them. */
#ifndef BESAD_DAEMON_SAVED_H
#define BESAD_DAEMON_SAVED_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "base/file.h"

enum { SAVED_FILES = 6 };

struct saved {
	struct file files[SAVED_FILES]; /* open; their paths are below the directory */
	int count;
	cJSON *savepoint; /* NULL where there is none, or where it cannot be read */
};

/* Opens the savepoint, what it says that the job goes on from, and the state of a tune, or what it will begin with. Nothing is
 * open, and it is STATUS_OK, where there is no savepoint, and no directory. What cannot be read of a savepoint is STATUS_INVALID.
 * Closed by saved_close, also after a failure. */
enum status saved_open(const char *directory, struct saved *ret, struct error *err);
void saved_close(struct saved *);

/* How many blocks its savepoint has. */
int saved_blocks(const struct saved *);

/* Is the file of hidden states there, where one must be? `blocks`: of the model; 0: it is not known. */
enum status saved_complete(const struct saved *, const char *directory, int blocks, struct error *err);

/* Has one of its files of hidden states, or of a tune, the bytes that it was written with? One that an earlier besad wrote has
 * no checksum. */
enum status saved_check(const struct file *, struct error *err);

#endif
