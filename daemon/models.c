#include "daemon/models.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/file.h"
#include "engine/json.h"
#include "engine/model/config.h"
#include "engine/model/checkpoint.h"

enum { MAX_DEPTH = 5, MAX_MODELS = 1000 };

/* Is there a model of this name in the list, from a root that is searched before? */
static bool is_listed(const cJSON *list, const char *name)
{
	const cJSON *model;
	cJSON_ArrayForEach(model, list) if (strcmp(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(model, "name")), name) ==
					    0) return true;
	return false;
}

static enum status read_model(const struct place *place, cJSON *model, struct error *err)
{
	struct model_config config;
	struct checkpoint checkpoint;
	TRY(model_config_read(place, NULL, &config, err));
	cJSON_AddStringToObject(model, "family", config.family);
	cJSON_AddNumberToObject(model, "blocks", (double)config.layers);
	TRY(checkpoint_open(place, NULL, &checkpoint, err));
	double bytes = 0;
	for (int i = 0; i < checkpoint.n_shards; i++)
		bytes += (double)checkpoint.shards[i].size;
	checkpoint_close(&checkpoint);
	cJSON_AddNumberToObject(model, "bytes", bytes);
	return STATUS_OK;
}

static void add_null(cJSON *object, const char *key)
{
	if (!cJSON_HasObjectItem(object, key)) cJSON_AddNullToObject(object, key);
}

static void add_model(const char *root, const char *path, cJSON *list)
{
	struct error err;
	const char *name = path + strlen(root) + 1;
	if (!utf8_valid(name, strlen(name)) || is_listed(list, name)) return;
	cJSON *model = cJSON_CreateObject();
	cJSON_AddStringToObject(model, "name", name);
	struct place place = {(char *)root, (char *)name};
	enum status status = read_model(&place, model, &err);
	add_null(model, "family");
	add_null(model, "blocks");
	add_null(model, "bytes");
	cJSON_AddBoolToObject(model, "supported", status == STATUS_OK);
	/* The operator's absolute paths are nobody else's business. */
	const char *reason = strncmp(err.message, path, strlen(path)) == 0 ? err.message + strlen(path) + 1 : err.message;
	if (status && utf8_valid(reason, strlen(reason)))
		cJSON_AddStringToObject(model, "reason", reason);
	else
		cJSON_AddNullToObject(model, "reason");
	cJSON_AddItemToArray(list, model);
}

static int is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* Symbolic links to directories are not followed: what they lead to is a root of its own, or is not to be read. */
static void search(const char *root, const char *directory, int depth, cJSON *list)
{
	char path[PATH_MAX];
	struct dirent **entries;
	if (cJSON_GetArraySize(list) >= MAX_MODELS) return;
	if (depth > 0) {
		if (snprintf(path, sizeof path, "%s/config.json", directory) >= (int)sizeof path) return;
		if (path_exists(path)) {
			add_model(root, directory, list);
			return;
		}
	}
	int n = depth < MAX_DEPTH ? scandir(directory, &entries, is_visible, alphasort) : -1;
	for (int i = 0; i < n; i++) {
		struct stat info;
		int length = snprintf(path, sizeof path, "%s/%s", directory, entries[i]->d_name);
		free(entries[i]);
		if (length < (int)sizeof path && lstat(path, &info) == 0 && S_ISDIR(info.st_mode))
			search(root, path, depth + 1, list);
	}
	if (n >= 0) free(entries);
}

enum status models_find(char *const *roots, cJSON **ret, struct error *err)
{
	cJSON *list = cJSON_CreateArray();
	if (!list) return error_set(err, STATUS_NO_MEMORY, "no memory for the list of models");
	for (; *roots; roots++)
		search(*roots, *roots, 0, list);
	*ret = list;
	return STATUS_OK;
}
