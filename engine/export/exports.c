#include "engine/export/exports.h"

#include <string.h>

static const char *const file_names[] = {EXPORT_TYPES(EXPORT_FILE_OF)};

static bool has(unsigned set, int type)
{
	return set >> type & 1;
}

enum status exports_check(const struct model *model, const struct place *place, unsigned set, struct warnings *warnings,
			  int64_t *ret_bytes, struct error *err)
{
	int64_t bytes = 0;
	for (int type = 0; type < EXPORT_COUNT; type++) {
		struct export *export;
		if (!has(set, type)) continue;
		TRY(export_open(model, place, "", (enum export_type)type, warnings, &export, err));
		bytes += export_bytes(export);
		export_free(export);
	}
	*ret_bytes = bytes;
	return STATUS_OK;
}

static enum status write_one(const struct model *model, const struct place *work, const char *called, enum export_type type,
			     const atomic_bool *stop, struct error *err)
{
	struct export *export;
	TRY(export_open(model, work, called, type, NULL, &export, err));
	enum status status = export_write(export, work, file_names[type], stop, NULL, err);
	export_free(export);
	return status;
}

enum status exports_write(const struct place *work, const struct place *output, unsigned set, const atomic_bool *stop,
			  struct error *err)
{
	struct model model;
	const char *slash = strrchr(output->path, '/'), *called = slash ? slash + 1 : output->path;
	enum status status = STATUS_OK;
	if (!set) return STATUS_OK;
	TRY(model_open(work, NULL, &model, err));
	for (int type = 0; type < EXPORT_COUNT && status == STATUS_OK; type++)
		if (has(set, type)) status = write_one(&model, work, called, (enum export_type)type, stop, err);
	model_close(&model);
	return status;
}
