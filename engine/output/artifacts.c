#include "engine/output/artifacts.h"

#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "engine/output/publish.h"

struct names {
	char **items;
	size_t count;
};

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory to list the files of the output");
}

static void free_names(struct names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->items[i]);
	free(names->items);
}

/* Takes `name`, which may be NULL: no memory. */
static enum status add_name(struct names *names, char *name, struct error *err)
{
	char **grown = name ? realloc(names->items, (names->count + 1) * sizeof *grown) : NULL;
	if (!grown) {
		free(name);
		return no_memory(err);
	}
	names->items = grown;
	grown[names->count++] = name;
	return STATUS_OK;
}

struct search {
	const struct place *work;
	struct names names;
};

static enum status take_entry(void *context, const char *name, const char *entry, struct error *err)
{
	struct search *search = context;
	struct stat st;
	if (*entry == '.' || strcmp(name, REPORT_NAME) == 0) return STATUS_OK;
	TRY(place_lstat(search->work, name, &st, err));
	if (S_ISREG(st.st_mode)) return add_name(&search->names, strdup(name), err);
	return S_ISDIR(st.st_mode) ? place_each(search->work, name, take_entry, search, err) : STATUS_OK;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

enum status artifacts_add(cJSON *list, const char *name, const struct file *file, const atomic_bool *stop, struct error *err)
{
	char hash[SHA256_TEXT];
	TRY(sha256_file_stoppable(file, file->size, stop, hash, err));
	cJSON *entry = cJSON_CreateObject();
	bool whole = cJSON_AddStringToObject(entry, "name", name) && cJSON_AddNumberToObject(entry, "bytes", (double)file->size) &&
		     cJSON_AddStringToObject(entry, "sha256", hash) && cJSON_AddItemToArray(list, entry);
	if (whole) return STATUS_OK;
	cJSON_Delete(entry);
	return no_memory(err);
}

static enum status describe(const struct place *work, const char *name, const atomic_bool *stop, cJSON *list, struct error *err)
{
	struct file file;
	TRY(place_open(work, name, &file, err));
	enum status status = artifacts_add(list, name, &file, stop, err);
	file_close(&file);
	return status;
}

enum status artifacts_describe(const struct place *work, const atomic_bool *stop, cJSON **ret, struct error *err)
{
	struct search search = {.work = work};
	struct names *names = &search.names;
	cJSON *list = cJSON_CreateArray();
	enum status status = list ? place_each(work, NULL, take_entry, &search, err) : no_memory(err);
	if (names->count) qsort(names->items, names->count, sizeof *names->items, by_name);
	for (size_t i = 0; i < names->count && !status; i++)
		status = describe(work, names->items[i], stop, list, err);
	free_names(names);
	if (status)
		cJSON_Delete(list);
	else
		*ret = list;
	return status;
}
