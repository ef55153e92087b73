#include "daemon/holdings.h"

#include <stdlib.h>
#include <string.h>

#include "base/place.h"
#include "base/text.h"
#include "daemon/sweep.h"
#include "db/outputs.h"

static bool is_gone(const struct options *options, const struct holding *holding)
{
	struct place place = {options->roots.output, holding->output};
	struct error ignored;
	bool there = true;
	return place_look(&place, NULL, &there, &ignored) == STATUS_OK && !there;
}

/* Forgets the outputs that are not there any more; not where none is, as below a root whose disk is not mounted. */
static void forget_gone(const struct options *options, struct db *db, const struct holding *list, size_t count)
{
	struct error ignored;
	bool any = false;
	for (size_t i = 0; i < count && !any; i++)
		any = list[i].output && !is_gone(options, &list[i]);
	for (size_t i = 0; i < count && any; i++)
		if (list[i].output && is_gone(options, &list[i])) db_output_gone(db, &list[i], &ignored); /* or the next time */
}

/* What cannot be looked at counts for nothing. */
static double measure_output(const struct options *options, const struct holding *holding)
{
	struct place place = {options->roots.output, holding->output};
	char *path = place_text(&place, NULL);
	double bytes = path ? bytes_below(path) : 0;
	free(path);
	return bytes;
}

/* Does it lie in another output of theirs, and count there? */
static bool is_inside(const struct holding *list, size_t count, const char *output)
{
	for (size_t i = 0; i < count; i++)
		if (list[i].output && text_starts_with(output, list[i].output) && output[strlen(list[i].output)] == '/')
			return true;
	return false;
}

enum status holdings_measure(const struct options *options, struct db *db, const char *checkpoints, const char *who,
			     const char *but, int64_t *ret, struct error *err)
{
	struct holding *list;
	size_t count;
	double bytes = 0;
	TRY(db_holdings(db, who, &list, &count, err));
	for (size_t i = 0; i < count; i++)
		if (list[i].output)
			bytes += is_inside(list, count, list[i].output) ? 0 : measure_output(options, &list[i]);
		else if (!but || strcmp(list[i].job_id, but) != 0)
			bytes += bytes_of_job(options, checkpoints, list[i].job_id);
	forget_gone(options, db, list, count);
	holdings_free(list, count);
	*ret = (int64_t)bytes;
	return STATUS_OK;
}

struct expectation {
	const struct place *model;
	int64_t bytes;
};

static enum status add_file(void *context, const char *name, const char *entry, struct error *err)
{
	struct expectation *expectation = context;
	struct stat file;
	(void)entry;
	if (text_ends_with(name, ".safetensors") && place_stat(expectation->model, name, &file, err) == STATUS_OK)
		expectation->bytes += file.st_size;
	return STATUS_OK;
}

int64_t holdings_expect(const struct spec *spec)
{
	struct expectation expectation = {.model = &spec->model_place};
	struct error ignored;
	if (!spec_makes_output(spec)) return 0;
	place_each(&spec->model_place, NULL, add_file, &expectation, &ignored);
	return expectation.bytes;
}
