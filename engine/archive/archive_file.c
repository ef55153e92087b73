#include "engine/archive/archive_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "base/json_stream.h"

/* What is open while an archive's header is read. */
struct opening {
	struct archive_file *archive;
	struct tensor_info *infos; /* the archive's own tensors, sorted by name */
	size_t count, used;
	char **entries; /* of the packed tensors, in their order; NULL where one is missing */
	int64_t version;
	bool is_besad, has_crc32;
	uint32_t head_crc32;
};

static enum status no_memory(const struct opening *opening, struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory to open %s", opening->archive->file->path);
}

static int by_name(const void *name, const void *info)
{
	return strcmp(name, ((const struct tensor_info *)info)->name);
}

/* The archive's own tensor of that name, which must have that type and so many bytes (-1: any). */
static enum status find_own(struct opening *opening, const char *name, const char *suffix, const char *dtype, int64_t bytes,
			    const struct tensor_info **ret, struct error *err)
{
	char whole[JSON_STREAM_TEXT + 32];
	snprintf(whole, sizeof whole, "%s%s", name, suffix);
	const struct tensor_info *info = bsearch(whole, opening->infos, opening->count, sizeof *info, by_name);
	const char *path = opening->archive->file->path;
	if (!info) return error_set(err, STATUS_INVALID, "%s: lacks the tensor '%s'", path, whole);
	if (strcmp(stored_type_name(info), dtype) != 0 || (bytes >= 0 && info->bytes != bytes))
		return error_set(err, STATUS_INVALID,
				 "%s: tensor '%s' has %" PRId64 " bytes of type %s, and not those that its entry tells of", path,
				 whole, info->bytes, stored_type_name(info));
	opening->used++;
	*ret = info;
	return STATUS_OK;
}

/* ---- the head of what was packed ----------------------------------------------------------------------------------------- */

/* Up to 15 decimal digits and nothing else. */
static bool parse_number(const char *text, int64_t *ret)
{
	size_t digits = strspn(text, "0123456789");
	if (digits == 0 || digits > 15 || text[digits]) return false;
	*ret = strtoll(text, NULL, 10);
	return true;
}

static enum status take_fact(void *context, const char *key, const char *text, struct error *err)
{
	struct opening *opening = context;
	struct archive_file *archive = opening->archive;
	struct {
		const char *key;
		int64_t *to;
	} facts[] = {{"version", &opening->version}, {"head_bytes", &archive->head_bytes}, {"file_bytes", &archive->file_bytes}};
	if (strcmp(key, "head_crc32") == 0) opening->has_crc32 = packing_parse_crc32(text, &opening->head_crc32);
	if (strcmp(key, "format") == 0) opening->is_besad = strcmp(text, "besad") == 0;
	for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
		if (strcmp(key, facts[i].key) == 0 && !parse_number(text, facts[i].to))
			return error_set(err, STATUS_INVALID, "%s: '%s' in its header is not a number", archive->file->path, key);
	return STATUS_OK;
}

static enum status read_head(struct opening *opening, struct error *err)
{
	struct archive_file *archive = opening->archive;
	const struct file *file = archive->file;
	const struct tensor_info *info;
	TRY(safetensors_metadata(file, take_fact, opening, err));
	if (!opening->is_besad) return error_set(err, STATUS_INVALID, "%s: not an archive of besad's", file->path);
	if (opening->version != ARCHIVE_VERSION)
		return error_set(err, STATUS_UNSUPPORTED, "%s: an archive of version %" PRId64 ", and this besad reads %d",
				 file->path, opening->version, ARCHIVE_VERSION);
	int64_t head = archive->head_bytes;
	if (head < SAFETENSORS_LENGTH_BYTES || head > SAFETENSORS_MAX_HEADER + SAFETENSORS_LENGTH_BYTES ||
	    head > archive->file_bytes)
		return error_set(err, STATUS_INVALID, "%s: its head_bytes and file_bytes cannot be", file->path);
	TRY(find_own(opening, ARCHIVE_HEAD, "", "U8", archive_align(head), &info, err));
	archive->head = malloc((size_t)info->bytes);
	if (!archive->head) return no_memory(opening, err);
	TRY(file_read(file, archive->head, (size_t)info->bytes, info->offset, err));
	for (int64_t i = head; i < info->bytes; i++)
		if (archive->head[i])
			return error_set(err, STATUS_INVALID, "%s: has something behind the head of the packed file", file->path);
	if (!opening->has_crc32 || crc32_z(0, (const Bytef *)archive->head, (size_t)head) != opening->head_crc32)
		return error_set(err, STATUS_INVALID, "%s: the head of the packed file is damaged: its checksum is another",
				 file->path);
	TRY(safetensors_parse(archive->head, (size_t)head, archive->file_bytes, file->path, &archive->infos, &archive->count, err));
	if ((int64_t)safetensors_header_length((const unsigned char *)archive->head) + SAFETENSORS_LENGTH_BYTES != head)
		return error_set(err, STATUS_INVALID, "%s: its head_bytes are not those of the head", file->path);
	return STATUS_OK;
}

/* ---- its tensors --------------------------------------------------------------------------------------------------------- */

static enum status take_entry(void *context, const char *key, const char *text, struct error *err)
{
	struct opening *opening = context;
	struct archive_file *archive = opening->archive;
	size_t prefix = strlen(ARCHIVE_TENSOR_PREFIX);
	if (strncmp(key, ARCHIVE_TENSOR_PREFIX, prefix) != 0) return STATUS_OK;
	const struct tensor_info *info = bsearch(key + prefix, archive->infos, archive->count, sizeof *info, by_name);
	char **entry = info ? &opening->entries[info - archive->infos] : NULL;
	if (!entry || *entry)
		return error_set(err, STATUS_INVALID, "%s: '%.100s' is there twice, or is no tensor of the packed file",
				 archive->file->path, key);
	*entry = strdup(text);
	return *entry ? STATUS_OK : no_memory(opening, err);
}

static enum status read_offsets(struct opening *opening, const struct tensor_info *own, struct archived_tensor *tensor,
				int64_t values_bytes, struct error *err)
{
	const struct file *file = opening->archive->file;
	int64_t count = own->bytes / (int64_t)sizeof(int64_t), blocks = tensor->packing.blocks, last = 0;
	tensor->offsets = malloc((size_t)own->bytes);
	if (!tensor->offsets) return no_memory(opening, err);
	TRY(file_read(file, tensor->offsets, (size_t)own->bytes, own->offset, err));
	bool proper = tensor->offsets[0] == 0 && tensor->offsets[blocks] == values_bytes;
	for (int64_t i = 0; i < count; i++) {
		int64_t offset = tensor->offsets[i];
		proper = proper && offset >= last && offset % ARCHIVE_ALIGNMENT == 0 && (i <= blocks || offset == values_bytes);
		last = offset;
	}
	if (proper) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "%s: the offsets of tensor '%s' are not in order", file->path, tensor->info.name);
}

static enum status read_code(struct opening *opening, struct archived_tensor *tensor, struct error *err)
{
	uint16_t table[HUFFMAN_TABLE];
	const struct file *file = opening->archive->file;
	const struct tensor_info *own;
	TRY(find_own(opening, tensor->info.name, ARCHIVE_LENGTHS_SUFFIX, "U8", HUFFMAN_SYMBOLS, &own, err));
	TRY(file_read(file, tensor->lengths, HUFFMAN_SYMBOLS, own->offset, err));
	int beyond = 0; /* symbols that are none of 4 bits */
	for (int symbol = 16; symbol < HUFFMAN_SYMBOLS && tensor->packing.bits == 4; symbol++)
		beyond |= tensor->lengths[symbol];
	if (!beyond && huffman_table(tensor->lengths, table)) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "%s: the lengths of tensor '%s' are those of no code", file->path, tensor->info.name);
}

static enum status open_packed(struct opening *opening, struct archived_tensor *tensor, struct error *err)
{
	const char *name = tensor->info.name;
	const struct file *file = opening->archive->file;
	struct packing *p = &tensor->packing;
	const struct tensor_info *own, *values;
	const struct packing_entry *entry = &tensor->entry;
	*p = packing_of(&tensor->info, entry->encoding, entry->bits, entry->zero, entry->block_rows);
	const char *dtype = packing_values_are_bytes(p) ? "U8" : stored_type_name(&tensor->info);
	TRY(find_own(opening, name, ARCHIVE_VALUES_SUFFIX, dtype, -1, &values, err));
	tensor->values_at = values->offset;
	TRY(find_own(opening, name, ARCHIVE_OFFSETS_SUFFIX, "I64", packing_offsets_bytes(p), &own, err));
	TRY(read_offsets(opening, own, tensor, values->bytes, err));
	if (encoding_has_mask(p->encoding)) {
		TRY(find_own(opening, name, ARCHIVE_MASK_SUFFIX, "U8", packing_mask_bytes(p), &own, err));
		tensor->mask_at = own->offset;
	}
	if (tensor->values_at % ARCHIVE_ALIGNMENT || tensor->mask_at % ARCHIVE_ALIGNMENT)
		return error_set(err, STATUS_INVALID, "%s: tensor '%s' is not aligned to %d bytes", file->path, name,
				 ARCHIVE_ALIGNMENT);
	return encoding_is_coded(p->encoding) ? read_code(opening, tensor, err) : STATUS_OK;
}

static enum status open_tensor(struct opening *opening, size_t i, struct error *err)
{
	struct archive_file *archive = opening->archive;
	struct archived_tensor *tensor = &archive->tensors[i];
	const char *path = archive->file->path;
	const struct tensor_info *own;
	tensor->info = archive->infos[i];
	if (!opening->entries[i]) return error_set(err, STATUS_INVALID, "%s: says nothing of tensor '%s'", path, tensor->info.name);
	TRY(packing_parse(opening->entries[i], &tensor->info, path, &tensor->entry, err));
	if (tensor->entry.encoding != ARCHIVE_PLAIN) return open_packed(opening, tensor, err);
	TRY(find_own(opening, tensor->info.name, "", stored_type_name(&tensor->info), tensor->info.bytes, &own, err));
	tensor->values_at = own->offset;
	return STATUS_OK;
}

static enum status open_tensors(struct opening *opening, struct error *err)
{
	struct archive_file *archive = opening->archive;
	archive->tensors = calloc(archive->count + 1, sizeof *archive->tensors);
	opening->entries = calloc(archive->count + 1, sizeof *opening->entries);
	if (!archive->tensors || !opening->entries) return no_memory(opening, err);
	TRY(safetensors_metadata(archive->file, take_entry, opening, err));
	for (size_t i = 0; i < archive->count; i++)
		TRY(open_tensor(opening, i, err));
	if (opening->used == opening->count) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "%s: has tensors that belong to none of the packed file's", archive->file->path);
}

static enum status open_all(struct opening *opening, struct error *err)
{
	struct archive_file *archive = opening->archive;
	unsigned char first[SAFETENSORS_LENGTH_BYTES];
	TRY(safetensors_read(archive->file, &opening->infos, &opening->count, err));
	TRY(file_read(archive->file, first, sizeof first, 0, err));
	archive->own_head_bytes = SAFETENSORS_LENGTH_BYTES + (int64_t)safetensors_header_length(first);
	TRY(read_head(opening, err));
	return open_tensors(opening, err);
}

enum status archive_file_open(const struct file *file, struct archive_file *ret, struct error *err)
{
	struct archive_file archive = {.file = file, .head_bytes = -1, .file_bytes = -1};
	struct opening opening = {.archive = &archive, .version = -1};
	enum status status = open_all(&opening, err);
	for (size_t i = 0; i < archive.count && opening.entries; i++)
		free(opening.entries[i]);
	free(opening.entries);
	tensor_infos_free(opening.infos, opening.count);
	if (status != STATUS_OK) {
		archive_file_close(&archive);
		return status;
	}
	*ret = archive;
	return STATUS_OK;
}

void archive_file_close(struct archive_file *archive)
{
	for (size_t i = 0; i < archive->count && archive->tensors; i++)
		free(archive->tensors[i].offsets);
	free(archive->tensors);
	free(archive->head);
	tensor_infos_free(archive->infos, archive->count);
	*archive = (struct archive_file){0};
}
