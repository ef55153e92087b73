/* Who may break off what takes long many calls below, such as the copy of a large file, and is told that it gets on. Each thread
 * has its own, or none: who copies a file need not know for whom. */
#ifndef BESAD_BASE_WATCH_H
#define BESAD_BASE_WATCH_H

#include <stdatomic.h>

#include "base/error.h"

struct watch {
	const atomic_bool *stop;
	void (*beat)(void *context); /* or NULL */
	void *context;
};

/* This thread's from here on; borrowed. NULL: none. */
void watch_set(const struct watch *);

/* Now and then on the way: tells that `what` gets on, and is STATUS_CANCELLED where it is to stop. */
enum status watch_look(const char *what, struct error *err);

#endif
