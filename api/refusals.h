/* Requests that are refused for want of a token, or of its role. The answer to a wrong token waits, the longer the more there
 * were from its address, so that guessing is slow; a right one never does. What was refused alike is summed up, logged and noted
 * in the audit, at most once in ten seconds. All of it on a thread of its own. */
#ifndef BESAD_API_REFUSALS_H
#define BESAD_API_REFUSALS_H

#include "api/http.h"

struct refusals;

/* An answer that waits. */
struct held {
	struct held *next;
	double due; /* monotonic seconds */
	void (*release)(struct held *);
};

enum status refusals_create(struct db *, const struct api_hooks *, struct refusals **ret, struct error *err);

/* Notes that a request was refused as `problem` says, and returns for how many seconds its answer is to wait: 0 for none. */
double refusals_note(struct refusals *, const struct request *, const char *problem);

/* `release` is called by another thread after so many seconds, or as soon as refusals_stop is; or at once, where too many wait. */
void refusals_hold(struct refusals *, struct held *, double seconds);

/* Releases all, writes what is not yet written, and ends the thread. */
void refusals_stop(struct refusals *);
void refusals_free(struct refusals *); /* takes NULL; behind refusals_stop */

#endif
