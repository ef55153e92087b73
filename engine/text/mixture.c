#include "engine/text/mixture.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The source of sequence `index` of `total`: the one that is furthest behind its share of index + 1 sequences. */
static int next_source(const struct mixture_source *sources, const int64_t *taken, int count, int64_t index, int64_t total)
{
	int best = 0;
	int64_t most = INT64_MIN;
	for (int i = 0; i < count; i++) {
		int64_t behind = (index + 1) * sources[i].samples - taken[i] * total;
		if (behind <= most) continue;
		most = behind;
		best = i;
	}
	return best;
}

static void interleave(const struct mixture_source *sources, const struct sequences *parts, int count, struct sequences *to)
{
	int64_t taken[MIXTURE_MAX_SOURCES] = {0};
	for (int64_t i = 0; i < to->count; i++) {
		int source = next_source(sources, taken, count, i, to->count);
		memcpy(to->ids + i * to->length, parts[source].ids + taken[source]++ * to->length,
		       (size_t)to->length * sizeof *to->ids);
	}
}

enum status mixture_calibration(const struct mixture_source *sources, int count, const struct place *model, int64_t vocab,
				int64_t length, int64_t seed, const atomic_bool *stop, struct warnings *warnings,
				struct sequences *ret, struct error *err)
{
	struct sequences parts[MIXTURE_MAX_SOURCES] = {0}, mixed = {.length = length};
	if (count == 1)
		return corpus_calibration(&sources[0].data, model, vocab, sources[0].samples, length, seed, stop, warnings, ret,
					  err);
	if (count < 1 || count > MIXTURE_MAX_SOURCES)
		return error_set(err, STATUS_INVALID, "%d sources; 1 to %d can be mixed", count, MIXTURE_MAX_SOURCES);
	enum status status = STATUS_OK;
	for (int i = 0; status == STATUS_OK && i < count; i++) {
		int64_t own_seed = (int64_t)((uint64_t)seed + (uint64_t)i * 0x9e3779b97f4a7c15u);
		status = corpus_calibration(&sources[i].data, model, vocab, sources[i].samples, length, own_seed, stop, warnings,
					    &parts[i], err);
		mixed.count += sources[i].samples;
	}
	if (status == STATUS_OK) {
		mixed.ids = malloc((size_t)(mixed.count * length) * sizeof *mixed.ids);
		if (!mixed.ids)
			status = error_set(err, STATUS_NO_MEMORY, "no memory for %" PRId64 " calibration sequences", mixed.count);
	}
	if (status == STATUS_OK) {
		interleave(sources, parts, count, &mixed);
		sequences_hash(&mixed);
		*ret = mixed;
	}
	for (int i = 0; i < count; i++)
		sequences_free(&parts[i]);
	return status;
}
