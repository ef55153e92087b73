/* The threads that share out an operation's work. A range is cut into chunks that are handed out as they are asked for: first
 * those that are a thread's own, the same ones each time, so that what it has in its cache serves it, then those of others. What
 * is waited for at the end is chunks, never threads, so that a thread that has lost its core to another program is missed only
 * where it holds a chunk; it is lent the core of the thread that waits then (crew.c).
 *
 * Which thread does what changes no result as long as a chunk's result is its own; where chunks begin must not depend on the
 * number of threads where that would show. */
#ifndef BESAD_ENGINE_CPU_CREW_H
#define BESAD_ENGINE_CPU_CREW_H

#include <stdint.h>

struct crew;

/* A part [first, last) of a range; which of the crew's threads does it, from 0. */
struct share {
	int64_t first, last;
	int thread;
};

typedef void crew_work(const void *context, struct share);

/* A crew of so many threads, the caller of crew_run among them; fewer where the system gives no more. NULL: no memory. */
struct crew *crew_create(int threads);
void crew_free(struct crew *);

/* Does [0, n), `chunk` at a time, the caller as thread 0. One call at a time. oneDNN's functions run on one thread inside. */
void crew_run(struct crew *, int64_t n, int64_t chunk, crew_work *, const void *context);

#endif
