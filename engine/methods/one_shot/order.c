#include "engine/methods/one_shot/order.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/spec/sections.h"

enum { FEW_TOKENS = 512 }; /* so many show what an eighth of the weights costs to some per cent */

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

/* The mean loss of the first sequences where `eighths` of each row are pruned. */
static enum status find_loss(const struct block *block, struct mask *mask, const struct block_task *task, int eighths,
			     int64_t sequences, double *each, double *ret, struct error *err)
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
	TRY(task->losses(task->context, sequences, each, err));
	*ret = 0;
	for (int64_t i = 0; i < sequences; i++)
		*ret += each[i] / (double)sequences;
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
	int64_t sequences = (FEW_TOKENS + task->input->tokens - 1) / task->input->tokens;
	if (sequences > task->input->sequences) sequences = task->input->sequences;
	double costs[ORDER_STEPS], last, loss, *each = malloc((size_t)sequences * sizeof *each);
	if (!each) return error_set(err, STATUS_NO_MEMORY, "no memory for the losses of %lld sequences", (long long)sequences);
	enum status status = find_loss(setup->block, mask, task, 0, sequences, each, &last, err);
	for (int i = 0; status == STATUS_OK && i < ORDER_STEPS; i++, last = loss) {
		status = find_loss(setup->block, mask, task, i + 1, sequences, each, &loss, err);
		costs[i] = loss - last;
	}
	free(each);
	if (status != STATUS_OK) return status;
	double correlation = order_correlation(costs, ORDER_STEPS);
	/* Not of a block whose outputs are no numbers: that has an error of its own. */
	return correlation < diagnosis_rules[DIAGNOSIS_ORDER].threshold ? warn(importance, costs, correlation, task, err)
									: STATUS_OK;
}
