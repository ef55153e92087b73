/* The live events of one job: one connection at a time, which the caller opens again when it is lost. */
#ifndef BESAD_CTL_STREAM_H
#define BESAD_CTL_STREAM_H

#include "ctl/client.h"
#include "ctl/sse.h"

struct stream;

/* `event` is called from stream_poll. */
enum status stream_create(struct client *, const char *job_id, sse_event_fn *event, void *context, struct stream **ret,
			  struct error *err);
void stream_free(struct stream *); /* takes NULL */

enum stream_state {
	STREAM_OPEN,    /* or being opened */
	STREAM_LOST,    /* no connection: stream_connect makes one */
	STREAM_REFUSED, /* the daemon answered with something else than a stream, or with an event that is too long */
};

/* Connects, asking for the events behind the last one received. Fails for want of memory only. */
enum status stream_connect(struct stream *, struct error *err);

/* Waits up to `milliseconds` for something to happen, and handles it. */
enum stream_state stream_poll(struct stream *, int milliseconds);

/* Of a lost or refused connection: the HTTP status (0: none) and why it ended. Valid until stream_connect. */
long stream_status(const struct stream *);
const char *stream_failure(const struct stream *);

/* Has this connection brought anything? */
bool stream_alive(const struct stream *);

#endif
