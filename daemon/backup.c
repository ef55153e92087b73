#include "daemon/backup.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/sha256.h"
#include "daemon/inventory.h"
#include "daemon/log.h"
#include "daemon/saved.h"
#include "db/db.h"

enum { TRIES = 5 };

/* What is not whole lies beside the backup that is made, under its name and this. */
static const char part_suffix[] = ".besad-part";

struct copying {
	const char *state; /* the directory that is backed up */
	struct place part;
	int checkpoints, problems;
	bool missed; /* the database's copy speaks of a checkpoint that the backup lacks, and that is there */
};

static enum status same(const struct file *from, const struct place *to, const char *name, struct error *err)
{
	char before[SHA256_TEXT], after[SHA256_TEXT];
	struct file copy;
	TRY(sha256_file(from, from->size, before, err));
	TRY(place_open(to, name, &copy, err));
	enum status status = sha256_file(&copy, copy.size, after, err);
	if (!status && strcmp(before, after) != 0)
		status = error_set(err, STATUS_IO, "%s: was written other than it is read: look after the disk", copy.path);
	file_close(&copy);
	return status;
}

enum status copy_checked(const struct file *from, const struct place *to, const char *name, struct error *err)
{
	struct file copy;
	TRY(place_create(to, name, from->size, &copy, err));
	enum status status = file_copy_bytes(from, 0, &copy, 0, from->size, err);
	if (!status) status = file_sync(&copy, err);
	file_close(&copy);
	return status ? status : same(from, to, name, err);
}

/* ---- checkpoints --------------------------------------------------------------------------------------------------------- */

static const char *last_component(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static enum status copy_files(const struct saved *saved, const struct place *part, const char *id, struct error *err)
{
	char name[PATH_MAX];
	snprintf(name, sizeof name, "jobs/%s", id);
	TRY(place_make(part, name, err));
	for (int i = 0; i < saved->count; i++) {
		snprintf(name, sizeof name, "jobs/%s/%s", id, last_component(saved->files[i].path));
		TRY(copy_checked(&saved->files[i], part, name, err));
	}
	snprintf(name, sizeof name, "jobs/%s", id);
	return place_sync(part, name, err);
}

static enum status copy_checkpoint(void *context, const char *name, const char *entry, struct error *err)
{
	struct copying *copying = context;
	struct saved saved;
	char directory[PATH_MAX];
	(void)name;
	if (!job_id_is_valid(entry)) return STATUS_OK;
	snprintf(directory, sizeof directory, "%s/jobs/%s", copying->state, entry);
	enum status status = saved_open(directory, &saved, err);
	if (status == STATUS_INVALID) { /* as damaged as it is: the rest is worth a backup all the same */
		log_warning("%s", err->message);
		status = STATUS_OK;
	}
	for (int i = 1; !status && i < saved.count; i++) /* the first is the savepoint, which was read */
		if (saved_check(&saved.files[i], err)) log_warning("%s", err->message);
	if (!status && saved.count) {
		status = copy_files(&saved, &copying->part, entry, err);
		copying->checkpoints++;
	}
	saved_close(&saved);
	return status;
}

/* ---- the database -------------------------------------------------------------------------------------------------------- */

static void tell_damage(void *context, const char *problem)
{
	((struct copying *)context)->problems++;
	log_error("the database is damaged: %s", problem);
}

/* Has the job, whose blocks are done, begun only after the checkpoints were copied? */
static enum status find_checkpoint(void *context, const struct stored_job *job, struct error *err)
{
	struct copying *copying = context;
	char name[PATH_MAX], path[PATH_MAX];
	bool copied;
	if (job->state == JOB_SUCCEEDED || !job->blocks_done) return STATUS_OK;
	snprintf(name, sizeof name, "jobs/%s", job->id);
	snprintf(path, sizeof path, "%s/jobs/%s/savepoint.json", copying->state, job->id);
	TRY(place_look(&copying->part, name, &copied, err));
	if (!copied && path_exists(path)) copying->missed = true;
	return STATUS_OK;
}

static enum status copy_database(struct copying *copying, int64_t *ret_version, struct error *err)
{
	char from[PATH_MAX], *to = place_text(&copying->part, "besad.db");
	struct file file;
	if (!to) return error_set(err, STATUS_NO_MEMORY, "no memory for a path");
	snprintf(from, sizeof from, "%s/besad.db", copying->state);
	const struct db_verifier verifier = {tell_damage, find_checkpoint, copying};
	enum status status = db_copy(from, to, err);
	if (!status) status = db_verify(to, &verifier, ret_version, err);
	if (!status && copying->problems) status = error_set(err, STATUS_INVALID, "%s is damaged, and not copied", from);
	if (!status) status = place_open_write(&copying->part, "besad.db", &file, err);
	free(to);
	TRY(status);
	status = file_sync(&file, err);
	file_close(&file);
	return status;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------- */

/* Checkpoints first: a savepoint may be behind what is committed, but not ahead of it (engine/prune/pipeline.h, 5). */
static enum status copy_once(struct copying *copying, int64_t *ret_version, struct error *err)
{
	const struct place from = PLACE(copying->state);
	bool checkpoints;
	copying->missed = false;
	copying->checkpoints = 0;
	TRY(place_remove(&copying->part, NULL, err));
	TRY(place_make(&copying->part, "jobs", err));
	if (chmod(copying->part.path, 0700) != 0) return error_errno(err, "%s", copying->part.path);
	TRY(place_look(&from, "jobs", &checkpoints, err));
	if (checkpoints) TRY(place_each(&from, "jobs", copy_checkpoint, copying, err));
	TRY(place_sync(&copying->part, "jobs", err));
	return copy_database(copying, ret_version, err);
}

static enum status make(struct copying *copying, struct inventory_totals *ret, struct error *err)
{
	int64_t version = 0;
	copying->missed = true;
	for (int i = 0; i < TRIES && copying->missed; i++)
		TRY(copy_once(copying, &version, err));
	if (copying->missed) return error_set(err, STATUS_BUSY, "jobs begin faster than they can be copied; try again");
	TRY(inventory_write(&copying->part, version, ret, err));
	return place_sync(&copying->part, NULL, err);
}

static enum status make_whole(const struct options *options, const char *to, struct copying *copying, struct inventory_totals *ret,
			      struct error *err)
{
	struct error ignored;
	if (place_has(&PLACE(to), NULL)) return error_set(err, STATUS_EXISTS, "%s: exists already", to);
	copying->state = options->state_dir;
	enum status status = make(copying, ret, err);
	if (!status) status = place_rename(&copying->part, NULL, &PLACE(to), NULL, PLACE_NEW, err);
	if (status) place_remove(&copying->part, NULL, &ignored);
	return status;
}

int backup(const struct options *options)
{
	struct error err;
	struct inventory_totals totals;
	char part[PATH_MAX], to[PATH_MAX];
	size_t length = strlen(options->to);
	while (length > 1 && options->to[length - 1] == '/')
		length--;
	snprintf(to, sizeof to, "%.*s", (int)length, options->to);
	if (snprintf(part, sizeof part, "%s%s", to, part_suffix) >= (int)sizeof part) {
		log_error("the name is too long: %s", options->to);
		return EXIT_FAILURE;
	}
	struct copying copying = {.part = PLACE(part)};
	if (make_whole(options, to, &copying, &totals, &err)) {
		log_error("%s", err.message);
		return EXIT_FAILURE;
	}
	if (options->json)
		printf("{\"files\":%d,\"bytes\":%.0f,\"checkpoints\":%d}\n", totals.files, totals.bytes, copying.checkpoints);
	else
		printf("%s: %d files, %.0f bytes, checkpoints of %d jobs\n", to, totals.files, totals.bytes, copying.checkpoints);
	return EXIT_SUCCESS;
}
