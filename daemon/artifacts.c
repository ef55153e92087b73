#include "daemon/artifacts.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/text.h"
#include "engine/output/artifacts.h"
#include "engine/output/publish.h"

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory to list the files of the output");
}

static const char *media_type(const char *name)
{
	static const char *const texts[] = {".txt", ".md", ".jinja"};
	if (text_ends_with(name, ".json")) return "application/json";
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		if (text_ends_with(name, texts[i])) return "text/plain";
	return "application/octet-stream";
}

/* The report of the output, if it is still the job's. */
static enum status read_report(const struct place *output, const struct job *job, cJSON **ret, struct error *err)
{
	cJSON *report = NULL;
	struct error why;
	bool there = publish_report(output, &report, &why) == STATUS_OK;
	const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(report, "job"));
	if (there && id && strcmp(id, job->id) == 0) {
		*ret = report;
		return STATUS_OK;
	}
	cJSON_Delete(report);
	return error_set(err, STATUS_EXISTS, "the output '%s' is not there any more, or another job's by now", output->path);
}

/* A regular file that is no link, nor behind one, so that what is opened is the output's own. */
static enum status open_own(const struct place *output, const char *name, struct file *ret, struct error *err)
{
	struct stat before, opened;
	const char *slash = strchr(name, '/');
	if (slash) {
		char *directory = strndup(name, (size_t)(slash - name));
		if (!directory) return no_memory(err);
		enum status status = place_lstat(output, directory, &before, err);
		free(directory);
		TRY(status);
		if (!S_ISDIR(before.st_mode)) return error_set(err, STATUS_EXISTS, "'%s' is behind a link by now", name);
	}
	TRY(place_lstat(output, name, &before, err));
	TRY(place_open(output, name, ret, err));
	if (fstat(ret->fd, &opened) == 0 && opened.st_dev == before.st_dev && opened.st_ino == before.st_ino) return STATUS_OK;
	file_close(ret);
	return error_set(err, STATUS_EXISTS, "'%s' is a link by now", name);
}

/* What cannot be in the report: the report itself. */
static enum status add_report(const struct place *output, cJSON *list, struct error *err)
{
	struct file file;
	TRY(open_own(output, REPORT_NAME, &file, err));
	enum status status = artifacts_add(list, REPORT_NAME, &file, NULL, err);
	file_close(&file);
	return status;
}

static enum status find_list(const struct place *output, const struct job *job, const atomic_bool *stop, cJSON **ret,
			     struct error *err)
{
	cJSON *report, *list, *entry;
	TRY(read_report(output, job, &report, err));
	list = cJSON_DetachItemFromObjectCaseSensitive(report, "artifacts");
	cJSON_Delete(report);
	enum status status = STATUS_OK;
	if (!cJSON_IsArray(list)) { /* an earlier besad did not list them: they are hashed now */
		cJSON_Delete(list);
		list = NULL;
		status = artifacts_describe(output, stop, &list, err);
	}
	if (!status) status = add_report(output, list, err);
	cJSON_ArrayForEach(entry, list)
	{
		const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "name"));
		cJSON_AddStringToObject(entry, "media_type", media_type(name ? name : ""));
	}
	if (status)
		cJSON_Delete(list);
	else
		*ret = list;
	return status;
}

static enum status find_output(const struct job *job, bool *ret, struct error *err)
{
	cJSON *result;
	*ret = false;
	if (job->state != JOB_SUCCEEDED || !job->result) return STATUS_OK;
	TRY(json_parse(job->result, strlen(job->result), "a result", &result, err));
	*ret = cJSON_IsString(cJSON_GetObjectItemCaseSensitive(result, "output"));
	cJSON_Delete(result);
	return STATUS_OK;
}

static enum status list_files(const struct roots *roots, const struct job *job, const atomic_bool *stop, cJSON **ret,
			      struct error *err)
{
	const struct place output = {roots->output, job->output};
	bool has_output;
	TRY(find_output(job, &has_output, err));
	if (has_output) return find_list(&output, job, stop, ret, err);
	*ret = cJSON_CreateArray();
	return *ret ? STATUS_OK : no_memory(err);
}

/* Another job may have replaced the output since its files were listed, by files of the same sizes. An output never becomes a
 * job's again. */
static enum status check_owner(const struct place *output, const struct job *job, struct error *err)
{
	cJSON *report;
	TRY(read_report(output, job, &report, err));
	cJSON_Delete(report);
	return STATUS_OK;
}

static enum status open_listed(const struct roots *roots, const struct job *job, const char *name, const atomic_bool *stop,
			       struct api_file *ret, struct error *err)
{
	const struct place output = {roots->output, job->output};
	cJSON *list;
	const cJSON *entry = NULL;
	struct file file;
	TRY(list_files(roots, job, stop, &list, err));
	cJSON_ArrayForEach(entry, list)
	{
		const char *listed = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "name"));
		if (listed && strcmp(listed, name) == 0) break;
	}
	const char *hash = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "sha256"));
	double bytes = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(entry, "bytes"));
	enum status status = hash && strlen(hash) < sizeof ret->etag - 2
				     ? open_own(&output, name, &file, err)
				     : error_set(err, STATUS_NOT_FOUND, "the output has no file '%s'", name);
	if (!status && (double)file.size != bytes) {
		status =
			error_set(err, STATUS_EXISTS, "'%s' has %" PRId64 " bytes, and the job wrote %.0f", name, file.size, bytes);
		file_close(&file);
	}
	if (!status && (status = check_owner(&output, job, err))) file_close(&file);
	if (!status) {
		*ret = (struct api_file){.fd = fcntl(file.fd, F_DUPFD_CLOEXEC, 0), .bytes = file.size, .type = media_type(name)};
		snprintf(ret->etag, sizeof ret->etag, "\"%s\"", hash);
		file_close(&file);
		if (ret->fd < 0) status = error_errno(err, "%s", name);
	}
	cJSON_Delete(list);
	return status;
}

/* What clients are told says nothing of the operator's directories. */
static enum status hide(const struct roots *roots, const struct job *job, enum status status, struct error *err)
{
	const struct place output = {roots->output, job->output};
	if (status) place_hide(&output, err);
	return status;
}

enum status artifacts_list(const struct roots *roots, const struct job *job, const atomic_bool *stop, cJSON **ret,
			   struct error *err)
{
	return hide(roots, job, list_files(roots, job, stop, ret, err), err);
}

enum status artifacts_open(const struct roots *roots, const struct job *job, const char *name, const atomic_bool *stop,
			   struct api_file *ret, struct error *err)
{
	return hide(roots, job, open_listed(roots, job, name, stop, ret, err), err);
}
