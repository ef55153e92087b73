/* A parser of server-sent events (WHATWG HTML, "Parsing an event stream") that takes the stream in pieces of any size. */
#ifndef BESAD_CTL_SSE_H
#define BESAD_CTL_SSE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"

enum { SSE_LIMIT = 4 << 20 }; /* bytes of one line, and of one event's data */

struct sse {
	struct buffer line, type, data, id;
	bool after_return; /* the last byte was a CR: a LF behind it ends no line */
	bool started;      /* the first line, which may begin with a byte order mark, is over */
	bool overflow;
};

/* One event: `type` is "message" where the stream names none; `id` is the last id that the stream gave, "" before the first. */
typedef void sse_event_fn(void *context, const char *type, const char *id, const char *data, size_t data_size);

/* Parses the next piece, calling `event` for each event that it completes. False once a line or an event was too long, or memory
 * ran out: the stream is then of no more use. */
bool sse_feed(struct sse *, const char *bytes, size_t size, sse_event_fn *event, void *context);

/* Forgets an unfinished event, for a new connection. The last id stays. */
void sse_reset(struct sse *);
void sse_free(struct sse *);

#endif
