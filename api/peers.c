#include "api/peers.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/clock.h"

/* For which the library, which is quicker where it sees it, may notice by itself that a client is gone. */
static const double GONE_SECONDS = 0.5;

struct peer {
	int fd;
	double deadline; /* monotonic seconds; 0 for none */
	double waits;    /* since when for a request; 0: it does not */
	struct peer *next, **at;
};

struct peers {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t stop;
	bool stopping;
	struct peer *first;
	size_t count, crowd;
	int crowded_seconds;
};

/* Has the client ended its side, and sent nothing before that has not been read? The library, which is told once of what there is
 * to read, and reads once, does not see an end that came together with the beginning of a request. */
static bool is_gone(const struct peer *peer)
{
	char byte;
	return recv(peer->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* Under the lock. */
static bool is_late(const struct peers *peers, const struct peer *peer, double now)
{
	if (!peer->deadline) return false;
	if (peer->waits && now - peer->waits >= GONE_SECONDS && is_gone(peer)) return true;
	bool crowded = peers->count >= peers->crowd;
	return now >= peer->deadline || (crowded && peer->waits && now - peer->waits >= peers->crowded_seconds);
}

static void *watch(void *context)
{
	struct peers *peers = context;
	pthread_mutex_lock(&peers->lock);
	while (!peers->stopping) {
		const struct timespec until = monotonic_after(1);
		pthread_cond_timedwait(&peers->stop, &peers->lock, &until);
		double now = monotonic_seconds();
		for (struct peer *peer = peers->first; peer; peer = peer->next)
			if (is_late(peers, peer, now)) {
				shutdown(peer->fd, SHUT_RDWR);
				peer->deadline = 0;
			}
	}
	pthread_mutex_unlock(&peers->lock);
	return NULL;
}

enum status peers_create(size_t crowd, int crowded_seconds, struct peers **ret, struct error *err)
{
	struct peers *peers = calloc(1, sizeof *peers);
	if (!peers) return error_set(err, STATUS_NO_MEMORY, "no memory for the connections");
	peers->crowd = crowd;
	peers->crowded_seconds = crowded_seconds;
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
	peer->waits = monotonic_seconds();
	peer->deadline = peer->waits + seconds;
	pthread_mutex_lock(&peers->lock);
	peers->count++;
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
	peer->waits = 0;
	pthread_mutex_unlock(&peers->lock);
}

void peer_wait(struct peers *peers, struct peer *peer, int seconds)
{
	if (!peer) return;
	pthread_mutex_lock(&peers->lock);
	peer->waits = monotonic_seconds();
	peer->deadline = peer->waits + seconds;
	pthread_mutex_unlock(&peers->lock);
}

void peer_remove(struct peers *peers, struct peer *peer)
{
	if (!peer) return;
	pthread_mutex_lock(&peers->lock);
	peers->count--;
	*peer->at = peer->next;
	if (peer->next) peer->next->at = peer->at;
	pthread_mutex_unlock(&peers->lock);
	free(peer);
}
