#include "engine/prune/end_loss.h"

#include <math.h>
#include <stdlib.h>

#include "engine/eval/scorer.h"

enum { SHARE = 32, MOST_SEQUENCES = 4 };

int64_t end_loss_sequences(const struct spec *spec)
{
	int64_t samples = spec->calibration.samples, share = samples / SHARE;
	if (!spec->calibration.n_sources || spec->calibration.sequence_length < 2) return 0;
	return share < 1 ? 1 : share > MOST_SEQUENCES ? MOST_SEQUENCES : share;
}

static enum status add_up(struct walk *w, const struct scorer *scorer, const int32_t *ids, int64_t sequences, double *room,
			  double *ret, struct error *err)
{
	int64_t length = w->input.tokens;
	for (int64_t i = 0; i < sequences; i++) {
		struct tensor x;
		TRY(walk_check_stop(w, err));
		if (stream_batch(&w->input, i, 1, true, &x) != STATUS_OK) {
			*err = w->backend->error;
			return err->status;
		}
		TRY(scorer_next_tokens(scorer, x, ids + i * length, room, ret, err));
	}
	return STATUS_OK;
}

enum status end_loss(struct walk *w, double *ret, struct error *err)
{
	const struct sequences *calibration = w->calibration;
	int64_t sequences = end_loss_sequences(w->spec), length = w->spec->calibration.sequence_length;
	bool dry = w->backend->dry != NULL;
	struct scorer scorer = {0};
	double sum = 0;
	*ret = NAN;
	if (!sequences || (!dry && !(calibration && calibration->count))) return STATUS_OK;
	double *room = malloc((size_t)length * sizeof *room);
	int32_t *nothing = dry ? calloc((size_t)length, sizeof *nothing) : NULL;
	enum status status =
		room && (nothing || !dry) ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory for log-probabilities");
	if (status == STATUS_OK) status = scorer_create(w->p->model, w->backend, w->p->compute_type, length, &scorer, err);
	if (status == STATUS_OK)
		status = add_up(w, &scorer, dry ? nothing : calibration->ids, dry ? 1 : sequences, room, &sum, err);
	scorer_release(&scorer);
	free(nothing);
	free(room);
	if (status == STATUS_OK && !dry && isfinite(sum)) *ret = -sum / (double)(sequences * (length - 1));
	return status;
}
