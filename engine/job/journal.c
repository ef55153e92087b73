#include "engine/job/journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"

enum { MAX_JOURNAL = 1 << 30 };

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory for the journal");
}

/* Takes an event into account that is in the file. */
static void count_event(struct journal *journal, const char *type)
{
	journal->last_id++;
	journal->attempts += strcmp(type, event_kinds[EVENT_JOB_STARTED].name) == 0;
	journal->blocks_done += strcmp(type, event_kinds[EVENT_BLOCK_FINISHED].name) == 0;
}

/* Keeps what is told once, of which it takes `data`, and the result. */
static enum status keep_event(struct journal *journal, const char *type, cJSON *data, struct error *err)
{
	if (strcmp(type, event_kinds[EVENT_JOB_SUCCEEDED].name) == 0) {
		free(journal->result);
		journal->result = cJSON_PrintUnformatted(data);
		if (!journal->result) return no_memory(err);
	}
	if (!event_is_once(type)) {
		cJSON_Delete(data);
		return STATUS_OK;
	}
	cJSON *list = cJSON_GetObjectItemCaseSensitive(journal->told, type);
	if (!list) list = cJSON_AddArrayToObject(journal->told, type);
	if (list && cJSON_AddItemToArray(list, data)) return STATUS_OK;
	cJSON_Delete(data);
	return no_memory(err);
}

/* Takes one line into account. */
static enum status replay(struct journal *journal, const char *line, size_t bytes, struct error *err)
{
	cJSON *event;
	TRY(json_parse(line, bytes, journal->file.path, &event, err));
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(event, "id");
	const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, "type"));
	cJSON *data = cJSON_DetachItemFromObjectCaseSensitive(event, "data");
	enum status status;
	if (!type || !data || !cJSON_IsNumber(id) || id->valuedouble != (double)(journal->last_id + 1)) {
		status = error_set(err, STATUS_INVALID, "%s: event %lld is not in its place", journal->file.path,
				   (long long)journal->last_id + 1);
		cJSON_Delete(data);
	} else {
		count_event(journal, type);
		status = keep_event(journal, type, data, err);
	}
	cJSON_Delete(event);
	return status;
}

/* A line ends at `newline`. What a power cut has kept of lines that were not synced may have zeros where the rest would be: of
 * that, and what is behind it, nothing was to be relied on. */
static bool is_torn(const char *line, const char *newline)
{
	return memchr(line, 0, (size_t)(newline - line)) != NULL;
}

static enum status replay_all(struct journal *journal, struct error *err)
{
	char *text;
	size_t bytes;
	TRY(file_slurp(journal->file.path, MAX_JOURNAL, &text, &bytes, err));
	enum status status = STATUS_OK;
	for (char *line = text, *newline; !status && (newline = memchr(line, '\n', bytes - (size_t)(line - text)));
	     line = newline + 1) {
		if (is_torn(line, newline)) break;
		status = replay(journal, line, (size_t)(newline - line), err);
		journal->end = newline + 1 - text;
	}
	free(text);
	if (status || (size_t)journal->end == bytes) return status;
	/* On the disk, before a line is written there that would leave a part of the rest behind itself. */
	if (ftruncate(journal->file.fd, journal->end) != 0) return error_errno(err, "%s", journal->file.path);
	return file_sync(&journal->file, err);
}

static enum status open_file(const char *path, struct file *ret, struct error *err)
{
	bool there;
	TRY(path_look(path, &there, err));
	return there ? file_open_write(path, ret, err) : file_create(path, 0, ret, err);
}

enum status journal_open(const char *path, struct journal *ret, struct error *err)
{
	struct journal journal = {.file.fd = -1};
	journal.told = cJSON_CreateObject();
	if (!journal.told) return no_memory(err);
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

enum status journal_find(void *context, const char *type, cJSON *list, struct error *err)
{
	const struct journal *journal = context;
	const cJSON *data;
	cJSON_ArrayForEach(data, cJSON_GetObjectItemCaseSensitive(journal->told, type))
	{
		cJSON *copy = cJSON_Duplicate(data, true);
		if (!copy || !cJSON_AddItemToArray(list, copy)) {
			cJSON_Delete(copy);
			return no_memory(err);
		}
	}
	return STATUS_OK;
}

enum status journal_append(void *context, const struct record *record, struct error *err)
{
	struct journal *journal = context;
	char *line, created_at[40];
	time_t seconds = (time_t)(record->at / 1000);
	struct tm utc;
	gmtime_r(&seconds, &utc);
	size_t used = strftime(created_at, sizeof created_at, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(created_at + used, sizeof created_at - used, ".%03dZ", (int)(record->at % 1000));
	int bytes = asprintf(&line, "{\"id\":%lld,\"type\":\"%s\",\"created_at\":\"%s\",\"data\":%s}\n",
			     (long long)journal->last_id + 1, record->type, created_at, record->text);
	if (bytes < 0) return no_memory(err);
	enum status status = file_write(&journal->file, line, (size_t)bytes, journal->end, err);
	free(line);
	if (!status && record->durable) status = file_sync(&journal->file, err);
	if (status) return status;
	journal->end += bytes;
	count_event(journal, record->type);
	return STATUS_OK;
}
