/* Event streams (server-sent events). Watchers of one job share a channel: each new batch of events is read and formatted once. */
#ifndef BESAD_API_STREAM_H
#define BESAD_API_STREAM_H

#include <microhttpd.h>

#include "api/metrics.h"
#include "api/token.h"
#include "base/error.h"
#include "db/db.h"

struct hub;

/* `tokens` may be NULL, and are the caller's. */
enum status hub_create(struct db *, struct metrics *, struct tokens *, size_t most_streams, struct hub **ret, struct error *err);

/* There are new events of that job, or it is gone. Quick; for db_set_listener, with the hub as context. */
void hub_notify(void *hub, const char *job_id);

/* A response that streams the job's events after `after` to `connection`; `last` is the id of an event that there is. It ends
 * once the token of that serial is taken away. NULL when there are too many streams, or no memory. */
struct MHD_Response *hub_open(struct hub *, struct MHD_Connection *connection, uint64_t token, const char *job_id, int64_t after,
			      int64_t last);

/* Resumes and ends every stream, for good: none is suspended afterwards. */
void hub_stop(struct hub *);
void hub_free(struct hub *); /* after the last stream is gone; takes NULL */

#endif
