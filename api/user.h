/* Who is at the other end of a Unix socket: what the kernel noted when the connection was made. */
#ifndef BESAD_API_USER_H
#define BESAD_API_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct user {
	uid_t uid;
	gid_t *groups; /* all of theirs */
	size_t n_groups;
};

/* The id that stands for all that have none in this process's user namespace: nobody may be let in by it. */
enum { USER_NOBODY = 65534 };

/* Whether it is a Unix socket, listening or connected. */
bool user_socket(int fd);

/* False where `fd` is no connection of a Unix socket. *ret is freed with user_clear. */
bool user_read(int fd, struct user *ret);
void user_clear(struct user *);

/* Root, or whom this process runs as: they could read and change whatever besad has anyway. */
bool user_is_operator(const struct user *);

#endif
