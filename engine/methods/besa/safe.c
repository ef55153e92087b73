#include "engine/methods/besa/safe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/prune/exact.h"

/* What is compared for a block. */
struct comparison {
	struct besa *besa;
	struct mask *mask;
	const struct block_task *task;
	double *each;            /* [sequences]: of the start */
	double *again;           /* [sequences] */
	float *equal;            /* [layout.rows]: the rates of the start */
	float *best;             /* [layout.rows] */
	double start, end, kept; /* losses: of the start, of what was learned, of what is chosen */
};

static double mean(const double *values, int64_t count)
{
	double sum = 0;
	for (int64_t i = 0; i < count; i++)
		sum += values[i];
	return sum / (double)count;
}

/* The mask of the rates holds from now on. */
static enum status set_mask(const struct comparison *c, const float *rates, struct error *err)
{
	const struct block_layout *layout = &c->besa->block->layout;
	int64_t zeros = llround(c->besa->target * (double)layout->params);
	TRY(exact_thresholds(layout, rates, zeros, c->mask->host_thresholds, err));
	enum status status = mask_set(c->mask, c->besa->block);
	if (status != STATUS_OK) *err = c->besa->backend->error;
	return status;
}

/* The mask, and what the quantizer makes of the weights by now. */
static enum status activate(const struct comparison *c)
{
	const struct block *block = c->besa->block;
	if (!c->besa->quantizer) return mask_apply(c->mask, block, block->active);
	TRY(quantizer_apply(c->besa->quantizer, block->weight, block->master));
	return mask_apply_from(c->mask, block, block->master, block->active);
}

/* The loss with the mask of the rates, of each sequence and on average; of rates that are no numbers infinity, on average alone. */
static enum status measure(const struct comparison *c, const float *rates, double *each, double *ret, struct error *err)
{
	*ret = INFINITY;
	for (int64_t r = 0; r < c->besa->block->layout.rows; r++)
		if (!isfinite(rates[r])) return STATUS_OK;
	TRY(set_mask(c, rates, err));
	enum status status = activate(c);
	if (status != STATUS_OK) {
		*err = c->besa->backend->error;
		return status;
	}
	TRY(c->task->losses(c->task->context, c->task->input->sequences, c->task->input->tokens, each, err));
	*ret = mean(each, c->task->input->sequences);
	return STATUS_OK;
}

/* Chooses between what was learned, in `rates`, which receives the choice, the best on the way and the start. */
static enum status choose(struct comparison *c, const struct besa_watch *w, float *rates, struct error *err)
{
	const double lost = 1.1; /* so many times the loss of the best window, in the last one: more than noise */
	const struct block_layout *layout = &c->besa->block->layout;
	const float *chosen = rates;
	double best;
	TRY(measure(c, rates, c->again, &c->end, err));
	c->kept = c->end;
	if (w->watch.best < 1 && (!(c->end <= c->start) || !(w->watch.last <= lost * w->watch.best))) {
		enum status status = besa_best_rates(c->besa, c->best);
		if (status != STATUS_OK) {
			*err = c->besa->backend->error;
			return status;
		}
		TRY(measure(c, c->best, c->again, &best, err));
		if (!(c->kept <= best)) {
			c->kept = best;
			chosen = c->best;
		}
	}
	if (!(c->kept <= c->start)) {
		enum status status = c->besa->quantizer ? quantizer_begin(c->besa->quantizer) : STATUS_OK;
		if (status != STATUS_OK) *err = c->besa->backend->error;
		TRY(status);
		c->kept = c->start;
		chosen = c->equal;
	}
	for (int64_t r = 0; chosen != rates && r < layout->rows; r++)
		rates[r] = chosen[r];
	return set_mask(c, rates, err);
}

/* ---- what is told ------------------------------------------------------------------------------------------------------------ */

/* Smaller steps, found once, are what the size of steps adapts to; where they had to be found again, or nothing was won by them,
 * learning is unstable. */
static enum status warn_of_divergence(const struct comparison *c, const struct besa_watch *w, int steps, struct error *err)
{
	bool adapted = w->divergences == 1 && c->kept < c->start;
	const struct besa_settings *settings = &c->besa->spec->besa;
	bool prodigy = settings->optimizer == OPTIMIZER_PRODIGY;
	char message[400], times[60] = "", best[60] = "";
	if (!w->divergences) return STATUS_OK;
	if (w->divergences > 1)
		snprintf(times, sizeof times, ", and again, %d times in all, at last at step %d", w->divergences, w->at);
	if (w->best < w->began) snprintf(best, sizeof best, " and %.6f at its best", w->best);
	snprintf(message, sizeof message,
		 "learning diverged at step %d of %d: the loss, %.6f at the start%s, rose to %.6f%s; it went on from where it was "
		 "best, at "
		 "step %d, with %s %g instead of %g, and the block ends with %.6f",
		 w->first, steps, w->began, best, w->loss, times, w->back, prodigy ? "besa.d_coef" : "besa.learning_rate",
		 prodigy ? c->besa->d_coef : c->besa->learning_rate, prodigy ? settings->d_coef : settings->learning_rate, c->kept);
	if (adapted) return c->task->warn(c->task->context, message, err);
	return c->task->find(c->task->context, &(struct finding){DIAGNOSIS_UNSTABLE, w->loss / w->best - 1, message}, err);
}

static enum status warn_of_choice(const struct comparison *c, const struct besa_watch *w, struct error *err)
{
	const double little = 0.01; /* of the loss: as much as it sways from step to step where nothing is wrong */
	char message[400];
	if (c->kept == c->end) return STATUS_OK;
	if (c->kept != c->start && c->end <= (1 + little) * c->kept) return STATUS_OK;
	if (c->kept == c->start)
		snprintf(message, sizeof message,
			 "what was learned gives a loss of %.6f, more than the %.6f of equal rates, which are kept", c->end,
			 c->start);
	else
		snprintf(message, sizeof message,
			 "the rates learned by the last step give a loss of %.6f, more than the %.6f of those at step %d, which "
			 "are kept",
			 c->end, c->kept, w->kept);
	return c->task->warn(c->task->context, message, err);
}

/* Rates that hardly moved. */
static enum status warn_of_plateau(const struct comparison *c, const float *rates, int steps, struct error *err)
{
	const double moved = diagnosis_rules[DIAGNOSIS_PLATEAU].threshold;
	const int few = 32; /* steps in which little is to be expected */
	double most = 0;
	char message[400];
	for (int64_t r = 0; r < c->besa->block->layout.rows; r++)
		most = fmax(most, fabs((double)rates[r] - (double)c->equal[r]));
	if (most > moved || steps < few) return STATUS_OK;
	snprintf(message, sizeof message,
		 "nothing was learned in %d steps: no rate moved by more than %.1e, and the block is pruned at equal rates; it "
		 "takes more "
		 "steps (calibration.samples, besa.epochs) or larger ones",
		 steps, most);
	return c->task->find(c->task->context, &(struct finding){DIAGNOSIS_PLATEAU, most, message}, err);
}

/* Most weights are in rows that would go further than their candidates reach. */
static enum status warn_of_edge(const struct comparison *c, const float *rates, struct error *err)
{
	const struct rates *r = &c->besa->rates;
	const struct block_layout *layout = &c->besa->block->layout;
	double below = (double)r->below / CANDIDATES_WHOLE, above = 1 - (double)r->above / CANDIDATES_WHOLE;
	const double most = diagnosis_rules[DIAGNOSIS_EDGE].threshold;
	/* The mixtures under the sigmoid: β is at most e times as large for one half of the candidates as for the other. */
	double reach = r->parameterization == PARAM_SIGMOID ? (M_E - 1) / (M_E + 1) / 4 : 0.5;
	double middle = (below + above) / 2, far = 0.98 * reach * (above - below), count = 0;
	char message[400];
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		for (int64_t row = linear->row; row < linear->row + linear->rows; row++)
			count += fabs((double)rates[row] - middle) >= far ? (double)linear->cols : 0;
	}
	if (count <= most * (double)layout->params) return STATUS_OK;
	snprintf(message, sizeof message,
		 "%.0f %% of the weights have rates at the edge of what the candidates reach, %.4f to %.4f",
		 100 * count / (double)layout->params, middle - reach * (above - below), middle + reach * (above - below));
	return c->task->find(c->task->context, &(struct finding){DIAGNOSIS_EDGE, count / (double)layout->params, message}, err);
}

static enum status warn_of_target(const struct comparison *c, const float *rates, struct error *err)
{
	const struct block_layout *layout = &c->besa->block->layout;
	const double far = diagnosis_rules[DIAGNOSIS_OFF_TARGET].threshold;
	double target = c->besa->target, sparsity = 0;
	char message[400];
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		for (int64_t row = linear->row; row < linear->row + linear->rows; row++)
			sparsity += (double)rates[row] * (double)linear->cols / (double)layout->params;
	}
	if (fabs(sparsity - target) <= far * target) return STATUS_OK;
	snprintf(message, sizeof message,
		 "the learned rates come to a sparsity of %.4f, and %.4f is asked for: all were shifted alike; a larger "
		 "besa.lambda keeps "
		 "them nearer",
		 sparsity, target);
	return c->task->find(c->task->context, &(struct finding){DIAGNOSIS_OFF_TARGET, fabs(sparsity - target) / target, message},
			     err);
}

/* One warning of what went wrong in learning, if something did; else of what it came to. */
static enum status warn(const struct comparison *c, const struct besa_watch *w, const float *rates, int steps, struct error *err)
{
	TRY(warn_of_divergence(c, w, steps, err));
	TRY(warn_of_choice(c, w, err));
	if (c->besa->target == 0) return STATUS_OK;
	if (c->kept == c->start) return c->end == c->start ? warn_of_plateau(c, rates, steps, err) : STATUS_OK;
	TRY(warn_of_plateau(c, rates, steps, err));
	TRY(warn_of_edge(c, rates, err));
	return warn_of_target(c, rates, err);
}

/* ---- all of it --------------------------------------------------------------------------------------------------------------- */

static enum status learn(struct comparison *c, const atomic_bool *stop, float *rates, struct error *err)
{
	struct besa_watch w = {0};
	struct method_step last;
	for (int64_t r = 0; r < c->besa->block->layout.rows; r++)
		c->equal[r] = (float)c->besa->target;
	TRY(measure(c, c->equal, c->each, &c->start, err));
	loss_watch_begin(&w.watch, c->each);
	TRY(besa_learn(c->besa, c->task, stop, besa_watches(c->besa->spec) ? &w : NULL, rates, &last, err));
	TRY(choose(c, &w, rates, err));
	return warn(c, &w, rates, last.steps, err);
}

enum status besa_learn_safely(struct besa *besa, struct mask *mask, const struct block_task *task, const atomic_bool *stop,
			      float *rates, double *ret_start, struct error *err)
{
	size_t sequences = (size_t)task->input->sequences, rows = (size_t)besa->block->layout.rows;
	struct comparison c = {.besa = besa, .mask = mask, .task = task};
	enum status status = STATUS_NO_MEMORY;
	c.each = malloc(2 * sequences * sizeof *c.each);
	c.equal = malloc(2 * rows * sizeof *c.equal);
	if (c.each && c.equal) {
		c.again = c.each + sequences;
		c.best = c.equal + rows;
		status = learn(&c, stop, rates, err);
	} else {
		error_set(err, status, "no memory for the rates of a block");
	}
	*ret_start = c.start;
	free(c.each);
	free(c.equal);
	return status;
}
