/* Deadlines of connections. The server library's timeout is of inactivity only: a client that sends or takes a byte a second
 * would stay for ever. A connection that misses its deadline is shut down. */
#ifndef BESAD_API_PEERS_H
#define BESAD_API_PEERS_H

#include "base/error.h"

struct peers;
struct peer;

enum status peers_create(struct peers **ret, struct error *err);
void peers_free(struct peers *); /* takes NULL; every peer has been removed */

/* `fd` stays open until peer_remove. NULL when memory runs out: that connection has no deadline but the library's. */
struct peer *peer_add(struct peers *, int fd, int seconds);
void peer_set_deadline(struct peers *, struct peer *, int seconds); /* from now; 0 for none. Takes a NULL peer */
void peer_remove(struct peers *, struct peer *);                    /* takes a NULL peer */

#endif
