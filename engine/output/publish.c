#include "engine/output/publish.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"

enum { MAX_REPORT = 64 << 20 };

static const char aside_prefix[] = ".besad-replaced-", try_prefix[] = ".besad-try-";

/* What is left of a try, and old: a try takes a moment. */
enum { OLD_TRY_SECONDS = 60 };

static bool is_ours(const cJSON *directories, const char *name)
{
	const cJSON *directory;
	cJSON_ArrayForEach(directory,
			   directories) if (cJSON_IsString(directory) && strcmp(directory->valuestring, name) == 0) return true;
	return false;
}

struct replaced {
	const struct place *output;
	const cJSON *known; /* the report's directories */
};

/* What lies in the output as `name`: refused where it is a directory that the report does not list, or holds one. */
static enum status check_entry(void *context, const char *name, const char *entry, struct error *err)
{
	const struct replaced *replaced = context;
	struct stat st;
	(void)entry;
	TRY(place_lstat(replaced->output, name, &st, err));
	if (!S_ISDIR(st.st_mode)) return STATUS_OK;
	if (is_ours(replaced->known, name)) return place_each(replaced->output, name, check_entry, context, err);
	return error_set(err, STATUS_EXISTS,
			 "the output '%s' exists and is not replaced: it holds the directory '%s', which besad did not make; "
			 "move it away, or choose another output",
			 replaced->output->path, name);
}

enum status publish_report(const struct place *output, cJSON **ret, struct error *err)
{
	return json_read_place(output, REPORT_NAME, MAX_REPORT, ret, err);
}

enum status publish_check(const struct place *output, struct error *err)
{
	struct stat st;
	struct error ignored;
	cJSON *report = NULL;
	enum status status = place_lstat(output, NULL, &st, err);
	if (status == STATUS_NOT_FOUND) return STATUS_OK;
	TRY(status);
	if (!S_ISDIR(st.st_mode))
		return error_set(err, STATUS_EXISTS, "the output '%s' exists and is not replaced: it is not a directory",
				 output->path);
	if (publish_report(output, &report, &ignored) != STATUS_OK || !cJSON_HasObjectItem(report, "besad_version")) {
		cJSON_Delete(report);
		return error_set(
			err, STATUS_EXISTS,
			"the output '%s' exists and is not replaced: besad did not make it (it has no %s); move it away, or choose "
			"another output",
			output->path, REPORT_NAME);
	}
	struct replaced replaced = {output, cJSON_GetObjectItemCaseSensitive(report, "directories")};
	status = place_each(output, NULL, check_entry, &replaced, err);
	cJSON_Delete(report);
	return status;
}

/* The nearest directory above `output` that is there. */
static enum status find_parent(const struct place *output, struct place *ret, struct error *err)
{
	struct place parent;
	struct stat st;
	TRY(place_below(output, NULL, &parent, err));
	enum status status = STATUS_NOT_FOUND;
	while (status == STATUS_NOT_FOUND && strcmp(parent.path, ".") != 0) {
		char *slash = strrchr(parent.path, '/');
		strcpy(slash ? slash : parent.path, slash ? "" : ".");
		status = place_stat(&parent, NULL, &st, err);
	}
	if (status == STATUS_OK && !S_ISDIR(st.st_mode))
		status = error_set(err, STATUS_INVALID, "has a file where a directory is needed");
	if (status == STATUS_OK)
		*ret = parent;
	else
		place_free(&parent);
	return status;
}

struct tries {
	const struct place *directory;
	double seconds;
};

static enum status remove_try(void *context, const char *name, const char *entry, struct error *err)
{
	const struct tries *tries = context;
	struct stat st;
	if (strncmp(entry, try_prefix, strlen(try_prefix)) != 0) return STATUS_OK;
	enum status status = place_lstat(tries->directory, name, &st, err);
	if (status == STATUS_NOT_FOUND || (!status && difftime(time(NULL), st.st_mtime) < tries->seconds)) return STATUS_OK;
	return status ? status : place_remove(tries->directory, name, err);
}

enum status publish_sweep_tries(const struct place *directory, double seconds, struct error *err)
{
	return place_each(directory, NULL, remove_try, &(struct tries){directory, seconds}, err);
}

/* Makes a directory in the root and renames it to beside the output, as publication will. */
static enum status try_rename(const struct place *root, const struct place *parent, const char *name, struct error *err)
{
	struct error ignored;
	TRY(place_make(root, name, err));
	enum status status = place_rename(root, name, parent, name, PLACE_REPLACE, err);
	place_remove(parent, name, &ignored);
	place_remove(root, name, &ignored);
	return status;
}

enum status publish_try(const struct place *root, const struct place *output, const char *job_id, struct error *err)
{
	struct place parent;
	struct error ignored;
	char *name;
	TRY(find_parent(output, &parent, err));
	enum status status;
	if (strcmp(parent.path, ".") != 0) publish_sweep_tries(&parent, OLD_TRY_SECONDS, &ignored);
	if (asprintf(&name, "%s%s", try_prefix, job_id) < 0)
		status = error_set(err, STATUS_NO_MEMORY, "no memory to try the output's place");
	else {
		status = try_rename(root, &parent, name, err);
		free(name);
	}
	place_free(&parent);
	return status;
}

static enum status make_parent(const struct place *output, struct error *err)
{
	const char *slash = strrchr(output->path, '/');
	if (!slash || slash == output->path) return STATUS_OK;
	struct place parent = {output->root, strndup(output->path, (size_t)(slash - output->path))};
	if (!parent.path) return error_set(err, STATUS_NO_MEMORY, "no memory to make the directory of %s", output->path);
	enum status status = place_make(&parent, NULL, err);
	free(parent.path);
	return status;
}

enum status publish(const struct place *work, const struct place *output, const struct place *aside, bool overwrite,
		    bool *ret_replaced, struct error *err)
{
	*ret_replaced = false;
	if (overwrite) TRY(place_look(output, NULL, ret_replaced, err));
	TRY(place_sync(work, NULL, err));
	if (!*ret_replaced) {
		TRY(make_parent(output, err));
		return place_rename(work, NULL, output, NULL, PLACE_NEW, err);
	}
	TRY(publish_check(output, err));
	enum status status = place_rename(work, NULL, output, NULL, PLACE_SWAP, err);
	if (status == STATUS_OK) return publish_rest(work, aside, err);
	if (status != STATUS_UNSUPPORTED) return status;
	TRY(place_rename(output, NULL, aside, NULL, PLACE_NEW, err));
	return place_rename(work, NULL, output, NULL, PLACE_NEW, err);
}

enum status publish_rest(const struct place *work, const struct place *aside, struct error *err)
{
	bool replaced;
	TRY(place_look(work, NULL, &replaced, err));
	return replaced ? place_rename(work, NULL, aside, NULL, PLACE_NEW, err) : STATUS_OK;
}

char *publish_aside_name(const char *job_id)
{
	struct timespec now;
	char *name;
	clock_gettime(CLOCK_REALTIME, &now);
	return asprintf(&name, "%s%" PRId64 "-%09ld-%s", aside_prefix, (int64_t)now.tv_sec, now.tv_nsec, job_id) < 0 ? NULL : name;
}

enum status publish_asides(const struct place *root, double seconds, publish_aside_fn *take, void *context, struct error *err)
{
	DIR *stream;
	TRY(place_list(root, NULL, &stream, err));
	enum status status = STATUS_OK;
	const struct dirent *entry;
	while (status == STATUS_OK && (entry = readdir(stream))) {
		char *end;
		if (strncmp(entry->d_name, aside_prefix, strlen(aside_prefix)) != 0) continue;
		long long since = strtoll(entry->d_name + strlen(aside_prefix), &end, 10);
		if (*end != '-') continue;
		if (difftime(time(NULL), (time_t)since) >= seconds) status = take(context, root, entry->d_name, since, err);
	}
	closedir(stream);
	return status;
}

static enum status remove_aside(void *context, const struct place *root, const char *name, int64_t since, struct error *err)
{
	(void)context;
	(void)since;
	return place_remove(root, name, err);
}

enum status publish_sweep(const struct place *root, double seconds, struct error *err)
{
	return publish_asides(root, seconds, remove_aside, NULL, err);
}
