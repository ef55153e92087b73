#include "daemon/journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "engine/job/event.h"

enum { MAX_JOURNAL = 1 << 30 };

/* Takes one line into account. */
static enum status replay(struct journal *journal, const char *line, size_t bytes, struct error *err)
{
	cJSON *event;
	TRY(json_parse(line, bytes, journal->file.path, &event, err));
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(event, "id");
	const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, "type"));
	enum status status = STATUS_OK;
	if (!type || !cJSON_IsNumber(id) || id->valuedouble != (double)(journal->last_id + 1)) {
		status = error_set(err, STATUS_INVALID, "%s: event %lld is not in its place", journal->file.path,
				   (long long)journal->last_id + 1);
	} else {
		journal->last_id++;
		journal->attempts += strcmp(type, "job.started") == 0;
		journal->blocks_done += strcmp(type, "block.finished") == 0;
		if (strcmp(type, "job.succeeded") == 0) {
			free(journal->result);
			journal->result = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(event, "data"));
		}
	}
	if (status == STATUS_OK && event_is_once(type))
		cJSON_AddItemToArray(journal->told, event);
	else
		cJSON_Delete(event);
	return status;
}

static enum status replay_all(struct journal *journal, struct error *err)
{
	char *text;
	size_t bytes;
	TRY(file_slurp(journal->file.path, MAX_JOURNAL, &text, &bytes, err));
	enum status status = STATUS_OK;
	for (char *line = text, *newline; !status && (newline = memchr(line, '\n', bytes - (size_t)(line - text)));
	     line = newline + 1) {
		status = replay(journal, line, (size_t)(newline - line), err);
		journal->end = newline + 1 - text;
	}
	free(text);
	if (!status && (size_t)journal->end < bytes && ftruncate(journal->file.fd, journal->end) != 0)
		return error_errno(err, "%s", journal->file.path);
	return status;
}

static enum status open_file(const char *path, struct file *ret, struct error *err)
{
	return path_exists(path) ? file_open_write(path, ret, err) : file_create(path, 0, ret, err);
}

enum status journal_open(const char *path, struct journal *ret, struct error *err)
{
	struct journal journal = {.file.fd = -1};
	journal.told = cJSON_CreateArray();
	if (!journal.told) return error_set(err, STATUS_NO_MEMORY, "no memory for the journal");
	enum status status = open_file(path, &journal.file, err);
	if (!status) status = replay_all(&journal, err);
	if (status)
		journal_close(&journal);
	else
		*ret = journal;
	return status;
}

void journal_close(struct journal *journal)
{
	file_close(&journal->file);
	cJSON_Delete(journal->told);
	free(journal->result);
	journal->told = NULL;
	journal->result = NULL;
}

bool journal_has(const struct journal *journal, const char *type, const cJSON *data)
{
	const cJSON *told;
	cJSON_ArrayForEach(told, journal->told)
	{
		const char *told_type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(told, "type"));
		if (strcmp(told_type, type) == 0 && cJSON_Compare(cJSON_GetObjectItemCaseSensitive(told, "data"), data, true))
			return true;
	}
	return false;
}

enum status journal_append(struct journal *journal, const char *type, const char *data, int64_t at, bool durable, struct error *err)
{
	char *line, created_at[40];
	time_t seconds = (time_t)(at / 1000);
	struct tm utc;
	gmtime_r(&seconds, &utc);
	size_t used = strftime(created_at, sizeof created_at, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(created_at + used, sizeof created_at - used, ".%03dZ", (int)(at % 1000));
	int bytes = asprintf(&line, "{\"id\":%lld,\"type\":\"%s\",\"created_at\":\"%s\",\"data\":%s}\n",
			     (long long)journal->last_id + 1, type, created_at, data);
	if (bytes < 0) return error_set(err, STATUS_NO_MEMORY, "no memory for an event");
	enum status status = file_write(&journal->file, line, (size_t)bytes, journal->end, err);
	free(line);
	if (!status && durable) status = file_sync(&journal->file, err);
	if (status) return status;
	journal->end += bytes;
	journal->last_id++;
	return STATUS_OK;
}
