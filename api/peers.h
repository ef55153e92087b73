/* Deadlines of connections. The server library's timeout is of inactivity only: a client that sends or takes a byte a second
 * would stay for ever. A connection that misses its deadline is shut down. Where there are many, those that wait for a request make
 * way for others sooner: else whoever holds them all, and says nothing, would keep everybody out. One whose client has gone, in
 * the middle of a request or before one, is shut down too. */
#ifndef BESAD_API_PEERS_H
#define BESAD_API_PEERS_H

#include <stddef.h>

#include "base/error.h"

struct peers;
struct peer;

/* Once `crowd` are there, none waits for a request longer than `crowded_seconds`. */
enum status peers_create(size_t crowd, int crowded_seconds, struct peers **ret, struct error *err);
void peers_free(struct peers *); /* takes NULL; every peer has been removed */

/* It waits for a request, for so long at most. `fd` stays open until peer_remove. NULL when memory runs out: that connection has no
 * deadline but the library's. */
struct peer *peer_add(struct peers *, int fd, int seconds);
void peer_wait(struct peers *, struct peer *, int seconds);         /* for the next one. All these take a NULL peer */
void peer_set_deadline(struct peers *, struct peer *, int seconds); /* of what it has now, from now; 0 for none */
void peer_remove(struct peers *, struct peer *);

#endif
