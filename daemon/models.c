#include "daemon/models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "engine/model/safetensors.h"
#include "engine/model/vet.h"
#include "engine/output/publish.h"

enum {
	MAX_FILES = 4096,            /* of one model that are looked at */
	MAX_HEADERS = 64 << 20,      /* bytes of one model's headers and index that are read for the list */
	MAX_INDEX_HEADER = 64 << 20, /* what the engine reads of an index */
	MAX_REPORT = 4 << 20,        /* of a besad.json that is read for the list */
};

static const char config_name[] = "config.json";

static bool is_index(const char *name)
{
	return text_ends_with(name, ".index.json");
}

static bool is_weights(const char *name)
{
	static const char *const suffixes[] = {".safetensors", ".bin", ".gguf", ".pth", ".pt"};
	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
		if (text_ends_with(name, suffixes[i])) return true;
	return false;
}

/* Weights that make a model of a directory without config.json. */
static bool names_a_model(const char *name)
{
	return (text_starts_with(name, "model") && text_ends_with(name, ".safetensors")) ||
	       (text_starts_with(name, "pytorch_model") && text_ends_with(name, ".bin")) ||
	       (text_starts_with(name, "consolidated") && is_weights(name)) || text_ends_with(name, ".gguf");
}

/* ---- what is told of a model --------------------------------------------------------------------------------------------- */

struct candidate {
	const struct tree_directory *directory;
	const struct tree_entry *files[MAX_FILES];
	size_t count;
};

/* "meta-llama/Llama-3.2-1B" of "…/models--meta-llama--Llama-3.2-1B/snapshots/<revision>", freed by the caller; else NULL. */
static char *repository(const char *name)
{
	static const char prefix[] = "models--", middle[] = "/snapshots/";
	const char *end = strstr(name, middle), *start = end;
	if (!end || strchr(end + strlen(middle), '/')) return NULL;
	while (start > name && start[-1] != '/')
		start--;
	if (!text_starts_with(start, prefix)) return NULL;
	start += strlen(prefix);
	char *title = strndup(start, (size_t)(end - start)), *to = title;
	for (const char *from = title; from && *from; from++) {
		bool slash = from[0] == '-' && from[1] == '-';
		*to++ = slash ? '/' : *from;
		from += slash;
	}
	if (to) *to = 0;
	return title;
}

/* The bytes of a file that checkpoint_open would read into memory; what it refuses by its length counts as nothing. */
static size_t header_bytes(const struct place *model, const struct tree_entry *entry)
{
	struct file file;
	struct error ignored;
	unsigned char head[SAFETENSORS_LENGTH_BYTES];
	if (is_index(entry->name)) return entry->info.st_size <= MAX_INDEX_HEADER ? (size_t)entry->info.st_size : 0;
	if (!text_ends_with(entry->name, ".safetensors") || place_open(model, entry->name, &file, &ignored)) return 0;
	if (file_read(&file, head, sizeof head, 0, &ignored)) memset(head, 0, sizeof head);
	uint64_t length = safetensors_header_length(head);
	file_close(&file);
	return length <= SAFETENSORS_MAX_HEADER ? (size_t)length : 0;
}

/* Why the files are not read for the list, or NULL; *ret_later: they may be next time. */
static const char *reading_objection(struct catalog *catalog, const struct candidate *candidate, bool *ret_later)
{
	size_t bytes = 0, *budget = catalog_budget(catalog);
	for (size_t i = 0; i < candidate->count && bytes <= MAX_HEADERS; i++)
		bytes += header_bytes(&candidate->directory->place, candidate->files[i]);
	*ret_later = bytes <= MAX_HEADERS && bytes > *budget;
	if (bytes > MAX_HEADERS)
		return "the headers of its weights are too large to be read for this list; a job may name it all the same";
	if (*ret_later) return "not looked at yet: too much was to be read for this list; ask for it again";
	*budget -= bytes;
	return NULL;
}

static const struct tree_entry *find_report(const struct candidate *candidate)
{
	for (size_t i = 0; i < candidate->count; i++)
		if (strcmp(candidate->files[i]->name, REPORT_NAME) == 0) return candidate->files[i];
	return NULL;
}

/* What a report says of where its model comes from; NULL where it does not. An absolute path is the operator's, and only its end
 * is told. */
static cJSON *lineage_of(const cJSON *report)
{
	const cJSON *spec = cJSON_GetObjectItemCaseSensitive(report, "spec");
	const char *job = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(report, "job"));
	const char *model = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(spec, "model"));
	const char *method = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(spec, "method"));
	const cJSON *sparsity = cJSON_GetObjectItemCaseSensitive(spec, "sparsity");
	if (!job || !model || !method || !cJSON_IsNumber(sparsity)) return NULL;
	if (*model == '/') model = strrchr(model, '/') + 1;
	cJSON *lineage = cJSON_CreateObject();
	cJSON_AddStringToObject(lineage, "model", model);
	cJSON_AddStringToObject(lineage, "job", job);
	cJSON_AddStringToObject(lineage, "method", method);
	cJSON_AddNumberToObject(lineage, "sparsity", sparsity->valuedouble);
	return lineage;
}

/* Where a model comes from that besad has made; null for others. *ret_later as above. */
static cJSON *read_lineage(struct catalog *catalog, const struct candidate *candidate, bool *ret_later)
{
	const struct tree_entry *entry = find_report(candidate);
	size_t *budget = catalog_budget(catalog);
	cJSON *report = NULL, *lineage;
	struct error ignored;
	if (!entry || entry->info.st_size > MAX_REPORT) return cJSON_CreateNull();
	if ((size_t)entry->info.st_size > *budget) {
		*ret_later = true;
		return cJSON_CreateNull();
	}
	*budget -= (size_t)entry->info.st_size;
	if (json_read_place(&candidate->directory->place, REPORT_NAME, MAX_REPORT, &report, &ignored)) return cJSON_CreateNull();
	lineage = lineage_of(report);
	cJSON_Delete(report);
	return lineage ? lineage : cJSON_CreateNull();
}

static bool read_model(struct catalog *catalog, const void *context, cJSON *object)
{
	const struct candidate *candidate = context;
	const struct tree_directory *directory = candidate->directory;
	struct model_config config = {0};
	struct error err;
	int64_t bytes = 0;
	bool later = false;
	enum status status = STATUS_UNSUPPORTED;
	const char *reason = directory->failure;
	if (!reason && candidate->count == MAX_FILES) reason = "the directory has too many files";
	if (!reason) reason = reading_objection(catalog, candidate, &later);
	if (!reason) {
		status = model_vet(&directory->place, NULL, &config, &bytes, &err);
		if (status) reason = err.message;
	}
	for (size_t i = 0; i < candidate->count && status != STATUS_OK; i++)
		if (is_weights(candidate->files[i]->name)) bytes += candidate->files[i]->info.st_size;

	char *title = repository(directory->name), *told = reason ? strdup(reason) : NULL;
	if (told) utf8_mask(told);
	catalog_add_text(object, "title", title);
	catalog_add_text(object, "family", config.family[0] ? config.family : NULL);
	cJSON_AddItemToObject(object, "blocks", config.layers ? cJSON_CreateNumber((double)config.layers) : cJSON_CreateNull());
	cJSON_AddItemToObject(object, "bytes", bytes ? cJSON_CreateNumber((double)bytes) : cJSON_CreateNull());
	cJSON_AddBoolToObject(object, "supported", status == STATUS_OK);
	catalog_add_text(object, "reason", told);
	cJSON_AddItemToObject(object, "lineage", read_lineage(catalog, candidate, &later));
	free(title);
	free(told);
	return !later &&
	       (status == STATUS_OK || status == STATUS_INVALID || status == STATUS_UNSUPPORTED || status == STATUS_NOT_FOUND);
}

/* ---- what is a model ----------------------------------------------------------------------------------------------------- */

/* A directory of a model is not searched for others, unless it has no weights. */
static bool visit(void *context, const struct tree_directory *directory)
{
	struct candidate *candidate = calloc(1, sizeof *candidate);
	bool config = false, weights = false, named = false;
	struct identity identity = {{0}};
	if (!candidate) {
		catalog_ran_out(context);
		return false;
	}
	candidate->directory = directory;
	for (size_t i = 0; i < directory->count && candidate->count < MAX_FILES; i++) {
		const struct tree_entry *entry = &directory->entries[i];
		bool is_config = strcmp(entry->name, config_name) == 0;
		if (S_ISDIR(entry->info.st_mode)) continue;
		candidate->files[candidate->count++] = entry;
		config = config || is_config;
		weights = weights || is_weights(entry->name);
		named = named || names_a_model(entry->name);
	}
	bool is_model = directory->depth > 0 && (config || named || directory->failure);
	if (is_model) {
		if (!directory->failure) identity_of(candidate->files, candidate->count, &identity);
		catalog_offer(context, directory->name, &identity, read_model, candidate);
	}
	free(candidate);
	return !is_model || !weights;
}

const struct catalog_kind models_kind = {
	.limits = {.depth = 6, .entries = 200000}, .most = 1000, .most_bytes = 4 << 20, .visit = visit};
