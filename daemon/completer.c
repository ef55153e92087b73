#include "daemon/completer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/random.h"
#include "daemon/log.h"
#include "daemon/text.h"
#include "engine/chat/chat_template.h"
#include "engine/generate/cutter.h"
#include "engine/generate/generator.h"

/* What no conversation and no text comes to, but what a template or a vocabulary may. */
enum { MAX_PROMPT = 2 << 20, MAX_TEXT = 4 << 20 };

/* A model in memory. */
struct loaded {
	struct place place;
	uint64_t identity;
	struct generator *generator;    /* NULL: none is loaded */
	struct chat_template *template; /* NULL until a conversation needs it */
	double used;                    /* monotonic seconds */
};

struct completer {
	const struct options *options;
	char **roots;         /* for models, and the one for outputs; NULL-terminated */
	pthread_mutex_t lock; /* of `loaded` */
	struct loaded loaded;
	atomic_bool stop;
};

enum status completer_create(const struct options *options, struct completer **ret, struct error *err)
{
	struct completer *completer = calloc(1, sizeof *completer);
	size_t count = 0;
	while (options->roots.model[count])
		count++;
	if (completer) completer->roots = calloc(count + 2, sizeof *completer->roots);
	if (!completer || !completer->roots) {
		free(completer);
		return error_set(err, STATUS_NO_MEMORY, "no memory for what serves models");
	}
	memcpy(completer->roots, options->roots.model, count * sizeof *completer->roots);
	completer->roots[count] = options->roots.output;
	completer->options = options;
	pthread_mutex_init(&completer->lock, NULL);
	*ret = completer;
	return STATUS_OK;
}

/* ---- which model ---------------------------------------------------------------------------------------------------------- */

/* What begins with a dot is not listed either: outputs that are not finished, and those that others have replaced. */
static bool is_hidden(const char *path)
{
	return *path == '.' || strstr(path, "/.");
}

/* A name that is one directory below the model roots and another below the output root would have the wrong one answer. */
static enum status check_single(const struct completer *completer, const char *name, const struct place *place, struct error *err)
{
	char *const *output = completer->roots;
	struct place other;
	struct stat a, b;
	struct error ignored;
	while (output[1])
		output++;
	if (strcmp(place->root, *output) == 0 || place_find(output, NULL, name, &other, &ignored) != STATUS_OK) return STATUS_OK;
	bool differ = place_stat(place, NULL, &a, &ignored) == STATUS_OK && place_stat(&other, NULL, &b, &ignored) == STATUS_OK &&
		      (a.st_dev != b.st_dev || a.st_ino != b.st_ino);
	place_free(&other);
	return differ ? error_set(err, STATUS_INVALID, "'%s' is a model and an output: one of them needs another name", name)
		      : STATUS_OK;
}

static enum status find_model(const struct completer *completer, const char *name, struct place *ret, struct error *err)
{
	struct place place;
	struct stat info;
	enum status status = place_find(completer->roots, NULL, name, &place, err);
	if (status == STATUS_NOT_FOUND)
		return error_set(err, STATUS_NOT_FOUND, "there is no model '%s' below the model roots or the output root", name);
	if (status != STATUS_OK) {
		place_hide_roots(completer->roots, err);
		return status;
	}
	status = place_stat(&place, NULL, &info, err);
	if (status != STATUS_OK) place_hide(&place, err);
	if (status == STATUS_OK && (!S_ISDIR(info.st_mode) || is_hidden(place.path)))
		status = error_set(err, STATUS_NOT_FOUND, "'%s' is no model's directory", name);
	if (status == STATUS_OK) status = check_single(completer, name, &place, err);
	if (status == STATUS_OK)
		*ret = place;
	else
		place_free(&place);
	return status;
}

/* What a directory's files are: of another one, or of files that have changed, it is another number. */
struct identity {
	const struct place *place;
	uint64_t sum;
};

static enum status add_file(void *context, const char *name, const char *entry, struct error *err)
{
	struct identity *identity = context;
	struct stat info;
	uint64_t file = 0;
	TRY(place_stat(identity->place, name, &info, err));
	const uint64_t parts[] = {(uint64_t)info.st_dev,         (uint64_t)info.st_ino,          (uint64_t)info.st_size,
				  (uint64_t)info.st_mtim.tv_sec, (uint64_t)info.st_mtim.tv_nsec, (uint64_t)info.st_ctim.tv_sec,
				  (uint64_t)info.st_ctim.tv_nsec};
	for (; *entry; entry++)
		file = random_mix(file + (unsigned char)*entry + RANDOM_GOLDEN);
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		file = random_mix(file + parts[i] + RANDOM_GOLDEN);
	identity->sum += file; /* in whatever order they come */
	return STATUS_OK;
}

static bool is_loaded(const struct loaded *loaded, const struct place *place, uint64_t identity)
{
	return loaded->generator && loaded->identity == identity && strcmp(loaded->place.path, place->path) == 0 &&
	       strcmp(loaded->place.root, place->root) == 0;
}

static void unload(struct completer *completer, const char *why)
{
	struct loaded *loaded = &completer->loaded;
	if (loaded->generator) log_info("serving: model=\"%s\" is unloaded: %s", loaded->place.path, why);
	chat_template_close(loaded->template);
	generator_close(loaded->generator);
	place_free(&loaded->place);
	*loaded = (struct loaded){0};
}

static enum status load(struct completer *completer, const struct place *place, uint64_t identity, struct error *err)
{
	const struct options *options = completer->options;
	const struct generator_wishes wishes = {
		.decoder = options->decoder, .threads = options->threads, .memory = options->serve_memory};
	struct warnings warnings = {0};
	struct loaded loaded = {.identity = identity};
	double start = monotonic_seconds();
	TRY(place_below(place, NULL, &loaded.place, err));
	enum status status = generator_open(place, &wishes, &completer->stop, &warnings, &loaded.generator, err);
	for (size_t i = 0; i < warnings.count; i++)
		log_warning("serving: %s", warnings.messages[i]);
	warnings_free(&warnings);
	if (status) {
		place_free(&loaded.place);
		return status;
	}
	struct decoder_size size = generator_size(loaded.generator);
	log_info("serving: model=\"%s\" is loaded, %.0f MB in %.1f s", place->path, (double)size.bytes / 1e6,
		 monotonic_seconds() - start);
	completer->loaded = loaded;
	return STATUS_OK;
}

/* A model that cannot be used is the request's fault, which names it. */
static enum status blame_model(const struct place *place, struct error *err)
{
	if (place) place_hide(place, err);
	if (err->status == STATUS_NOT_FOUND || err->status == STATUS_NUMERIC) err->status = STATUS_UNSUPPORTED;
	return err->status;
}

static enum status take_model(struct completer *completer, const char *name, struct error *err)
{
	struct place place;
	TRY(find_model(completer, name, &place, err));
	struct identity identity = {.place = &place};
	enum status status = place_each(&place, NULL, add_file, &identity, err);
	if (status == STATUS_OK && !is_loaded(&completer->loaded, &place, identity.sum)) {
		unload(completer, "another one is asked for, or it has changed");
		status = load(completer, &place, identity.sum, err);
	}
	if (status != STATUS_OK) status = blame_model(&place, err);
	place_free(&place);
	return status;
}

/* ---- a text --------------------------------------------------------------------------------------------------------------- */

struct making {
	struct completer *completer;
	const struct api_completion *wish;
	struct cutter cutter;
	struct buffer piece;
	size_t bytes; /* of the text so far */
};

static enum status pass_on(struct making *making, const char *text, size_t bytes, bool last, struct error *err)
{
	struct cutter *cutter = &making->cutter;
	if (!cutter_add(cutter, text, bytes, last)) return error_set(err, STATUS_NO_MEMORY, "no memory for the text");
	return making->wish->take(making->wish->to, cutter->free.size ? cutter->free.data : "", cutter->free.size, err);
}

static enum status take(void *context, int32_t id, const char *text, size_t bytes, struct error *err)
{
	struct making *making = context;
	(void)id;
	making->piece.size = 0;
	text_append_without_zeros(&making->piece, text, bytes);
	if (making->piece.failed) return error_set(err, STATUS_NO_MEMORY, "no memory for the text");
	making->bytes += making->piece.size;
	if (making->bytes > MAX_TEXT) return error_set(err, STATUS_UNSUPPORTED, "a text of more than %d MiB", MAX_TEXT >> 20);
	return pass_on(making, making->piece.size ? making->piece.data : "", making->piece.size, false, err);
}

static bool ended(void *context)
{
	const struct making *making = context;
	return making->cutter.found || making->wish->gone(making->wish->to);
}

static enum status finish(struct making *making, const struct generator_outcome *outcome, struct api_completed *ret,
			  struct error *err)
{
	const struct cutter *cutter = &making->cutter;
	if (outcome->end == GENERATOR_STOPPED && !cutter->found)
		return error_set(err, STATUS_CANCELLED,
				 atomic_load(&making->completer->stop) ? "besad is stopping" : "nobody wants the text any more");
	TRY(pass_on(making, "", 0, true, err));
	ret->finish_reason = cutter->found || outcome->end == GENERATOR_STOP ? "stop" : "length";
	ret->prompt_tokens = outcome->prompt_tokens;
	ret->tokens = outcome->tokens;
	return STATUS_OK;
}

/* A conversation's messages are the API's, under the engine's name. */
static enum status render(struct completer *completer, const struct api_completion *wish, char **ret, struct api_completed *blame,
			  struct error *err)
{
	struct loaded *loaded = &completer->loaded;
	enum status status = loaded->template ? STATUS_OK : chat_template_open(&loaded->place, &loaded->template, err);
	if (status == STATUS_NOT_FOUND)
		error_set(err, STATUS_UNSUPPORTED, "'%s' has no chat template: /v1/completions has it continue a text",
			  wish->model);
	if (status) return blame_model(&loaded->place, err);
	struct chat_message *messages = calloc(wish->n_messages, sizeof *messages);
	if (!messages) return error_set(err, STATUS_NO_MEMORY, "no memory for the conversation");
	for (size_t i = 0; i < wish->n_messages; i++)
		messages[i] = (struct chat_message){wish->messages[i].role, wish->messages[i].content};
	blame->pointer = "/messages";
	status = chat_template_render(loaded->template, messages, wish->n_messages, true, ret, err);
	free(messages);
	return status;
}

static enum status make(struct making *making, const char *prompt, struct api_completed *ret, struct error *err)
{
	const struct api_completion *wish = making->wish;
	struct generator_outcome outcome;
	const struct generator_request request = {
		.prompt = prompt,
		.bytes = strlen(prompt),
		.max_tokens = wish->max_tokens,
		.sampling = {.temperature = wish->temperature, .top_p = wish->top_p, .seed = wish->seed},
		.stop = &making->completer->stop,
		.take = take,
		.ended = ended,
		.context = making,
		.whole = wish->prompt == NULL,
	};
	if (request.bytes > MAX_PROMPT) {
		ret->pointer = wish->prompt ? "/prompt" : "/messages";
		return error_set(err, STATUS_INVALID, "a prompt of more than %d MiB", MAX_PROMPT >> 20);
	}
	enum status status = generator_run(making->completer->loaded.generator, &request, &outcome, err);
	ret->pointer = status == STATUS_UNSUPPORTED ? "/max_tokens" : wish->prompt ? "/prompt" : "/messages";
	return status == STATUS_OK ? finish(making, &outcome, ret, err) : blame_model(&making->completer->loaded.place, err);
}

static enum status complete(struct completer *completer, const struct api_completion *wish, struct api_completed *ret,
			    struct error *err)
{
	struct making making = {.completer = completer, .wish = wish, .cutter.count = wish->n_stops};
	char *rendered = NULL;
	memcpy(making.cutter.stops, wish->stops, sizeof making.cutter.stops);
	if (atomic_load(&completer->stop)) return error_set(err, STATUS_CANCELLED, "besad is stopping");
	if (wish->gone(wish->to)) return error_set(err, STATUS_CANCELLED, "nobody wants the text any more");
	ret->pointer = "/model";
	TRY(take_model(completer, wish->model, err));
	enum status status = wish->prompt ? STATUS_OK : render(completer, wish, &rendered, ret, err);
	if (status == STATUS_OK) status = make(&making, rendered ? rendered : wish->prompt, ret, err);
	free(rendered);
	cutter_free(&making.cutter);
	buffer_free(&making.piece);
	completer->loaded.used = monotonic_seconds();
	return status;
}

enum status completer_run(struct completer *completer, const struct api_completion *wish, struct api_completed *ret,
			  struct error *err)
{
	_Static_assert((int)API_MAX_STOPS == (int)CUTTER_MOST, "as many strings may end a text as can");
	pthread_mutex_lock(&completer->lock);
	enum status status = complete(completer, wish, ret, err);
	pthread_mutex_unlock(&completer->lock);
	return status;
}

/* ---- life ------------------------------------------------------------------------------------------------------------------ */

void completer_tick(struct completer *completer)
{
	if (!completer || pthread_mutex_trylock(&completer->lock) != 0) return;
	struct loaded *loaded = &completer->loaded;
	if (loaded->generator && monotonic_seconds() - loaded->used >= (double)completer->options->serve_idle)
		unload(completer, "nobody asks for it");
	pthread_mutex_unlock(&completer->lock);
}

void completer_stop(struct completer *completer)
{
	if (completer) atomic_store(&completer->stop, true);
}

void completer_free(struct completer *completer)
{
	if (!completer) return;
	unload(completer, "besad stops");
	pthread_mutex_destroy(&completer->lock);
	free(completer->roots);
	free(completer);
}
