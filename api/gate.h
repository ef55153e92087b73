/* Takes the connections of a Unix socket for a server that does not listen itself. The server library, up to 0.9.75 at least,
 * takes a client's address for one that fits into an IPv6 one, and would read beyond it where a client has bound itself to a
 * long name; and it counts no connections of addresses that are neither IPv4 nor IPv6. So it is told an address that stands for
 * the client's user, of whom each may have as many connections as a network address. */
#ifndef BESAD_API_GATE_H
#define BESAD_API_GATE_H

#include <microhttpd.h>

#include "base/error.h"

struct gate;

/* `fd`, a listening Unix socket that does not block, stays the caller's. */
enum status gate_open(int fd, struct MHD_Daemon *, struct gate **ret, struct error *err);
void gate_close(struct gate *); /* takes NULL; the server goes on */

#endif
