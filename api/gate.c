#include "api/gate.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAUSE_MILLISECONDS = 100 /* when there are no descriptors, or no memory */ };

struct gate {
	int fd, stop;
	struct MHD_Daemon *server;
	pthread_t thread;
};

static void admit(struct gate *gate, int fd)
{
	struct sockaddr_in6 address = {.sin6_family = AF_INET6};
	struct ucred peer = {0};
	socklen_t size = sizeof peer;
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
	address.sin6_addr.s6_addr[0] = 0xfd; /* of no network that there is */
	memcpy(address.sin6_addr.s6_addr + 12, &peer.uid, sizeof peer.uid);
	MHD_add_connection(gate->server, fd, (struct sockaddr *)&address, sizeof address); /* closes one that is too many */
}

static void *work(void *context)
{
	struct gate *gate = context;
	struct pollfd ready[] = {{.fd = gate->stop, .events = POLLIN}, {.fd = gate->fd, .events = POLLIN}};
	for (;;) {
		if (poll(ready, 2, -1) < 0) continue;
		if (ready[0].revents) return NULL;
		int fd = accept4(gate->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			admit(gate, fd);
		else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			poll(ready, 1, PAUSE_MILLISECONDS);
	}
}

enum status gate_open(int fd, struct MHD_Daemon *server, struct gate **ret, struct error *err)
{
	struct gate *gate = calloc(1, sizeof *gate);
	if (!gate) return error_set(err, STATUS_NO_MEMORY, "no memory for a socket");
	*gate = (struct gate){.fd = fd, .stop = eventfd(0, EFD_CLOEXEC), .server = server};
	if (gate->stop < 0 || pthread_create(&gate->thread, NULL, work, gate) != 0) {
		enum status status = error_set(err, STATUS_NO_MEMORY, "cannot start the thread of a socket");
		if (gate->stop >= 0) close(gate->stop);
		free(gate);
		return status;
	}
	*ret = gate;
	return STATUS_OK;
}

void gate_close(struct gate *gate)
{
	if (!gate) return;
	eventfd_write(gate->stop, 1);
	pthread_join(gate->thread, NULL);
	close(gate->stop);
	free(gate);
}
