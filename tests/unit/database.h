/* What the tests of the database share: one in a directory of its own for each test, and what they all do with its jobs. */
#ifndef BESAD_TESTS_DATABASE_H
#define BESAD_TESTS_DATABASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/file.h"
#include "db/db.h"

struct fixture {
	char directory[64], path[96];
	struct db *db;
	struct error err;
};

/* A call of the database that must succeed, or the test fails with its message. */
#define OK(call)                                                                                                                   \
	do {                                                                                                                       \
		if ((call) != STATUS_OK) fail_msg("%s: %s", #call, f->err.message);                                                \
	} while (0)

static inline int database_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	strcpy(f->directory, "/tmp/besad-test-db-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	snprintf(f->path, sizeof f->path, "%s/besad.db", f->directory);
	OK(db_open(f->path, &f->db, &f->err));
	*state = f;
	return 0;
}

static inline int database_teardown(void **state)
{
	struct fixture *f = *state;
	db_close(f->db);
	assert_int_equal(directory_remove(f->directory, &f->err), STATUS_OK);
	free(f);
	return 0;
}

static inline void reopen(struct fixture *f)
{
	db_close(f->db);
	OK(db_open(f->path, &f->db, &f->err));
}

/* Submits a job that writes to `output`; its id goes to `id`. */
static inline enum insert_outcome submit(struct fixture *f, const char *output, int priority, bool overwrite, const char *key,
					 const char *request, char id[JOB_ID_BYTES])
{
	char new_id[JOB_ID_BYTES];
	struct job job = {0};
	enum insert_outcome outcome;
	db_new_id(f->db, new_id);
	struct submission submission = {.id = new_id,
					.name = "test",
					.priority = priority,
					.spec = "{\"model\":\"m\"}",
					.output = output,
					.overwrite = overwrite,
					.idempotency_key = key,
					.request = request};
	OK(db_job_insert(f->db, &submission, 5, &outcome, &job, &f->err));
	if (id) strcpy(id, job.id);
	job_clear(&job);
	return outcome;
}

static inline enum job_state state_of(struct fixture *f, const char *id)
{
	struct job job;
	OK(db_job_get(f->db, id, &job, &f->err));
	enum job_state state = job.state;
	job_clear(&job);
	return state;
}

/* Claims a job, expecting `id`; NULL expects none. */
static inline void claim(struct fixture *f, const char *id)
{
	struct job job = {0};
	bool found;
	OK(db_job_claim(f->db, &found, &job, &f->err));
	assert_int_equal(found, id != NULL);
	if (id) assert_string_equal(job.id, id);
	if (id) assert_int_equal(job.state, JOB_RUNNING);
	job_clear(&job);
}

/* The types of all events of a job, joined by spaces; checks that ids count 1, 2, 3 … */
static inline void expect_events(struct fixture *f, const char *id, const char *types)
{
	char text[1024] = "";
	struct event_list list;
	OK(db_event_list(f->db, id, 0, 100, &list, &f->err));
	for (size_t i = 0; i < list.count; i++) {
		assert_int_equal(list.events[i].id, i + 1);
		if (i) strcat(text, " ");
		strcat(text, list.events[i].type);
	}
	event_list_clear(&list);
	assert_string_equal(text, types);
}

static inline int64_t scalar(struct fixture *f, const char *sql)
{
	sqlite3 *handle;
	sqlite3_stmt *statement;
	assert_int_equal(sqlite3_open_v2(f->path, &handle, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(handle, sql, -1, &statement, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
	int64_t value = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	sqlite3_close(handle);
	return value;
}

static inline void expect_sound(struct fixture *f)
{
	assert_int_equal(scalar(f, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"), 0);
	assert_int_equal(scalar(f, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
	assert_int_equal(scalar(f,
				"SELECT count(*) FROM jobs WHERE last_event <> (SELECT coalesce(max(id), 0) FROM events"
				" WHERE job_id = jobs.id) OR last_event <> (SELECT count(*) FROM events WHERE job_id = jobs.id)"),
			 0);
	assert_int_equal(scalar(f, "SELECT count(*) FROM jobs WHERE blocks_done <> (SELECT count(*) FROM blocks"
				   " WHERE job_id = jobs.id)"),
			 0);
	assert_int_equal(scalar(f, "SELECT count(*) FROM jobs WHERE blocks_done <> (SELECT count(*) FROM events"
				   " WHERE job_id = jobs.id AND type = 'block.finished')"),
			 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, database_setup, database_teardown)

#endif
