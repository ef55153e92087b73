#include "daemon/sweep.h"

#include <dirent.h>
#include <fts.h>
#include <stdlib.h>

#include "base/clock.h"
#include "daemon/log.h"
#include "daemon/prepare.h"
#include "daemon/recover.h"
#include "engine/engine.h"

void sweep_files(const struct options *options, const char *checkpoints, const char *job_id)
{
	struct job_paths paths;
	struct error err;
	enum status status = prepare_paths(&options->roots, checkpoints, job_id, NULL, &paths, &err);
	if (!status) {
		struct engine_job job = {.work = paths.work, .checkpoint_dir = paths.checkpoint_dir};
		status = engine_discard(&job, &err);
		prepare_paths_free(&paths);
	}
	if (status) log_warning("job=%s some of its files stay behind: %s", job_id, err.message);
}

void sweep_forgotten(const struct options *options, struct db *db, const char *checkpoints)
{
	DIR *directory = opendir(checkpoints);
	struct dirent *entry;
	while (directory && (entry = readdir(directory))) {
		struct job job;
		struct error err;
		if (!job_id_is_valid(entry->d_name)) continue;
		enum status status = db_job_get(db, entry->d_name, &job, &err);
		if (status == STATUS_NOT_FOUND || (status == STATUS_OK && job.state == JOB_SUCCEEDED))
			sweep_files(options, checkpoints, entry->d_name);
		if (status == STATUS_OK) job_clear(&job);
	}
	if (directory) closedir(directory);
}

static double bytes_below(const char *path)
{
	char *const paths[] = {(char *)path, NULL};
	double bytes = 0;
	FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	for (const FTSENT *entry; walk && (entry = fts_read(walk));)
		if (entry->fts_info == FTS_F) bytes += 512.0 * (double)entry->fts_statp->st_blocks;
	if (walk) fts_close(walk);
	return bytes;
}

static double held_by(const struct options *options, const char *checkpoints, const char *job_id)
{
	struct job_paths paths;
	struct error ignored;
	if (prepare_paths(&options->roots, checkpoints, job_id, NULL, &paths, &ignored)) return 0;
	char *work = place_text(&paths.work, NULL);
	double bytes = bytes_below(paths.checkpoint_dir) + (work ? bytes_below(work) : 0);
	free(work);
	prepare_paths_free(&paths);
	return bytes;
}

double sweep_held(const struct options *options, struct db *db, const char *checkpoints)
{
	double bytes = 0;
	DIR *directory = opendir(checkpoints);
	struct dirent *entry;
	while (directory && (entry = readdir(directory))) {
		struct job job;
		struct error ignored;
		if (!job_id_is_valid(entry->d_name) || db_job_get(db, entry->d_name, &job, &ignored)) continue;
		if (job_state_is_final(job.state)) bytes += held_by(options, checkpoints, job.id);
		job_clear(&job);
	}
	if (directory) closedir(directory);
	return bytes;
}

/* Of those that succeeded, or of those that did not; `seconds` < 0 keeps all. */
static enum status sweep_ended(const struct options *options, struct db *db, const char *checkpoints, bool succeeded,
			       int64_t seconds, struct error *err)
{
	if (seconds < 0) return STATUS_OK;
	for (;;) {
		char id[JOB_ID_BYTES];
		bool found;
		enum change_outcome outcome;
		const struct ended_filter filter = {succeeded, unix_milliseconds() - 1000 * seconds, options->on_finish != NULL};
		TRY(db_job_ended(db, &filter, &found, id, err));
		if (!found) return STATUS_OK;
		enum status status = db_job_delete(db, id, &outcome, err);
		if (status == STATUS_NOT_FOUND || (!status && outcome == CHANGE_WRONG_STATE))
			continue; /* deleted or retried meanwhile */
		TRY(status);
		sweep_files(options, checkpoints, id);
		log_info("job=%s is forgotten: it ended longer ago than --keep-%s says", id, succeeded ? "succeeded" : "failed");
	}
}

void sweep_jobs(const struct options *options, struct db *db, const char *checkpoints)
{
	struct error err;
	enum status status = sweep_ended(options, db, checkpoints, true, options->keep_succeeded, &err);
	if (!status) status = sweep_ended(options, db, checkpoints, false, options->keep_failed, &err);
	if (!status) status = db_shrink(db, &err);
	if (status && !recover_is_worth_waiting(status)) log_warning("jobs that ended long ago stay for now: %s", err.message);
}
