#include "api/live.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "base/buffer.h"

enum { BLOCK = 16 << 10 };

/* As in stream.c a connection is suspended while there is nothing to send, and suspended and resumed under the lock. */
struct live {
	pthread_mutex_t lock;
	struct MHD_Connection *connection;
	struct peers *peers;
	struct peer *peer; /* whose deadline it is; as long as it is not closed */
	int fd;
	int holders;
	bool begun;            /* the writer's */
	bool suspended;        /* by the reader, who waits */
	bool ended;            /* there will be no more */
	bool closed;           /* nobody reads any more */
	struct buffer pending; /* what is to be sent */
	size_t offset;         /* how much of it has been */
};

struct live *live_create(struct MHD_Connection *connection, struct peers *peers, struct peer *peer)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct live *live = calloc(1, sizeof *live);
	if (!live) return NULL;
	pthread_mutex_init(&live->lock, NULL);
	live->connection = connection;
	live->peers = peers;
	live->peer = peer;
	live->fd = info ? info->connect_fd : -1;
	live->holders = 2;
	return live;
}

void live_release(struct live *live)
{
	if (!live) return;
	pthread_mutex_lock(&live->lock);
	bool last = --live->holders == 0;
	pthread_mutex_unlock(&live->lock);
	if (!last) return;
	pthread_mutex_destroy(&live->lock);
	buffer_free(&live->pending);
	free(live);
}

/* ---- the writer ---------------------------------------------------------------------------------------------------------- */

bool live_gone(struct live *live)
{
	pthread_mutex_lock(&live->lock);
	struct pollfd peer = {.fd = live->fd, .events = POLLRDHUP};
	/* Until it is closed the descriptor is the connection's: live_close comes first. */
	bool gone = live->closed || live->pending.failed || (poll(&peer, 1, 0) > 0 && peer.revents);
	pthread_mutex_unlock(&live->lock);
	return gone;
}

void live_begin(struct live *live)
{
	live->begun = true;
	MHD_resume_connection(live->connection);
}

bool live_begun(const struct live *live)
{
	return live->begun;
}

static void resume(struct live *live)
{
	if (live->suspended) MHD_resume_connection(live->connection);
	live->suspended = false;
}

void live_write(struct live *live, const char *text, size_t bytes)
{
	pthread_mutex_lock(&live->lock);
	if (!live->closed) {
		buffer_append(&live->pending, text, bytes);
		resume(live);
	}
	pthread_mutex_unlock(&live->lock);
}

void live_end(struct live *live)
{
	pthread_mutex_lock(&live->lock);
	live->ended = true;
	if (!live->closed) {
		peer_set_deadline(live->peers, live->peer, API_SEND_SECONDS);
		resume(live);
	}
	pthread_mutex_unlock(&live->lock);
}

void live_fail(struct live *live)
{
	pthread_mutex_lock(&live->lock);
	live->pending.failed = true;
	if (!live->closed) resume(live);
	pthread_mutex_unlock(&live->lock);
}

/* ---- the server ---------------------------------------------------------------------------------------------------------- */

static ssize_t read_live(void *context, uint64_t position, char *to, size_t room)
{
	struct live *live = context;
	ssize_t result = MHD_CONTENT_READER_END_OF_STREAM;
	(void)position;
	pthread_mutex_lock(&live->lock);
	size_t left = live->pending.size - live->offset;
	if (left) {
		size_t size = left < room ? left : room;
		memcpy(to, live->pending.data + live->offset, size);
		live->offset += size;
		if (live->offset == live->pending.size) live->offset = live->pending.size = 0;
		result = (ssize_t)size;
	} else if (!live->ended && !live->pending.failed) {
		live->suspended = true;
		MHD_suspend_connection(live->connection);
		result = 0;
	}
	pthread_mutex_unlock(&live->lock);
	return result;
}

static void drop(void *context)
{
	live_release(context);
}

struct MHD_Response *live_response(struct live *live)
{
	struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, read_live, live, drop);
	if (!response) return NULL;
	pthread_mutex_lock(&live->lock);
	live->holders++;
	pthread_mutex_unlock(&live->lock);
	return response;
}

void live_close(struct live *live)
{
	pthread_mutex_lock(&live->lock);
	live->closed = true;
	live->suspended = false;
	pthread_mutex_unlock(&live->lock);
}
