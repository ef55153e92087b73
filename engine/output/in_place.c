#include "engine/output/in_place.h"

#include "engine/output/files.h"

enum status in_place_open(const struct place *model, const struct checkpoint *checkpoint, const struct place *work,
			  struct writer **ret, struct error *err)
{
	struct output_files files = {0};
	enum status status = output_files_copy(&files, model, checkpoint, true, err);
	if (status == STATUS_OK) status = output_files_make(&files, model, work, err);
	output_files_free(&files);
	return status == STATUS_OK ? writer_open(work, checkpoint, ret, err) : status;
}

enum status in_place_bytes(const struct place *model, const struct checkpoint *checkpoint, int64_t *ret, struct error *err)
{
	struct output_files files = {0};
	enum status status = output_files_copy(&files, model, checkpoint, true, err);
	*ret = output_files_bytes(&files);
	output_files_free(&files);
	return status;
}
