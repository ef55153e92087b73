/* A body that is still being made while it is sent: one thread writes it, the server's reads. The writer shares it with the
 * exchange whose answer it may become, and with the response that sends it; the last of them frees it. */
#ifndef BESAD_API_LIVE_H
#define BESAD_API_LIVE_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>

#include "api/peers.h"

struct live;

/* Of a connection that is suspended, whose deadline is `peer`'s. It has two holders, the writer and the exchange. NULL without
 * memory. */
struct live *live_create(struct MHD_Connection *, struct peers *, struct peer *);
void live_release(struct live *); /* by a holder; takes NULL */

/* ---- the writer ---------------------------------------------------------------------------------------------------------- */

/* Is there nobody any more who would read it? A client that sends no more counts as gone, as it does for most servers. */
bool live_gone(struct live *);

/* The answer is ready to be sent but for its body: the connection is resumed, and request and response are the server's. */
void live_begin(struct live *);
bool live_begun(const struct live *);

void live_write(struct live *, const char *text, size_t bytes);
void live_end(struct live *);
void live_fail(struct live *); /* a part is missing: the body ends without its end */

/* ---- the server ---------------------------------------------------------------------------------------------------------- */

/* The response that sends it. NULL without memory. */
struct MHD_Response *live_response(struct live *);

/* The request is over: from here on the connection is not touched. */
void live_close(struct live *);

#endif
