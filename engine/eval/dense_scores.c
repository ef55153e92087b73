#include "engine/eval/dense_scores.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/place.h"

enum { LINE = 160 }; /* a number, the key's checksum with it, and ends */

static bool add_tokens(cJSON *known, const struct sequences *windows, struct error *err)
{
	char sum[SHA256_TEXT];
	size_t bytes = (size_t)(windows->count * windows->length) * sizeof *windows->ids;
	return sha256_bytes(windows->ids, bytes, sum, err) == STATUS_OK && cJSON_AddStringToObject(known, "tokens", sum) &&
	       cJSON_AddNumberToObject(known, "sequence_length", (double)windows->length);
}

enum status dense_scores_key(const cJSON *model_files, const struct sequences *windows, enum dtype precision, const char *device,
			     char ret[SHA256_TEXT], struct error *err)
{
	error_set(err, STATUS_NO_MEMORY, "no memory for what a score depends on");
	cJSON *known = cJSON_CreateObject();
	bool whole = known && cJSON_AddItemToObject(known, "model", cJSON_Duplicate(model_files, true)) &&
		     add_tokens(known, windows, err) && cJSON_AddNumberToObject(known, "precision", precision) &&
		     cJSON_AddStringToObject(known, "device", device) && cJSON_AddStringToObject(known, "version", BESAD_VERSION) &&
		     cJSON_AddNumberToObject(known, "of", DENSE_SCORES_OF);
	char *text = whole ? cJSON_PrintUnformatted(known) : NULL;
	enum status status = text ? sha256_bytes(text, strlen(text), ret, err) : err->status;
	free(text);
	cJSON_Delete(known);
	return status;
}

/* What the file of a key holds: the number, and a checksum of it and the key. */
static enum status write_line(const char *key, double score, char ret[LINE], struct error *err)
{
	char text[LINE], sum[SHA256_TEXT];
	snprintf(text, sizeof text, "%s %.17g", key, score);
	TRY(sha256_bytes(text, strlen(text), sum, err));
	snprintf(ret, LINE, "%.17g %s\n", score, sum);
	return STATUS_OK;
}

bool dense_scores_find(const char *directory, const char *key, double *ret)
{
	struct error ignored;
	char *text, wanted[LINE];
	size_t bytes;
	if (place_slurp(&PLACE(directory), key, LINE, &text, &bytes, &ignored)) return false;
	double score = strtod(text, NULL);
	bool good = isfinite(score) && write_line(key, score, wanted, &ignored) == STATUS_OK && bytes == strlen(wanted) &&
		    memcmp(text, wanted, bytes) == 0;
	free(text);
	if (good) *ret = score;
	return good;
}

static bool is_score(const char *entry)
{
	return strlen(entry) == SHA256_TEXT - 1 && strspn(entry, "0123456789abcdef") == SHA256_TEXT - 1;
}

static enum status count(void *context, const char *name, const char *entry, struct error *err)
{
	(void)name;
	(void)err;
	*(int *)context += is_score(entry);
	return STATUS_OK;
}

static enum status forget(void *context, const char *name, const char *entry, struct error *err)
{
	return is_score(entry) ? place_remove(context, name, err) : STATUS_OK;
}

enum status dense_scores_keep(const char *directory, const char *key, double score, struct error *err)
{
	char line[LINE];
	int files = 0;
	struct place scores = PLACE(directory);
	TRY(write_line(key, score, line, err));
	TRY(directory_make(directory, err));
	TRY(place_each(&scores, NULL, count, &files, err));
	if (files >= DENSE_SCORES_MOST) TRY(place_each(&scores, NULL, forget, &scores, err));
	return place_replace(&scores, key, line, strlen(line), err);
}
