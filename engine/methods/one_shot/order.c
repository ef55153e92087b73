#include "engine/methods/one_shot/order.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/spec/sections.h"

enum { FEW_TOKENS = 128 }; /* what they show is within a quarter of what many do, and the costs grow by factors */

double order_correlation(const double *costs, int count)
{
	double squares = 0;
	for (int i = 0; i < count; i++) {
		int rank = 0; /* equal ones are in order: pruning what is zero already costs nothing */
		if (isnan(costs[i])) return NAN;
		for (int j = 0; j < count; j++)
			rank += costs[j] < costs[i] || (costs[j] == costs[i] && j < i);
		squares += (double)(rank - i) * (rank - i);
	}
	return 1 - 6 * squares / ((double)count * ((double)count * count - 1));
}

/* Those that are asked: the first `tokens` of so many sequences, or whole ones. */
struct few {
	int64_t sequences, tokens;
	double *each; /* the loss of each sequence */
};

/* The mean loss of the few where `eighths` of each row are pruned. */
static enum status find_loss(const struct block *block, struct mask *mask, const struct block_task *task, int eighths,
			     const struct few *few, double *ret, struct error *err)
{
	for (int i = 0; i < block->layout.n_linears; i++) {
		const struct linear *linear = &block->layout.linears[i];
		for (int64_t r = linear->row; r < linear->row + linear->rows; r++)
			mask->host_thresholds[r] = (int32_t)(linear->cols * eighths / ORDER_PARTS);
	}
	enum status status = mask_set(mask, block);
	if (status == STATUS_OK) status = mask_apply(mask, block, block->active);
	if (status != STATUS_OK) {
		*err = block->backend->error;
		return status;
	}
	TRY(task->losses(task->context, few->sequences, few->tokens, few->each, err));
	*ret = 0;
	for (int64_t i = 0; i < few->sequences; i++)
		*ret += few->each[i] / (double)few->sequences;
	return STATUS_OK;
}

static enum status warn(enum importance importance, const double *costs, double correlation, const struct block_task *task,
			struct error *err)
{
	const char *name = spec_importance_names[importance];
	char message[400];
	size_t used = (size_t)snprintf(message, sizeof message,
				       "the importance (%s) does not order its weights: pruned eighth by eighth, those that count "
				       "least first, they cost",
				       name);
	for (int i = 0; i < ORDER_STEPS; i++)
		used += (size_t)snprintf(message + used, sizeof message - used, "%s %.2g", i ? "," : "", costs[i]);
	snprintf(message + used, sizeof message - used, " of reconstruction loss, a rank correlation of %.2f", correlation);
	return task->find(task->context, &(struct finding){DIAGNOSIS_ORDER, correlation, message}, err);
}

enum status order_check(const struct method_setup *setup, enum importance importance, struct mask *mask,
			const struct block_task *task, struct error *err)
{
	bool none_goes = llround(task->target * (double)setup->block->layout.params) == 0;
	if (!task->input || setup->spec->pattern.of || none_goes) return STATUS_OK;
	int64_t tokens = task->input->tokens;
	struct few few = {(FEW_TOKENS + tokens - 1) / tokens, tokens < FEW_TOKENS ? tokens : FEW_TOKENS, NULL};
	if (few.sequences > task->input->sequences) few.sequences = task->input->sequences;
	few.each = malloc((size_t)few.sequences * sizeof *few.each);
	if (!few.each)
		return error_set(err, STATUS_NO_MEMORY, "no memory for the losses of %lld sequences", (long long)few.sequences);
	double costs[ORDER_STEPS], last, loss;
	enum status status = find_loss(setup->block, mask, task, 0, &few, &last, err);
	for (int i = 0; status == STATUS_OK && i < ORDER_STEPS; i++, last = loss) {
		status = find_loss(setup->block, mask, task, i + 1, &few, &loss, err);
		costs[i] = loss - last;
	}
	free(few.each);
	if (status != STATUS_OK) return status;
	double correlation = order_correlation(costs, ORDER_STEPS);
	/* Not of a block whose outputs are no numbers: that has an error of its own. */
	return correlation < diagnosis_rules[DIAGNOSIS_ORDER].threshold ? warn(importance, costs, correlation, task, err)
									: STATUS_OK;
}
