/* Event streams.
 *
 * The server calls `read_stream` whenever it can send. When there is nothing to send, the connection is suspended, because
 * returning nothing would make the server ask again at once, and on one core for ever. The hub's thread resumes it when there
 * are events to send, and every API_HEARTBEAT_SECONDS to send a comment: that is how a client that went away is noticed, since
 * nobody looks at a suspended connection. A connection is suspended and resumed under the hub's lock, with `suspended` saying
 * which it is, so that no wake-up is lost and none reaches a connection that is gone.
 *
 * Only the hub's thread reads the database, and without the lock: the thread that serves every connection never waits for it.
 * What a stream or a channel is read for cannot go away meanwhile, since a suspended connection is not closed. */
#include "api/stream.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "api/http.h"
#include "base/clock.h"
#include "base/json.h"

enum {
	RECENT = 64,             /* formatted events that a channel keeps */
	BATCH = 64,              /* events read at once ... */
	BATCH_BYTES = 256 << 10, /* ... for all streams of a job, as far as they have not more data than that */
	ENOUGH = 16 << 10,       /* bytes gathered before they are sent */
	RETRY_MILLISECONDS = 2000,
};

struct channel {
	char job_id[JOB_ID_BYTES];
	struct channel *next;
	struct stream *streams;
	int64_t first, last; /* the formatted events; first > last when there are none */
	struct buffer recent[RECENT];
	enum job_state state; /* as of `last` */
	bool stale;           /* there may be events behind `last` */
	bool loading;         /* the database is being read for it */
	bool broken;          /* the job is gone or cannot be read */
};

struct stream {
	struct hub *hub;
	struct channel *channel;
	struct MHD_Connection *connection;
	struct stream *next;
	struct stream *next_behind; /* in the hub's list */
	int64_t sent;               /* id of the last event that went into `pending` */
	struct buffer pending;      /* what is to be sent */
	size_t offset;              /* how much of it has been */
	double active;              /* when something was sent last */
	uint64_t token;             /* serial of the one that it was asked for with */
	bool suspended, heartbeat, ended;
	bool revoked; /* the token is none any more */
};

struct hub {
	struct db *db;
	struct metrics *metrics;
	struct tokens *tokens;   /* or NULL */
	unsigned tokens_version; /* that its streams were compared with */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct channel *channels;
	struct stream *behind, **last_behind; /* streams whose next event their channel no longer has; each is suspended */
	size_t n_streams, most_streams;
	double looked; /* when heartbeats were due last */
	bool stopping;
};

/* ---- channels; all under the hub's lock --------------------------------------------------------------------------------- */

static void format_event(struct buffer *to, const struct stored_event *event)
{
	json_begin();
	cJSON *json = event_json(event);
	char *text = json && !json_ran_out() ? cJSON_PrintUnformatted(json) : NULL;
	cJSON_Delete(json);
	if (!text) {
		to->failed = true;
		return;
	}
	buffer_printf(to, "id: %lld\nevent: %s\ndata: %s\n\n", (long long)event->id, event->type, text);
	free(text);
}

static void channel_forget(struct channel *channel)
{
	for (int i = 0; i < RECENT; i++)
		buffer_free(&channel->recent[i]);
	channel->first = channel->last + 1;
}

static void channel_add(struct channel *channel, const struct stored_event *event)
{
	struct buffer *slot = &channel->recent[event->id % RECENT];
	buffer_free(slot);
	format_event(slot, event);
	channel->broken |= slot->failed;
	channel->last = event->id;
	if (channel->last - channel->first >= RECENT) channel->first = channel->last - RECENT + 1;
}

/* Reads the next batch behind `last`; without the lock while it reads. */
static void channel_load(struct hub *hub, struct channel *channel)
{
	struct event_list list;
	struct error err;
	int64_t after = channel->last;
	channel->stale = false; /* what is committed from here on makes it so again */
	channel->loading = true;
	pthread_mutex_unlock(&hub->lock);
	enum status status = db_event_batch(hub->db, channel->job_id, after, BATCH, BATCH_BYTES, &list, &err);
	pthread_mutex_lock(&hub->lock);
	channel->loading = false;
	if (status) {
		channel->broken = true;
		return;
	}
	for (size_t i = 0; i < list.count; i++)
		channel_add(channel, &list.events[i]);
	channel->state = list.state;
	channel->stale |= list.more;
	event_list_clear(&list);
}

static struct channel *channel_find(struct hub *hub, const char *job_id)
{
	struct channel *channel = hub->channels;
	while (channel && strcmp(channel->job_id, job_id) != 0)
		channel = channel->next;
	return channel;
}

static struct channel *channel_get(struct hub *hub, const char *job_id, int64_t last)
{
	struct channel *channel = channel_find(hub, job_id);
	if (channel) return channel;
	channel = calloc(1, sizeof *channel);
	if (!channel) return NULL;
	memcpy(channel->job_id, job_id, sizeof channel->job_id);
	channel->last = last;
	channel->first = last + 1;
	channel->stale = true;
	channel->next = hub->channels;
	hub->channels = channel;
	return channel;
}

static void channel_drop(struct hub *hub, struct channel *channel)
{
	struct channel **at = &hub->channels;
	while (*at != channel)
		at = &(*at)->next;
	*at = channel->next;
	channel_forget(channel);
	free(channel);
}

/* ---- one stream --------------------------------------------------------------------------------------------------------- */

/* Reads events that the channel no longer keeps; without the lock while it reads. */
static void load_old(struct hub *hub, struct stream *stream)
{
	struct event_list list = {0};
	struct error err;
	struct buffer text = {0};
	pthread_mutex_unlock(&hub->lock);
	enum status status = db_event_batch(hub->db, stream->channel->job_id, stream->sent, BATCH, ENOUGH, &list, &err);
	for (size_t i = 0; i < list.count; i++)
		format_event(&text, &list.events[i]);
	pthread_mutex_lock(&hub->lock);
	stream->channel->broken |= status || list.count == 0;
	buffer_free(&stream->pending);
	stream->pending = text;
	if (list.count) stream->sent = list.events[list.count - 1].id;
	event_list_clear(&list);
}

static bool is_behind(const struct stream *stream)
{
	return stream->sent < stream->channel->last && stream->sent + 1 < stream->channel->first;
}

/* Fills `pending` with what there is to send, if anything, of what the channel has. */
static void gather(struct stream *stream)
{
	struct channel *channel = stream->channel;
	while (!channel->broken && !stream->pending.failed && stream->pending.size < ENOUGH && stream->sent < channel->last &&
	       !is_behind(stream)) {
		const struct buffer *event = &channel->recent[++stream->sent % RECENT];
		buffer_append(&stream->pending, event->data, event->size);
	}
	if (channel->broken || stream->pending.size) return;
	if (stream->sent >= channel->last && !channel->stale && !channel->loading && job_state_is_final(channel->state)) {
		buffer_printf(&stream->pending, "event: end\ndata: {\"state\":\"%s\"}\n\n", job_state_name(channel->state));
		stream->ended = true;
	} else if (stream->heartbeat) {
		buffer_printf(&stream->pending, ": heartbeat\n\n");
	}
}

/* Until the hub's thread has something for it. */
static void suspend(struct stream *stream)
{
	struct hub *hub = stream->hub;
	stream->suspended = true;
	MHD_suspend_connection(stream->connection);
	if (is_behind(stream)) {
		stream->next_behind = NULL;
		*hub->last_behind = stream;
		hub->last_behind = &stream->next_behind;
	}
	if (is_behind(stream) || stream->channel->stale) pthread_cond_signal(&hub->changed);
}

static ssize_t read_stream(void *context, uint64_t position, char *to, size_t room)
{
	struct stream *stream = context;
	struct hub *hub = stream->hub;
	ssize_t result;
	(void)position;
	pthread_mutex_lock(&hub->lock);
	if (stream->revoked) {
		pthread_mutex_unlock(&hub->lock);
		return MHD_CONTENT_READER_END_OF_STREAM;
	}
	if (stream->offset == stream->pending.size) {
		stream->offset = stream->pending.size = 0;
		if (!hub->stopping && !stream->ended) gather(stream);
	}
	size_t left = stream->pending.size - stream->offset;
	if (left) {
		size_t size = left < room ? left : room;
		memcpy(to, stream->pending.data + stream->offset, size);
		stream->offset += size;
		stream->active = monotonic_seconds();
		stream->heartbeat = false;
		result = (ssize_t)size;
	} else if (stream->channel->broken || stream->pending.failed || hub->stopping || stream->ended) {
		result = MHD_CONTENT_READER_END_OF_STREAM;
	} else {
		suspend(stream);
		result = 0;
	}
	pthread_mutex_unlock(&hub->lock);
	return result;
}

static void close_stream(void *context)
{
	struct stream *stream = context;
	struct hub *hub = stream->hub;
	pthread_mutex_lock(&hub->lock);
	struct stream **at = &stream->channel->streams;
	while (*at != stream)
		at = &(*at)->next;
	*at = stream->next;
	if (!stream->channel->streams) channel_drop(hub, stream->channel);
	hub->n_streams--;
	pthread_mutex_unlock(&hub->lock);
	metrics_count_streams(hub->metrics, -1);
	buffer_free(&stream->pending);
	free(stream);
}

struct MHD_Response *hub_open(struct hub *hub, struct MHD_Connection *connection, uint64_t token, const char *job_id, int64_t after,
			      int64_t last)
{
	struct stream *stream = calloc(1, sizeof *stream);
	if (!stream) return NULL;
	stream->hub = hub;
	stream->connection = connection;
	stream->token = token;
	stream->sent = after;
	stream->active = monotonic_seconds();
	buffer_printf(&stream->pending, "retry: %d\n\n", RETRY_MILLISECONDS);
	pthread_mutex_lock(&hub->lock);
	if (!hub->stopping && hub->n_streams < hub->most_streams && (!hub->tokens || tokens_hold(hub->tokens, token)))
		stream->channel = channel_get(hub, job_id, after < last ? after : last);
	if (stream->channel) {
		stream->next = stream->channel->streams;
		stream->channel->streams = stream;
		hub->n_streams++;
	}
	pthread_mutex_unlock(&hub->lock);
	if (!stream->channel) {
		buffer_free(&stream->pending);
		free(stream);
		return NULL;
	}
	metrics_count_streams(hub->metrics, 1);
	struct MHD_Response *response =
		MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, ENOUGH, read_stream, stream, close_stream);
	if (!response) close_stream(stream);
	return response;
}

/* ---- the hub ------------------------------------------------------------------------------------------------------------ */

static void resume(struct stream *stream)
{
	stream->suspended = false;
	MHD_resume_connection(stream->connection);
}

/* Those of the channel's streams that have something to send, or have ended; not those that are in the list of who is behind. */
static void resume_channel(struct hub *hub, struct channel *channel)
{
	bool over = channel->broken || hub->stopping || (!channel->stale && job_state_is_final(channel->state));
	for (struct stream *stream = channel->streams; stream; stream = stream->next)
		if (stream->suspended && !is_behind(stream) && (over || stream->sent < channel->last)) resume(stream);
}

/* Streams of tokens that were taken away end. One that is behind is resumed when it has been read for. */
static void end_revoked(struct hub *hub)
{
	unsigned version = hub->tokens ? tokens_version(hub->tokens) : 0;
	if (version == hub->tokens_version) return;
	hub->tokens_version = version;
	for (struct channel *channel = hub->channels; channel; channel = channel->next)
		for (struct stream *stream = channel->streams; stream; stream = stream->next) {
			stream->revoked = !tokens_hold(hub->tokens, stream->token);
			if (stream->revoked && stream->suspended && !is_behind(stream)) resume(stream);
		}
}

static void resume_for_heartbeats(struct hub *hub)
{
	double now = monotonic_seconds();
	if (now - hub->looked < 1) return;
	hub->looked = now;
	end_revoked(hub);
	for (struct channel *channel = hub->channels; channel; channel = channel->next)
		for (struct stream *stream = channel->streams; stream; stream = stream->next) {
			if (!stream->suspended || is_behind(stream) || now - stream->active < API_HEARTBEAT_SECONDS) continue;
			stream->heartbeat = true;
			resume(stream);
		}
}

static void resume_all(struct hub *hub)
{
	for (struct channel *channel = hub->channels; channel; channel = channel->next)
		for (struct stream *stream = channel->streams; stream; stream = stream->next)
			if (stream->suspended) resume(stream);
}

/* A channel whose streams can go on only with what is read for it. Where none is suspended, it may be closed while it is read. */
static struct channel *stale_channel(struct hub *hub)
{
	for (struct channel *channel = hub->channels; channel; channel = channel->next) {
		if (!channel->stale || channel->broken) continue;
		for (struct stream *stream = channel->streams; stream; stream = stream->next)
			if (stream->suspended && stream->sent >= channel->last) return channel;
	}
	return NULL;
}

/* Reads for one channel, and for one stream that is behind. False where there is nothing to read. */
static bool load(struct hub *hub)
{
	struct channel *channel = stale_channel(hub);
	if (channel) {
		channel_load(hub, channel);
		resume_channel(hub, channel);
	}
	struct stream *stream = hub->behind;
	if (!stream) return channel;
	hub->behind = stream->next_behind;
	if (!hub->behind) hub->last_behind = &hub->behind;
	load_old(hub, stream);
	resume(stream);
	return true;
}

static void *run_hub(void *context)
{
	struct hub *hub = context;
	pthread_mutex_lock(&hub->lock);
	while (!hub->stopping) {
		resume_for_heartbeats(hub);
		if (load(hub)) continue;
		const struct timespec until = monotonic_after(1);
		pthread_cond_timedwait(&hub->changed, &hub->lock, &until);
	}
	resume_all(hub);
	pthread_mutex_unlock(&hub->lock);
	return NULL;
}

void hub_notify(void *context, const char *job_id)
{
	struct hub *hub = context;
	pthread_mutex_lock(&hub->lock);
	struct channel *channel = channel_find(hub, job_id);
	if (channel) {
		channel->stale = true;
		pthread_cond_signal(&hub->changed);
	}
	pthread_mutex_unlock(&hub->lock);
}

enum status hub_create(struct db *db, struct metrics *metrics, struct tokens *tokens, size_t most_streams, struct hub **ret,
		       struct error *err)
{
	struct hub *hub = calloc(1, sizeof *hub);
	if (!hub) return error_set(err, STATUS_NO_MEMORY, "no memory for the event streams");
	hub->db = db;
	hub->metrics = metrics;
	hub->tokens = tokens;
	hub->tokens_version = tokens ? tokens_version(tokens) : 0;
	hub->most_streams = most_streams;
	hub->last_behind = &hub->behind;
	pthread_mutex_init(&hub->lock, NULL);
	monotonic_condition(&hub->changed);
	if (pthread_create(&hub->thread, NULL, run_hub, hub) != 0) {
		hub->stopping = true;
		hub_free(hub);
		return error_set(err, STATUS_NO_MEMORY, "cannot start the thread of the event streams");
	}
	*ret = hub;
	return STATUS_OK;
}

void hub_stop(struct hub *hub)
{
	pthread_mutex_lock(&hub->lock);
	hub->stopping = true;
	pthread_cond_signal(&hub->changed);
	pthread_mutex_unlock(&hub->lock);
	pthread_join(hub->thread, NULL);
}

void hub_free(struct hub *hub)
{
	if (!hub) return;
	pthread_cond_destroy(&hub->changed);
	pthread_mutex_destroy(&hub->lock);
	free(hub);
}
