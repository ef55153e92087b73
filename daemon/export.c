#include "daemon/export.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"
#include "engine/export/export.h"
#include "engine/model/check.h"

/* The last component of a path, without the slashes at its end. The caller frees *ret. */
static enum status last_component(const char *path, char **ret, struct error *err)
{
	char *whole = realpath(path, NULL);
	if (!whole) return error_errno(err, "%s", path);
	const char *name = strrchr(whole, '/') + 1;
	*ret = strdup(*name ? name : "model");
	free(whole);
	return *ret ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory for a name");
}

static enum status write_file(const struct export *export, const char *to, char sha256[SHA256_TEXT], struct error *err)
{
	const char *slash = strrchr(to, '/'), *name = slash ? slash + 1 : to;
	char *directory = slash ? strndup(to, slash == to ? 1 : (size_t)(slash - to)) : strdup(".");
	if (!directory) return error_set(err, STATUS_NO_MEMORY, "no memory for a path");
	enum status status = *name ? export_write(export, &PLACE(directory), name, NULL, sha256, err)
				   : error_set(err, STATUS_INVALID, "%s: is not the name of a file", to);
	free(directory);
	return status;
}

static enum status export_opened(const struct options *options, const struct model *model, struct warnings *warnings,
				 struct error *err)
{
	struct export *export;
	char sha256[SHA256_TEXT], *name;
	TRY(last_component(options->from, &name, err));
	enum status status = export_open(model, &PLACE(options->from), name, options->export_type, warnings, &export, err);
	free(name);
	for (size_t i = 0; i < warnings->count; i++)
		log_warning("%s", warnings->messages[i]);
	TRY(status);
	status = write_file(export, options->to, sha256, err);
	if (status == STATUS_OK)
		log_info("%s: %s, %" PRId64 " bytes, sha256 %s", options->to, export_type_names[options->export_type],
			 export_bytes(export), sha256);
	export_free(export);
	return status;
}

static enum status work(const struct options *options, struct warnings *warnings, struct error *err)
{
	struct model model;
	if (place_has(&PLACE(options->to), NULL)) return error_set(err, STATUS_EXISTS, "%s: exists already", options->to);
	TRY(model_open(&PLACE(options->from), warnings, &model, err));
	enum status status = model_check_all(&model, warnings, err);
	if (status == STATUS_OK) status = export_opened(options, &model, warnings, err);
	model_close(&model);
	return status;
}

int export_model(const struct options *options)
{
	struct error err;
	struct warnings warnings = {0};
	enum status status = work(options, &warnings, &err);
	warnings_free(&warnings);
	if (status != STATUS_OK) log_error("%s", err.message);
	return status == STATUS_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
