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

static double mean(double sum, const struct sequences *windows)
{
	return -sum / (double)(windows->count * (windows->length - 1));
}

static enum status of_loss(double loss, double *ret, struct error *err)
{
	double result = exp(loss);
	if (!isfinite(result)) return error_set(err, STATUS_NUMERIC, "the model's perplexity is not finite");
	*ret = result;
	return STATUS_OK;
}

enum status mean_loss(const struct model *model, struct backend *backend, enum dtype type, const struct sequences *windows,
		      const atomic_bool *stop, struct progress *progress, double *ret, struct error *err)
{
	double sum = 0;
	const struct window_set set = {windows, add_up, &sum};
	TRY(windows_evaluate(model, backend, type, &set, 1, stop, progress, err));
	*ret = mean(sum, windows);
	return STATUS_OK;
}

enum status perplexity(const struct model *model, struct backend *backend, enum dtype type, const struct sequences *windows,
		       const atomic_bool *stop, struct progress *progress, double *ret, struct error *err)
{
	double loss;
	TRY(mean_loss(model, backend, type, windows, stop, progress, &loss, err));
	return of_loss(loss, ret, err);
}

enum status perplexity_beside(const struct model *model, struct backend *backend, enum dtype type, const struct sequences *windows,
			      const struct sequences *beside, const atomic_bool *stop, struct progress *progress, double *ret,
			      double *ret_loss, struct error *err)
{
	double sum = 0, sum_beside = 0;
	const struct window_set sets[] = {{windows, add_up, &sum}, {beside, add_up, &sum_beside}};
	TRY(windows_evaluate(model, backend, type, sets, 2, stop, progress, err));
	*ret_loss = mean(sum_beside, beside);
	return of_loss(mean(sum, windows), ret, err);
}
