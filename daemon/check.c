#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/json.h"
#include "daemon/backup.h"
#include "daemon/inventory.h"
#include "daemon/log.h"
#include "daemon/saved.h"
#include "db/db.h"

struct checking {
	const char *directory;
	bool live; /* a besad works in it: between two looks at a job that may run it has got on */
	struct check_report *report;
};

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory for a report");
}

static void tell(void *context, const char *problem)
{
	struct checking *checking = context;
	cJSON_AddItemToArray(checking->report->problems, cJSON_CreateString(problem));
}

/* Of the database, or of files that are not what the manifest says. */
static void tell_of_all(void *context, const char *problem)
{
	struct check_report *report = ((struct checking *)context)->report;
	if (!report->unusable[0]) snprintf(report->unusable, sizeof report->unusable, "%s", problem);
	tell(context, problem);
}

/* ---- checkpoints --------------------------------------------------------------------------------------------------------- */

/* Where the job goes on, against what the database has of it. */
static void check_place(struct checking *checking, const struct stored_job *job, const struct saved *saved, const char *directory)
{
	struct error err;
	char text[400];
	bool moves = checking->live && job->state != JOB_PAUSED && !job_state_is_final(job->state);
	if (moves) return;
	if (!saved->count && job->blocks_done) {
		snprintf(text, sizeof text, "job %s has %d finished blocks, and no checkpoint to go on from", job->id,
			 job->blocks_done);
		tell(checking, text);
	} else if (saved->savepoint && saved_blocks(saved) > job->blocks_done + 1) {
		snprintf(text, sizeof text, "job %s has %d finished blocks, and a checkpoint of %d", job->id, job->blocks_done,
			 saved_blocks(saved));
		tell(checking, text);
	} else if (saved->savepoint && saved_complete(saved, directory, job->blocks, &err)) {
		tell(checking, err.message);
	}
}

static enum status check_job(void *context, const struct stored_job *job, struct error *err)
{
	struct checking *checking = context;
	struct saved saved;
	struct error problem;
	char directory[PATH_MAX];
	checking->report->jobs++;
	if (job->state == JOB_SUCCEEDED) return STATUS_OK;
	if (snprintf(directory, sizeof directory, "%s/jobs/%s", checking->directory, job->id) >= (int)sizeof directory)
		return error_set(err, STATUS_INVALID, "%s: the name is too long", checking->directory);
	enum status status = saved_open(directory, &saved, &problem);
	if (status) tell(checking, problem.message);
	if (!status) check_place(checking, job, &saved, directory);
	if (saved.count) checking->report->checkpoints++;
	for (int i = 1; i < saved.count; i++) /* the first is the savepoint, which was read */
		if (saved_check(&saved.files[i], &problem)) tell(checking, problem.message);
	saved_close(&saved);
	return STATUS_OK;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------- */

/* Does a besad hold the directory's lock? */
static bool is_held(const char *directory)
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s/lock", directory);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0) return false;
	bool held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
	close(fd);
	return held;
}

enum status check_directory(const char *directory, struct check_report *ret, struct error *err)
{
	char database[PATH_MAX];
	const struct place place = PLACE(directory);
	*ret = (struct check_report){.problems = cJSON_CreateArray()};
	if (!ret->problems) return no_memory(err);
	TRY(place_look(&place, MANIFEST_NAME, &ret->backup, err));
	struct checking checking = {directory, !ret->backup && is_held(directory), ret};
	if (ret->backup) TRY(inventory_check(&place, tell_of_all, &checking, err));
	if (snprintf(database, sizeof database, "%s/besad.db", directory) >= (int)sizeof database)
		return error_set(err, STATUS_INVALID, "%s: the name is too long", directory);
	if (!path_exists(database))
		return error_set(err, STATUS_NOT_FOUND, "%s has no besad.db: it is no state directory, and no backup of one",
				 directory);
	const struct db_verifier verifier = {tell_of_all, check_job, &checking};
	TRY(db_verify(database, &verifier, &ret->version, err));
	/* A problem that there was no room to tell of is one all the same. */
	return json_ran_out() ? no_memory(err) : STATUS_OK;
}

static void print_report(const char *directory, const struct check_report *report)
{
	const cJSON *problem;
	int count = cJSON_GetArraySize(report->problems);
	cJSON_ArrayForEach(problem, report->problems) log_error("%s", problem->valuestring);
	printf("%s: %s; %d job%s, %d checkpoint%s\n", directory, count ? "damaged" : "sound", report->jobs,
	       report->jobs == 1 ? "" : "s", report->checkpoints, report->checkpoints == 1 ? "" : "s");
}

static enum status print_json(const struct check_report *report, struct error *err)
{
	cJSON *json = cJSON_CreateObject();
	cJSON_AddBoolToObject(json, "sound", cJSON_GetArraySize(report->problems) == 0);
	cJSON_AddBoolToObject(json, "backup", report->backup);
	cJSON_AddNumberToObject(json, "database", (double)report->version);
	cJSON_AddNumberToObject(json, "jobs", report->jobs);
	cJSON_AddNumberToObject(json, "checkpoints", report->checkpoints);
	cJSON_AddItemReferenceToObject(json, "problems", report->problems);
	char *text = json_ran_out() ? NULL : cJSON_PrintUnformatted(json);
	cJSON_Delete(json);
	if (!text) return no_memory(err);
	puts(text);
	free(text);
	return STATUS_OK;
}

int check(const struct options *options)
{
	struct error err;
	struct check_report report;
	const char *directory = options->from ? options->from : options->state_dir;
	enum status status = check_directory(directory, &report, &err);
	if (!status && options->json)
		status = print_json(&report, &err);
	else if (!status)
		print_report(directory, &report);
	if (status) log_error("%s", err.message);
	bool sound = !status && !cJSON_GetArraySize(report.problems);
	cJSON_Delete(report.problems);
	return sound ? EXIT_SUCCESS : EXIT_FAILURE;
}
