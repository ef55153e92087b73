#include "daemon/pace.h"

#include <math.h>
#include <string.h>

#include "base/json.h"
#include "engine/spec/restore.h"
#include "engine/tune/tune.h"

enum { TIMINGS = 64 }; /* of the newest jobs: a device may have been given more to do, or less, since the older ones */

/* A mean over jobs. */
struct mean {
	double sum;
	int64_t weight;
	int jobs;
};

static void add(struct mean *mean, double value, int64_t weight)
{
	mean->sum += value * (double)weight;
	mean->weight += weight;
	mean->jobs++;
}

/* What is known of one that was timed, and of the job asked about. */
struct timed {
	const struct timing *timing;
	const struct spec *spec;
	const cJSON *json; /* its spec */
};
struct asked {
	const struct backend *backend;
	const struct spec *spec;
	const struct engine_need *need;
	cJSON *json;
	struct mean same, like, rest; /* seconds of a block: as they are, and scaled; of all else */
};

static bool is_bf16(const struct spec *spec, const struct backend *backend)
{
	return spec->precision == PRECISION_BF16 || (spec->precision == PRECISION_AUTO && backend->native_bf16);
}

/* A copy without the `n` members. */
static cJSON *without(const cJSON *object, const char *const *keys, size_t n)
{
	cJSON *copy = cJSON_Duplicate(object, true);
	for (size_t i = 0; i < n && copy; i++)
		cJSON_DeleteItemFromObjectCaseSensitive(copy, keys[i]);
	return copy;
}

/* Whether two objects agree but for the `n` members, and for what only one of them has: a version in between has added that. */
static bool agree(const cJSON *a, const cJSON *b, const char *const *keys, size_t n)
{
	struct json_difference difference;
	if (!a || !b) return a == b;
	cJSON *left = without(a, keys, n), *right = without(b, keys, n);
	bool same = left && right && !json_differ(left, right, true, &difference);
	cJSON_Delete(left);
	cJSON_Delete(right);
	return same;
}

/* A block's time may depend on each field of a spec but these; on the tokens and the weights it depends in proportion. The last
 * two are left out where other settings of the method will do. */
static bool prunes_alike(const cJSON *a, const cJSON *b, enum method_id method, bool strictly)
{
	const char *const keys[] = {"name",     "metadata",   "model",           "output",      "overwrite",
				    "sparsity", "allocation", "evaluation",      "calibration", "precision",
				    "notify",   "priority",   "timeout_seconds", "progress",    spec_method_names[method]};
	size_t n = sizeof keys / sizeof *keys;
	return agree(a, b, keys, strictly ? n - 2 : n);
}

static double block_params(const cJSON *block)
{
	double params = 0;
	const cJSON *layer;
	cJSON_ArrayForEach(layer, cJSON_GetObjectItemCaseSensitive(block, "layers")) params +=
		cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(layer, "params"));
	return params;
}

/* The weights of the timed block that a token multiplies, in parts of ours. NAN where that is not known: of experts only those
 * that it is sent to. */
static double weights_ratio(const struct asked *asked, const cJSON *block)
{
	const struct engine_need *need = asked->need;
	double params = block_params(block);
	if (params == (double)need->params) return 1;
	bool dense = !cJSON_HasObjectItem(block, "experts") && need->params == need->params_per_token;
	return dense && params > 0 ? params / (double)need->params : NAN;
}

static void take_blocks(struct asked *asked, const struct timed *timed, const cJSON *block)
{
	const struct spec *ours = asked->spec, *theirs = timed->spec;
	double weights = weights_ratio(asked, block), work = engine_block_work(theirs) / engine_block_work(ours);
	bool calibrated = ours->calibration.n_sources > 0;
	double seconds = timed->timing->block_seconds;
	if (isnan(weights) || seconds <= 0 || calibrated != (theirs->calibration.n_sources > 0) ||
	    !prunes_alike(asked->json, timed->json, ours->method, false))
		return;
	bool length = !calibrated || ours->calibration.sequence_length == theirs->calibration.sequence_length;
	if (weights == 1 && work == 1 && length && prunes_alike(asked->json, timed->json, ours->method, true))
		add(&asked->same, seconds, timed->timing->blocks);
	else
		add(&asked->like, seconds / (weights * work), timed->timing->blocks);
}

/* What a job does beside its blocks takes as long as it took the same model and data. */
static void take_rest(struct asked *asked, const struct timed *timed)
{
	static const char *const seed[] = {"seed"};
	static const char *const sections[] = {"evaluation", "calibration",
					       "refit"}; /* refit: where one of the two tunes all of a model */
	cJSON *result;
	struct error ignored;
	const char *text = timed->timing->result;
	if (!text || timed->timing->attempt != 1 || strcmp(asked->spec->model, timed->spec->model) != 0) return;
	if (asked->spec->allocation.method != timed->spec->allocation.method) return; /* its pass is not a block's time */
	bool tuned = tune_wanted(asked->spec) || tune_wanted(timed->spec);
	for (size_t i = 0; i < sizeof sections / sizeof *sections - !tuned; i++)
		if (!agree(cJSON_GetObjectItemCaseSensitive(asked->json, sections[i]),
			   cJSON_GetObjectItemCaseSensitive(timed->json, sections[i]), seed, 1))
			return;
	if (json_parse(text, strlen(text), "a result", &result, &ignored)) return;
	double rest = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(result, "seconds")) -
		      cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(result, "pruning_seconds"));
	if (rest >= 0) add(&asked->rest, rest, 1);
	cJSON_Delete(result);
}

static void take(struct asked *asked, const struct timed *timed)
{
	const struct spec *ours = asked->spec, *theirs = timed->spec;
	struct error ignored;
	cJSON *block;
	if (is_bf16(ours, asked->backend) != is_bf16(theirs, asked->backend) ||
	    spec_makes_output(ours) != spec_makes_output(theirs))
		return;
	take_rest(asked, timed);
	const char *text = timed->timing->block;
	if (ours->method != theirs->method || !text || json_parse(text, strlen(text), "a block", &block, &ignored)) return;
	take_blocks(asked, timed, block);
	cJSON_Delete(block);
}

/* A job whose spec this besad cannot read tells nothing. */
static void take_timing(struct asked *asked, const struct roots *roots, const struct timing *timing)
{
	struct error ignored;
	struct timed timed = {.timing = timing};
	struct spec *spec = NULL;
	cJSON *json = NULL, *places = NULL;
	enum status status = json_parse(timing->spec, strlen(timing->spec), "a spec", &json, &ignored);
	if (!status && timing->places) status = json_parse(timing->places, strlen(timing->places), "places", &places, &ignored);
	if (!status) status = spec_restore(json, places, roots, &spec, &ignored);
	if (!status) {
		timed.spec = spec;
		timed.json = json;
		take(asked, &timed);
		spec_free(spec);
	}
	cJSON_Delete(json);
	cJSON_Delete(places);
}

enum status pace_find(struct db *db, const struct backend *backend, const struct roots *roots, const struct spec *spec,
		      const struct engine_need *need, struct pace *ret, struct error *err)
{
	struct timing_list list;
	struct asked asked = {.backend = backend, .spec = spec, .need = need, .json = spec_to_json(spec)};
	if (!asked.json) return error_set(err, STATUS_NO_MEMORY, "no memory for a spec");
	enum status status = db_timings(db, backend->device, TIMINGS, &list, err);
	if (!status) {
		for (size_t i = 0; i < list.count; i++)
			take_timing(&asked, roots, &list.timings[i]);
		timing_list_clear(&list);
	}
	cJSON_Delete(asked.json);
	TRY(status);
	const struct mean *blocks = asked.same.jobs ? &asked.same : &asked.like;
	*ret = (struct pace){.pruning_jobs = blocks->jobs, .rest_jobs = asked.rest.jobs};
	if (blocks->jobs) {
		ret->pruning = blocks->sum / (double)blocks->weight * (double)need->blocks;
		ret->pruning_blocks = blocks->weight;
		ret->scaled = !asked.same.jobs;
	}
	if (asked.rest.jobs) ret->rest = asked.rest.sum / (double)asked.rest.weight;
	return STATUS_OK;
}
