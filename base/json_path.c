#include "base/json_path.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Does the component at `at` ("0" of "0.path") name a place in a list? No key begins with a digit. */
static bool is_index(const char *at)
{
	size_t length = strcspn(at, ".");
	return length > 0 && strspn(at, "0123456789") == length;
}

/* The member or element of `parent` that the component of `length` bytes at `at` names goes to *ret; NULL where there is none
 * yet, which can be made: a key of an object, or the next place of a list. `path` is the whole, for messages. */
static enum status find_member(cJSON *parent, const char *path, const char *at, const char *key, cJSON **ret, struct error *err)
{
	int before = at > path ? (int)(at - path) - 1 : 0;
	if (cJSON_IsObject(parent)) {
		*ret = cJSON_GetObjectItemCaseSensitive(parent, key);
		return STATUS_OK;
	}
	if (!cJSON_IsArray(parent))
		return error_set(err, STATUS_INVALID, "cannot set '%s': '%.*s' is not an object", path, before, path);
	int size = cJSON_GetArraySize(parent);
	if (!is_index(at))
		return error_set(err, STATUS_INVALID,
				 "cannot set '%s': '%.*s' is a list, so a number from 0 to %d must follow, not '%s'", path, before,
				 path, size, key);
	long index = strtol(key, NULL, 10);
	if (index > size)
		return error_set(err, STATUS_INVALID,
				 "cannot set '%s': the list '%.*s' has %d element%s, so the next one is '%.*s.%d'", path, before,
				 path, size, size == 1 ? "" : "s", before, path, size);
	*ret = cJSON_GetArrayItem(parent, (int)index);
	return STATUS_OK;
}

/* Puts `value`, which it takes, in the place of `old`, or where find_member found none. */
static enum status put_member(cJSON *parent, const char *key, cJSON *old, cJSON *value, struct error *err)
{
	bool done;
	if (cJSON_IsObject(parent)) {
		cJSON_DeleteItemFromObjectCaseSensitive(parent, key);
		done = cJSON_AddItemToObject(parent, key, value);
	} else {
		done = old ? cJSON_ReplaceItemViaPointer(parent, old, value) : cJSON_AddItemToArray(parent, value);
	}
	if (done) return STATUS_OK;
	cJSON_Delete(value);
	return error_set(err, STATUS_NO_MEMORY, "no memory");
}

/* json_path_set for one that has its value, which it takes. */
static enum status set_path(cJSON *json, const char *path, cJSON *value, struct error *err)
{
	cJSON *parent = json, *member = NULL;
	for (const char *at = path;;) {
		size_t length = strcspn(at, ".");
		char *key = strndup(at, length);
		enum status status = STATUS_OK;
		if (!key)
			status = error_set(err, STATUS_NO_MEMORY, "no memory");
		else if (length == 0)
			status = error_set(err, STATUS_INVALID,
					   "'%s' names no field: it is keys with dots between, as in besa.epochs", path);
		if (!status) status = find_member(parent, path, at, key, &member, err);
		if (status || !at[length]) {
			if (!status)
				status = put_member(parent, key, member, value, err);
			else
				cJSON_Delete(value);
			free(key);
			return status;
		}
		at += length + 1;
		if (!member) {
			member = is_index(at) ? cJSON_CreateArray() : cJSON_CreateObject();
			status =
				member ? put_member(parent, key, NULL, member, err) : error_set(err, STATUS_NO_MEMORY, "no memory");
		}
		free(key);
		if (status) {
			cJSON_Delete(value);
			return status;
		}
		parent = member;
	}
}

enum status json_path_set(cJSON *json, const char *path, cJSON *value, struct error *err)
{
	return value ? set_path(json, path, value, err) : error_set(err, STATUS_NO_MEMORY, "no memory");
}
