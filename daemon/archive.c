#include "daemon/archive.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/place.h"
#include "daemon/log.h"
#include "engine/archive/archive.h"

/* What is not whole lies beside the directory that is made, under its name and this. */
static const char part_suffix[] = ".besad-part";

/* Without the slashes at its end. */
static char *trimmed(const char *path)
{
	size_t length = strlen(path);
	while (length > 1 && path[length - 1] == '/')
		length--;
	return strndup(path, length);
}

static enum status make(const struct options *options, const struct place *part, struct error *err)
{
	const struct place from = PLACE(options->from);
	const struct archive_options how = {.coded = options->coded};
	return options->command == COMMAND_PACK ? archive_pack(&from, part, &how, err) : archive_unpack(&from, part, NULL, err);
}

static bool is_same(const char *a, const char *b)
{
	struct stat one, other;
	return stat(a, &one) == 0 && stat(b, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

/* Makes the directory beside its name, and gives it that when it is whole. A part that an earlier process left is removed first. */
static enum status make_whole(const struct options *options, const char *to, const char *part, struct error *err)
{
	struct error ignored;
	if (is_same(options->from, part))
		return error_set(err, STATUS_INVALID, "%s: lies where %s is made, and would be removed; rename it", options->from,
				 to);
	if (place_has(&PLACE(to), NULL)) return error_set(err, STATUS_EXISTS, "%s: exists already", to);
	enum status status = make(options, &PLACE(part), err);
	if (status == STATUS_OK) status = place_rename(&PLACE(part), NULL, &PLACE(to), NULL, PLACE_NEW, err);
	if (status != STATUS_OK) place_remove(&PLACE(part), NULL, &ignored);
	return status;
}

static enum status work(const struct options *options, struct error *err)
{
	if (options->command == COMMAND_VERIFY) return archive_verify(&PLACE(options->from), NULL, err);
	char *to = trimmed(options->to), *part = NULL;
	enum status status = to && asprintf(&part, "%s%s", to, part_suffix) >= 0
				     ? make_whole(options, to, part, err)
				     : error_set(err, STATUS_NO_MEMORY, "no memory for a path");
	free(part);
	free(to);
	return status;
}

int archive(const struct options *options)
{
	struct error err;
	if (options->threads) omp_set_num_threads(options->threads);
	if (work(options, &err) == STATUS_OK) return EXIT_SUCCESS;
	log_error("%s", err.message);
	return EXIT_FAILURE;
}
