#include "engine/archive/packing.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static const char *const encoding_names[ARCHIVE_ENCODINGS] = {"plain", "mask", "mask+huffman", "huffman"};

/* The blocks of other writers: the bitmap of one must be a multiple of ARCHIVE_ALIGNMENT. */
enum { BLOCK_ROWS_UNIT = 8, MAX_BLOCK_ROWS = 64, MAX_BLOCK_BYTES = 64 << 20 };

static bool has_values(const struct tensor_info *info, int bits)
{
	switch (info->opaque ? DTYPE_U8 : info->dtype) {
	case DTYPE_BF16:
	case DTYPE_F16:
		return bits == 16;
	case DTYPE_F32:
		return bits == 32;
	case DTYPE_I32:
		return bits == 4 || bits == 8;
	default:
		return false;
	}
}

bool packing_fits(const struct tensor_info *info, int bits)
{
	if (!has_values(info, bits) || info->rank < 2 || info->bytes == 0) return false;
	int64_t wide = info->shape[info->rank - 1], each = 8 * (int64_t)dtype_size(info->dtype) / bits;
	return wide <= ARCHIVE_MAX_COLUMNS / each && wide * each >= ARCHIVE_MIN_COLUMNS;
}

bool packing_fits_any(const struct tensor_info *info)
{
	return packing_fits(info, 4) || packing_fits(info, 8) || packing_fits(info, 16) || packing_fits(info, 32);
}

struct packing packing_of(const struct tensor_info *info, enum archive_encoding encoding, int bits, uint8_t zero,
			  int64_t block_rows)
{
	int64_t width = (int64_t)dtype_size(info->dtype), wide = info->shape[info->rank - 1];
	int64_t cols = wide * (8 * width / bits), rows = info->bytes / width / wide;
	return (struct packing){.encoding = encoding,
				.rows = rows,
				.cols = cols,
				.block_rows = block_rows,
				.blocks = (rows + block_rows - 1) / block_rows,
				.stride = (cols + 63) / 64 * 8,
				.bits = bits,
				.zero = zero};
}

int64_t packing_mask_bytes(const struct packing *p)
{
	return p->blocks * packing_block_mask_bytes(p);
}

int64_t packing_offsets_bytes(const struct packing *p)
{
	return archive_align((p->blocks + 1) * (int64_t)sizeof(int64_t));
}

int64_t packing_lengths_bytes(const struct packing *p)
{
	return encoding_is_coded(p->encoding) ? HUFFMAN_SYMBOLS : 0;
}

void packing_print(const struct packing_entry *entry, const struct tensor_info *info, struct buffer *ret)
{
	buffer_printf(ret, "{\"encoding\":\"%s\",\"dtype\":\"%s\",\"shape\":[", encoding_names[entry->encoding],
		      stored_type_name(info));
	for (int i = 0; i < info->rank; i++)
		buffer_printf(ret, "%s%" PRId64, i ? "," : "", info->shape[i]);
	buffer_printf(ret, "]");
	bool is_packed = entry->encoding != ARCHIVE_PLAIN;
	if (is_packed) buffer_printf(ret, ",\"value_bits\":%d", entry->bits);
	if (is_packed && entry->bits < 16) buffer_printf(ret, ",\"zero\":%d", entry->zero);
	if (is_packed) buffer_printf(ret, ",\"block_rows\":%" PRId64, entry->block_rows);
	if (encoding_has_mask(entry->encoding)) buffer_printf(ret, ",\"nonzeros\":%" PRId64, entry->nonzeros);
	buffer_printf(ret, ",\"crc32\":\"%08" PRIx32 "\"}", entry->crc32);
}

static enum status parse_encoding(const cJSON *json, enum archive_encoding *ret, struct error *err)
{
	const char *name = NULL;
	TRY(json_get_string(json, "the entry", "encoding", &name, err));
	for (int i = 0; name && i < ARCHIVE_ENCODINGS; i++)
		if (strcmp(name, encoding_names[i]) == 0) {
			*ret = (enum archive_encoding)i;
			return STATUS_OK;
		}
	return error_set(err, STATUS_UNSUPPORTED, "its encoding is '%.64s', which this besad does not know", name ? name : "");
}

bool packing_parse_crc32(const char *text, uint32_t *ret)
{
	if (!text || strlen(text) != 8 || strspn(text, "0123456789abcdef") != 8) return false;
	*ret = (uint32_t)strtoul(text, NULL, 16);
	return true;
}

static bool same_shape(const cJSON *shape, const struct tensor_info *info)
{
	if (!cJSON_IsArray(shape) || cJSON_GetArraySize(shape) != info->rank) return false;
	for (int i = 0; i < info->rank; i++)
		if (cJSON_GetNumberValue(cJSON_GetArrayItem(shape, i)) != (double)info->shape[i]) return false;
	return true;
}

/* The bits of its values, and the code that is left out where they are codes. */
static enum status parse_values(const cJSON *json, const struct tensor_info *info, struct packing_entry *entry, struct error *err)
{
	int64_t bits = 0, zero = -1;
	if (!packing_fits_any(info)) return error_set(err, STATUS_INVALID, "a tensor of its type and shape is always plain");
	TRY(json_get_int(json, "the entry", "value_bits", 1, 64, &bits, err));
	if (!packing_fits(info, (int)bits) || (encoding_is_coded(entry->encoding) && bits == 32))
		return error_set(err, STATUS_UNSUPPORTED, "its values have %" PRId64 " bits, which this besad does not know", bits);
	entry->bits = (int)bits;
	bool has_zero = cJSON_GetObjectItemCaseSensitive(json, "zero") != NULL;
	if (has_zero != (bits < 16)) return error_set(err, STATUS_INVALID, "it %s zero", has_zero ? "has a" : "lacks");
	if (!has_zero) return STATUS_OK;
	TRY(json_get_int(json, "the entry", "zero", 0, (INT64_C(1) << bits) - 1, &zero, err));
	entry->zero = (uint8_t)zero;
	return zero < 0 ? error_set(err, STATUS_INVALID, "it lacks zero") : STATUS_OK;
}

static enum status parse_blocks(const cJSON *json, const struct tensor_info *info, struct packing_entry *entry, struct error *err)
{
	TRY(parse_values(json, info, entry, err));
	TRY(json_get_int(json, "the entry", "block_rows", BLOCK_ROWS_UNIT, MAX_BLOCK_ROWS, &entry->block_rows, err));
	if (entry->block_rows == 0 || entry->block_rows % BLOCK_ROWS_UNIT != 0)
		return error_set(err, STATUS_INVALID, "its block_rows are not a multiple of %d", BLOCK_ROWS_UNIT);
	struct packing p = packing_of(info, entry->encoding, entry->bits, entry->zero, entry->block_rows);
	if (packing_block_bytes(&p) > MAX_BLOCK_BYTES)
		return error_set(err, STATUS_INVALID, "its blocks have more than %d bytes", MAX_BLOCK_BYTES);
	if (!encoding_has_mask(entry->encoding)) return STATUS_OK;
	entry->nonzeros = -1;
	TRY(json_get_int(json, "the entry", "nonzeros", 0, p.rows * p.cols, &entry->nonzeros, err));
	return entry->nonzeros < 0 ? error_set(err, STATUS_INVALID, "it lacks nonzeros") : STATUS_OK;
}

static enum status parse(const cJSON *json, const struct tensor_info *info, struct packing_entry *entry, struct error *err)
{
	const char *dtype = NULL, *crc = NULL;
	if (!cJSON_IsObject(json)) return error_set(err, STATUS_INVALID, "it is not an object");
	TRY(parse_encoding(json, &entry->encoding, err));
	TRY(json_get_string(json, "the entry", "dtype", &dtype, err));
	if (!dtype || strcmp(dtype, stored_type_name(info)) != 0 ||
	    !same_shape(cJSON_GetObjectItemCaseSensitive(json, "shape"), info))
		return error_set(err, STATUS_INVALID, "its type and shape are not those of the tensor");
	TRY(json_get_string(json, "the entry", "crc32", &crc, err));
	if (!packing_parse_crc32(crc, &entry->crc32))
		return error_set(err, STATUS_INVALID, "its crc32 is not 8 hexadecimal digits");
	return entry->encoding == ARCHIVE_PLAIN ? STATUS_OK : parse_blocks(json, info, entry, err);
}

enum status packing_parse(const char *text, const struct tensor_info *info, const char *path, struct packing_entry *ret,
			  struct error *err)
{
	struct packing_entry entry = {0};
	cJSON *json;
	enum status status = json_parse(text, strlen(text), "the entry", &json, err);
	if (status == STATUS_OK) {
		status = parse(json, info, &entry, err);
		cJSON_Delete(json);
	}
	if (status != STATUS_OK) return error_prefix(err, "%s: tensor '%s'", path, info->name);
	*ret = entry;
	return STATUS_OK;
}
