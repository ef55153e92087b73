#include "daemon/jobfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/place.h"
#include "daemon/prepare.h"
#include "engine/spec/restore.h"

enum { MAX_BYTES = 16 << 20, SHOWN_BYTES = 60 };

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory for the spec");
}

/* A value for a message, cut where it is long; freed by the caller. NULL: no memory. */
static char *show(const cJSON *value)
{
	char *text = value ? cJSON_PrintUnformatted(value) : strdup("left out");
	if (text && strlen(text) > SHOWN_BYTES) memcpy(text + SHOWN_BYTES - 3, "...", 4);
	if (text) utf8_mask(text);
	return text;
}

static enum status refuse(const char *path, const struct json_difference *difference, struct error *err)
{
	char *then = show(difference->a), *now = show(difference->b);
	enum status status =
		then && now ? error_set(err, STATUS_EXISTS,
					"%s is of a job with another spec, which is not finished: %s was %s and is now %s. "
					"Put it back to go on with that job, or remove the directory to start over",
					path, *difference->pointer ? difference->pointer : "it", then, now)
			    : no_memory(err);
	free(then);
	free(now);
	return status;
}

/* Whether a request leaves a choice to besad. */
static bool is_left_out(const cJSON *value)
{
	return !value || cJSON_IsNull(value) || (cJSON_IsString(value) && strcmp(value->valuestring, "auto") == 0);
}

/* The section of the request, made where it is left out; NULL: no memory. */
static cJSON *section_of(cJSON *request, const char *key)
{
	cJSON *section = cJSON_GetObjectItemCaseSensitive(request, key);
	if (cJSON_IsObject(section)) return section;
	cJSON_DeleteItemFromObjectCaseSensitive(request, key);
	return cJSON_AddObjectToObject(request, key);
}

/* The request with what the job began with where the request leaves it to besad, and that is another choice today: the
 * parameterization that "auto" stood for, and no safeguards. Freed with cJSON_Delete; NULL: no memory. */
static cJSON *as_then(const cJSON *request, const cJSON *then)
{
	static const char section[] = "besa", key[] = "parameterization", guards[] = "safeguards";
	const cJSON *besa_then = cJSON_GetObjectItemCaseSensitive(then, section);
	const char *meant = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(besa_then, key));
	cJSON *copy = cJSON_Duplicate(request, true), *besa;
	const cJSON *given = cJSON_GetObjectItemCaseSensitive(copy, section);
	bool sound = cJSON_IsObject(copy) && (!given || cJSON_IsNull(given) || cJSON_IsObject(given));
	if (!besa_then || !sound) return copy; /* the parser says what is wrong */
	bool whole = (besa = section_of(copy, section));
	if (whole && meant && is_left_out(cJSON_GetObjectItemCaseSensitive(besa, key))) {
		cJSON_DeleteItemFromObjectCaseSensitive(besa, key);
		whole = cJSON_AddStringToObject(besa, key, meant);
	}
	if (whole && !cJSON_GetObjectItemCaseSensitive(besa_then, guards)) {
		cJSON_DeleteItemFromObjectCaseSensitive(besa, guards);
		whole = cJSON_AddFalseToObject(besa, guards);
	}
	if (whole) return copy;
	cJSON_Delete(copy);
	return NULL;
}

/* Format 1 keeps no request, so today's is resolved and compared; an output with {date} in it has the name of the first day. */
static enum status read_resolved(const char *path, const cJSON *then, const cJSON *request, const struct roots *roots,
				 const char *id, struct spec **ret, struct error *err)
{
	struct spec_problems problems = {0};
	struct json_difference difference;
	struct spec *spec;
	const char *asked = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(request, "output"));
	const char *output = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(then, "output"));
	cJSON *meant = as_then(request, then);
	enum status status = meant ? prepare_spec(meant, roots, id, &spec, &problems, err) : no_memory(err);
	cJSON_Delete(meant);
	spec_problems_free(&problems);
	TRY(status);
	if (asked && strstr(asked, "{date}") && output) {
		free(spec->output);
		spec->output = strdup(output);
	}
	cJSON *now = spec->output ? spec_to_json(spec) : NULL;
	if (!now)
		status = no_memory(err);
	else if (json_differ(then, now, true, &difference))
		status = refuse(path, &difference, err);
	cJSON_Delete(now);
	if (status)
		spec_free(spec);
	else
		*ret = spec;
	return status;
}

/* A kept spec with today's metadata. NULL: no memory. */
static cJSON *with_metadata(const cJSON *kept, const cJSON *request)
{
	static const char key[] = "metadata";
	cJSON *spec = spec_work(kept), *metadata;
	const cJSON *given = cJSON_GetObjectItemCaseSensitive(request, key);
	if (!spec || !given) return spec;
	metadata = cJSON_Duplicate(given, true);
	if (cJSON_AddItemToObject(spec, key, metadata)) return spec;
	cJSON_Delete(metadata);
	cJSON_Delete(spec);
	return NULL;
}

static enum status read_kept(const char *path, const cJSON *kept, const cJSON *request, const struct roots *roots, const char *id,
			     struct spec **ret, struct error *err)
{
	int64_t format = 1;
	struct json_difference difference;
	TRY(json_get_int(kept, path, "format", 1, INT32_MAX, &format, err));
	if (format > JOBFILE_FORMAT)
		return error_set(err, STATUS_UNSUPPORTED,
				 "%s: was written by a newer besad (its format is %d, this one knows %d); go on with that one",
				 path, (int)format, JOBFILE_FORMAT);
	if (format == 1) return read_resolved(path, kept, request, roots, id, ret, err);
	cJSON *then = spec_work(cJSON_GetObjectItemCaseSensitive(kept, "request")), *now = spec_work(request);
	cJSON *spec = with_metadata(cJSON_GetObjectItemCaseSensitive(kept, "spec"), request);
	enum status status = then && now && spec ? STATUS_OK : no_memory(err);
	if (!status && json_differ(then, now, false, &difference)) status = refuse(path, &difference, err);
	if (!status) status = spec_restore(spec, cJSON_GetObjectItemCaseSensitive(kept, "places"), roots, ret, err);
	cJSON_Delete(then);
	cJSON_Delete(now);
	cJSON_Delete(spec);
	return status;
}

enum status jobfile_read(const char *path, const cJSON *request, const struct roots *roots, const char *id, struct spec **ret,
			 struct error *err)
{
	cJSON *kept;
	TRY(json_read_place(&PLACE(path), NULL, MAX_BYTES, &kept, err));
	enum status status = read_kept(path, kept, request, roots, id, ret, err);
	cJSON_Delete(kept);
	return status;
}

enum status jobfile_write(const char *path, const cJSON *request, const struct spec *spec, struct error *err)
{
	cJSON *json = cJSON_CreateObject(), *resolved = spec_to_json(spec), *places = spec_places(spec);
	bool whole = json && resolved && places && !json_ran_out() && cJSON_AddNumberToObject(json, "format", JOBFILE_FORMAT) &&
		     cJSON_AddItemReferenceToObject(json, "request", (cJSON *)request) &&
		     cJSON_AddItemReferenceToObject(json, "spec", resolved) &&
		     cJSON_AddItemReferenceToObject(json, "places", places);
	char *text = whole ? cJSON_Print(json) : NULL;
	enum status status = text ? place_replace(&PLACE(path), NULL, text, strlen(text), err) : no_memory(err);
	free(text);
	cJSON_Delete(json);
	cJSON_Delete(resolved);
	cJSON_Delete(places);
	return status;
}
