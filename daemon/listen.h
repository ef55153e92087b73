/* Listening sockets. */
#ifndef BESAD_DAEMON_LISTEN_H
#define BESAD_DAEMON_LISTEN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum { MAX_SOCKETS = 8 };

struct sockets {
	int fds[MAX_SOCKETS];
	size_t n;
	int port;      /* of the first that has one; else 0 */
	bool loopback; /* all of them, or Unix sockets */
};

/* Opens every address that HOST:PORT or [HOST]:PORT means, or the Unix socket unix:/PATH, and adds it. What a process that died
 * has left at that path is replaced; one that answers, or is no socket, is refused. */
enum status listen_open(const char *address, struct sockets *, struct error *err);

/* Removes the Unix socket that listen_open made for unix:/PATH, once nobody listens there; of another address nothing. */
void listen_remove(const char *address);

/* Takes the listening sockets that systemd passed on, if it did (sd_listen_fds(3)). */
enum status listen_inherit(struct sockets *, struct error *err);

/* Makes `ret` duplicates of listening sockets that stay open when those are closed. */
enum status listen_keep(const int *fds, size_t n, struct sockets *ret, struct error *err);

/* Hands them on, as systemd does, to the program that this process is about to execute; every other descriptor but 0, 1 and 2 is
 * closed. */
void listen_pass_on(const struct sockets *);

void listen_close(struct sockets *);

#endif
