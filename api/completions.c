/* Texts from models, as OpenAI's API has them: what a request may say, and the answer, whole or as it is made. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "api/http.h"
#include "api/live.h"
#include "base/clock.h"
#include "base/json.h"

enum { MAX_MODEL = 1000, DEFAULT_TOKENS = 128 };
static const double MAX_WHOLE = 9007199254740992; /* 2^53: what JSON has all whole numbers up to */

/* A text on its way to a client. */
struct text {
	struct api_completion wish;
	bool chat, stream, with_usage;
	struct api_message *messages;
	char **contents; /* of messages whose content is a list: what they come to */
	const struct api_config *config;
	struct live *live;
	uint64_t token;
	struct response *response; /* until a stream has begun */
	char id[JOB_ID_BYTES];
	int64_t created;
	struct buffer whole; /* unless it is a stream */
};

/* ---- the request ---------------------------------------------------------------------------------------------------------- */

/* What OpenAI's API has besides: accepted where it asks for nothing that is not done anyway, refused by name where it does. */
static const struct {
	const char *name;
	enum { NOTHING, ZERO, ONE, NO, TEXT } harmless;
} others[] = {{"n", ONE},
	      {"best_of", ONE},
	      {"echo", NO},
	      {"logprobs", NO},
	      {"top_logprobs", NOTHING},
	      {"suffix", NOTHING},
	      {"presence_penalty", ZERO},
	      {"frequency_penalty", ZERO},
	      {"logit_bias", NOTHING},
	      {"tools", NOTHING},
	      {"tool_choice", NOTHING},
	      {"functions", NOTHING},
	      {"function_call", NOTHING},
	      {"response_format", NOTHING},
	      {"store", NO},
	      {"user", TEXT}};

static bool is_harmless(const cJSON *value, size_t other)
{
	switch (others[other].harmless) {
	case ZERO:
		return cJSON_IsNumber(value) && value->valuedouble == 0;
	case ONE:
		return cJSON_IsNumber(value) && value->valuedouble == 1;
	case NO:
		return cJSON_IsFalse(value);
	case TEXT:
		return cJSON_IsString(value);
	default: /* an empty list, object or text */
		return ((cJSON_IsArray(value) || cJSON_IsObject(value)) && !value->child) ||
		       (cJSON_IsString(value) && !*value->valuestring);
	}
}

static void wrong(cJSON *errors, const char *pointer, const char *detail)
{
	problem_add(errors, "pointer", pointer, "%s", detail);
}

static void wrong_name(cJSON *errors, const char *name, const char *detail)
{
	struct buffer pointer = {0};
	problem_pointer(&pointer, name);
	wrong(errors, pointer.failed ? "" : pointer.data, detail);
	buffer_free(&pointer);
}

static void check_name(const cJSON *item, const char *const *known, cJSON *errors)
{
	for (int i = 0; known[i]; i++)
		if (strcmp(item->string, known[i]) == 0) return;
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		if (strcmp(item->string, others[i].name) == 0) {
			if (!is_harmless(item, i))
				wrong_name(errors, item->string, "is not supported, but for what changes nothing");
			return;
		}
	wrong_name(errors, item->string, "is not a field of a completion that besad knows");
}

/* The field, or NULL where it is missing or null. */
static const cJSON *field(const cJSON *body, const char *name)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(body, name);
	return value && !cJSON_IsNull(value) ? value : NULL;
}

static void read_number(const cJSON *body, const char *name, double low, double high, bool whole, double *ret, cJSON *errors)
{
	const cJSON *value = field(body, name);
	if (!value) return;
	double number = cJSON_IsNumber(value) ? value->valuedouble : NAN;
	if (number >= low && number <= high && (!whole || number == floor(number)))
		*ret = number;
	else {
		char pointer[64];
		snprintf(pointer, sizeof pointer, "/%s", name);
		problem_add(errors, "pointer", pointer, "must be a %snumber from %.17g to %.17g", whole ? "whole " : "", low, high);
	}
}

static void read_flag(const cJSON *body, const char *name, const char *pointer, bool *ret, cJSON *errors)
{
	const cJSON *value = field(body, name);
	if (value && !cJSON_IsBool(value)) wrong(errors, pointer, "must be true or false");
	if (value) *ret = cJSON_IsTrue(value);
}

static void add_stop(struct api_completion *wish, const cJSON *stop, cJSON *errors)
{
	const char *text = cJSON_GetStringValue(stop);
	if (!text || !*text || utf8_characters(text) > API_MAX_STOP)
		problem_add(errors, "pointer", "/stop", "must be a text of 1 to %d characters, or up to %d of them", API_MAX_STOP,
			    API_MAX_STOPS);
	else if (wish->n_stops == API_MAX_STOPS)
		problem_add(errors, "pointer", "/stop", "must be %d texts at most", API_MAX_STOPS);
	else
		wish->stops[wish->n_stops++] = text;
}

static void read_stops(const cJSON *body, struct api_completion *wish, cJSON *errors)
{
	const cJSON *stop = field(body, "stop");
	if (cJSON_IsArray(stop))
		for (const cJSON *one = stop->child; one && !cJSON_GetArraySize(errors); one = one->next)
			add_stop(wish, one, errors);
	else if (stop)
		add_stop(wish, stop, errors);
}

static void read_stream(const cJSON *body, struct text *text, cJSON *errors)
{
	const cJSON *options = field(body, "stream_options");
	read_flag(body, "stream", "/stream", &text->stream, errors);
	if (!options) return;
	if (!cJSON_IsObject(options) || !text->stream) {
		wrong(errors, "/stream_options", "must be an object, of a request with \"stream\": true");
		return;
	}
	read_flag(options, "include_usage", "/stream_options/include_usage", &text->with_usage, errors);
	for (const cJSON *item = options->child; item; item = item->next)
		if (strcmp(item->string, "include_usage") != 0 && !cJSON_IsNull(item) && !cJSON_IsFalse(item)) {
			wrong(errors, "/stream_options", "there is include_usage alone");
			break;
		}
}

static uint64_t any_seed(void)
{
	uint64_t seed = 0;
	while (getrandom(&seed, sizeof seed, 0) < 0 && errno == EINTR)
		;
	return seed;
}

static void read_sampling(const cJSON *body, struct api_completion *wish, cJSON *errors)
{
	double tokens = DEFAULT_TOKENS, seed = -1;
	wish->top_p = 1;
	read_number(body, "max_tokens", 1, API_MAX_COMPLETION_TOKENS, true, &tokens, errors);
	read_number(body, "max_completion_tokens", 1, API_MAX_COMPLETION_TOKENS, true, &tokens, errors);
	if (field(body, "max_tokens") && field(body, "max_completion_tokens"))
		wrong(errors, "/max_tokens", "is the older name of max_completion_tokens: one of them");
	read_number(body, "temperature", 0, 2, false, &wish->temperature, errors);
	read_number(body, "top_p", 0, 1, false, &wish->top_p, errors);
	read_number(body, "seed", 0, MAX_WHOLE, true, &seed, errors);
	wish->max_tokens = (int64_t)tokens;
	wish->seed = seed >= 0 ? (uint64_t)seed : any_seed();
}

static void read_prompt(const cJSON *body, struct text *text, cJSON *errors)
{
	const cJSON *prompt = field(body, "prompt");
	if (cJSON_IsArray(prompt) && cJSON_GetArraySize(prompt) == 1) prompt = prompt->child;
	text->wish.prompt = cJSON_GetStringValue(prompt);
	if (!text->wish.prompt) wrong(errors, "/prompt", "is required: one text; token ids and several prompts are not supported");
}

/* The text of a content that is a list of parts; NULL where one of them is no text. */
static char *join_parts(const cJSON *parts)
{
	struct buffer joined = {0};
	buffer_append(&joined, "", 0);
	for (const cJSON *part = parts->child; part; part = part->next) {
		const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(part, "type"));
		const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(part, "text"));
		if (!type || strcmp(type, "text") != 0 || !text) joined.failed = true;
		if (!joined.failed) buffer_append(&joined, text, strlen(text));
	}
	if (joined.failed) buffer_free(&joined);
	return joined.data;
}

static void read_message(const cJSON *message, struct text *text, cJSON *errors)
{
	size_t at = text->wish.n_messages++;
	const cJSON *content = field(message, "content");
	const char *role = cJSON_GetStringValue(field(message, "role"));
	char pointer[64];
	if (cJSON_IsArray(content)) text->contents[at] = join_parts(content);
	text->messages[at].role = role;
	text->messages[at].content = text->contents[at] ? text->contents[at] : cJSON_GetStringValue(content);
	snprintf(pointer, sizeof pointer, "/messages/%zu", at);
	if (!role || !text->messages[at].content)
		wrong(errors, pointer, "must have a role and a content, both texts; of a content in parts all must be texts");
	for (const cJSON *item = message->child; item; item = item->next)
		if (strcmp(item->string, "role") != 0 && strcmp(item->string, "content") != 0 && !cJSON_IsNull(item)) {
			wrong(errors, pointer, "may have a role and a content, and nothing else");
			break;
		}
}

static void read_messages(const cJSON *body, struct text *text, cJSON *errors)
{
	const cJSON *messages = field(body, "messages");
	int count = cJSON_IsArray(messages) ? cJSON_GetArraySize(messages) : 0;
	text->messages = calloc((size_t)count + 1, sizeof *text->messages);
	text->contents = calloc((size_t)count + 1, sizeof *text->contents);
	if (!count) wrong(errors, "/messages", "is required: a list of messages");
	if (!text->messages || !text->contents) count = 0;
	for (const cJSON *one = count ? messages->child : NULL; one && cJSON_GetArraySize(errors) < 8; one = one->next)
		if (cJSON_IsObject(one))
			read_message(one, text, errors);
		else
			wrong(errors, "/messages", "must be objects");
	text->wish.messages = text->messages;
}

static const char *const text_fields[] = {"model", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p",
					  "seed",  "stop",   "stream",     "stream_options",        NULL};
static const char *const chat_fields[] = {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p",
					  "seed",  "stop",     "stream",     "stream_options",        NULL};

/* False where something is wrong: the response says what. */
static bool read_wish(const cJSON *body, struct text *text, struct response *response)
{
	cJSON *errors = cJSON_CreateArray();
	if (!cJSON_IsObject(body)) wrong(errors, "", "must be an object");
	for (const cJSON *item = cJSON_IsObject(body) ? body->child : NULL; item; item = item->next)
		if (!cJSON_IsNull(item) && cJSON_GetArraySize(errors) < 8)
			check_name(item, text->chat ? chat_fields : text_fields, errors);
	text->wish.model = cJSON_GetStringValue(field(body, "model"));
	if (!text->wish.model || !*text->wish.model || utf8_characters(text->wish.model) > MAX_MODEL)
		wrong(errors, "/model",
		      "is required: a directory below the model roots or the output root; GET /v1/models lists some");
	if (text->chat)
		read_messages(body, text, errors);
	else
		read_prompt(body, text, errors);
	read_sampling(body, &text->wish, errors);
	read_stops(body, &text->wish, errors);
	read_stream(body, text, errors);
	if (json_ran_out()) {
		cJSON_Delete(errors);
		problem_failure(response, &(struct error){.status = STATUS_NO_MEMORY, .message = "no memory for the request"});
		return false;
	}
	if (cJSON_GetArraySize(errors)) {
		problem_fields(response, 422, "invalid-completion", "fields of the request are wrong", errors);
		return false;
	}
	cJSON_Delete(errors);
	if (!text->chat || (text->messages && text->contents)) return true;
	problem_failure(response, &(struct error){.status = STATUS_NO_MEMORY, .message = "no memory for the conversation"});
	return false;
}

/* ---- the answer ----------------------------------------------------------------------------------------------------------- */

static cJSON *usage(const struct api_completed *completed)
{
	cJSON *json = cJSON_CreateObject();
	cJSON_AddNumberToObject(json, "prompt_tokens", (double)completed->prompt_tokens);
	cJSON_AddNumberToObject(json, "completion_tokens", (double)completed->tokens);
	cJSON_AddNumberToObject(json, "total_tokens", (double)(completed->prompt_tokens + completed->tokens));
	return json;
}

/* What the whole answer and each piece of a stream have alike, with its list of choices. */
static cJSON *frame(const struct text *text, cJSON **ret_choices)
{
	char id[JOB_ID_BYTES + 16];
	cJSON *json = cJSON_CreateObject();
	snprintf(id, sizeof id, "%s-%s", text->chat ? "chatcmpl" : "cmpl", text->id);
	cJSON_AddStringToObject(json, "id", id);
	cJSON_AddStringToObject(json, "object",
				!text->chat    ? "text_completion"
				: text->stream ? "chat.completion.chunk"
					       : "chat.completion");
	cJSON_AddNumberToObject(json, "created", (double)text->created);
	cJSON_AddStringToObject(json, "model", text->wish.model);
	*ret_choices = cJSON_AddArrayToObject(json, "choices");
	return json;
}

/* finish_reason: NULL while there is more. */
static cJSON *choice(cJSON *choices, const char *finish_reason)
{
	cJSON *json = cJSON_CreateObject();
	cJSON_AddNumberToObject(json, "index", 0);
	cJSON_AddNullToObject(json, "logprobs");
	cJSON_AddItemToObject(json, "finish_reason", finish_reason ? cJSON_CreateString(finish_reason) : cJSON_CreateNull());
	cJSON_AddItemToArray(choices, json);
	return json;
}

static void answer_whole(struct text *text, const struct api_completed *completed, struct response *response)
{
	cJSON *choices, *json = frame(text, &choices), *one = choice(choices, completed->finish_reason);
	const char *content = text->whole.data ? text->whole.data : "";
	if (text->chat) {
		cJSON *message = cJSON_AddObjectToObject(one, "message");
		cJSON_AddStringToObject(message, "role", "assistant");
		cJSON_AddStringToObject(message, "content", content);
	} else {
		cJSON_AddStringToObject(one, "text", content);
	}
	cJSON_AddItemToObject(json, "usage", usage(completed));
	response_json(response, 200, text->whole.failed ? (cJSON_Delete(json), NULL) : json);
}

static void send_json(struct text *text, cJSON *json)
{
	static const char begin[] = "data: ", end[] = "\n\n";
	char *line = json_ran_out() ? NULL : cJSON_PrintUnformatted(json);
	cJSON_Delete(json);
	if (!line) {
		live_fail(text->live);
		return;
	}
	live_write(text->live, begin, sizeof begin - 1);
	live_write(text->live, line, strlen(line));
	live_write(text->live, end, sizeof end - 1);
	cJSON_free(line);
}

static void send_piece(struct text *text, const char *content, const char *role, const char *finish_reason)
{
	cJSON *choices, *json = frame(text, &choices), *one = choice(choices, finish_reason);
	cJSON *to = text->chat ? cJSON_AddObjectToObject(one, "delta") : one;
	if (role) cJSON_AddStringToObject(to, "role", role);
	if (content) cJSON_AddStringToObject(to, text->chat ? "content" : "text", content);
	if (text->with_usage) cJSON_AddNullToObject(json, "usage");
	send_json(text, json);
}

/* From here on the request and its response are the server's. */
static void begin_stream(struct text *text)
{
	struct response *response = text->response;
	if (!response) return;
	response->status = 200;
	response->type = "text/event-stream";
	response->live = true;
	text->response = NULL;
	if (text->chat) send_piece(text, "", "assistant", NULL);
	live_begin(text->live);
}

static void end_stream(struct text *text, const struct api_completed *completed)
{
	static const char done[] = "data: [DONE]\n\n";
	begin_stream(text);
	send_piece(text, text->chat ? NULL : "", NULL, completed->finish_reason);
	if (text->with_usage) {
		cJSON *choices, *json = frame(text, &choices);
		cJSON_AddItemToObject(json, "usage", usage(completed));
		send_json(text, json);
	}
	live_write(text->live, done, sizeof done - 1);
	live_end(text->live);
}

/* A stream that had begun says why it does not go on, and is never [DONE]. */
static void break_stream(struct text *text, const struct error *err)
{
	cJSON *json = cJSON_CreateObject(), *error = cJSON_AddObjectToObject(json, "error");
	cJSON_AddStringToObject(error, "message", err->message);
	cJSON_AddStringToObject(error, "type", err->status == STATUS_CANCELLED ? "stopping" : "failed");
	cJSON_AddStringToObject(error, "code", status_name(err->status));
	send_json(text, json);
	live_end(text->live);
}

static void refuse(struct response *response, const struct api_completed *completed, struct error *err)
{
	cJSON *errors;
	utf8_mask(err->message);
	switch (err->status) {
	case STATUS_NOT_FOUND:
		problem(response, 404, "model-not-found", "%s", err->message);
		return;
	case STATUS_INVALID:
	case STATUS_UNSUPPORTED:
		errors = cJSON_CreateArray();
		wrong(errors, completed->pointer ? completed->pointer : "", err->message);
		problem_fields(response, 422, "invalid-completion", err->message, errors);
		return;
	default:
		problem_failure(response, err);
	}
}

/* ---- the making ----------------------------------------------------------------------------------------------------------- */

static enum status take(void *to, const char *piece, size_t bytes, struct error *err)
{
	struct text *text = to;
	if (!text->stream) {
		buffer_append(&text->whole, piece, bytes);
		return text->whole.failed ? error_set(err, STATUS_NO_MEMORY, "no memory for the text") : STATUS_OK;
	}
	begin_stream(text);
	if (!bytes) return STATUS_OK;
	char *copy = strndup(piece, bytes);
	if (!copy) return error_set(err, STATUS_NO_MEMORY, "no memory for the text");
	send_piece(text, copy, NULL, NULL);
	free(copy);
	return STATUS_OK;
}

/* A token that was taken away ends what was asked for with it. */
static bool gone(void *to)
{
	const struct text *text = to;
	struct tokens *tokens = text->config->tokens;
	return live_gone(text->live) || (tokens && !tokens_hold(tokens, text->token));
}

/* False once the response is the server's. */
static bool make(struct text *text, struct response *response)
{
	const struct api_hooks *hooks = &text->config->hooks;
	struct api_completed completed = {0};
	struct error err;
	text->response = response;
	text->wish.take = take;
	text->wish.gone = gone;
	text->wish.to = text;
	enum status status = hooks->complete(hooks->context, &text->wish, &completed, &err);
	if (status && !text->response)
		break_stream(text, &err);
	else if (status)
		refuse(response, &completed, &err);
	else if (text->stream)
		end_stream(text, &completed);
	else
		answer_whole(text, &completed, response);
	return text->response;
}

/* What OpenAI's clients read of an error: besides what every problem has, `error` with its words and the field. */
static void add_error(struct response *response)
{
	if (!response->problem || response->fixed) return;
	cJSON *json = cJSON_Parse(response->body);
	const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(json, "errors"), 0);
	const char *pointer = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(first, "pointer"));
	const char *detail = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(first ? first : json, "detail"));
	struct buffer message = {0};
	buffer_printf(&message, "%s%s%s", pointer ? pointer : "", pointer ? ": " : "", detail ? detail : "");
	cJSON *error = cJSON_AddObjectToObject(json, "error");
	cJSON_AddStringToObject(error, "message", message.data ? message.data : "");
	cJSON_AddStringToObject(error, "type", response->problem);
	cJSON_AddItemToObject(error, "param", pointer ? cJSON_CreateString(pointer) : cJSON_CreateNull());
	cJSON_AddStringToObject(error, "code", response->problem);
	char *text = json_ran_out() || message.failed ? NULL : cJSON_PrintUnformatted(json);
	if (text) {
		free(response->body);
		response->body = text;
		response->size = strlen(text);
	} else {
		problem_failure(response, &(struct error){.status = STATUS_NO_MEMORY, .message = "no memory for the answer"});
	}
	buffer_free(&message);
	cJSON_Delete(json);
}

static void complete(const struct request *request, struct response *response, bool chat)
{
	struct text text = {.chat = chat,
			    .config = request->config,
			    .live = request->live,
			    .token = request->holder.serial,
			    .created = unix_milliseconds() / 1000};
	cJSON *body = NULL;
	bool begun = false;
	if (!request->config->hooks.complete) {
		problem(response, 404, "models-not-served", "this besad serves no models: it was started without --serve-models");
		add_error(response);
		return;
	}
	if (!body_parse(request, &body, response)) {
		add_error(response);
		return;
	}
	db_new_id(request->config->db, text.id);
	if (read_wish(body, &text, response)) {
		if (text.live)
			begun = !make(&text, response);
		else
			problem_failure(response,
					&(struct error){.status = STATUS_NO_MEMORY, .message = "no memory for the answer"});
	}
	if (!begun) add_error(response);
	for (size_t i = 0; i < text.wish.n_messages; i++)
		free(text.contents[i]);
	free(text.contents);
	free(text.messages);
	buffer_free(&text.whole);
	cJSON_Delete(body);
}

void completions_text(const struct request *request, struct response *response)
{
	complete(request, response, false);
}

void completions_chat(const struct request *request, struct response *response)
{
	complete(request, response, true);
}
