#include "ctl/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The daemon sends a heartbeat every 15 s: after three, a silent peer is taken for dead. */
enum { SILENCE_SECONDS = 45 };

struct stream {
	struct client *client;
	char path[128];
	CURLM *multi;
	CURL *curl; /* NULL while there is no connection */
	struct curl_slist *headers;
	struct sse sse;
	sse_event_fn *event;
	void *context;
	long status;
	bool streaming; /* the answer is an event stream */
	bool alive;
	char failure[CURL_ERROR_SIZE];
};

enum status stream_create(struct client *client, const char *job_id, sse_event_fn *event, void *context, struct stream **ret,
			  struct error *err)
{
	struct stream *stream = calloc(1, sizeof *stream);
	if (!stream || !(stream->multi = curl_multi_init())) {
		free(stream);
		return error_set(err, STATUS_NO_MEMORY, "no memory");
	}
	stream->client = client;
	stream->event = event;
	stream->context = context;
	snprintf(stream->path, sizeof stream->path, "/v1/jobs/%s/events", job_id);
	*ret = stream;
	return STATUS_OK;
}

static void disconnect(struct stream *stream)
{
	if (!stream->curl) return;
	curl_multi_remove_handle(stream->multi, stream->curl);
	curl_easy_cleanup(stream->curl);
	curl_slist_free_all(stream->headers);
	stream->curl = NULL;
	stream->headers = NULL;
}

void stream_free(struct stream *stream)
{
	if (!stream) return;
	disconnect(stream);
	curl_multi_cleanup(stream->multi);
	sse_free(&stream->sse);
	free(stream);
}

static void read_head(struct stream *stream)
{
	char *type = NULL;
	curl_easy_getinfo(stream->curl, CURLINFO_RESPONSE_CODE, &stream->status);
	curl_easy_getinfo(stream->curl, CURLINFO_CONTENT_TYPE, &type);
	stream->streaming = stream->status == 200 && type && strncmp(type, "text/event-stream", 17) == 0;
}

/* The body: events, or something else, of which only the status counts. */
static size_t receive(char *bytes, size_t one, size_t size, void *context)
{
	struct stream *stream = context;
	(void)one;
	if (!stream->status) read_head(stream);
	if (!stream->streaming) return size;
	stream->alive = true;
	return sse_feed(&stream->sse, bytes, size, stream->event, stream->context) ? size : 0;
}

enum status stream_connect(struct stream *stream, struct error *err)
{
	disconnect(stream);
	sse_reset(&stream->sse);
	stream->status = 0;
	stream->streaming = stream->alive = false;
	stream->failure[0] = 0;
	stream->curl = client_handle(stream->client, stream->path, &stream->headers);
	if (!stream->curl) return error_set(err, STATUS_NO_MEMORY, "no memory");

	char last[64];
	struct curl_slist *headers = curl_slist_append(stream->headers, "Accept: text/event-stream");
	if (headers && stream->sse.id.size && stream->sse.id.size < 32) {
		stream->headers = headers;
		snprintf(last, sizeof last, "Last-Event-ID: %s", stream->sse.id.data);
		headers = curl_slist_append(stream->headers, last);
	}
	if (headers) stream->headers = headers;
	curl_easy_setopt(stream->curl, CURLOPT_HTTPHEADER, stream->headers);
	curl_easy_setopt(stream->curl, CURLOPT_WRITEFUNCTION, receive);
	curl_easy_setopt(stream->curl, CURLOPT_WRITEDATA, stream);
	curl_easy_setopt(stream->curl, CURLOPT_ERRORBUFFER, stream->failure);
	curl_easy_setopt(stream->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(stream->curl, CURLOPT_LOW_SPEED_TIME, (long)SILENCE_SECONDS);
	if (headers && curl_multi_add_handle(stream->multi, stream->curl) == CURLM_OK) return STATUS_OK;
	disconnect(stream);
	return error_set(err, STATUS_NO_MEMORY, "no memory");
}

/* The transfer is over: keeps why. */
static enum stream_state finish(struct stream *stream, CURLcode code)
{
	bool broken = stream->sse.overflow;
	read_head(stream);
	if (broken)
		snprintf(stream->failure, sizeof stream->failure, "an event is too long");
	else if (code == CURLE_OK)
		snprintf(stream->failure, sizeof stream->failure, "the daemon ended the connection");
	else if (!stream->failure[0])
		snprintf(stream->failure, sizeof stream->failure, "%s", curl_easy_strerror(code));
	disconnect(stream);
	return broken || (stream->status && !stream->streaming) ? STREAM_REFUSED : STREAM_LOST;
}

enum stream_state stream_poll(struct stream *stream, int milliseconds)
{
	int running, left;
	CURLMsg *message;
	if (!stream->curl) return STREAM_LOST;
	curl_multi_perform(stream->multi, &running);
	if (running) {
		curl_multi_poll(stream->multi, NULL, 0, milliseconds, NULL);
		curl_multi_perform(stream->multi, &running);
	}
	while ((message = curl_multi_info_read(stream->multi, &left)))
		if (message->msg == CURLMSG_DONE) return finish(stream, message->data.result);
	return STREAM_OPEN;
}

long stream_status(const struct stream *stream)
{
	return stream->status;
}

const char *stream_failure(const struct stream *stream)
{
	return stream->failure;
}

bool stream_alive(const struct stream *stream)
{
	return stream->alive;
}
