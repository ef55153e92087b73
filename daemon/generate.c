#include "daemon/generate.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/json.h"
#include "daemon/log.h"
#include "daemon/text.h"
#include "engine/chat/chat_template.h"

enum { EXIT_SIGNAL = 128, MAX_PROMPT = 16 << 20 };

static atomic_bool stop;
static atomic_int signal_taken;

static void on_signal(int number)
{
	atomic_store(&signal_taken, number);
	atomic_store(&stop, true);
}

/* What is there of the text is shown before the process ends. A second signal ends it at once. */
static void catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

/* What is done, and came of it. */
struct generation {
	const struct options *options;
	struct generator *generator;
	struct chat_template *template; /* with --chat */
	struct generator_outcome outcome;
	double load_seconds;
	struct buffer text; /* with --json */
	cJSON *ids;
};

static enum status read_prompt(struct buffer *ret, struct error *err)
{
	char part[65536];
	ssize_t got;
	while ((got = read(STDIN_FILENO, part, sizeof part)) != 0) {
		if (atomic_load(&stop)) return error_set(err, STATUS_CANCELLED, "stopped while the prompt was read");
		if (got < 0 && errno == EINTR) continue;
		if (got < 0) return error_errno(err, "standard input");
		buffer_append(ret, part, (size_t)got);
		if (ret->failed) return error_set(err, STATUS_NO_MEMORY, "no memory for the prompt");
		if (ret->size > MAX_PROMPT)
			return error_set(err, STATUS_INVALID, "the prompt on standard input has more than %d MiB",
					 MAX_PROMPT >> 20);
	}
	return STATUS_OK;
}

static enum status show(void *context, int32_t id, const char *text, size_t bytes, struct error *err)
{
	(void)context;
	(void)id;
	for (size_t at = 0; at < bytes;) {
		ssize_t written = write(STDOUT_FILENO, text + at, bytes - at);
		if (written < 0 && errno != EINTR)
			return error_errno(err, "standard output"); /* a signal ends the text, not a write */
		if (written > 0) at += (size_t)written;
	}
	return STATUS_OK;
}

static enum status keep(void *context, int32_t id, const char *text, size_t bytes, struct error *err)
{
	struct generation *g = context;
	text_append_without_zeros(&g->text, text, bytes);
	bool kept = !g->text.failed && (id < 0 || cJSON_AddItemToArray(g->ids, cJSON_CreateNumber(id)));
	return kept ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory for the text");
}

static double rate(int64_t tokens, double seconds)
{
	return seconds > 0 ? (double)tokens / seconds : 0;
}

static const char *end_name(enum generator_end end)
{
	return end == GENERATOR_STOP ? "stop" : end == GENERATOR_LENGTH ? "length" : "stopped";
}

static enum status print_json(struct generation *g, struct error *err)
{
	const struct generator_outcome *outcome = &g->outcome;
	struct decoder_size size = generator_size(g->generator);
	cJSON *json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "text", g->text.data ? g->text.data : "");
	cJSON_AddItemToObject(json, "ids", g->ids);
	g->ids = NULL;
	cJSON_AddStringToObject(json, "finish_reason", end_name(outcome->end));
	cJSON_AddNumberToObject(json, "prompt_tokens", (double)outcome->prompt_tokens);
	cJSON_AddNumberToObject(json, "completion_tokens", (double)outcome->tokens);
	cJSON_AddNumberToObject(json, "tokens_per_second", rate(outcome->steps, outcome->seconds));
	cJSON_AddNumberToObject(json, "fastest_token_seconds", outcome->fastest);
	cJSON_AddNumberToObject(json, "prompt_tokens_per_second", rate(outcome->prompt_tokens, outcome->prompt_seconds));
	cJSON_AddNumberToObject(json, "load_seconds", g->load_seconds);
	cJSON_AddStringToObject(json, "precision", g->options->decoder.type == DTYPE_F32 ? "f32" : "bf16");
	cJSON_AddNumberToObject(json, "threads", generator_threads(g->generator));
	cJSON_AddNumberToObject(json, "matrices", (double)size.matrices);
	cJSON_AddNumberToObject(json, "sparse_matrices", (double)size.sparse);
	cJSON_AddNumberToObject(json, "weights", (double)size.weights);
	cJSON_AddNumberToObject(json, "zeros", (double)size.zeros);
	cJSON_AddNumberToObject(json, "weight_bytes", (double)size.bytes);
	char *text = json_ran_out() ? NULL : cJSON_Print(json);
	cJSON_Delete(json);
	if (!text) return error_set(err, STATUS_NO_MEMORY, "no memory for the result");
	bool printed = puts(text) >= 0 && fflush(stdout) == 0;
	cJSON_free(text);
	return printed ? STATUS_OK : error_errno(err, "standard output");
}

static enum status tell(const struct generation *g, struct error *err)
{
	const struct generator_outcome *outcome = &g->outcome;
	struct decoder_size size = generator_size(g->generator);
	int threads = generator_threads(g->generator);
	TRY(show(NULL, -1, "\n", 1, err));
	log_info("%" PRId64 " tokens at %.1f a second, behind a prompt of %" PRId64 " at %.1f (%s, %d thread%s, %" PRId64
		 " of %" PRId64 " matrices without their zeros, %.0f MB); %s",
		 outcome->tokens, rate(outcome->steps, outcome->seconds), outcome->prompt_tokens,
		 rate(outcome->prompt_tokens, outcome->prompt_seconds), g->options->decoder.type == DTYPE_F32 ? "f32" : "bf16",
		 threads, threads == 1 ? "" : "s", size.sparse, size.matrices, (double)size.bytes / 1e6,
		 outcome->end == GENERATOR_STOP     ? "a token that ends texts came"
		 : outcome->end == GENERATOR_LENGTH ? "it is as long as it may be"
						    : "stopped");
	return STATUS_OK;
}

/* The prompt, or what the model's chat template makes of it as a message. The caller frees *ret. */
static enum status make_prompt(const struct options *options, const struct chat_template *template, struct buffer *ret,
			       struct error *err)
{
	enum status status = STATUS_OK;
	struct buffer said = {0};
	char *text = NULL;
	if (options->prompt)
		buffer_append(&said, options->prompt, strlen(options->prompt));
	else
		status = read_prompt(&said, err);
	if (status == STATUS_OK && said.failed) status = error_set(err, STATUS_NO_MEMORY, "no memory for the prompt");
	if (status == STATUS_OK && !template) {
		*ret = said;
		return STATUS_OK;
	}
	const struct chat_message message = {.role = "user", .content = said.data ? said.data : ""};
	if (status == STATUS_OK)
		status = strlen(message.content) == said.size
				 ? chat_template_render(template, &message, 1, true, &text, err)
				 : error_set(err, STATUS_INVALID, "the message on standard input has a zero byte");
	buffer_free(&said);
	if (status == STATUS_OK) *ret = (struct buffer){.data = text, .size = strlen(text)};
	return status;
}

static enum status generate_text(struct generation *g, struct warnings *warnings, struct error *err)
{
	const struct options *options = g->options;
	struct buffer prompt = {0};
	const struct generator_wishes wishes = {.decoder = options->decoder, .threads = options->threads};
	double start = monotonic_seconds();
	if (options->chat) TRY(chat_template_open(&PLACE(options->model_dir), &g->template, err));
	TRY(generator_open(&PLACE(options->model_dir), &wishes, &stop, warnings, &g->generator, err));
	g->load_seconds = monotonic_seconds() - start;
	for (size_t i = 0; i < warnings->count; i++)
		log_warning("%s", warnings->messages[i]);
	TRY(make_prompt(options, g->template, &prompt, err));
	const struct generator_request request = {.prompt = prompt.data ? prompt.data : "",
						  .bytes = prompt.size,
						  .whole = options->chat,
						  .max_tokens = options->max_tokens,
						  .sampling = options->sampling,
						  .stop = &stop,
						  .take = options->json ? keep : show,
						  .context = g};
	enum status status = generator_run(g->generator, &request, &g->outcome, err);
	buffer_free(&prompt);
	TRY(status);
	return options->json ? print_json(g, err) : tell(g, err);
}

int generate(const struct options *options)
{
	struct error err;
	struct warnings warnings = {0};
	struct generation g = {.options = options, .ids = cJSON_CreateArray()};
	catch_signals();
	enum status status = generate_text(&g, &warnings, &err);
	int taken = atomic_load(&signal_taken);
	if (status != STATUS_OK && !(taken && status == STATUS_CANCELLED)) log_error("%s", err.message);
	warnings_free(&warnings);
	generator_close(g.generator);
	chat_template_close(g.template);
	buffer_free(&g.text);
	cJSON_Delete(g.ids);
	if (taken) return EXIT_SIGNAL + taken;
	return status == STATUS_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
