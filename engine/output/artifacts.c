#include "engine/output/artifacts.h"

#include <errno.h>
#include <stdio.h>
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

static enum status find_files(const struct place *work, const char *directory, struct names *names, struct error *err);

static enum status take_entry(const struct place *work, const char *directory, const char *entry, struct names *names,
			      struct error *err)
{
	struct stat st;
	char *name;
	if (*entry == '.' || (!directory && strcmp(entry, REPORT_NAME) == 0)) return STATUS_OK;
	if (asprintf(&name, "%s%s%s", directory ? directory : "", directory ? "/" : "", entry) < 0) return no_memory(err);
	enum status status = place_lstat(work, name, &st, err);
	if (!status && S_ISREG(st.st_mode)) return add_name(names, name, err);
	if (!status && S_ISDIR(st.st_mode)) status = find_files(work, name, names, err);
	free(name);
	return status;
}

static enum status find_files(const struct place *work, const char *directory, struct names *names, struct error *err)
{
	DIR *stream;
	TRY(place_list(work, directory, &stream, err));
	enum status status = STATUS_OK;
	while (status == STATUS_OK) {
		errno = 0;
		const struct dirent *entry = readdir(stream);
		if (entry) {
			status = take_entry(work, directory, entry->d_name, names, err);
			continue;
		}
		if (errno) status = error_errno(err, "%s", work->path);
		break;
	}
	closedir(stream);
	return status;
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
	struct names names = {0};
	cJSON *list = cJSON_CreateArray();
	enum status status = list ? find_files(work, NULL, &names, err) : no_memory(err);
	if (names.count) qsort(names.items, names.count, sizeof *names.items, by_name);
	for (size_t i = 0; i < names.count && !status; i++)
		status = describe(work, names.items[i], stop, list, err);
	free_names(&names);
	if (status)
		cJSON_Delete(list);
	else
		*ret = list;
	return status;
}
