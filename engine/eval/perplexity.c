#include "engine/eval/perplexity.h"

#include <math.h>

#include "engine/eval/windows.h"

static void add_up(void *context, int64_t index, const double *logprobs, int64_t n)
{
	double *sum = context;
	(void)index;
	for (int64_t t = 0; t < n; t++)
		*sum += logprobs[t];
}

enum status perplexity(const struct model *model, struct backend *backend, enum dtype type, const struct sequences *windows,
		       const atomic_bool *stop, struct progress *progress, double *ret, struct error *err)
{
	double sum = 0;
	TRY(windows_evaluate(model, backend, type, windows, stop, progress, add_up, &sum, err));
	double result = exp(-sum / (double)(windows->count * (windows->length - 1)));
	if (!isfinite(result)) return error_set(err, STATUS_NUMERIC, "the model's perplexity is not finite");
	*ret = result;
	return STATUS_OK;
}
