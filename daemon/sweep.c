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

double bytes_below(const char *path)
{
	char *const paths[] = {(char *)path, NULL};
	double bytes = 0;
	FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	for (const FTSENT *entry; walk && (entry = fts_read(walk));)
		if (entry->fts_info == FTS_F) bytes += 512.0 * (double)entry->fts_statp->st_blocks;
	if (walk) fts_close(walk);
	return bytes;
}

/* What a job holds: its checkpoint, and its unfinished output. */
static void held_by(const struct options *options, const char *checkpoints, const char *job_id, double *ret_checkpoint,
		    double *ret_unfinished)
{
	struct job_paths paths;
	struct error ignored;
	*ret_checkpoint = *ret_unfinished = 0;
	if (prepare_paths(&options->roots, checkpoints, job_id, NULL, &paths, &ignored)) return;
	char *work = place_text(&paths.work, NULL);
	*ret_checkpoint = bytes_below(paths.checkpoint_dir);
	*ret_unfinished = work ? bytes_below(work) : 0;
	free(work);
	prepare_paths_free(&paths);
}

double bytes_of_job(const struct options *options, const char *checkpoints, const char *job_id)
{
	double checkpoint, unfinished;
	held_by(options, checkpoints, job_id, &checkpoint, &unfinished);
	return checkpoint + unfinished;
}

static bool has_ended(struct db *db, const char *id)
{
	struct job job;
	struct error ignored;
	if (db_job_get(db, id, &job, &ignored)) return false;
	bool ended = job_state_is_final(job.state);
	job_clear(&job);
	return ended;
}

enum status sweep_measure(const struct options *options, struct db *db, const char *checkpoints, struct state_reading *ret,
			  struct error *err)
{
	int64_t database;
	TRY(db_bytes(db, &database, err));
	struct state_reading reading = {.database = (double)database, .limit = (double)options->max_state_bytes};
	DIR *directory = opendir(checkpoints);
	struct dirent *entry;
	if (!directory) return error_errno(err, "%s", checkpoints);
	while ((entry = readdir(directory))) {
		double checkpoint, unfinished;
		if (!job_id_is_valid(entry->d_name)) continue;
		held_by(options, checkpoints, entry->d_name, &checkpoint, &unfinished);
		reading.checkpoints += checkpoint;
		if (!has_ended(db, entry->d_name)) continue;
		reading.unfinished += unfinished;
		reading.held += checkpoint + unfinished;
	}
	closedir(directory);
	*ret = reading;
	return STATUS_OK;
}

/* ---- the rules ----------------------------------------------------------------------------------------------------------- */

const char *sweep_rule_name(enum sweep_rule rule)
{
	static const char *const names[] = {"keep_succeeded", "keep_failed", "max_state_bytes"};
	return names[rule];
}

struct planning {
	const struct options *options;
	struct db *db;
	const char *checkpoints;
	struct ended_filter due; /* by the times that jobs are kept for */
	struct sweep_plan plan;
};

static enum status add(struct planning *planning, const struct ended_job *job, enum sweep_rule rule, struct error *err)
{
	struct sweep_plan *plan = &planning->plan;
	double checkpoint, unfinished;
	int64_t rows;
	TRY(db_job_bytes(planning->db, job->id, &rows, err));
	held_by(planning->options, planning->checkpoints, job->id, &checkpoint, &unfinished);
	plan->removals[plan->count] = (struct removal){*job, rule, checkpoint + unfinished + (double)rows};
	plan->bytes += plan->removals[plan->count++].bytes;
	return STATUS_OK;
}

static bool is_due(const struct planning *planning, const struct ended_job *job)
{
	return job->finished_at <= (job->state == JOB_SUCCEEDED ? planning->due.succeeded_by : planning->due.failed_by);
}

static enum status fill(struct planning *planning, const struct ended_job *jobs, size_t count, struct error *err)
{
	for (size_t i = 0; i < count; i++)
		if (is_due(planning, &jobs[i]))
			TRY(add(planning, &jobs[i], jobs[i].state == JOB_SUCCEEDED ? SWEEP_KEEP_SUCCEEDED : SWEEP_KEEP_FAILED,
				err));
	const struct state_reading *state = &planning->plan.state;
	if (state->limit < 0) return STATUS_OK;
	double total = state->database + state->checkpoints + state->unfinished;
	for (size_t i = 0; i < count && total - planning->plan.bytes > state->limit; i++)
		if (!is_due(planning, &jobs[i])) TRY(add(planning, &jobs[i], SWEEP_MAX_STATE, err));
	return STATUS_OK;
}

/* The time that a job must have ended by to go now. */
static int64_t due_by(int64_t now, int64_t kept)
{
	return kept < 0 ? -1 : now - 1000 * kept;
}

enum status sweep_plan(const struct options *options, struct db *db, const char *checkpoints, struct sweep_plan *ret,
		       struct error *err)
{
	int64_t now = unix_milliseconds();
	struct planning planning = {options,
				    db,
				    checkpoints,
				    {due_by(now, options->keep_succeeded), due_by(now, options->keep_failed), options->on_finish},
				    {0}};
	const struct ended_filter any = {now, now, planning.due.program};
	bool bounded = options->max_state_bytes >= 0;
	struct ended_job *jobs = NULL;
	size_t count = 0;
	TRY(sweep_measure(options, db, checkpoints, &planning.plan.state, err));
	TRY(db_ended_list(db, bounded ? &any : &planning.due, &jobs, &count, err));
	planning.plan.removals = calloc(count + 1, sizeof *planning.plan.removals);
	enum status status = planning.plan.removals ? fill(&planning, jobs, count, err)
						    : error_set(err, STATUS_NO_MEMORY, "no memory for a list of %zu jobs", count);
	free(jobs);
	if (status)
		sweep_plan_free(&planning.plan);
	else
		*ret = planning.plan;
	return status;
}

void sweep_plan_free(struct sweep_plan *plan)
{
	free(plan->removals);
	*plan = (struct sweep_plan){0};
}

enum status sweep_apply(const struct options *options, struct db *db, const char *checkpoints, struct sweep_plan *plan,
			struct error *err)
{
	static const char *const why[] = {"it ended longer ago than --keep-succeeded says",
					  "it ended longer ago than --keep-failed says",
					  "the state is larger than --max-state-bytes says"};
	size_t gone = 0;
	plan->bytes = 0;
	for (size_t i = 0; i < plan->count; i++) {
		const struct removal *removal = &plan->removals[i];
		enum change_outcome outcome;
		enum status status = db_job_delete(db, removal->job.id, &outcome, err);
		if (status == STATUS_NOT_FOUND || (!status && outcome == CHANGE_WRONG_STATE))
			continue; /* deleted or retried meanwhile */
		TRY(status);
		sweep_files(options, checkpoints, removal->job.id);
		log_info("job=%s is forgotten: %s", removal->job.id, why[removal->rule]);
		plan->bytes += removal->bytes;
		plan->removals[gone++] = *removal;
	}
	plan->count = gone;
	return db_shrink(db, err);
}

/* Until no rule has anything to say: how much of the state a job's rows are is known for sure when they are gone. */
static enum status sweep_all(const struct options *options, struct db *db, const char *checkpoints, struct error *err)
{
	for (size_t gone = 1; gone;) {
		struct sweep_plan plan;
		TRY(sweep_plan(options, db, checkpoints, &plan, err));
		enum status status = sweep_apply(options, db, checkpoints, &plan, err);
		gone = plan.count;
		sweep_plan_free(&plan);
		TRY(status);
	}
	return STATUS_OK;
}

void sweep_jobs(const struct options *options, struct db *db, const char *checkpoints, struct metrics *metrics)
{
	struct error err;
	struct state_reading state;
	enum status status = sweep_all(options, db, checkpoints, &err);
	if (status && !recover_is_worth_waiting(status)) log_warning("jobs that ended long ago stay for now: %s", err.message);
	if (sweep_measure(options, db, checkpoints, &state, &err) == STATUS_OK) metrics_set_state(metrics, &state);
}
