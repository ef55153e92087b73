#include "engine/model/safetensors.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/json.h"

static const char single_name[] = "model.safetensors", index_name[] = "model.safetensors.index.json";

enum { LENGTH_BYTES = 8, MAX_INDEX = 64 << 20, MAX_SHARDS = 10000 };

static const struct stored_type {
	const char *name;
	int bits;
	bool opaque;
	enum dtype dtype;
} stored_types[] = {
	{"F32", 32, false, DTYPE_F32},      {"BF16", 16, false, DTYPE_BF16}, {"F16", 16, false, DTYPE_F16},
	{"F64", 64, false, DTYPE_F64},      {"I64", 64, false, DTYPE_I64},   {"I32", 32, false, DTYPE_I32},
	{"U16", 16, false, DTYPE_U16},      {"U8", 8, false, DTYPE_U8},      {"BOOL", 8, true, DTYPE_U8},
	{"I8", 8, true, DTYPE_U8},          {"I16", 16, true, DTYPE_U8},     {"U32", 32, true, DTYPE_U8},
	{"U64", 64, true, DTYPE_U8},        {"C64", 64, true, DTYPE_U8},     {"F4", 4, true, DTYPE_U8},
	{"F6_E2M3", 6, true, DTYPE_U8},     {"F6_E3M2", 6, true, DTYPE_U8},  {"F8_E4M3", 8, true, DTYPE_U8},
	{"F8_E5M2", 8, true, DTYPE_U8},     {"F8_E8M0", 8, true, DTYPE_U8},  {"F8_E4M3FNUZ", 8, true, DTYPE_U8},
	{"F8_E5M2FNUZ", 8, true, DTYPE_U8},
};

static const struct stored_type *find_type(const char *name)
{
	for (size_t i = 0; i < sizeof stored_types / sizeof *stored_types; i++)
		if (strcmp(stored_types[i].name, name) == 0) return &stored_types[i];
	return NULL;
}

static uint64_t header_length(const unsigned char *head)
{
	uint64_t length = 0;
	for (int i = LENGTH_BYTES - 1; i >= 0; i--)
		length = length << 8 | head[i];
	return length;
}

static bool is_size(const cJSON *value, int64_t *ret)
{
	if (!cJSON_IsNumber(value) || !(value->valuedouble >= 0 && value->valuedouble <= 0x1p53)) return false;
	*ret = (int64_t)value->valuedouble;
	return (double)*ret == value->valuedouble;
}

static bool printable(const char *name)
{
	for (; *name; name++)
		if ((unsigned char)*name < 0x20 || *name == 0x7f) return false;
	return true;
}

/* One entry of the header. `data` is where the data area starts in the file. */
static enum status parse_tensor(const cJSON *entry, int64_t data, int64_t file_size, const char *path, struct tensor_info *ret,
				struct error *err)
{
	const char *name = entry->string;
	if (!*name || !printable(name)) return error_set(err, STATUS_INVALID, "%s: a tensor name is not printable text", path);
	const cJSON *type = cJSON_GetObjectItemCaseSensitive(entry, "dtype");
	const cJSON *shape = cJSON_GetObjectItemCaseSensitive(entry, "shape");
	const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
	if (!cJSON_IsString(type) || !cJSON_IsArray(shape) || !cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2)
		return error_set(err, STATUS_INVALID, "%s: tensor '%s' lacks a proper dtype, shape or data_offsets", path, name);

	const struct stored_type *stored = find_type(type->valuestring);
	if (!stored)
		return error_set(err, STATUS_UNSUPPORTED, "%s: tensor '%s' has the unknown dtype '%.32s'", path, name,
				 printable(type->valuestring) ? type->valuestring : "?");
	struct tensor_info info = {.dtype = stored->dtype, .opaque = stored->opaque ? stored->name : NULL};
	int64_t elements = 1;
	const cJSON *dimension;
	cJSON_ArrayForEach(dimension, shape)
	{
		int64_t size;
		if (info.rank == SAFETENSORS_MAX_RANK || !is_size(dimension, &size))
			return error_set(err, STATUS_INVALID, "%s: tensor '%s' has a bad shape", path, name);
		info.shape[info.rank++] = size;
		if (__builtin_mul_overflow(elements, size, &elements))
			return error_set(err, STATUS_INVALID, "%s: tensor '%s' has an impossibly large shape", path, name);
	}
	int64_t begin, end, bits;
	if (!is_size(offsets->child, &begin) || !is_size(offsets->child->next, &end) || begin > end || end > file_size - data)
		return error_set(err, STATUS_INVALID, "%s: tensor '%s' has data_offsets out of range (%" PRId64 " bytes of data)",
				 path, name, file_size - data);
	if (__builtin_mul_overflow(elements, (int64_t)stored->bits, &bits) || bits % 8 != 0 || bits / 8 != end - begin)
		return error_set(err, STATUS_INVALID,
				 "%s: tensor '%s' has %" PRId64 " bytes of data, which its shape and dtype %s contradict", path,
				 name, end - begin, stored->name);
	info.offset = data + begin;
	info.bytes = end - begin;
	info.name = strdup(name);
	if (!info.name) return error_set(err, STATUS_NO_MEMORY, "no memory for the tensors of %s", path);
	*ret = info;
	return STATUS_OK;
}

static int by_offset(const void *a, const void *b)
{
	const struct tensor_info *x = a, *y = b;
	if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
	return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct tensor_info *)a)->name, ((const struct tensor_info *)b)->name);
}

/* The tensors must tile the data area. Leaves them sorted by offset. */
static enum status check_layout(struct tensor_info *infos, size_t count, int64_t data, int64_t file_size, const char *path,
				struct error *err)
{
	qsort(infos, count, sizeof *infos, by_offset);
	int64_t end = data;
	for (size_t i = 0; i < count; i++) {
		if (infos[i].offset < end)
			return error_set(err, STATUS_INVALID, "%s: tensors '%s' and '%s' overlap", path, infos[i - 1].name,
					 infos[i].name);
		if (infos[i].offset > end)
			return error_set(err, STATUS_INVALID, "%s: %" PRId64 " bytes before tensor '%s' belong to no tensor", path,
					 infos[i].offset - end, infos[i].name);
		end += infos[i].bytes;
	}
	if (end != file_size)
		return error_set(err, STATUS_INVALID, "%s: %" PRId64 " bytes at the end belong to no tensor", path,
				 file_size - end);
	return STATUS_OK;
}

enum status safetensors_parse(const void *head, size_t head_bytes, int64_t file_size, const char *path,
			      struct tensor_info **ret_infos, size_t *ret_count, struct error *err)
{
	if (head_bytes < LENGTH_BYTES || file_size < LENGTH_BYTES)
		return error_set(err, STATUS_INVALID, "%s: too short for a safetensors file", path);
	uint64_t length = header_length(head);
	if (length > SAFETENSORS_MAX_HEADER)
		return error_set(err, STATUS_INVALID, "%s: not a safetensors file: a header of %" PRIu64 " bytes", path, length);
	if ((int64_t)length > file_size - LENGTH_BYTES || length > head_bytes - LENGTH_BYTES)
		return error_set(err, STATUS_INVALID, "%s: the file ends within its header of %" PRIu64 " bytes", path, length);

	cJSON *header = NULL;
	TRY(json_parse((const char *)head + LENGTH_BYTES, length, path, &header, err));
	enum status status = STATUS_OK;
	struct tensor_info *infos = NULL;
	size_t count = 0;
	int64_t data = LENGTH_BYTES + (int64_t)length;
	if (!cJSON_IsObject(header))
		status = error_set(err, STATUS_INVALID, "%s: the header is not a JSON object", path);
	else if (!(infos = calloc((size_t)cJSON_GetArraySize(header) + 1, sizeof *infos)))
		status = error_set(err, STATUS_NO_MEMORY, "no memory for the tensors of %s", path);
	for (const cJSON *entry = header->child; entry && status == STATUS_OK; entry = entry->next) {
		if (strcmp(entry->string, "__metadata__") == 0) continue;
		status = parse_tensor(entry, data, file_size, path, &infos[count], err);
		if (status == STATUS_OK) count++;
	}
	cJSON_Delete(header);
	if (status == STATUS_OK) status = check_layout(infos, count, data, file_size, path, err);
	if (status != STATUS_OK) {
		tensor_infos_free(infos, count);
		return status;
	}
	*ret_infos = infos;
	*ret_count = count;
	return STATUS_OK;
}

void tensor_infos_free(struct tensor_info *infos, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(infos[i].name);
	free(infos);
}

/* ---- checkpoints ------------------------------------------------------------------------------------------------------- */

/* Opens shard `c->n_shards` and appends its tensors. */
static enum status add_shard(struct checkpoint *c, const struct place *place, const char *name, struct error *err)
{
	struct file *file = &c->shards[c->n_shards];
	TRY(place_open(place, name, file, err));
	int shard = c->n_shards++;

	/* A length that safetensors_parse will refuse is not read: the 8 bytes suffice for its message. */
	unsigned char first[LENGTH_BYTES] = {0};
	if (file->size >= LENGTH_BYTES) TRY(file_read(file, first, LENGTH_BYTES, 0, err));
	uint64_t length = header_length(first);
	size_t bytes = LENGTH_BYTES;
	if (length <= SAFETENSORS_MAX_HEADER && (int64_t)length <= file->size - LENGTH_BYTES) bytes += length;
	unsigned char *head = malloc(bytes);
	if (!head) return error_set(err, STATUS_NO_MEMORY, "no memory for the header of %s", file->path);
	memcpy(head, first, LENGTH_BYTES);
	struct tensor_info *infos = NULL, *all;
	size_t count = 0;
	enum status status = file_read(file, head + LENGTH_BYTES, bytes - LENGTH_BYTES, LENGTH_BYTES, err);
	if (status == STATUS_OK) status = safetensors_parse(head, bytes, file->size, file->path, &infos, &count, err);
	free(head);
	TRY(status);
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

/* Sorts the tensors by name; each must be there once. */
static enum status sort_tensors(struct checkpoint *c, struct error *err)
{
	qsort(c->tensors, c->n_tensors, sizeof *c->tensors, by_name);
	for (size_t i = 1; i < c->n_tensors; i++)
		if (by_name(&c->tensors[i - 1], &c->tensors[i]) == 0)
			return error_set(err, STATUS_INVALID, "tensor '%s' is both in %s and in %s", c->tensors[i].name,
					 c->shards[c->tensors[i - 1].shard].path, c->shards[c->tensors[i].shard].path);
	return STATUS_OK;
}

/* Opens every named shard, takes over `names` and sorts the tensors. */
static enum status open_shards(struct checkpoint *c, const struct place *place, char **names, int count, struct error *err)
{
	c->shard_names = names;
	c->shards = calloc((size_t)count + 1, sizeof *c->shards);
	if (!c->shards) return error_set(err, STATUS_NO_MEMORY, "no memory for %d shards", count);
	for (int i = 0; i < count; i++)
		TRY(add_shard(c, place, names[i], err));
	return sort_tensors(c, err);
}

static void free_names(char **names)
{
	for (char **name = names; name && *name; name++)
		free(*name);
	free(names);
}

static int by_string(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The distinct shard names of a weight map, sorted, NULL-terminated. */
static enum status list_shards(const cJSON *map, const char *path, char ***ret_names, int *ret_count, struct error *err)
{
	size_t count = 0, distinct = 0;
	const cJSON *entry;
	cJSON_ArrayForEach(entry, map)
	{
		const char *name = cJSON_IsString(entry) ? entry->valuestring : "";
		if (!*name || *name == '.' || strchr(name, '/') || !printable(name))
			return error_set(err, STATUS_INVALID, "%s: the shard of tensor '%.200s' is not a plain file name", path,
					 entry->string);
		count++;
	}
	char **all = malloc((count + 1) * sizeof *all), **names = NULL;
	if (!all) return error_set(err, STATUS_NO_MEMORY, "no memory for %s", path);
	count = 0;
	cJSON_ArrayForEach(entry, map) all[count++] = entry->valuestring;
	qsort(all, count, sizeof *all, by_string);
	for (size_t i = 0; i < count; i++)
		if (i == 0 || strcmp(all[i], all[i - 1]) != 0) all[distinct++] = all[i];
	enum status status = STATUS_OK;
	if (distinct == 0 || distinct > MAX_SHARDS)
		status = error_set(err, STATUS_INVALID, "%s: names %zu shards; from 1 to %d can be opened", path, distinct,
				   MAX_SHARDS);
	else if (!(names = calloc(distinct + 1, sizeof *names)))
		status = error_set(err, STATUS_NO_MEMORY, "no memory for %s", path);
	for (size_t i = 0; i < distinct && status == STATUS_OK; i++)
		if (!(names[i] = strdup(all[i]))) status = error_set(err, STATUS_NO_MEMORY, "no memory for %s", path);
	free(all);
	if (status != STATUS_OK) {
		free_names(names);
		return status;
	}
	*ret_names = names;
	*ret_count = (int)distinct;
	return STATUS_OK;
}

/* Every tensor of the index is in the shard it names, and every tensor of a shard is in the index. */
static enum status check_index(const struct checkpoint *c, const cJSON *map, const char *path, struct error *err)
{
	bool *listed = calloc(c->n_tensors + 1, sizeof *listed);
	if (!listed) return error_set(err, STATUS_NO_MEMORY, "no memory for %s", path);
	enum status status = STATUS_OK;
	for (const cJSON *entry = map->child; entry && status == STATUS_OK; entry = entry->next) {
		const struct tensor_info *info = checkpoint_find(c, entry->string);
		if (!info || strcmp(c->shard_names[info->shard], entry->valuestring) != 0)
			status = error_set(err, STATUS_INVALID, "%s: tensor '%.200s' is not in %.200s", path, entry->string,
					   entry->valuestring);
		else
			listed[info - c->tensors] = true;
	}
	for (size_t i = 0; i < c->n_tensors && status == STATUS_OK; i++)
		if (!listed[i])
			status = error_set(err, STATUS_INVALID, "%s: tensor '%s' of %s is not listed", path, c->tensors[i].name,
					   c->shard_names[c->tensors[i].shard]);
	free(listed);
	return status;
}

static enum status open_indexed(const struct place *place, const char *index_path, struct checkpoint *c, struct error *err)
{
	cJSON *index = NULL;
	char **names = NULL;
	int count = 0;
	TRY(json_read_place(place, index_name, MAX_INDEX, &index, err));
	const cJSON *map = cJSON_GetObjectItemCaseSensitive(index, "weight_map");
	enum status status = STATUS_OK;
	if (!cJSON_IsObject(map))
		status = error_set(err, STATUS_INVALID, "%s: 'weight_map' must be an object", index_path);
	else
		status = list_shards(map, index_path, &names, &count, err);
	if (status == STATUS_OK) status = open_shards(c, place, names, count, err);
	if (status == STATUS_OK) status = check_index(c, map, index_path, err);
	cJSON_Delete(index);
	return status;
}

/* One file: `name` in the place, or the place itself where it is NULL. */
static enum status open_single(const struct place *place, const char *name, struct checkpoint *c, struct error *err)
{
	c->shards = calloc(1, sizeof *c->shards);
	c->shard_names = calloc(2, sizeof *c->shard_names);
	if (!c->shards || !c->shard_names || !(c->shard_names[0] = strdup(name ? name : place->path)))
		return error_set(err, STATUS_NO_MEMORY, "no memory to open %s", name ? name : place->path);
	TRY(add_shard(c, place, name, err));
	return sort_tensors(c, err);
}

enum status checkpoint_open(const struct place *place, struct warnings *warnings, struct checkpoint *ret, struct error *err)
{
	(void)warnings;
	struct checkpoint c = {0};
	char *index_path = place_text(place, index_name);
	enum status status;
	if (!index_path)
		status = error_set(err, STATUS_NO_MEMORY, "no memory to open a model");
	else if (place_has(place, single_name))
		status = open_single(place, single_name, &c, err);
	else if (place_has(place, index_name))
		status = open_indexed(place, index_path, &c, err);
	else
		status = error_set(err, STATUS_NOT_FOUND, "%.*s: holds neither %s nor %s",
				   (int)(strlen(index_path) - sizeof index_name), index_path, single_name, index_name);
	free(index_path);
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

enum status checkpoint_read(const struct checkpoint *c, const struct tensor_info *info, void *buffer, struct error *err)
{
	const struct file *file = &c->shards[info->shard];
	if (info->opaque)
		return error_set(err, STATUS_UNSUPPORTED, "%s: tensor '%s' has dtype %s, which is not supported", file->path,
				 info->name, info->opaque);
	return file_read(file, buffer, (size_t)info->bytes, info->offset, err);
}
