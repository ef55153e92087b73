/* The n-th operation of a backend fails, as those of a device that is lost. Takes its turn with tests/unit/failing.h. */
#ifndef BESAD_TESTS_FAILING_BACKEND_H
#define BESAD_TESTS_FAILING_BACKEND_H

#include "engine/compute/backend.h"
#include "tests/unit/failing.h"

static struct backend_ops failing_operations;

/* What a failed operation says. */
#define FAILING_DEVICE "the device is lost"

#define FAILING_OPERATION(operation, parameters, arguments)                                                                        \
	static enum status failing_##operation parameters                                                                          \
	{                                                                                                                          \
		if (!failing_meet(FAILING_OPERATIONS)) return failing_operations.operation arguments;                              \
		return error_set(&backend->error, STATUS_BACKEND, "%s: " FAILING_DEVICE, #operation);                              \
	}

FAILING_OPERATION(alloc, (struct backend * backend, size_t bytes, void **ret), (backend, bytes, ret))
FAILING_OPERATION(upload, (struct backend * backend, void *device, const void *host, size_t bytes), (backend, device, host, bytes))
FAILING_OPERATION(download, (struct backend * backend, void *host, const void *device, size_t bytes),
		  (backend, host, device, bytes))
FAILING_OPERATION(alloc_host, (struct backend * backend, size_t bytes, void **ret), (backend, bytes, ret))
FAILING_OPERATION(fetch, (struct backend * backend, void *device, const void *host, size_t bytes), (backend, device, host, bytes))
FAILING_OPERATION(fetched, (struct backend * backend), (backend))
FAILING_OPERATION(copy, (struct backend * backend, void *to, const void *from, size_t bytes), (backend, to, from, bytes))
FAILING_OPERATION(zero, (struct backend * backend, void *device, size_t bytes), (backend, device, bytes))
FAILING_OPERATION(sync, (struct backend * backend), (backend))
FAILING_OPERATION(convert, (struct backend * backend, struct tensor to, struct tensor from), (backend, to, from))
FAILING_OPERATION(matmul,
		  (struct backend * backend, struct tensor c, struct tensor a, bool transpose_a, struct tensor b, bool transpose_b,
		   bool accumulate),
		  (backend, c, a, transpose_a, b, transpose_b, accumulate))
FAILING_OPERATION(matmul_onto,
		  (struct backend * backend, struct tensor c, struct tensor a, bool transpose_a, struct tensor b, bool transpose_b,
		   struct tensor addend),
		  (backend, c, a, transpose_a, b, transpose_b, addend))
FAILING_OPERATION(add_bias, (struct backend * backend, struct tensor y, struct tensor bias), (backend, y, bias))
FAILING_OPERATION(add, (struct backend * backend, struct tensor y, struct tensor x), (backend, y, x))
FAILING_OPERATION(embed, (struct backend * backend, struct tensor out, struct tensor table, const void *ids, float scale),
		  (backend, out, table, ids, scale))
FAILING_OPERATION(norm_forward,
		  (struct backend * backend, const struct norm *norm, struct tensor y, struct tensor stats, struct tensor x,
		   struct tensor weight, struct tensor bias),
		  (backend, norm, y, stats, x, weight, bias))
FAILING_OPERATION(norm_backward,
		  (struct backend * backend, const struct norm *norm, struct tensor dx, struct tensor dy, struct tensor x,
		   struct tensor stats, struct tensor weight, bool accumulate),
		  (backend, norm, dx, dy, x, stats, weight, accumulate))
FAILING_OPERATION(norm_gradient,
		  (struct backend * backend, const struct norm *norm, struct tensor dweight, struct tensor dbias, struct tensor dy,
		   struct tensor x, struct tensor stats),
		  (backend, norm, dweight, dbias, dy, x, stats))
FAILING_OPERATION(column_sums, (struct backend * backend, struct tensor sums, struct tensor x), (backend, sums, x))
FAILING_OPERATION(rope, (struct backend * backend, const struct rotation *rotation, struct tensor x, struct tensor table),
		  (backend, rotation, x, table))
FAILING_OPERATION(attention_forward,
		  (struct backend * backend, const struct attention *attention, struct tensor out, struct tensor lse,
		   struct tensor q, struct tensor k, struct tensor v),
		  (backend, attention, out, lse, q, k, v))
FAILING_OPERATION(attention_backward,
		  (struct backend * backend, const struct attention *attention, struct tensor dq, struct tensor dk,
		   struct tensor dv, struct tensor q, struct tensor k, struct tensor v, struct tensor out, struct tensor lse,
		   struct tensor dout),
		  (backend, attention, dq, dk, dv, q, k, v, out, lse, dout))
FAILING_OPERATION(attention_sinks,
		  (struct backend * backend, const struct attention *attention, struct tensor out, struct tensor lse,
		   struct tensor sinks),
		  (backend, attention, out, lse, sinks))
FAILING_OPERATION(activation_forward,
		  (struct backend * backend, struct activation activation, struct tensor y, struct tensor gate, struct tensor up),
		  (backend, activation, y, gate, up))
FAILING_OPERATION(activation_backward,
		  (struct backend * backend, struct activation activation, struct tensor dgate, struct tensor dup, struct tensor dy,
		   struct tensor gate, struct tensor up),
		  (backend, activation, dgate, dup, dy, gate, up))
FAILING_OPERATION(route,
		  (struct backend * backend, const struct routing *routing, struct tensor weights, void *experts, void *counts,
		   void *places, void *sources, struct tensor logits),
		  (backend, routing, weights, experts, counts, places, sources, logits))
FAILING_OPERATION(dispatch,
		  (struct backend * backend, struct tensor to, struct tensor from, const void *sources, int chosen,
		   struct tensor scale),
		  (backend, to, from, sources, chosen, scale))
FAILING_OPERATION(combine,
		  (struct backend * backend, struct tensor to, struct tensor from, const void *places, int chosen,
		   struct tensor scale, bool accumulate),
		  (backend, to, from, places, chosen, scale, accumulate))
FAILING_OPERATION(route_backward,
		  (struct backend * backend, const struct routing *routing, struct tensor dlogits, struct tensor logits,
		   struct tensor weights, const void *experts, const void *places, struct tensor dy, struct tensor outputs),
		  (backend, routing, dlogits, logits, weights, experts, places, dy, outputs))
FAILING_OPERATION(column_norms, (struct backend * backend, void *sums, struct tensor x), (backend, sums, x))
FAILING_OPERATION(add_saliency, (struct backend * backend, struct tensor scores, struct tensor gradient, struct tensor weight),
		  (backend, scores, gradient, weight))
FAILING_OPERATION(rank_rows,
		  (struct backend * backend, enum importance importance, struct tensor rank, struct tensor weight, const void *sums,
		   double sequences),
		  (backend, importance, rank, weight, sums, sequences))
FAILING_OPERATION(rank_groups,
		  (struct backend * backend, enum importance importance, struct tensor rank, struct tensor weight, const void *sums,
		   double sequences, int of),
		  (backend, importance, rank, weight, sums, sequences, of))
FAILING_OPERATION(bin_ranks,
		  (struct backend * backend, struct tensor bin, struct tensor rank, int candidates, int below, int above),
		  (backend, bin, rank, candidates, below, above))
FAILING_OPERATION(mask_weights,
		  (struct backend * backend, struct tensor out, struct tensor weight, struct tensor rank, const void *threshold,
		   bool shared),
		  (backend, out, weight, rank, threshold, shared))
FAILING_OPERATION(order_ranks, (struct backend * backend, struct tensor order, struct tensor rank), (backend, order, rank))
FAILING_OPERATION(move_mask,
		  (struct backend * backend, struct tensor out, struct tensor weight, struct tensor rank, struct tensor order,
		   void *held, const void *threshold, bool shared),
		  (backend, out, weight, rank, order, held, threshold, shared))
FAILING_OPERATION(binned_gradient,
		  (struct backend * backend, struct tensor sums, struct tensor dy, struct tensor x, struct tensor weight,
		   struct tensor bin, bool shared),
		  (backend, sums, dy, x, weight, bin, shared))
FAILING_OPERATION(invert_factor,
		  (struct backend * backend, struct tensor inverse, struct tensor negated, struct tensor a, void *bad),
		  (backend, inverse, negated, a, bad))
FAILING_OPERATION(prune_columns,
		  (struct backend * backend, struct tensor weight, struct tensor negated_error, struct tensor factor, int64_t zeros,
		   const struct pattern *pattern),
		  (backend, weight, negated_error, factor, zeros, pattern))
FAILING_OPERATION(scale,
		  (struct backend * backend, struct tensor y, struct tensor x, const void *rows, const void *cols, float factor,
		   bool accumulate),
		  (backend, y, x, rows, cols, factor, accumulate))
FAILING_OPERATION(project,
		  (struct backend * backend, struct tensor w, struct tensor u, struct tensor rhs, struct tensor b, float rho,
		   const struct cut *cut),
		  (backend, w, u, rhs, b, rho, cut))
FAILING_OPERATION(keep_where, (struct backend * backend, struct tensor out, struct tensor weight, struct tensor support),
		  (backend, out, weight, support))
FAILING_OPERATION(conjugate_start,
		  (struct backend * backend, struct tensor r, struct tensor p, void *energy, struct tensor target,
		   struct tensor product, struct tensor support, struct tensor diagonal, float lambda),
		  (backend, r, p, energy, target, product, support, diagonal, lambda))
FAILING_OPERATION(conjugate_step,
		  (struct backend * backend, struct tensor x, struct tensor r, struct tensor p, void *energy, struct tensor product,
		   struct tensor support, struct tensor diagonal, float lambda),
		  (backend, x, r, p, energy, product, support, diagonal, lambda))
FAILING_OPERATION(quantize,
		  (struct backend * backend, const struct grid *grid, struct tensor out, struct tensor steps, struct tensor zeros,
		   struct tensor weight, struct tensor strength),
		  (backend, grid, out, steps, zeros, weight, strength))
FAILING_OPERATION(quantize_columns,
		  (struct backend * backend, const struct grid *grid, struct tensor weight, struct tensor negated_error,
		   struct tensor support, struct tensor factor, struct tensor steps, struct tensor zeros),
		  (backend, grid, weight, negated_error, support, factor, steps, zeros))
FAILING_OPERATION(quantize_backward,
		  (struct backend * backend, const struct grid *grid, struct tensor dstrength, struct tensor g,
		   struct tensor weight, struct tensor steps, struct tensor zeros, struct tensor strength),
		  (backend, grid, dstrength, g, weight, steps, zeros, strength))
FAILING_OPERATION(rates_forward,
		  (struct backend * backend, const struct rates *rates, struct tensor beta, void *s, void *threshold, void *stats,
		   struct tensor theta, double target, double lambda),
		  (backend, rates, beta, s, threshold, stats, theta, target, lambda))
FAILING_OPERATION(rates_backward,
		  (struct backend * backend, const struct rates *rates, struct tensor dtheta, struct tensor theta,
		   struct tensor beta, struct tensor sums, const void *stats),
		  (backend, rates, dtheta, theta, beta, sums, stats))
FAILING_OPERATION(reconstruction,
		  (struct backend * backend, void *stats, struct tensor dy, struct tensor y, struct tensor ref, bool accumulate),
		  (backend, stats, dy, y, ref, accumulate))
FAILING_OPERATION(weighted_error,
		  (struct backend * backend, void *stats, struct tensor dy, struct tensor y, struct tensor ref,
		   struct tensor weight, double factor, bool accumulate),
		  (backend, stats, dy, y, ref, weight, factor, accumulate))
FAILING_OPERATION(divergence,
		  (struct backend * backend, void *stats, struct tensor dlogits, struct tensor logits, struct tensor wanted,
		   float softcap, double factor, bool accumulate),
		  (backend, stats, dlogits, logits, wanted, softcap, factor, accumulate))
FAILING_OPERATION(prodigy_step,
		  (struct backend * backend, const struct prodigy *prodigy, int64_t n, void *theta, const void *theta0, void *m,
		   void *v, void *s, const void *gradient, void *state),
		  (backend, prodigy, n, theta, theta0, m, v, s, gradient, state))
FAILING_OPERATION(adamw_step,
		  (struct backend * backend, const struct adamw *adamw, struct tensor theta, struct tensor m, struct tensor v,
		   struct tensor gradient, struct tensor copy),
		  (backend, adamw, theta, m, v, gradient, copy))
FAILING_OPERATION(token_logprobs, (struct backend * backend, void *out, struct tensor logits, const void *targets, float softcap),
		  (backend, out, logits, targets, softcap))

/* From now on the operations of this backend are those above, behind the checks as ever. One at a time. */
static void failing_backend(struct backend *backend)
{
	failing_operations = backend->unchecked;
#define PUT(operation)                                                                                                             \
	if (failing_operations.operation) backend->unchecked.operation = failing_##operation
	PUT(alloc);
	PUT(upload);
	PUT(download);
	PUT(alloc_host);
	PUT(fetch);
	PUT(fetched);
	PUT(copy);
	PUT(zero);
	PUT(sync);
	PUT(convert);
	PUT(matmul);
	PUT(matmul_onto);
	PUT(add_bias);
	PUT(add);
	PUT(embed);
	PUT(norm_forward);
	PUT(norm_backward);
	PUT(norm_gradient);
	PUT(column_sums);
	PUT(rope);
	PUT(attention_forward);
	PUT(attention_backward);
	PUT(attention_sinks);
	PUT(activation_forward);
	PUT(activation_backward);
	PUT(route);
	PUT(dispatch);
	PUT(combine);
	PUT(route_backward);
	PUT(column_norms);
	PUT(add_saliency);
	PUT(rank_rows);
	PUT(rank_groups);
	PUT(bin_ranks);
	PUT(mask_weights);
	PUT(order_ranks);
	PUT(move_mask);
	PUT(binned_gradient);
	PUT(invert_factor);
	PUT(prune_columns);
	PUT(scale);
	PUT(project);
	PUT(keep_where);
	PUT(conjugate_start);
	PUT(conjugate_step);
	PUT(quantize);
	PUT(quantize_columns);
	PUT(quantize_backward);
	PUT(rates_forward);
	PUT(rates_backward);
	PUT(reconstruction);
	PUT(weighted_error);
	PUT(divergence);
	PUT(prodigy_step);
	PUT(adamw_step);
	PUT(token_logprobs);
#undef PUT
	backend_check_operations(backend);
}

#endif
