#include "api/peers.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/clock.h"

struct peer {
	int fd;
	double deadline; /* monotonic seconds; 0 for none */
	struct peer *next, **at;
};

struct peers {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t stop;
	bool stopping;
	struct peer *first;
};

static void *watch(void *context)
{
	struct peers *peers = context;
	pthread_mutex_lock(&peers->lock);
	while (!peers->stopping) {
		const struct timespec until = monotonic_after(1);
		pthread_cond_timedwait(&peers->stop, &peers->lock, &until);
		double now = monotonic_seconds();
		for (struct peer *peer = peers->first; peer; peer = peer->next)
			if (peer->deadline && now >= peer->deadline) {
				shutdown(peer->fd, SHUT_RDWR);
				peer->deadline = 0;
			}
	}
	pthread_mutex_unlock(&peers->lock);
	return NULL;
}

enum status peers_create(struct peers **ret, struct error *err)
{
	struct peers *peers = calloc(1, sizeof *peers);
	if (!peers) return error_set(err, STATUS_NO_MEMORY, "no memory for the connections");
	pthread_mutex_init(&peers->lock, NULL);
	monotonic_condition(&peers->stop);
	if (pthread_create(&peers->thread, NULL, watch, peers) != 0) {
		free(peers);
		return error_set(err, STATUS_NO_MEMORY, "cannot start the thread that watches connections");
	}
	*ret = peers;
	return STATUS_OK;
}

void peers_free(struct peers *peers)
{
	if (!peers) return;
	pthread_mutex_lock(&peers->lock);
	peers->stopping = true;
	pthread_cond_signal(&peers->stop);
	pthread_mutex_unlock(&peers->lock);
	pthread_join(peers->thread, NULL);
	pthread_cond_destroy(&peers->stop);
	pthread_mutex_destroy(&peers->lock);
	free(peers);
}

struct peer *peer_add(struct peers *peers, int fd, int seconds)
{
	struct peer *peer = calloc(1, sizeof *peer);
	if (!peer) return NULL;
	peer->fd = fd;
	peer->deadline = monotonic_seconds() + seconds;
	pthread_mutex_lock(&peers->lock);
	peer->next = peers->first;
	peer->at = &peers->first;
	if (peer->next) peer->next->at = &peer->next;
	peers->first = peer;
	pthread_mutex_unlock(&peers->lock);
	return peer;
}

void peer_set_deadline(struct peers *peers, struct peer *peer, int seconds)
{
	if (!peer) return;
	pthread_mutex_lock(&peers->lock);
	peer->deadline = seconds ? monotonic_seconds() + seconds : 0;
	pthread_mutex_unlock(&peers->lock);
}

void peer_remove(struct peers *peers, struct peer *peer)
{
	if (!peer) return;
	pthread_mutex_lock(&peers->lock);
	*peer->at = peer->next;
	if (peer->next) peer->next->at = peer->at;
	pthread_mutex_unlock(&peers->lock);
	free(peer);
}
