#include "daemon/data.h"

#include <inttypes.h>

#include "base/json.h"
#include "engine/model/checkpoint.h"
#include "engine/model/safetensors.h"
#include "engine/text/kind.h"

enum { HEAD_BYTES = 64 << 10, MAX_HEADER = 1 << 20 }; /* what is read of a file for the list */

struct candidate {
	struct place place;
	const char *name;
	int64_t size;
};

/* Do the tokens lie where besad looks for them? */
static enum status check_tokens(const struct place *place, const struct file *file, struct error *err)
{
	struct checkpoint checkpoint;
	unsigned char head[SAFETENSORS_LENGTH_BYTES];
	TRY(file_read(file, head, sizeof head, 0, err));
	uint64_t length = safetensors_header_length(head);
	if (length > MAX_HEADER)
		return error_set(err, STATUS_UNSUPPORTED, "%s: a header of %" PRIu64 " bytes is not one of a file of tokens",
				 file->path, length);
	TRY(checkpoint_open_file(place, &checkpoint, err));
	bool has = checkpoint_find(&checkpoint, "input_ids") != NULL;
	checkpoint_close(&checkpoint);
	if (has) return STATUS_OK;
	return error_set(err, STATUS_INVALID,
			 "%s: has no tensor 'input_ids': the tokens, [rows, length] or [length], of I32 or I64", file->path);
}

static enum status look_into(const struct candidate *candidate, enum data_kind *ret_kind, enum compression *ret_compression,
			     struct error *err)
{
	struct file file;
	TRY(place_open(&candidate->place, NULL, &file, err));
	enum status status = data_kind_find(&file, candidate->name, ret_kind, ret_compression, err);
	if (status == STATUS_OK && *ret_kind == DATA_TOKENS) status = check_tokens(&candidate->place, &file, err);
	file_close(&file);
	return status;
}

static bool read_data(struct catalog *catalog, const void *context, cJSON *object)
{
	const struct candidate *candidate = context;
	struct error err;
	enum data_kind kind = DATA_TEXT;
	enum compression compression = COMPRESSION_NONE;
	size_t *budget = catalog_budget(catalog);
	bool later = *budget < HEAD_BYTES;
	enum status status;
	if (later) {
		status = error_set(&err, STATUS_UNSUPPORTED,
				   "not looked at yet: too much was to be read for this list; ask for it again");
	} else {
		*budget -= HEAD_BYTES;
		status = look_into(candidate, &kind, &compression, &err);
		if (status) place_hide(&candidate->place, &err);
	}
	if (status) utf8_mask(err.message);
	catalog_add_text(object, "kind", status ? NULL : data_kind_name(kind));
	catalog_add_text(object, "compression", status ? NULL : compression_name(compression));
	cJSON_AddNumberToObject(object, "size", (double)candidate->size);
	cJSON_AddBoolToObject(object, "supported", status == STATUS_OK);
	catalog_add_text(object, "reason", status ? err.message : NULL);
	return !later && (status == STATUS_OK || status == STATUS_INVALID || status == STATUS_UNSUPPORTED);
}

/* Every file is one of the list but for links that lead nowhere or out of the root. */
static bool visit(void *context, const struct tree_directory *directory)
{
	for (size_t i = 0; i < directory->count; i++) {
		const struct tree_entry *entry = &directory->entries[i];
		struct candidate candidate = {.size = entry->info.st_size};
		struct error ignored;
		if (entry->lost || !S_ISREG(entry->info.st_mode)) continue;
		if (place_below(&directory->place, entry->name, &candidate.place, &ignored)) { /* for want of memory alone */
			catalog_ran_out(context);
			continue;
		}
		struct identity identity;
		identity_of(&entry, 1, &identity);
		candidate.name = candidate.place.path;
		catalog_offer(context, candidate.name, &identity, read_data, &candidate);
		place_free(&candidate.place);
	}
	return true;
}

const struct catalog_kind data_files_kind = {
	.limits = {.depth = 8, .entries = 200000}, .most = 10000, .most_bytes = 8 << 20, .visit = visit};
