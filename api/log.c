/* The log of a job: a line for each of its events, but not for steps, and for what is noted beside: what it ran on, who was
 * told. */
#include <stdlib.h>
#include <string.h>

#include "api/http.h"
#include "base/json.h"

static const char *text_of(const cJSON *data, const char *key)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(data, key));
	return text ? text : "?";
}

static double number_of(const cJSON *data, const char *key)
{
	const cJSON *number = cJSON_GetObjectItemCaseSensitive(data, key);
	return cJSON_IsNumber(number) ? number->valuedouble : 0;
}

static const char *level_of(const char *type, const cJSON *data)
{
	bool again = strcmp(type, "job.queued") == 0 && strcmp(text_of(data, "reason"), "failed") == 0;
	if (strcmp(type, "job.failed") == 0) return "error";
	return again || strcmp(type, "warning") == 0 ? "warning" : "info";
}

static void say_queued(struct buffer *line, const cJSON *data)
{
	const char *reason = text_of(data, "reason");
	if (strcmp(reason, "submitted") == 0)
		buffer_printf(line, "queued");
	else if (strcmp(reason, "failed") == 0)
		buffer_printf(line, "failed, code %s, and is tried again at %s: %s", text_of(data, "code"),
			      text_of(data, "retry_at"), text_of(data, "message"));
	else
		buffer_printf(line, "queued again, %s", reason);
}

/* A figure that a block may lack: without rates there is no loss. */
static void say_figure(struct buffer *line, const cJSON *data, const char *key)
{
	const cJSON *figure = cJSON_GetObjectItemCaseSensitive(data, key);
	if (cJSON_IsNumber(figure)) buffer_printf(line, ", %s %.6g", key, figure->valuedouble);
}

static void say_event(struct buffer *line, const char *type, const cJSON *data)
{
	if (strcmp(type, "job.queued") == 0) {
		say_queued(line, data);
	} else if (strcmp(type, "job.started") == 0) {
		double blocks = number_of(data, "blocks_done");
		buffer_printf(line, "attempt %.0f began with %.0f block%s finished", number_of(data, "attempt"), blocks,
			      blocks == 1 ? "" : "s");
	} else if (strcmp(type, "job.failed") == 0) {
		buffer_printf(line, "failed, code %s: %s", text_of(data, "code"), text_of(data, "message"));
	} else if (strcmp(type, "block.finished") == 0) {
		buffer_printf(line, "block %.0f finished in %.1f s", number_of(data, "block"), number_of(data, "seconds"));
		say_figure(line, data, "sparsity");
		say_figure(line, data, "reconstruction");
	} else if (strcmp(type, "eval.finished") == 0) {
		buffer_printf(line, "perplexity of the %s model on %s: %.6g", text_of(data, "model"), text_of(data, "dataset"),
			      number_of(data, "perplexity"));
	} else if (strcmp(type, "task.finished") == 0) {
		buffer_printf(line, "accuracy of the %s model on %s: %.4f", text_of(data, "model"), text_of(data, "task"),
			      number_of(data, "acc"));
	} else if (strcmp(type, "warning") == 0) {
		buffer_printf(line, "%s", text_of(data, "message"));
	} else {
		buffer_printf(line, "%s", strncmp(type, "job.", 4) == 0 ? type + 4 : type);
	}
}

struct log {
	struct buffer text;
	bool cut;
};

/* Only the newest lines are kept once there are more bytes than may be sent. */
static void cut(struct log *log, size_t most)
{
	struct buffer *text = &log->text;
	if (text->failed || text->size <= most) return;
	size_t from = text->size - most;
	const char *end = memchr(text->data + from, '\n', text->size - from);
	from = end ? (size_t)(end - text->data) + 1 : text->size;
	memmove(text->data, text->data + from, text->size - from);
	text->size -= from;
	text->data[text->size] = 0;
	log->cut = true;
}

static enum status take_line(void *context, int64_t at, bool is_note, const char *kind, const char *text, struct error *err)
{
	struct log *log = context;
	struct buffer *to = &log->text;
	char time[32];
	cJSON *data = NULL;
	if (!is_note) TRY(json_parse(text, strlen(text), "an event", &data, err));
	time_format(at, time);
	buffer_printf(to, "%s %s: ", time, is_note ? kind : level_of(kind, data));
	size_t start = to->size;
	if (is_note)
		buffer_printf(to, "%s", text);
	else
		say_event(to, kind, data);
	cJSON_Delete(data);
	/* What a message quotes must not be able to look like a line of its own. */
	for (size_t i = start; !to->failed && i < to->size; i++)
		if ((unsigned char)to->data[i] < 0x20 || to->data[i] == 0x7f) to->data[i] = '?';
	buffer_printf(to, "\n");
	if (to->size > (size_t)2 * API_MAX_LOG) cut(log, API_MAX_LOG);
	return to->failed ? error_set(err, STATUS_NO_MEMORY, "no memory for a log") : STATUS_OK;
}

void log_show(const struct request *request, struct response *response)
{
	static const char earlier[] = "earlier lines are left out\n";
	struct log log = {0};
	struct buffer whole = {0};
	struct error err;
	enum status status = db_job_log(request->config->db, request->id, take_line, &log, &err);
	if (status) {
		buffer_free(&log.text);
		problem_failure(response, &err);
		return;
	}
	cut(&log, API_MAX_LOG - sizeof earlier);
	buffer_printf(&whole, "%s%s", log.cut ? earlier : "", log.text.data ? log.text.data : "");
	buffer_free(&log.text);
	response_text(response, "text/plain; charset=utf-8", &whole);
}
