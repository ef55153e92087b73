/* The event log of each job, and its finished blocks. */
#include "base/clock.h"
#include "db/internal.h"

#include <stdlib.h>
#include <string.h>

static enum status insert(struct connection *writer, const char *id, const struct new_event *event, struct error *err)
{
	int changes;
	TRY(execute(writer, err, &changes, "UPDATE jobs SET last_event = last_event + 1 WHERE id = ?1", "s", id));
	if (changes == 0) return error_set(err, STATUS_NOT_FOUND, "there is no job %s", id);
	return execute(writer, err, NULL,
		       "INSERT INTO events (job_id, id, type, created_at, data)"
		       " SELECT id, last_event, ?2, ?3, ?4 FROM jobs WHERE id = ?1",
		       "ssis", id, event->type, event->at, event->data);
}

enum status event_insert(struct connection *writer, const char *id, const char *type, const char *data, struct error *err)
{
	return insert(writer, id, &(struct new_event){.type = type, .data = data, .at = unix_milliseconds()}, err);
}

enum status progress_write(struct connection *writer, const char *id, const struct job_progress *progress, struct error *err)
{
	return execute(writer, err, NULL,
		       "UPDATE jobs SET phase = ?2, block = ?3, blocks = ?4, fraction = ?5, eta_seconds = ?6 WHERE id = ?1",
		       "ssiidd", id, progress->phase, (int64_t)progress->block, (int64_t)progress->blocks, progress->fraction,
		       progress->eta_seconds);
}

static enum status append_once(struct db *db, const char *id, const struct new_event *event, const struct job_progress *progress,
			       struct error *err)
{
	TRY(write_begin(db, err));
	enum status status = insert(&db->writer, id, event, err);
	if (!status && progress) status = progress_write(&db->writer, id, progress, err);
	return write_end(db, status, id, err);
}

enum status db_event_append(struct db *db, const char *id, const struct new_event *event, const struct job_progress *progress,
			    struct error *err)
{
	enum status status;
	unsigned reliefs = write_reliefs(db);
	do
		status = append_once(db, id, event, progress, err);
	while (!event->optional && write_again(db, status, &reliefs));
	return status;
}

static enum status block_insert(struct connection *writer, const char *id, int block, const char *data, int64_t at,
				struct error *err)
{
	int changes;
	TRY(execute(writer, err, &changes, "UPDATE jobs SET blocks_done = blocks_done + 1 WHERE id = ?1 AND blocks_done = ?2", "si",
		    id, (int64_t)block));
	if (changes == 0) return error_set(err, STATUS_INTERNAL, "block %d of job %s is not the one to finish next", block, id);
	TRY(execute(writer, err, NULL, "INSERT INTO blocks (job_id, block, data) VALUES (?1, ?2, ?3)", "sis", id, (int64_t)block,
		    data));
	return insert(writer, id, &(struct new_event){.type = "block.finished", .data = data, .at = at}, err);
}

static enum status commit_once(struct db *db, const char *id, int block, const char *data, int64_t at,
			       const struct job_progress *progress, struct error *err)
{
	TRY(write_begin(db, err));
	enum status status = block_insert(&db->writer, id, block, data, at, err);
	if (!status && progress) status = progress_write(&db->writer, id, progress, err);
	return write_end(db, status, id, err);
}

enum status db_block_commit(struct db *db, const char *id, int block, const char *data, int64_t at,
			    const struct job_progress *progress, struct error *err)
{
	enum status status;
	unsigned reliefs = write_reliefs(db);
	do
		status = commit_once(db, id, block, data, at, progress, err);
	while (write_again(db, status, &reliefs));
	return status;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

void event_list_clear(struct event_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->events[i].type);
		free(list->events[i].data);
	}
	free(list->events);
	*list = (struct event_list){0};
}

static enum status read_state(struct connection *reader, const char *id, enum job_state *ret, int64_t *ret_last, struct error *err)
{
	bool row;
	sqlite3_stmt *statement = query(reader, err, "SELECT state, last_event FROM jobs WHERE id = ?1", "s", id);
	if (!statement) return err->status;
	TRY(query_step(reader, statement, &row, err));
	if (!row) return error_set(err, STATUS_NOT_FOUND, "there is no job %s", id);
	const char *name = (const char *)sqlite3_column_text(statement, 0);
	if (!name || !job_state_parse(name, ret)) return error_set(err, STATUS_INTERNAL, "job %s has no known state", id);
	*ret_last = sqlite3_column_int64(statement, 1);
	return STATUS_OK;
}

static enum status read_events(struct connection *reader, const char *id, int64_t after, int limit, size_t bytes,
			       struct event_list *list, struct error *err)
{
	TRY(read_state(reader, id, &list->state, &list->last, err));
	list->events = calloc((size_t)limit, sizeof *list->events);
	if (!list->events) return error_set(err, STATUS_NO_MEMORY, "no memory for %d events", limit);
	sqlite3_stmt *statement = query(
		reader, err, "SELECT id, type, created_at, data FROM events WHERE job_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
		"sii", id, after, (int64_t)limit + 1);
	if (!statement) return err->status;
	for (size_t read = 0;; read += strlen(list->events[list->count - 1].data)) {
		bool row;
		TRY(query_step(reader, statement, &row, err));
		if (!row) return STATUS_OK;
		if (list->count == (size_t)limit || read > bytes) {
			list->more = true;
			return STATUS_OK;
		}
		struct stored_event *event = &list->events[list->count++];
		event->id = sqlite3_column_int64(statement, 0);
		event->created_at = sqlite3_column_int64(statement, 2);
		TRY(column_copy(statement, 1, &event->type, err));
		TRY(column_copy(statement, 3, &event->data, err));
	}
}

enum status db_event_list(struct db *db, const char *id, int64_t after, int limit, struct event_list *ret, struct error *err)
{
	return db_event_batch(db, id, after, limit, DB_PAGE_BYTES, ret, err);
}

enum status db_event_batch(struct db *db, const char *id, int64_t after, int limit, size_t bytes, struct event_list *ret,
			   struct error *err)
{
	struct connection *reader;
	struct event_list list = {0};
	TRY(read_begin(db, &reader, err));
	enum status status = read_events(reader, id, after, limit, bytes, &list, err);
	read_end(db, reader);
	if (status)
		event_list_clear(&list);
	else
		*ret = list;
	return status;
}

void text_list_free(char **texts, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(texts[i]);
	free(texts);
}

/* Appends the first column of the statement's rows to the list. */
static enum status read_texts(struct connection *reader, sqlite3_stmt *statement, char ***texts, size_t *count, struct error *err)
{
	bool row;
	if (!statement) return err->status;
	for (size_t room = 0;;) {
		TRY(query_step(reader, statement, &row, err));
		if (!row) return STATUS_OK;
		if (*count == room) {
			size_t larger = room ? 2 * room : 64;
			char **grown = realloc(*texts, larger * sizeof *grown);
			if (!grown) return error_set(err, STATUS_NO_MEMORY, "no memory for %zu rows", larger);
			*texts = grown;
			room = larger;
		}
		TRY(column_copy(statement, 0, &(*texts)[*count], err));
		++*count;
	}
}

/* The data of the job's finished blocks, or, where `type` is not NULL, of its events of that type. */
static enum status list_data(struct db *db, const char *id, const char *type, char ***ret, size_t *ret_count, struct error *err)
{
	struct connection *reader;
	char **texts = NULL;
	size_t count = 0;
	int64_t last;
	enum job_state state;
	TRY(read_begin(db, &reader, err));
	enum status status = read_state(reader, id, &state, &last, err);
	if (!status)
		status = read_texts(reader,
				    type ? query(reader, err, "SELECT data FROM events WHERE job_id = ?1 AND type = ?2 ORDER BY id",
						 "ss", id, type)
					 : query(reader, err, "SELECT data FROM blocks WHERE job_id = ?1 ORDER BY block", "s", id),
				    &texts, &count, err);
	read_end(db, reader);
	if (status) {
		text_list_free(texts, count);
		return status;
	}
	*ret = texts;
	*ret_count = count;
	return STATUS_OK;
}

enum status db_block_list(struct db *db, const char *id, char ***ret, size_t *ret_count, struct error *err)
{
	return list_data(db, id, NULL, ret, ret_count, err);
}

enum status db_event_data(struct db *db, const char *id, const char *type, char ***ret, size_t *ret_count, struct error *err)
{
	return list_data(db, id, type, ret, ret_count, err);
}
