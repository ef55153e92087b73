/* The tables, and how an older file becomes a newer one: migration i takes user_version i to i + 1, in a transaction of its own. A
 * migration that has been released is never changed; add another. */
#include "db/internal.h"

#include <stdio.h>

enum { APPLICATION_ID = 0x62657361 }; /* "besa" */

static const char *const migrations[] = {
	"CREATE TABLE jobs ("
	"  id TEXT PRIMARY KEY NOT NULL CHECK (length(id) = 26),"
	"  state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')),"
	"  name TEXT,"
	"  priority INTEGER NOT NULL,"
	"  spec TEXT NOT NULL CHECK (json_valid(spec)),"
	"  output TEXT NOT NULL CHECK (output <> ''),"
	"  overwrite INTEGER NOT NULL CHECK (overwrite IN (0, 1)),"
	"  idempotency_key TEXT UNIQUE,"
	"  request TEXT,"
	"  attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),"
	"  blocks_done INTEGER NOT NULL DEFAULT 0 CHECK (blocks_done >= 0),"
	"  last_event INTEGER NOT NULL DEFAULT 0 CHECK (last_event >= 0),"
	"  phase TEXT NOT NULL DEFAULT '',"
	"  block INTEGER NOT NULL DEFAULT 0,"
	"  blocks INTEGER NOT NULL DEFAULT 0,"
	"  fraction REAL NOT NULL DEFAULT 0,"
	"  eta_seconds REAL NOT NULL DEFAULT -1,"
	"  result TEXT CHECK (result IS NULL OR json_valid(result)),"
	"  error_code TEXT,"
	"  error_message TEXT,"
	"  created_at INTEGER NOT NULL,"
	"  started_at INTEGER NOT NULL DEFAULT 0,"
	"  finished_at INTEGER NOT NULL DEFAULT 0,"
	"  CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_at <> 0)),"
	"  CHECK ((state = 'succeeded') = (result IS NOT NULL)),"
	"  CHECK ((state = 'failed') = (error_code IS NOT NULL)),"
	"  CHECK ((error_code IS NULL) = (error_message IS NULL)),"
	"  CHECK ((idempotency_key IS NULL) = (request IS NULL))"
	") STRICT;"
	"CREATE INDEX jobs_by_state ON jobs (state, priority DESC, id);"
	"CREATE TABLE events ("
	"  job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,"
	"  id INTEGER NOT NULL CHECK (id > 0),"
	"  type TEXT NOT NULL,"
	"  created_at INTEGER NOT NULL,"
	"  data TEXT NOT NULL CHECK (json_valid(data)),"
	"  PRIMARY KEY (job_id, id)"
	") STRICT, WITHOUT ROWID;"
	"CREATE TABLE blocks ("
	"  job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,"
	"  block INTEGER NOT NULL CHECK (block >= 0),"
	"  data TEXT NOT NULL CHECK (json_valid(data)),"
	"  PRIMARY KEY (job_id, block)"
	") STRICT, WITHOUT ROWID;",
	/* 2: whom to tell of a job's end. However a job ends, its row says so, and the same transaction notes the duty. */
	"CREATE TABLE notifications ("
	"  job_id TEXT PRIMARY KEY NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,"
	"  url TEXT NOT NULL,"
	"  attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),"
	"  due_at INTEGER NOT NULL DEFAULT 0"
	") STRICT;"
	"CREATE INDEX notifications_by_time ON notifications (due_at);"
	"CREATE TRIGGER job_ended AFTER UPDATE OF state ON jobs"
	"  WHEN NEW.finished_at <> 0 AND OLD.finished_at = 0 AND json_extract(NEW.spec, '$.notify.url') IS NOT NULL"
	"  BEGIN"
	"    INSERT OR REPLACE INTO notifications (job_id, url) VALUES (NEW.id, json_extract(NEW.spec, '$.notify.url'));"
	"  END;"
	"CREATE TRIGGER job_retried AFTER UPDATE OF state ON jobs WHEN NEW.finished_at = 0"
	"  BEGIN DELETE FROM notifications WHERE job_id = NEW.id; END;",
	/* 3: where the names in a spec led when it was submitted; NULL for a job of an earlier version. */
	"ALTER TABLE jobs ADD COLUMN places TEXT CHECK (places IS NULL OR json_valid(places));",
	/* 4: what a job ran on, for how long the next one will take: '' for several devices, NULL for one of an earlier version. */
	"ALTER TABLE jobs ADD COLUMN device TEXT;"
	"CREATE INDEX jobs_by_device ON jobs (device, id) WHERE device IS NOT NULL;",
	/* 5: attempts in a row that ended with the process and had finished nothing. */
	"ALTER TABLE jobs ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0 CHECK (crashes >= 0);",
	/* 6: what clients noted of their jobs, to find them by. A job's spec has it; whoever inserts one need not think of it. */
	"CREATE TABLE metadata ("
	"  key TEXT NOT NULL,"
	"  value TEXT NOT NULL,"
	"  job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,"
	"  PRIMARY KEY (key, value, job_id)"
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX metadata_by_job ON metadata (job_id);"
	"CREATE TRIGGER job_noted AFTER INSERT ON jobs WHEN json_type(NEW.spec, '$.metadata') = 'object'"
	"  BEGIN INSERT INTO metadata SELECT key, value, NEW.id FROM json_each(NEW.spec, '$.metadata'); END;",
	/* 7: the operator's program is told like a web address, which '' stands for. */
	"DROP TRIGGER job_ended;"
	"DROP TRIGGER job_retried;"
	"DROP INDEX notifications_by_time;"
	"ALTER TABLE notifications RENAME TO notifications_of_6;"
	"CREATE TABLE notifications ("
	"  job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,"
	"  url TEXT NOT NULL,"
	"  attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),"
	"  due_at INTEGER NOT NULL DEFAULT 0,"
	"  PRIMARY KEY (job_id, url)"
	") STRICT;"
	"INSERT INTO notifications SELECT job_id, url, attempts, due_at FROM notifications_of_6;"
	"DROP TABLE notifications_of_6;"
	"CREATE INDEX notifications_by_time ON notifications (due_at);"
	"CREATE TRIGGER job_ended AFTER UPDATE OF state ON jobs WHEN NEW.finished_at <> 0 AND OLD.finished_at = 0"
	"  BEGIN"
	"    INSERT OR REPLACE INTO notifications (job_id, url) VALUES (NEW.id, '');"
	"    INSERT OR REPLACE INTO notifications (job_id, url) SELECT NEW.id, json_extract(NEW.spec, '$.notify.url')"
	"      WHERE json_extract(NEW.spec, '$.notify.url') <> '';"
	"  END;"
	"CREATE TRIGGER job_retried AFTER UPDATE OF state ON jobs WHEN NEW.finished_at = 0"
	"  BEGIN DELETE FROM notifications WHERE job_id = NEW.id; END;",
	/* 8: two states more. A CHECK cannot be altered, and the rows stay as they are
	 * (https://www.sqlite.org/lang_altertable.html, section 7). */
	"PRAGMA writable_schema = ON;"
	"UPDATE sqlite_schema SET sql = replace(sql, '''cancelling''', '''cancelling'', ''pausing'', ''paused''')"
	"  WHERE type = 'table' AND name = 'jobs';"
	"PRAGMA writable_schema = RESET;",
	/* 9: failures in a row that are tried again, with no block finished in between, and when. */
	"ALTER TABLE jobs ADD COLUMN retries INTEGER NOT NULL DEFAULT 0 CHECK (retries >= 0);"
	"ALTER TABLE jobs ADD COLUMN retry_at INTEGER NOT NULL DEFAULT 0;",
	/* 10: studies. A job that is forgotten, by whomever, leaves what it came to in the table of its study: state is NULL
	 * until then. */
	"CREATE TABLE studies ("
	"  id TEXT PRIMARY KEY NOT NULL CHECK (length(id) = 26),"
	"  name TEXT NOT NULL,"
	"  spec TEXT NOT NULL CHECK (json_valid(spec)),"
	"  grid TEXT NOT NULL CHECK (json_valid(grid)),"
	"  idempotency_key TEXT UNIQUE,"
	"  request TEXT,"
	"  created_at INTEGER NOT NULL,"
	"  CHECK ((idempotency_key IS NULL) = (request IS NULL))"
	") STRICT;"
	"CREATE TABLE study_jobs ("
	"  study_id TEXT NOT NULL REFERENCES studies (id) ON DELETE CASCADE,"
	"  number INTEGER NOT NULL CHECK (number > 0),"
	"  job_id TEXT UNIQUE NOT NULL,"
	"  settings TEXT NOT NULL CHECK (json_valid(settings)),"
	"  output TEXT NOT NULL,"
	"  state TEXT CHECK (state IS NULL OR state IN ('succeeded', 'failed', 'cancelled')),"
	"  result TEXT CHECK (result IS NULL OR json_valid(result)),"
	"  error_code TEXT,"
	"  error_message TEXT,"
	"  PRIMARY KEY (study_id, number)"
	") STRICT, WITHOUT ROWID;"
	"CREATE TRIGGER job_forgotten BEFORE DELETE ON jobs"
	"  BEGIN"
	"    UPDATE study_jobs SET state = OLD.state, result = OLD.result, error_code = OLD.error_code,"
	"      error_message = OLD.error_message WHERE job_id = OLD.id;"
	"  END;",
	/* 11: jobs that wait for others. Those that one needs may be forgotten once they have succeeded: `done` stays, and is no
	 * reference. A queued job with `blockers`, those that are not done, is not in the index that jobs are claimed by. */
	"ALTER TABLE jobs ADD COLUMN blockers INTEGER NOT NULL DEFAULT 0 CHECK (blockers >= 0);"
	"CREATE TABLE dependencies ("
	"  job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,"
	"  needs TEXT NOT NULL,"
	"  done INTEGER NOT NULL CHECK (done IN (0, 1)),"
	"  PRIMARY KEY (job_id, needs)"
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX dependencies_by_needs ON dependencies (needs);"
	"CREATE INDEX jobs_to_claim ON jobs (priority DESC, id) WHERE state = 'queued' AND blockers = 0;",
	/* 12: what a job's log has beside its events: behind which of them it was noted, so that no clock that is set puts it
	 * elsewhere. */
	"CREATE TABLE notes ("
	"  job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,"
	"  id INTEGER NOT NULL CHECK (id > 0),"
	"  event INTEGER NOT NULL CHECK (event >= 0),"
	"  created_at INTEGER NOT NULL,"
	"  level TEXT NOT NULL CHECK (level IN ('info', 'warning', 'error')),"
	"  text TEXT NOT NULL,"
	"  PRIMARY KEY (job_id, id)"
	") STRICT, WITHOUT ROWID;",
	/* 13: who has changed what (db/audit.h), and whose jobs wait, for the quotas of a token. */
	"CREATE TABLE audit ("
	"  id INTEGER PRIMARY KEY AUTOINCREMENT,"
	"  at INTEGER NOT NULL,"
	"  who TEXT,"
	"  peer TEXT,"
	"  action TEXT NOT NULL,"
	"  target TEXT,"
	"  outcome TEXT NOT NULL,"
	"  count INTEGER NOT NULL CHECK (count > 0),"
	"  refused INTEGER NOT NULL CHECK (refused IN (0, 1))"
	") STRICT;"
	"CREATE INDEX audit_by_kind ON audit (refused, id);"
	"CREATE INDEX audit_by_who ON audit (who, at);"
	"ALTER TABLE jobs ADD COLUMN queued_by TEXT;",
	/* 14: while there is a row, no job is claimed. */
	"CREATE TABLE drain ("
	"  only INTEGER PRIMARY KEY CHECK (only = 1),"
	"  since INTEGER NOT NULL CHECK (since > 0)"
	") STRICT;",
	/* 15: whose outputs there are, also of jobs that are forgotten, and what those that are to come are expected to take
	 * (db/outputs.c); and where unfinished jobs write to. */
	"ALTER TABLE jobs ADD COLUMN expected_bytes INTEGER NOT NULL DEFAULT 0 CHECK (expected_bytes >= 0);"
	"CREATE TABLE outputs ("
	"  output TEXT PRIMARY KEY NOT NULL,"
	"  job_id TEXT NOT NULL,"
	"  who TEXT NOT NULL"
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX outputs_by_who ON outputs (who);"
	"CREATE INDEX jobs_by_output ON jobs (output)"
	"  WHERE state IN ('queued', 'running', 'cancelling', 'pausing', 'paused');"
	/* An evaluation writes none. */
	"INSERT OR REPLACE INTO outputs SELECT output, id, queued_by FROM jobs WHERE state = 'succeeded' AND queued_by IS NOT NULL"
	"  AND json_type(result, '$.output') IS NOT 'null' ORDER BY finished_at;"
	"CREATE TRIGGER job_succeeded AFTER UPDATE OF state ON jobs WHEN NEW.state = 'succeeded' AND OLD.state <> 'succeeded'"
	"  AND json_type(NEW.result, '$.output') IS NOT 'null'"
	"  BEGIN"
	"    DELETE FROM outputs WHERE output = NEW.output;"
	"    INSERT INTO outputs SELECT NEW.output, NEW.id, NEW.queued_by WHERE NEW.queued_by IS NOT NULL;"
	"  END;",
};
enum { VERSION = sizeof migrations / sizeof migrations[0] };

static enum status read_pragma(struct connection *connection, const char *sql, int64_t *ret, struct error *err)
{
	return query_integer(connection, query(connection, err, sql, ""), ret, err);
}

static enum status run(struct connection *connection, const char *sql, struct error *err)
{
	if (sqlite3_exec(connection->handle, sql, NULL, NULL, NULL) == SQLITE_OK) return STATUS_OK;
	return sqlite_error(connection, "schema", err);
}

enum status schema_version(struct connection *connection, const char *path, int64_t *ret, struct error *err)
{
	int64_t application, tables;
	TRY(read_pragma(connection, "PRAGMA application_id", &application, err));
	TRY(read_pragma(connection, "PRAGMA user_version", ret, err));
	TRY(read_pragma(connection, "SELECT count(*) FROM sqlite_schema", &tables, err));
	if (application != APPLICATION_ID && (application != 0 || tables != 0))
		return error_set(err, STATUS_INVALID, "%s is a database, but not besad's", path);
	if (*ret > VERSION)
		return error_set(err, STATUS_UNSUPPORTED,
				 "%s is of version %lld, from a newer besad; this one knows version %d. It is left as it is: go on "
				 "with the newer one",
				 path, (long long)*ret, VERSION);
	return STATUS_OK;
}

enum status schema_check(struct connection *connection, const char *path, struct error *err)
{
	int64_t version;
	return schema_version(connection, path, &version, err);
}

enum status schema_touch(struct connection *connection, struct error *err)
{
	char sql[64];
	snprintf(sql, sizeof sql, "PRAGMA application_id = %d", APPLICATION_ID);
	return run(connection, sql, err);
}

enum status schema_migrate(struct connection *connection, const char *path, struct error *err)
{
	int64_t version;
	TRY(schema_version(connection, path, &version, err));
	for (; version < VERSION; version++) {
		char tail[128];
		snprintf(tail, sizeof tail, "PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT", APPLICATION_ID,
			 (int)version + 1);
		enum status status = run(connection, "BEGIN IMMEDIATE", err);
		if (!status) status = run(connection, migrations[version], err);
		if (!status) status = run(connection, tail, err);
		if (status) {
			sqlite3_exec(connection->handle, "ROLLBACK", NULL, NULL, NULL);
			return error_prefix(err, "%s: migration to version %d", path, (int)version + 1);
		}
	}
	return STATUS_OK;
}
