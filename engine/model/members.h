/* What a field of config.json says: a null is as good as no field, but where a default stands for one that is left out. */
#ifndef BESAD_ENGINE_MODEL_MEMBERS_H
#define BESAD_ENGINE_MODEL_MEMBERS_H

#include <stdbool.h>

#include <cjson/cJSON.h>

enum { MAX_POSITIONS = 1 << 30 };

/* NULL for none, and for null. */
static inline const cJSON *member(const cJSON *json, const char *key)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(json, key);
	return cJSON_IsNull(value) ? NULL : value;
}

/* Also as null. */
static inline bool given(const cJSON *json, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(json, key) != NULL;
}

#endif
