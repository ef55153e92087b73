#include "engine/model/safetensors.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_stream.h"
#include "base/lfs.h"

/* In the order of the safetensors library, which lays a file out by it, last first. */
static const struct stored_type {
	const char *name;
	int bits;
	bool opaque; /* enum dtype lacks it */
	enum dtype dtype;
} stored_types[] = {
	{"BOOL", 8, true, DTYPE_U8},        {"F4", 4, true, DTYPE_U8},          {"F6_E2M3", 6, true, DTYPE_U8},
	{"F6_E3M2", 6, true, DTYPE_U8},     {"U8", 8, false, DTYPE_U8},         {"I8", 8, true, DTYPE_U8},
	{"F8_E5M2", 8, true, DTYPE_U8},     {"F8_E4M3", 8, true, DTYPE_U8},     {"F8_E8M0", 8, true, DTYPE_U8},
	{"F8_E4M3FNUZ", 8, true, DTYPE_U8}, {"F8_E5M2FNUZ", 8, true, DTYPE_U8}, {"I16", 16, true, DTYPE_U8},
	{"U16", 16, false, DTYPE_U16},      {"F16", 16, false, DTYPE_F16},      {"BF16", 16, false, DTYPE_BF16},
	{"I32", 32, false, DTYPE_I32},      {"U32", 32, true, DTYPE_U8},        {"F32", 32, false, DTYPE_F32},
	{"C64", 64, true, DTYPE_U8},        {"F64", 64, false, DTYPE_F64},      {"I64", 64, false, DTYPE_I64},
	{"U64", 64, true, DTYPE_U8},
};
enum { STORED_TYPES = sizeof stored_types / sizeof *stored_types };

static const struct stored_type *find_type(const char *name)
{
	for (size_t i = 0; i < STORED_TYPES; i++)
		if (strcmp(stored_types[i].name, name) == 0) return &stored_types[i];
	return NULL;
}

static const struct stored_type *type_of(const struct tensor_info *info)
{
	if (info->opaque) return find_type(info->opaque);
	for (size_t i = 0; i < STORED_TYPES; i++)
		if (!stored_types[i].opaque && stored_types[i].dtype == info->dtype) return &stored_types[i];
	return NULL;
}

const char *stored_type_name(const struct tensor_info *info)
{
	return type_of(info)->name;
}

size_t stored_width(const struct tensor_info *info)
{
	int bits = type_of(info)->bits;
	return bits < 8 ? 1 : (size_t)bits / 8;
}

enum status stored_bytes(const struct tensor_info *info, int64_t *ret, struct error *err)
{
	const struct stored_type *stored = type_of(info);
	int64_t elements = 1, bits;
	for (int i = 0; i < info->rank; i++) {
		if (info->shape[i] < 0) return error_set(err, STATUS_INVALID, "tensor '%s' has a negative size", info->name);
		if (__builtin_mul_overflow(elements, info->shape[i], &elements))
			return error_set(err, STATUS_INVALID, "tensor '%s' has an impossibly large shape", info->name);
	}
	if (__builtin_mul_overflow(elements, (int64_t)stored->bits, &bits))
		return error_set(err, STATUS_INVALID, "tensor '%s' has an impossibly large shape", info->name);
	if (bits % 8 != 0)
		return error_set(err, STATUS_INVALID, "tensor '%s' has %" PRId64 " elements of %d bits, which fill no whole bytes",
				 info->name, elements, stored->bits);
	*ret = bits / 8;
	return STATUS_OK;
}

uint64_t safetensors_header_length(const unsigned char head[SAFETENSORS_LENGTH_BYTES])
{
	uint64_t length = 0;
	for (int i = SAFETENSORS_LENGTH_BYTES - 1; i >= 0; i--)
		length = length << 8 | head[i];
	return length;
}

static bool printable(const char *name)
{
	for (; *name; name++)
		if ((unsigned char)*name < 0x20 || *name == 0x7f) return false;
	return true;
}

/* What the header says of one tensor, before it is checked. */
struct entry {
	char name[JSON_STREAM_TEXT + 1], dtype[33];
	bool has_dtype, has_shape;
	int rank, n_offsets;
	int64_t shape[SAFETENSORS_MAX_RANK], offsets[2];
	bool bad_offset;
};

static enum status improper(const struct entry *entry, const char *path, struct error *err)
{
	return error_set(err, STATUS_INVALID, "%s: tensor '%s' lacks a proper dtype, shape or data_offsets", path, entry->name);
}

static bool is_size(const struct json_stream *s, int64_t *ret)
{
	if (!(s->number >= 0 && s->number <= 0x1p53)) return false;
	*ret = (int64_t)s->number;
	return (double)*ret == s->number;
}

static enum status read_shape(struct json_stream *s, struct entry *entry, const char *path, struct error *err)
{
	enum json_token token;
	entry->has_shape = true;
	entry->rank = 0;
	for (;;) {
		int64_t size;
		TRY(json_next(s, &token, err));
		if (token == JSON_ARRAY_END) return STATUS_OK;
		if (token != JSON_NUMBER || !is_size(s, &size))
			return error_set(err, STATUS_INVALID, "%s: tensor '%s' has a bad shape", path, entry->name);
		if (entry->rank == SAFETENSORS_MAX_RANK)
			return error_set(err, STATUS_INVALID, "%s: tensor '%s' has a bad shape: more than %d dimensions", path,
					 entry->name, SAFETENSORS_MAX_RANK);
		entry->shape[entry->rank++] = size;
	}
}

static enum status read_offsets(struct json_stream *s, struct entry *entry, const char *path, struct error *err)
{
	enum json_token token;
	entry->n_offsets = 0;
	for (;;) {
		TRY(json_next(s, &token, err));
		if (token == JSON_ARRAY_END) return STATUS_OK;
		if (token != JSON_NUMBER || entry->n_offsets == 2) return improper(entry, path, err);
		if (!is_size(s, &entry->offsets[entry->n_offsets++])) entry->bad_offset = true;
	}
}

/* The value behind the key that is the tensor's name. */
static enum status read_entry(struct json_stream *s, struct entry *entry, const char *path, struct error *err)
{
	enum json_token token;
	if (s->cut) return error_set(err, STATUS_INVALID, "%s: a tensor has a name of more than %d bytes", path, JSON_STREAM_TEXT);
	if (!*s->text || !printable(s->text))
		return error_set(err, STATUS_INVALID, "%s: a tensor name is not printable text", path);
	*entry = (struct entry){0};
	memcpy(entry->name, s->text, strlen(s->text) + 1);
	TRY(json_next(s, &token, err));
	if (token != JSON_OBJECT) return improper(entry, path, err);
	for (;;) {
		TRY(json_next(s, &token, err));
		if (token == JSON_OBJECT_END) break;
		bool dtype = strcmp(s->text, "dtype") == 0, shape = strcmp(s->text, "shape") == 0;
		bool offsets = strcmp(s->text, "data_offsets") == 0;
		if ((dtype && entry->has_dtype) || (shape && entry->has_shape) || (offsets && entry->n_offsets))
			return error_set(err, STATUS_INVALID, "%s: '%s' of tensor '%s' is there twice", path, s->text, entry->name);
		TRY(json_next(s, &token, err));
		if (dtype && token == JSON_STRING) {
			entry->has_dtype = true;
			snprintf(entry->dtype, sizeof entry->dtype, "%.32s", printable(s->text) ? s->text : "?");
		} else if (shape && token == JSON_ARRAY) {
			TRY(read_shape(s, entry, path, err));
		} else if (offsets && token == JSON_ARRAY) {
			TRY(read_offsets(s, entry, path, err));
		} else {
			TRY(json_skip(s, token, err));
		}
	}
	return entry->has_dtype && entry->has_shape && entry->n_offsets == 2 ? STATUS_OK : improper(entry, path, err);
}

/* Checks an entry. `data` is where the data area starts in the file. */
static enum status check_entry(const struct entry *entry, int64_t data, int64_t file_size, const char *path,
			       struct tensor_info *ret, struct error *err)
{
	const char *name = entry->name;
	const struct stored_type *stored = find_type(entry->dtype);
	if (!stored)
		return error_set(err, STATUS_UNSUPPORTED, "%s: tensor '%s' has the unknown dtype '%s'", path, name, entry->dtype);
	struct tensor_info info = {
		.name = (char *)name, .dtype = stored->dtype, .opaque = stored->opaque ? stored->name : NULL, .rank = entry->rank};
	int64_t begin = entry->offsets[0], end = entry->offsets[1];
	for (int i = 0; i < entry->rank; i++)
		info.shape[i] = entry->shape[i];
	if (stored_bytes(&info, &info.bytes, err)) return error_prefix(err, "%s", path);
	if (entry->bad_offset || begin > end || end > file_size - data)
		return error_set(err, STATUS_INVALID, "%s: tensor '%s' has data_offsets out of range (%" PRId64 " bytes of data)",
				 path, name, file_size - data);
	if (info.bytes != end - begin)
		return error_set(err, STATUS_INVALID,
				 "%s: tensor '%s' has %" PRId64 " bytes of data, which its shape and dtype %s contradict", path,
				 name, end - begin, stored->name);
	info.offset = data + begin;
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

static enum status check_names(struct tensor_info *infos, size_t count, const char *path, struct error *err)
{
	qsort(infos, count, sizeof *infos, by_name);
	for (size_t i = 1; i < count; i++)
		if (by_name(&infos[i - 1], &infos[i]) == 0)
			return error_set(err, STATUS_INVALID, "%s: tensor '%s' is there twice", path, infos[i].name);
	return STATUS_OK;
}

/* The tensors of a head while it is read. */
struct list {
	struct tensor_info *infos;
	size_t count, capacity;
};

static enum status add_entry(struct list *list, const struct entry *entry, int64_t data, int64_t file_size, const char *path,
			     struct error *err)
{
	if (list->count == SAFETENSORS_MAX_TENSORS)
		return error_set(err, STATUS_INVALID, "%s: more than %d tensors", path, SAFETENSORS_MAX_TENSORS);
	if (list->count == list->capacity) {
		size_t capacity = list->capacity ? list->capacity + list->capacity / 2 : 64;
		struct tensor_info *grown = realloc(list->infos, capacity * sizeof *grown);
		if (!grown) return error_set(err, STATUS_NO_MEMORY, "no memory for the tensors of %s", path);
		list->infos = grown;
		list->capacity = capacity;
	}
	TRY(check_entry(entry, data, file_size, path, &list->infos[list->count], err));
	list->count++;
	return STATUS_OK;
}

static enum status read_header(struct json_stream *s, int64_t data, int64_t file_size, const char *path, struct list *list,
			       struct error *err)
{
	enum json_token token;
	struct entry entry;
	TRY(json_next(s, &token, err));
	if (token != JSON_OBJECT) return error_set(err, STATUS_INVALID, "%s: the header is not a JSON object", path);
	for (;;) {
		TRY(json_next(s, &token, err));
		if (token == JSON_OBJECT_END) break;
		if (strcmp(s->text, "__metadata__") == 0) {
			TRY(json_next(s, &token, err));
			TRY(json_skip(s, token, err));
			continue;
		}
		TRY(read_entry(s, &entry, path, err));
		TRY(add_entry(list, &entry, data, file_size, path, err));
	}
	TRY(json_next(s, &token, err));
	if (!list->infos && !(list->infos = malloc(sizeof *list->infos)))
		return error_set(err, STATUS_NO_MEMORY, "no memory for the tensors of %s", path);
	TRY(check_layout(list->infos, list->count, data, file_size, path, err));
	return check_names(list->infos, list->count, path, err);
}

/* `first` is what the file begins with, `bytes` of it; 8 of them are looked at, or what a text in place of a safetensors file
 * tells. */
static enum status check_length(const char *first, size_t bytes, int64_t file_size, const char *path, uint64_t *ret,
				struct error *err)
{
	if (is_lfs_pointer(first, bytes)) return lfs_pointer_error(path, err);
	if (bytes < SAFETENSORS_LENGTH_BYTES || file_size < SAFETENSORS_LENGTH_BYTES)
		return error_set(err, STATUS_INVALID, "%s: too short for a safetensors file", path);
	uint64_t length = safetensors_header_length((const unsigned char *)first);
	if (length > SAFETENSORS_MAX_HEADER)
		return error_set(err, STATUS_INVALID,
				 "%s: not a safetensors file: its first 8 bytes say a header of %" PRIu64
				 " bytes, and %d are the most",
				 path, length, SAFETENSORS_MAX_HEADER);
	if ((int64_t)length > file_size - SAFETENSORS_LENGTH_BYTES)
		return error_set(err, STATUS_INVALID,
				 "%s: the file ends within its header of %" PRIu64 " bytes; it was not copied or downloaded whole",
				 path, length);
	*ret = length;
	return STATUS_OK;
}

/* Reads from a stream at the start of the header. */
static enum status read_tensors(struct json_stream *s, uint64_t length, int64_t file_size, const char *path,
				struct tensor_info **ret_infos, size_t *ret_count, struct error *err)
{
	struct list list = {0};
	enum status status = read_header(s, SAFETENSORS_LENGTH_BYTES + (int64_t)length, file_size, path, &list, err);
	if (status != STATUS_OK) {
		tensor_infos_free(list.infos, list.count);
		return status;
	}
	*ret_infos = list.infos;
	*ret_count = list.count;
	return STATUS_OK;
}

enum status safetensors_parse(const void *head, size_t head_bytes, int64_t file_size, const char *path,
			      struct tensor_info **ret_infos, size_t *ret_count, struct error *err)
{
	uint64_t length;
	struct json_stream s;
	TRY(check_length(head, head_bytes, file_size, path, &length, err));
	if (length > head_bytes - SAFETENSORS_LENGTH_BYTES)
		return error_set(err, STATUS_INVALID, "%s: the file ends within its header of %" PRIu64 " bytes", path, length);
	json_stream_memory(&s, (const char *)head + SAFETENSORS_LENGTH_BYTES, length, path);
	return read_tensors(&s, length, file_size, path, ret_infos, ret_count, err);
}

/* A stream at the start of a file's header, and its length. */
static enum status start_header(const struct file *file, struct json_stream *ret, uint64_t *ret_length, struct error *err)
{
	char first[64];
	size_t bytes = file->size < (int64_t)sizeof first ? (size_t)file->size : sizeof first;
	TRY(file_read(file, first, bytes, 0, err));
	TRY(check_length(first, bytes, file->size, file->path, ret_length, err));
	json_stream_file(ret, file, SAFETENSORS_LENGTH_BYTES, SAFETENSORS_LENGTH_BYTES + (int64_t)*ret_length);
	return STATUS_OK;
}

/* Behind the key. */
static enum status use_metadata(struct json_stream *s, safetensors_metadata_fn use, void *context, struct error *err)
{
	enum json_token token;
	char key[JSON_STREAM_TEXT + 1];
	TRY(json_next(s, &token, err));
	if (token != JSON_OBJECT) return error_set(err, STATUS_INVALID, "%s: its __metadata__ is not an object", s->what);
	for (;;) {
		TRY(json_next(s, &token, err));
		if (token == JSON_OBJECT_END) return STATUS_OK;
		bool cut = s->cut;
		memcpy(key, s->text, strlen(s->text) + 1);
		TRY(json_next(s, &token, err));
		if (token != JSON_STRING || cut || s->cut)
			return error_set(err, STATUS_INVALID, "%s: '%.100s' in its __metadata__ is not text, or too long", s->what,
					 key);
		TRY(use(context, key, s->text, err));
	}
}

enum status safetensors_metadata(const struct file *file, safetensors_metadata_fn use, void *context, struct error *err)
{
	struct json_stream s;
	enum json_token token;
	uint64_t length;
	TRY(start_header(file, &s, &length, err));
	TRY(json_next(&s, &token, err));
	if (token != JSON_OBJECT) return error_set(err, STATUS_INVALID, "%s: the header is not a JSON object", file->path);
	for (;;) {
		TRY(json_next(&s, &token, err));
		if (token == JSON_OBJECT_END) return STATUS_OK;
		bool metadata = strcmp(s.text, "__metadata__") == 0;
		if (metadata) TRY(use_metadata(&s, use, context, err));
		if (metadata) continue;
		TRY(json_next(&s, &token, err));
		TRY(json_skip(&s, token, err));
	}
}

enum status safetensors_read(const struct file *file, struct tensor_info **ret_infos, size_t *ret_count, struct error *err)
{
	uint64_t length;
	struct json_stream s;
	TRY(start_header(file, &s, &length, err));
	return read_tensors(&s, length, file->size, file->path, ret_infos, ret_count, err);
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

/* The longest header that the safetensors library reads. */
enum { MAX_WRITTEN_HEADER = 100 * 1000 * 1000 };

static int by_layout(const void *a, const void *b)
{
	const struct tensor_info *x = *(struct tensor_info *const *)a, *y = *(struct tensor_info *const *)b;
	const struct stored_type *left = type_of(x), *right = type_of(y);
	if (left != right) return left > right ? -1 : 1;
	return strcmp(x->name, y->name);
}

void safetensors_print_entry(struct buffer *head, const struct tensor_info *info)
{
	buffer_json_string(head, info->name);
	buffer_printf(head, ":{\"dtype\":\"%s\",\"shape\":[", type_of(info)->name);
	for (int i = 0; i < info->rank; i++)
		buffer_printf(head, "%s%" PRId64, i ? "," : "", info->shape[i]);
	buffer_printf(head, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", info->offset, info->offset + info->bytes);
}

/* The length and the header of a file; offsets count from the start of the data, which are *data bytes. */
static enum status make_head(struct tensor_info **infos, size_t count, const char *path, struct buffer *head, int64_t *data,
			     struct error *err)
{
	static const char start[] = "\0\0\0\0\0\0\0\0{\"__metadata__\":{\"format\":\"pt\"}", padding[] = "       ";
	qsort(infos, count, sizeof *infos, by_layout);
	buffer_append(head, start, sizeof start - 1);
	for (size_t i = 0; i < count; i++) {
		TRY(stored_bytes(infos[i], &infos[i]->bytes, err));
		infos[i]->offset = *data;
		if (__builtin_add_overflow(*data, infos[i]->bytes, data))
			return error_set(err, STATUS_INVALID, "%s: its tensors are impossibly large", path);
		buffer_append(head, ",", 1);
		safetensors_print_entry(head, infos[i]);
	}
	buffer_append(head, "}", 1);
	buffer_append(head, padding, -head->size % 8);
	if (head->failed) return error_set(err, STATUS_NO_MEMORY, "no memory for the header of %s", path);
	for (size_t i = 0, length = head->size - SAFETENSORS_LENGTH_BYTES; i < SAFETENSORS_LENGTH_BYTES; i++)
		head->data[i] = (char)(length >> (8 * i));
	return STATUS_OK;
}

/* Whether a head that was made is one that can be read, by the safetensors library too. */
static enum status check_head(const struct buffer *head, int64_t file_size, const char *path, struct error *err)
{
	struct tensor_info *infos;
	size_t count;
	if (head->size - SAFETENSORS_LENGTH_BYTES > MAX_WRITTEN_HEADER)
		return error_set(err, STATUS_INVALID, "%s: its header would have more than %d bytes; make more, smaller shards",
				 path, MAX_WRITTEN_HEADER);
	TRY(safetensors_parse(head->data, head->size, file_size, path, &infos, &count, err));
	tensor_infos_free(infos, count);
	return STATUS_OK;
}

enum status safetensors_lay_out(struct tensor_info **infos, size_t count, const char *path, struct buffer *ret_head,
				int64_t *ret_file_size, struct error *err)
{
	struct buffer head = {0};
	int64_t data = 0;
	enum status status = make_head(infos, count, path, &head, &data, err);
	int64_t size = (int64_t)head.size + data;
	if (status == STATUS_OK) status = check_head(&head, size, path, err);
	if (status != STATUS_OK) {
		buffer_free(&head);
		return status;
	}
	for (size_t i = 0; i < count; i++)
		infos[i]->offset += (int64_t)head.size;
	*ret_head = head;
	*ret_file_size = size;
	return STATUS_OK;
}

void tensor_infos_free(struct tensor_info *infos, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(infos[i].name);
	free(infos);
}
