/* How long jobs took, by the device that they ran on. */
#include <stdlib.h>

#include "db/internal.h"

enum status db_job_set_device(struct db *db, const char *id, const char *device, struct error *err)
{
	int changes = 0;
	TRY(write_begin(db, err));
	enum status status =
		execute(&db->writer, err, &changes,
			"UPDATE jobs SET device = CASE WHEN attempt = 1 OR device = ?2 THEN ?2 ELSE '' END WHERE id = ?1", "ss", id,
			device);
	if (!status && changes == 0) status = error_set(err, STATUS_NOT_FOUND, "there is no job %s", id);
	return write_end(db, status, NULL, err);
}

void timing_list_clear(struct timing_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->timings[i].spec);
		free(list->timings[i].places);
		free(list->timings[i].result);
		free(list->timings[i].block);
	}
	free(list->timings);
	*list = (struct timing_list){0};
}

/* What a failure leaves in *list is freed by timing_list_clear. */
static enum status read_timings(struct connection *reader, const char *device, int limit, struct timing_list *list,
				struct error *err)
{
	list->timings = calloc((size_t)limit, sizeof *list->timings);
	if (!list->timings) return error_set(err, STATUS_NO_MEMORY, "no memory for %d timings", limit);
	/* Of the columns of blocks, SQLite takes those of the row that has the maximum. */
	sqlite3_stmt *row = query(reader, err,
				  "SELECT j.spec, j.places, j.result, j.attempt, count(b.block),"
				  " total(json_extract(b.data, '$.seconds')) / max(count(b.block), 1), b.data, max(b.block)"
				  " FROM (SELECT * FROM jobs WHERE device = ?1 ORDER BY id DESC LIMIT ?2) j"
				  " LEFT JOIN blocks b ON b.job_id = j.id GROUP BY j.id ORDER BY j.id DESC",
				  "si", device, (int64_t)limit);
	if (!row) return err->status;
	for (;;) {
		bool found;
		TRY(query_step(reader, row, &found, err));
		if (!found) return STATUS_OK;
		struct timing *timing = &list->timings[list->count++];
		timing->attempt = sqlite3_column_int(row, 3);
		timing->blocks = sqlite3_column_int64(row, 4);
		timing->block_seconds = sqlite3_column_double(row, 5);
		TRY(column_copy(row, 0, &timing->spec, err));
		TRY(column_copy(row, 1, &timing->places, err));
		TRY(column_copy(row, 2, &timing->result, err));
		TRY(column_copy(row, 6, &timing->block, err));
	}
}

enum status db_timings(struct db *db, const char *device, int limit, struct timing_list *ret, struct error *err)
{
	struct connection *reader;
	struct timing_list list = {0};
	TRY(read_begin(db, &reader, err));
	enum status status = read_timings(reader, device, limit, &list, err);
	read_end(db, reader);
	if (status)
		timing_list_clear(&list);
	else
		*ret = list;
	return status;
}
