#include "engine/model/checkpoint.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/other_formats.h"
#include "engine/model/packed.h"
#include "engine/model/shard_index.h"

static const char single_name[] = CHECKPOINT_SINGLE_NAME, index_name[] = CHECKPOINT_INDEX_NAME;

static int by_name(const void *a, const void *b)
{
	const struct tensor_info *x = a, *y = b;
	int order = strcmp(x->name, y->name);
	return order ? order : x->shard - y->shard;
}

/* Opens shard `c->n_shards` and appends its tensors. */
static enum status add_shard(struct checkpoint *c, const struct place *place, const char *name, struct error *err)
{
	struct file *file = &c->shards[c->n_shards];
	TRY(place_open(place, name, file, err));
	int shard = c->n_shards++;

	struct tensor_info *infos = NULL, *all;
	size_t count = 0;
	TRY(safetensors_read(file, &infos, &count, err));
	if (c->n_tensors + count > SAFETENSORS_MAX_TENSORS) {
		tensor_infos_free(infos, count);
		return error_set(err, STATUS_INVALID, "%s: with this file there are more than %d tensors", file->path,
				 SAFETENSORS_MAX_TENSORS);
	}
	if (!c->n_tensors) { /* a single file's may be many: no copy beside them */
		free(c->tensors);
		c->tensors = infos;
		c->n_tensors = count;
		for (size_t i = 0; i < count; i++)
			infos[i].shard = shard;
		return STATUS_OK;
	}
	all = realloc(c->tensors, (c->n_tensors + count + 1) * sizeof *all);
	if (!all) {
		tensor_infos_free(infos, count);
		return error_set(err, STATUS_NO_MEMORY, "no memory for the tensors of %s", file->path);
	}
	for (size_t i = 0; i < count; i++) {
		infos[i].shard = shard;
		all[c->n_tensors + i] = infos[i];
	}
	free(infos);
	c->tensors = all;
	c->n_tensors += count;
	return STATUS_OK;
}

enum { COMPARED_BYTES = 1 << 20 };

enum status checkpoint_same(const struct checkpoint *c, const struct tensor_info *a, const struct tensor_info *b, bool *ret,
			    struct error *err)
{
	*ret = false;
	if (a->packed || b->packed) return STATUS_OK;
	if (a->dtype != b->dtype || a->bytes != b->bytes || a->opaque != b->opaque) return STATUS_OK;
	char *bytes = malloc(2 * COMPARED_BYTES);
	if (!bytes) return error_set(err, STATUS_NO_MEMORY, "no memory to compare '%s' with '%s'", a->name, b->name);
	enum status status = STATUS_OK;
	bool same = true;
	for (int64_t at = 0; at < a->bytes && same && status == STATUS_OK; at += COMPARED_BYTES) {
		size_t n = a->bytes - at < COMPARED_BYTES ? (size_t)(a->bytes - at) : COMPARED_BYTES;
		status = file_read(&c->shards[a->shard], bytes, n, a->offset + at, err);
		if (status == STATUS_OK) status = file_read(&c->shards[b->shard], bytes + COMPARED_BYTES, n, b->offset + at, err);
		same = status == STATUS_OK && memcmp(bytes, bytes + COMPARED_BYTES, n) == 0;
	}
	free(bytes);
	*ret = same;
	return status;
}

/* Whether tensor i has the name of the one before it. */
static bool is_repeated(const struct checkpoint *c, size_t i)
{
	return i > 0 && strcmp(c->tensors[i - 1].name, c->tensors[i].name) == 0;
}

/* Sorts the tensors by name. Of one that is in several shards the last is kept, which is what transformers loads; they must be
 * the same. */
static enum status sort_tensors(struct checkpoint *c, struct warnings *warnings, struct error *err)
{
	qsort(c->tensors, c->n_tensors, sizeof *c->tensors, by_name);
	size_t kept = 0, repeated = 0, first = 0;
	for (size_t i = 1; i < c->n_tensors; i++) {
		const struct tensor_info *a = &c->tensors[i - 1], *b = &c->tensors[i];
		bool same = true;
		if (is_repeated(c, i)) TRY(checkpoint_same(c, a, b, &same, err));
		if (!same)
			return error_set(err, STATUS_INVALID,
					 "tensor '%s' is both in %s and in %s, and they differ; remove one of them", a->name,
					 c->shards[a->shard].path, c->shards[b->shard].path);
		if (is_repeated(c, i) && !repeated++) first = i;
	}
	if (!repeated) return STATUS_OK;
	warnings_add(warnings, "%zu tensor%s in several shards, with the same values ('%s' in %s and %s); the last is used",
		     repeated, repeated == 1 ? " is" : "s are", c->tensors[first].name, c->shard_names[c->tensors[first - 1].shard],
		     c->shard_names[c->tensors[first].shard]);
	c->repeated = malloc(repeated * sizeof *c->repeated);
	if (!c->repeated) return error_set(err, STATUS_NO_MEMORY, "no memory for %zu tensors in several shards", repeated);
	for (size_t i = 0; i < c->n_tensors; i++)
		if (i + 1 < c->n_tensors && is_repeated(c, i + 1))
			c->repeated[c->n_repeated++] = c->tensors[i];
		else
			c->tensors[kept++] = c->tensors[i];
	c->n_tensors = kept;
	return STATUS_OK;
}

/* Opens every named shard, takes over `names` and sorts the tensors. */
static enum status open_shards(struct checkpoint *c, const struct place *place, char **names, int count, struct warnings *warnings,
			       struct error *err)
{
	c->shard_names = names;
	c->shards = calloc((size_t)count + 1, sizeof *c->shards);
	if (!c->shards) return error_set(err, STATUS_NO_MEMORY, "no memory for %d shards", count);
	for (int i = 0; i < count; i++)
		TRY(add_shard(c, place, names[i], err));
	return sort_tensors(c, warnings, err);
}

static void free_names(char **names)
{
	for (char **name = names; name && *name; name++)
		free(*name);
	free(names);
}

/* One file: `name` in the place, or the place itself where it is NULL. */
static enum status open_single(const struct place *place, const char *name, struct checkpoint *c, struct error *err)
{
	c->shards = calloc(1, sizeof *c->shards);
	c->shard_names = calloc(2, sizeof *c->shard_names);
	if (!c->shards || !c->shard_names || !(c->shard_names[0] = strdup(name ? name : place->path)))
		return error_set(err, STATUS_NO_MEMORY, "no memory to open %s", name ? name : place->path);
	return add_shard(c, place, name, err); /* which sorts */
}

/* What an index says against the headers of the shards: a count and the first names of each kind. */
enum contradiction { NOWHERE, ELSEWHERE, UNLISTED, CONTRADICTIONS };
enum { NAMES_TOLD = 3, NAME_ROOM = 160 };

struct comparison {
	const struct checkpoint *checkpoint;
	bool *listed;
	size_t counts[CONTRADICTIONS];
	char names[CONTRADICTIONS][NAMES_TOLD][NAME_ROOM];
};

static void note(struct comparison *comparison, enum contradiction kind, const char *name)
{
	size_t n = comparison->counts[kind]++;
	if (n < NAMES_TOLD) snprintf(comparison->names[kind][n], NAME_ROOM, "%s", name);
}

static enum status compare_entry(void *context, const char *tensor, const char *shard, struct error *err)
{
	struct comparison *comparison = context;
	const struct checkpoint *c = comparison->checkpoint;
	const struct tensor_info *info = checkpoint_find(c, tensor);
	(void)err;
	if (!info) {
		note(comparison, NOWHERE, tensor);
		return STATUS_OK;
	}
	comparison->listed[info - c->tensors] = true;
	if (strcmp(c->shard_names[info->shard], shard) != 0) note(comparison, ELSEWHERE, tensor);
	return STATUS_OK;
}

/* Adds ", N tensors are in no shard (a, b, …)" to the text. */
static void tell_kind(const struct comparison *comparison, enum contradiction kind, char *text, size_t room)
{
	static const char *const what[] = {"in no shard", "in another shard than it says", "not listed"};
	size_t count = comparison->counts[kind], used = strlen(text);
	if (!count) return;
	used += (size_t)snprintf(text + used, room - used, "%s %zu tensor%s %s (", used ? "," : "", count,
				 count == 1 ? " is" : "s are", what[kind]);
	for (size_t i = 0; i < count && i < NAMES_TOLD; i++)
		used += (size_t)snprintf(text + used, room - used, "%s%s", i ? ", " : "", comparison->names[kind][i]);
	snprintf(text + used, room - used, "%s)", count > NAMES_TOLD ? ", …" : "");
}

/* Warns of all that the index and the headers of the shards tell differently. */
static enum status compare_index(const struct checkpoint *c, const struct file *index, struct warnings *warnings, struct error *err)
{
	struct json_stream stream;
	struct comparison comparison = {.checkpoint = c, .listed = calloc(c->n_tensors + 1, sizeof(bool))};
	if (!comparison.listed) return error_set(err, STATUS_NO_MEMORY, "no memory for %s", index->path);
	enum status status = shard_index_start(index, &stream, err);
	if (status == STATUS_OK) status = shard_index_walk(&stream, compare_entry, &comparison, err);
	for (size_t i = 0; i < c->n_tensors; i++)
		if (!comparison.listed[i]) note(&comparison, UNLISTED, c->tensors[i].name);
	free(comparison.listed);
	TRY(status);
	char text[CONTRADICTIONS * (NAMES_TOLD * NAME_ROOM + 80)] = "";
	for (int kind = 0; kind < CONTRADICTIONS; kind++)
		tell_kind(&comparison, kind, text, sizeof text);
	if (*text)
		warnings_add(warnings, "%s does not agree with the shards:%s; tensors are read from where the shards' headers say",
			     index_name, text);
	return STATUS_OK;
}

static enum status open_shards_of(const struct place *place, const struct file *index, struct checkpoint *c,
				  struct warnings *warnings, struct error *err)
{
	struct json_stream stream;
	char **names = NULL;
	int count = 0;
	TRY(shard_index_start(index, &stream, err));
	TRY(shard_index_files(&stream, &names, &count, err));
	enum status status = open_shards(c, place, names, count, warnings, err);
	if (status == STATUS_NOT_FOUND)
		return error_set(err, STATUS_NOT_FOUND,
				 "%s names the shard %s, which is not there; fetch it, or the whole model again", index->path,
				 names[c->n_shards]);
	TRY(status);
	return compare_index(c, index, warnings, err);
}

static enum status open_indexed(const struct place *place, struct checkpoint *c, struct warnings *warnings, struct error *err)
{
	struct file index;
	TRY(place_open(place, index_name, &index, err));
	enum status status = open_shards_of(place, &index, c, warnings, err);
	file_close(&index);
	return status;
}

/* Beside model.safetensors, which is read: warns of an index that names other files. */
static void look_at_unused_index(const struct place *place, struct warnings *warnings)
{
	struct file index;
	struct json_stream stream;
	struct error ignored;
	char **names = NULL;
	int count = 0;
	if (place_open(place, index_name, &index, &ignored) != STATUS_OK) return;
	enum status status = shard_index_start(&index, &stream, &ignored);
	if (status == STATUS_OK) status = shard_index_files(&stream, &names, &count, &ignored);
	if (status != STATUS_OK || count > 1 || strcmp(names[0], single_name) != 0)
		warnings_add(warnings,
			     "%s and %s are both there; %s is read, as transformers does, and the shards of the index are not",
			     single_name, index_name, single_name);
	free_names(names);
	file_close(&index);
}

enum status checkpoint_open(const struct place *place, struct warnings *warnings, struct checkpoint *ret, struct error *err)
{
	struct checkpoint c = {0};
	enum status status;
	bool single, indexed;
	TRY(place_look(place, single_name, &single, err));
	TRY(place_look(place, index_name, &indexed, err));
	if (single)
		status = open_single(place, single_name, &c, err);
	else if (indexed)
		status = open_indexed(place, &c, warnings, err);
	else
		status = other_formats_error(place, err);
	if (status == STATUS_OK && single) look_at_unused_index(place, warnings);
	if (status != STATUS_OK) {
		checkpoint_close(&c);
		return status;
	}
	*ret = c;
	return STATUS_OK;
}

enum status checkpoint_open_file(const struct place *place, struct checkpoint *ret, struct error *err)
{
	struct checkpoint c = {0};
	enum status status = open_single(place, NULL, &c, err);
	if (status != STATUS_OK) {
		checkpoint_close(&c);
		return status;
	}
	*ret = c;
	return STATUS_OK;
}

void checkpoint_close(struct checkpoint *c)
{
	for (int i = 0; i < c->n_shards; i++)
		file_close(&c->shards[i]);
	free(c->shards);
	free_names(c->shard_names);
	tensor_infos_free(c->tensors, c->n_tensors);
	tensor_infos_free(c->repeated, c->n_repeated);
	packed_free(c->packed, c->n_packed);
	*c = (struct checkpoint){0};
}

static int name_of(const void *key, const void *element)
{
	return strcmp(key, ((const struct tensor_info *)element)->name);
}

const struct tensor_info *checkpoint_find(const struct checkpoint *c, const char *name)
{
	return c->n_tensors ? bsearch(name, c->tensors, c->n_tensors, sizeof *c->tensors, name_of) : NULL;
}

const struct tensor_info *checkpoint_repeats(const struct checkpoint *c, const char *name, size_t *ret_count)
{
	const struct tensor_info *all = c->repeated, *found = NULL;
	if (c->n_repeated) found = bsearch(name, all, c->n_repeated, sizeof *all, name_of);
	*ret_count = 0;
	if (!found) return NULL;
	while (found > all && strcmp(found[-1].name, name) == 0)
		found--;
	while (found + *ret_count < all + c->n_repeated && strcmp(found[*ret_count].name, name) == 0)
		++*ret_count;
	return found;
}

enum status checkpoint_read(const struct checkpoint *c, const struct tensor_info *info, void *buffer, struct error *err)
{
	const struct file *file = &c->shards[info->shard];
	if (info->opaque)
		return error_set(err, STATUS_UNSUPPORTED, "%s: tensor '%s' has dtype %s, which is not supported", file->path,
				 info->name, info->opaque);
	if (info->packed) return packed_read(c, info, buffer, err);
	return file_read(file, buffer, (size_t)info->bytes, info->offset, err);
}
