/* Whether all is well, looked at once a second on a thread of its own, so that whoever asks never waits for a disk or for the
 * database. It also keeps the ballast: a file in the state directory that is given up when the disk is full, so that jobs can be
 * ended, cancelled and forgotten. */
#ifndef BESAD_DAEMON_HEALTH_H
#define BESAD_DAEMON_HEALTH_H

#include <stdbool.h>

#include "daemon/options.h"
#include "db/db.h"

struct health;

/* Looks once, so that what is asked next is known. Makes the ballast, where there is room. */
enum status health_start(const struct options *, struct db *, struct health **ret, struct error *err);
void health_stop(struct health *); /* its thread; takes NULL */
void health_free(struct health *);

/* STATUS_OK, or why besad is not ready. */
enum status health_check(struct health *, struct error *err);

/* May a job be accepted, or begin? STATUS_NO_SPACE, or what keeps the queue from being sound. */
enum status health_accepts(struct health *, struct error *err);

/* Is there less room below the state directory than is to stay free? Then a job takes no further step that needs some. */
bool health_is_low(struct health *);

/* Has the ballast been given up, and not been made again? Then what is not needed is not written. */
bool health_is_spent(struct health *);

/* What of the last process's queue could not be made sound, NULL once it is. */
void health_set_queue(struct health *, const struct error *);

/* Gives up the ballast of a state directory. True where there was one. */
bool ballast_release(const char *state_dir);

#endif
