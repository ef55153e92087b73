#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/backup.h"
#include "daemon/inventory.h"
#include "daemon/log.h"

/* Below the state directory, until all of it is there. */
static const char part_name[] = "restore.besad-part";

struct restoring {
	struct place backup, state;
	struct stat owner; /* of the state directory, whose the files become */
	int lock;
};

/* Held until the process ends. What it holds tells whether the end of the process before was clean, and stays until there is
 * another queue: who is refused now may start besad from the one that is there. */
static enum status take_lock(const char *state_dir, int *ret, struct error *err)
{
	char path[PATH_MAX];
	if (snprintf(path, sizeof path, "%s/lock", state_dir) >= (int)sizeof path)
		return error_set(err, STATUS_INVALID, "the path is too long: %s", state_dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) return error_errno(err, "%s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		close(fd);
		return error_set(err, STATUS_BUSY, "a besad uses %s: stop it first", state_dir);
	}
	*ret = fd;
	return STATUS_OK;
}

static enum status refuse_entry(void *context, const char *name, const char *entry, struct error *err)
{
	const struct restoring *restoring = context;
	(void)entry;
	return error_set(err, STATUS_EXISTS, "%s/%s is there: a restore replaces nothing; move besad.db* and jobs aside first",
			 restoring->state.root, name);
}

/* Has an earlier restore put its checkpoints there, and not got to its database? Nothing else begins with these two. */
static enum status is_half_placed(const struct restoring *restoring, bool *ret, struct error *err)
{
	char name[PATH_MAX];
	bool jobs, database;
	snprintf(name, sizeof name, "%s/jobs", part_name);
	TRY(place_look(&restoring->state, name, &jobs, err));
	snprintf(name, sizeof name, "%s/besad.db", part_name);
	TRY(place_look(&restoring->state, name, &database, err));
	*ret = database && !jobs;
	return STATUS_OK;
}

/* Of the state that is in the directory; models and outputs may lie there too. A journal would be worked into the restored
 * database. */
static enum status check_empty(struct restoring *restoring, struct error *err)
{
	static const char *const names[] = {"besad.db", "besad.db-wal", "besad.db-shm", "besad.db-journal"};
	bool there, ours;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		TRY(place_look(&restoring->state, names[i], &there, err));
		if (there) return refuse_entry(restoring, names[i], NULL, err);
	}
	TRY(place_look(&restoring->state, "jobs", &there, err));
	TRY(is_half_placed(restoring, &ours, err));
	return there && !ours ? place_each(&restoring->state, "jobs", refuse_entry, restoring, err) : STATUS_OK;
}

static enum status give(const struct restoring *restoring, const char *name, struct error *err)
{
	char path[PATH_MAX];
	if (geteuid() != 0) return STATUS_OK;
	snprintf(path, sizeof path, "%s/%s", restoring->state.root, name);
	return lchown(path, restoring->owner.st_uid, restoring->owner.st_gid) == 0 ? STATUS_OK : error_errno(err, "%s", path);
}

/* Makes the directories that the file lies in. */
static enum status make_parents(const struct restoring *restoring, const char *to, struct error *err)
{
	char parent[PATH_MAX];
	for (const char *slash = strchr(to, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(parent, sizeof parent, "%.*s", (int)(slash - to), to);
		if (place_has(&restoring->state, parent)) continue;
		TRY(place_make(&restoring->state, parent, err));
		TRY(give(restoring, parent, err));
	}
	return STATUS_OK;
}

static enum status copy_back(void *context, const char *name, struct error *err)
{
	const struct restoring *restoring = context;
	char to[PATH_MAX];
	struct file from;
	bool known = strcmp(name, "besad.db") == 0 || strncmp(name, "jobs/", 5) == 0;
	if (!known || snprintf(to, sizeof to, "%s/%s", part_name, name) >= (int)sizeof to)
		return error_set(err, STATUS_INVALID, "%s: is not a file of a backup", name);
	TRY(place_open(&restoring->backup, name, &from, err));
	enum status status = make_parents(restoring, to, err);
	if (!status) status = copy_checked(&from, &restoring->state, to, err);
	file_close(&from);
	return status ? status : give(restoring, to, err);
}

static enum status sync_checkpoint(void *context, const char *name, const char *entry, struct error *err)
{
	(void)entry;
	return place_sync(context, name, err);
}

/* The database last: without it there is nothing to start from. */
static enum status put_in_place(const struct restoring *restoring, struct error *err)
{
	char from[PATH_MAX];
	const struct place *state = &restoring->state;
	bool checkpoints;
	snprintf(from, sizeof from, "%s/jobs", part_name);
	TRY(place_look(state, from, &checkpoints, err));
	if (checkpoints) {
		TRY(place_each(state, from, sync_checkpoint, (void *)state, err));
		TRY(place_sync(state, from, err));
		TRY(place_remove(state, "jobs", err));
		TRY(place_rename(state, from, state, "jobs", PLACE_NEW, err));
	}
	snprintf(from, sizeof from, "%s/besad.db", part_name);
	/* The end of the process before was not that of this queue. */
	if (ftruncate(restoring->lock, 0) != 0) return error_errno(err, "the lock of %s", state->root);
	TRY(place_rename(state, from, state, "besad.db", PLACE_NEW, err));
	return place_remove(state, part_name, err);
}

static enum status check_backup(const struct options *options, struct error *err)
{
	struct check_report report;
	enum status status = check_directory(options->from, &report, err);
	if (!status && !report.backup)
		status = error_set(err, STATUS_INVALID, "%s has no %s: it is no backup", options->from, MANIFEST_NAME);
	if (!status && report.unusable[0])
		status = error_set(err, STATUS_INVALID, "%s is damaged: %s", options->from, report.unusable);
	/* A damaged checkpoint fails its job when that goes on, and nothing else. */
	const cJSON *problem;
	if (!status) cJSON_ArrayForEach(problem, report.problems) log_warning("%s", problem->valuestring);
	cJSON_Delete(report.problems);
	return status;
}

static enum status work(const struct options *options, struct inventory_totals *ret, struct error *err)
{
	char backup_root[PATH_MAX];
	struct restoring restoring = {.state = {options->state_dir, "."}};
	TRY(check_backup(options, err));
	if (!realpath(options->from, backup_root)) return error_errno(err, "%s", options->from);
	restoring.backup = (struct place){backup_root, "."};
	TRY(take_lock(options->state_dir, &restoring.lock, err));
	TRY(check_empty(&restoring, err));
	if (stat(options->state_dir, &restoring.owner) != 0) return error_errno(err, "%s", options->state_dir);
	TRY(give(&restoring, "lock", err));
	TRY(place_remove(&restoring.state, part_name, err));
	TRY(place_make(&restoring.state, part_name, err));
	TRY(inventory_each(&restoring.backup, copy_back, &restoring, ret, err));
	return put_in_place(&restoring, err);
}

int restore(const struct options *options)
{
	struct error err;
	struct inventory_totals totals;
	if (work(options, &totals, &err)) {
		log_error("%s", err.message);
		return EXIT_FAILURE;
	}
	if (options->json)
		printf("{\"files\":%d,\"bytes\":%.0f}\n", totals.files, totals.bytes);
	else
		printf("%s: %d files, %.0f bytes\n", options->state_dir, totals.files, totals.bytes);
	return EXIT_SUCCESS;
}
