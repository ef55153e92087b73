#include "engine/spec/restore.h"

#include <stdlib.h>
#include <string.h>

#include "engine/spec/sections.h"

static const char *const kinds[] = {"data", "model"};

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory for the spec");
}

/* Notes where `name` leads in the object of its kind; false without memory. */
static bool keep(void *kept, bool model, const char *name, const struct place *place)
{
	cJSON *places = cJSON_GetObjectItemCaseSensitive(kept, kinds[model]);
	if (!place->path || cJSON_GetObjectItemCaseSensitive(places, name)) return true;
	cJSON *json = cJSON_AddObjectToObject(places, name);
	return json && (!place->root || cJSON_AddStringToObject(json, "root", place->root)) &&
	       cJSON_AddStringToObject(json, "path", place->path);
}

cJSON *spec_places(const struct spec *spec)
{
	cJSON *json = cJSON_CreateObject(), *model = cJSON_AddObjectToObject(json, kinds[true]),
	      *data = cJSON_AddObjectToObject(json, kinds[false]);
	bool ok = model && data && spec_section_places(spec, &spec_top, spec, keep, json);
	if (ok) return json;
	cJSON_Delete(json);
	return NULL;
}

cJSON *spec_work(const cJSON *json)
{
	cJSON *work = json ? cJSON_Duplicate(json, true) : cJSON_CreateNull();
	cJSON_DeleteItemFromObjectCaseSensitive(work, "metadata");
	return work;
}

enum status spec_find_kept(const struct roots *roots, bool model, const char *name, bool *ret_found, struct place *ret,
			   struct error *err)
{
	const cJSON *kept = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(roots->places, kinds[model]), name);
	char *root = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(kept, "root"));
	char *path = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(kept, "path"));
	const struct place borrowed = {root, path};
	*ret_found = false;
	if (!path) return STATUS_OK;
	TRY(place_look(&borrowed, NULL, ret_found, err)); /* what cannot be looked at is not gone */
	if (!*ret_found) return STATUS_OK;
	struct place place = {root ? strdup(root) : NULL, strdup(path)};
	if (place.path && (place.root || !root)) {
		*ret = place;
		return STATUS_OK;
	}
	place_free(&place);
	return no_memory(err);
}

enum status spec_restore(const cJSON *json, const cJSON *places, const struct roots *roots, struct spec **ret, struct error *err)
{
	struct spec_problems problems = {0};
	struct roots then = *roots;
	cJSON *none = cJSON_CreateObject();
	then.places = places ? places : none;
	enum status status = none ? spec_parse(json, &then, ret, &problems, err) : no_memory(err);
	spec_problems_free(&problems);
	cJSON_Delete(none);
	return status;
}
