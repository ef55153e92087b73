#include "api/user.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* With the main one alone where the others cannot be had. */
static void read_groups(int fd, gid_t first, struct user *user)
{
	socklen_t bytes = 0;
	getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &bytes); /* says how many there are */
	user->groups = calloc(1 + bytes / sizeof *user->groups, sizeof *user->groups);
	if (!user->groups) return;
	user->groups[user->n_groups++] = first;
	if (bytes && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, user->groups + 1, &bytes) == 0)
		user->n_groups += bytes / sizeof *user->groups;
}

bool user_socket(int fd)
{
	int domain = 0;
	socklen_t size = sizeof domain;
	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

bool user_read(int fd, struct user *ret)
{
	struct ucred peer = {0};
	socklen_t size = sizeof peer;
	*ret = (struct user){.uid = USER_NOBODY};
	if (!user_socket(fd)) return false;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return true;
	ret->uid = peer.uid;
	read_groups(fd, peer.gid, ret);
	return true;
}

void user_clear(struct user *user)
{
	free(user->groups);
	*user = (struct user){.uid = USER_NOBODY};
}

bool user_is_operator(const struct user *user)
{
	return user->uid != USER_NOBODY && (user->uid == 0 || user->uid == geteuid());
}
