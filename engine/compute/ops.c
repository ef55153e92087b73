/* The checked front of every backend: what backend->ops points at. An operation's operands are checked here, once, and the
 * backend's own function, which trusts them, is called. A refusal names the operation and all sizes: STATUS_INTERNAL, or
 * STATUS_INVALID for a limit that a model's size can pass. */
#include "engine/compute/backend.h"

#include <stdio.h>

struct operand {
	const char *name;
	struct tensor tensor;
};

static const char *type_name(enum dtype type)
{
	static const char *const names[] = {"F32", "BF16", "F16", "F64", "I64", "I32", "U16", "U8"};
	return (size_t)type < sizeof names / sizeof *names ? names[type] : "an unknown type";
}

/* "matmul: these do not fit: c [2, 3] F32, a [2, 4] F32, …": every operand, its strides where rows have gaps. */
static enum status refuse(struct backend *backend, const char *operation, const struct operand *operands, size_t count)
{
	char text[sizeof backend->error.message];
	size_t used = 0;
	for (size_t i = 0; i < count && used < sizeof text; i++) {
		const struct tensor *t = &operands[i].tensor;
		used += (size_t)snprintf(text + used, sizeof text - used, "%s%s [%lld, %lld] %s", i ? ", " : "", operands[i].name,
					 (long long)t->rows, (long long)t->cols, type_name(t->dtype));
		if (used < sizeof text && t->stride != t->cols)
			used += (size_t)snprintf(text + used, sizeof text - used, " stride %lld", (long long)t->stride);
		if (used < sizeof text && !t->data) used += (size_t)snprintf(text + used, sizeof text - used, " without data");
	}
	return error_set(&backend->error, STATUS_INTERNAL, "%s: these do not fit: %s", operation, text);
}

#define CHECK(backend, operation, fits, ...)                                                                                       \
	do {                                                                                                                       \
		const struct operand operands_[] = {__VA_ARGS__};                                                                  \
		if (!(fits)) return refuse(backend, operation, operands_, sizeof operands_ / sizeof *operands_);                   \
	} while (0)

#define CHECK_POINTER(backend, operation, pointer)                                                                                 \
	do {                                                                                                                       \
		if (!(pointer)) return error_set(&(backend)->error, STATUS_INTERNAL, "%s: %s is NULL", operation, #pointer);       \
	} while (0)

static bool valid(struct tensor t)
{
	return t.rows >= 0 && t.cols >= 0 && t.stride >= t.cols && (t.data || !t.rows || !t.cols);
}

static bool typed(struct tensor t, enum dtype type)
{
	return valid(t) && t.dtype == type;
}

static bool floats(struct tensor t)
{
	return valid(t) && (t.dtype == DTYPE_F32 || t.dtype == DTYPE_BF16 || t.dtype == DTYPE_F16);
}

static bool sized(struct tensor t, int64_t rows, int64_t cols)
{
	return t.rows == rows && t.cols == cols;
}

static bool same(struct tensor a, struct tensor b)
{
	return sized(a, b.rows, b.cols);
}

static enum status convert(struct backend *backend, struct tensor to, struct tensor from)
{
	CHECK(backend, "convert", floats(to) && floats(from) && same(to, from), {"to", to}, {"from", from});
	return backend->unchecked.convert(backend, to, from);
}

static enum status matmul(struct backend *backend, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			  bool transpose_b, bool accumulate)
{
	int64_t m = transpose_a ? a.cols : a.rows, a_inner = transpose_a ? a.rows : a.cols;
	int64_t n = transpose_b ? b.rows : b.cols, b_inner = transpose_b ? b.cols : b.rows;
	bool fits = floats(c) && floats(a) && floats(b) && a.dtype == b.dtype && a_inner == b_inner && sized(c, m, n);
	CHECK(backend, "matmul", fits, {"c", c}, {transpose_a ? "aᵀ of" : "a", a}, {transpose_b ? "bᵀ of" : "b", b});
	return backend->unchecked.matmul(backend, c, a, transpose_a, b, transpose_b, accumulate);
}

static enum status matmul_onto(struct backend *backend, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			       bool transpose_b, struct tensor addend)
{
	int64_t m = transpose_a ? a.cols : a.rows, a_inner = transpose_a ? a.rows : a.cols;
	int64_t n = transpose_b ? b.rows : b.cols, b_inner = transpose_b ? b.cols : b.rows;
	bool fits = floats(c) && floats(a) && floats(b) && a.dtype == b.dtype && a_inner == b_inner && sized(c, m, n) &&
		    (c.dtype == DTYPE_F32 || c.dtype == a.dtype) && typed(addend, c.dtype) && same(addend, c);
	CHECK(backend, "matmul_onto", fits, {"c", c}, {transpose_a ? "aᵀ of" : "a", a}, {transpose_b ? "bᵀ of" : "b", b},
	      {"addend", addend});
	return backend->unchecked.matmul_onto(backend, c, a, transpose_a, b, transpose_b, addend);
}

static enum status add_bias(struct backend *backend, struct tensor y, struct tensor bias)
{
	CHECK(backend, "add_bias", floats(y) && floats(bias) && sized(bias, 1, y.cols), {"y", y}, {"bias", bias});
	return backend->unchecked.add_bias(backend, y, bias);
}

static enum status add(struct backend *backend, struct tensor y, struct tensor x)
{
	CHECK(backend, "add", floats(y) && floats(x) && same(y, x), {"y", y}, {"x", x});
	return backend->unchecked.add(backend, y, x);
}

static enum status embed(struct backend *backend, struct tensor out, struct tensor table, const void *ids, float scale)
{
	CHECK(backend, "embed", floats(out) && floats(table) && out.cols == table.cols, {"out", out}, {"table", table});
	CHECK_POINTER(backend, "embed", ids);
	return backend->unchecked.embed(backend, out, table, ids, scale);
}

static bool norm_fits(const struct norm *norm, struct tensor x, struct tensor stats, struct tensor weight)
{
	return norm->groups > 0 && floats(x) && x.cols > 0 && x.cols % norm->groups == 0 && typed(stats, DTYPE_F32) &&
	       sized(stats, x.rows, 2 * (int64_t)norm->groups) && typed(weight, DTYPE_F32) &&
	       sized(weight, 1, x.cols / norm->groups);
}

static enum status norm_forward(struct backend *backend, const struct norm *norm, struct tensor y, struct tensor stats,
				struct tensor x, struct tensor weight, struct tensor bias)
{
	bool fits = norm_fits(norm, x, stats, weight) && floats(y) && same(y, x) &&
		    (!bias.data || (typed(bias, DTYPE_F32) && same(bias, weight)));
	CHECK(backend, "norm_forward", fits, {"y", y}, {"stats", stats}, {"x", x}, {"weight", weight}, {"bias", bias});
	return backend->unchecked.norm_forward(backend, norm, y, stats, x, weight, bias);
}

static enum status norm_backward(struct backend *backend, const struct norm *norm, struct tensor dx, struct tensor dy,
				 struct tensor x, struct tensor stats, struct tensor weight, bool accumulate)
{
	bool fits = norm_fits(norm, x, stats, weight) && typed(dx, DTYPE_F32) && same(dx, x) && floats(dy) && same(dy, x);
	CHECK(backend, "norm_backward", fits, {"dx", dx}, {"dy", dy}, {"x", x}, {"stats", stats}, {"weight", weight});
	return backend->unchecked.norm_backward(backend, norm, dx, dy, x, stats, weight, accumulate);
}

static enum status norm_gradient(struct backend *backend, const struct norm *norm, struct tensor dweight, struct tensor dbias,
				 struct tensor dy, struct tensor x, struct tensor stats)
{
	bool fits = norm_fits(norm, x, stats, dweight) && floats(dy) && same(dy, x) &&
		    (!dbias.data || (typed(dbias, DTYPE_F32) && same(dbias, dweight)));
	CHECK(backend, "norm_gradient", fits, {"dweight", dweight}, {"dbias", dbias}, {"dy", dy}, {"x", x}, {"stats", stats});
	return backend->unchecked.norm_gradient(backend, norm, dweight, dbias, dy, x, stats);
}

static enum status column_sums(struct backend *backend, struct tensor sums, struct tensor x)
{
	CHECK(backend, "column_sums", typed(sums, DTYPE_F32) && sized(sums, 1, x.cols) && floats(x), {"sums", sums}, {"x", x});
	return backend->unchecked.column_sums(backend, sums, x);
}

static enum status rope(struct backend *backend, const struct rotation *rotation, struct tensor x, struct tensor table)
{
	int head_dim = rotation->head_dim, rotary = rotation->rotary;
	bool fits = floats(x) && typed(table, DTYPE_F32) && head_dim > 0 && x.cols % head_dim == 0 && rotary >= 0 &&
		    rotary % 2 == 0 && rotary <= head_dim && table.rows > 0 && table.cols == rotary;
	struct tensor sizes = {x.data, head_dim, rotary, rotary, DTYPE_F32};
	CHECK(backend, "rope", fits, {"x", x}, {"table", table}, {"(head_dim, rotary) =", sizes});
	return backend->unchecked.rope(backend, rotation, x, table);
}

static bool attention_fits(const struct attention *a, struct tensor q, struct tensor k, struct tensor v, struct tensor out,
			   struct tensor lse)
{
	if (a->batch <= 0 || a->tokens <= 0 || a->kv_heads <= 0 || a->heads <= 0 || a->head_dim <= 0 || a->heads % a->kv_heads ||
	    a->window < 0)
		return false;
	int64_t rows = (int64_t)a->batch * a->tokens;
	int64_t q_cols = (int64_t)a->heads * a->head_dim, k_cols = (int64_t)a->kv_heads * a->head_dim;
	return floats(q) && floats(k) && floats(v) && floats(out) && q.dtype == k.dtype && q.dtype == v.dtype &&
	       q.dtype == out.dtype && sized(q, rows, q_cols) && sized(k, rows, k_cols) && sized(v, rows, k_cols) &&
	       sized(out, rows, q_cols) && typed(lse, DTYPE_F32) && sized(lse, (int64_t)a->batch * a->heads, a->tokens);
}

#define ATTENTION_SIZES(a)                                                                                                         \
	{"(batch, tokens) =", {q.data, (a)->batch, (a)->tokens, (a)->tokens, DTYPE_F32}},                                          \
		{"(heads, kv_heads) =", {q.data, (a)->heads, (a)->kv_heads, (a)->kv_heads, DTYPE_F32}},                            \
	{                                                                                                                          \
		"(head_dim, window) =",                                                                                            \
		{                                                                                                                  \
			q.data, (a)->head_dim, (a)->window, (a)->window, DTYPE_F32                                                 \
		}                                                                                                                  \
	}

static enum status attention_forward(struct backend *backend, const struct attention *shape, struct tensor out, struct tensor lse,
				     struct tensor q, struct tensor k, struct tensor v)
{
	CHECK(backend, "attention_forward", attention_fits(shape, q, k, v, out, lse), {"out", out}, {"lse", lse}, {"q", q},
	      {"k", k}, {"v", v}, ATTENTION_SIZES(shape));
	return backend->unchecked.attention_forward(backend, shape, out, lse, q, k, v);
}

static enum status attention_backward(struct backend *backend, const struct attention *shape, struct tensor dq, struct tensor dk,
				      struct tensor dv, struct tensor q, struct tensor k, struct tensor v, struct tensor out,
				      struct tensor lse, struct tensor dout)
{
	bool fits = attention_fits(shape, q, k, v, out, lse) && floats(dq) && same(dq, q) && floats(dk) && same(dk, k) &&
		    floats(dv) && same(dv, v) && floats(dout) && same(dout, out) && dq.dtype == q.dtype && dk.dtype == q.dtype &&
		    dv.dtype == q.dtype && dout.dtype == q.dtype;
	CHECK(backend, "attention_backward", fits, {"dq", dq}, {"dk", dk}, {"dv", dv}, {"q", q}, {"k", k}, {"v", v}, {"out", out},
	      {"lse", lse}, {"dout", dout}, ATTENTION_SIZES(shape));
	return backend->unchecked.attention_backward(backend, shape, dq, dk, dv, q, k, v, out, lse, dout);
}

static enum status attention_sinks(struct backend *backend, const struct attention *shape, struct tensor out, struct tensor lse,
				   struct tensor sinks)
{
	bool fits = shape->batch > 0 && shape->tokens > 0 && shape->heads > 0 && floats(out) && typed(lse, DTYPE_F32) &&
		    sized(out, (int64_t)shape->batch * shape->tokens, (int64_t)shape->heads * shape->head_dim) &&
		    sized(lse, (int64_t)shape->batch * shape->heads, shape->tokens) && typed(sinks, DTYPE_F32) &&
		    sized(sinks, 1, shape->heads);
	CHECK(backend, "attention_sinks", fits, {"out", out}, {"lse", lse}, {"sinks", sinks});
	return backend->unchecked.attention_sinks(backend, shape, out, lse, sinks);
}

/* Whether it takes what it is given: one of them has no product with up to leave out. */
static bool activation_takes(struct activation activation, struct tensor up)
{
	return activation.kind != ACTIVATION_CLAMPED_SWIGLU || (up.data && activation.alpha > 0 && activation.limit > 0);
}

static enum status activation_forward(struct backend *backend, struct activation activation, struct tensor y, struct tensor gate,
				      struct tensor up)
{
	bool fits = activation_takes(activation, up) && floats(y) && floats(gate) && same(y, gate) &&
		    (!up.data || (floats(up) && same(up, gate)));
	CHECK(backend, "activation_forward", fits, {"y", y}, {"gate", gate}, {"up", up});
	return backend->unchecked.activation_forward(backend, activation, y, gate, up);
}

static enum status activation_backward(struct backend *backend, struct activation activation, struct tensor dgate,
				       struct tensor dup, struct tensor dy, struct tensor gate, struct tensor up)
{
	bool fits = activation_takes(activation, up) && floats(dgate) && floats(dy) && floats(gate) && same(dgate, gate) &&
		    same(dy, gate) && (!up.data || (floats(up) && same(up, gate) && floats(dup) && same(dup, gate)));
	CHECK(backend, "activation_backward", fits, {"dgate", dgate}, {"dup", dup}, {"dy", dy}, {"gate", gate}, {"up", up});
	return backend->unchecked.activation_backward(backend, activation, dgate, dup, dy, gate, up);
}

static bool routing_fits(const struct routing *routing, struct tensor weights, struct tensor logits)
{
	return routing->experts > 0 && routing->experts <= ROUTE_MAX_EXPERTS && routing->chosen > routing->shared &&
	       routing->chosen <= routing->experts && floats(logits) && logits.cols == routing->experts &&
	       typed(weights, DTYPE_F32) && sized(weights, logits.rows, routing->chosen);
}

static enum status route(struct backend *backend, const struct routing *routing, struct tensor weights, void *experts, void *counts,
			 void *places, void *sources, struct tensor logits)
{
	CHECK(backend, "route", routing_fits(routing, weights, logits), {"weights", weights}, {"logits", logits});
	CHECK_POINTER(backend, "route", experts);
	CHECK_POINTER(backend, "route", counts);
	CHECK_POINTER(backend, "route", places);
	CHECK_POINTER(backend, "route", sources);
	return backend->unchecked.route(backend, routing, weights, experts, counts, places, sources, logits);
}

/* The weights of `chosen` choices, without gaps, or none. */
static bool scale_fits(struct tensor scale, int chosen)
{
	return !scale.data || (typed(scale, DTYPE_F32) && scale.cols == chosen && scale.stride == chosen);
}

static enum status dispatch(struct backend *backend, struct tensor to, struct tensor from, const void *sources, int chosen,
			    struct tensor scale)
{
	bool fits = floats(to) && floats(from) && to.cols == from.cols && chosen > 0 && scale_fits(scale, chosen) &&
		    (!scale.data || scale.rows == from.rows);
	CHECK(backend, "dispatch", fits, {"to", to}, {"from", from}, {"scale", scale});
	CHECK_POINTER(backend, "dispatch", sources);
	return backend->unchecked.dispatch(backend, to, from, sources, chosen, scale);
}

static enum status combine(struct backend *backend, struct tensor to, struct tensor from, const void *places, int chosen,
			   struct tensor scale, bool accumulate)
{
	bool fits = floats(to) && floats(from) && to.cols == from.cols && chosen > 0 && scale_fits(scale, chosen) &&
		    (!scale.data || scale.rows == to.rows);
	CHECK(backend, "combine", fits, {"to", to}, {"from", from}, {"scale", scale});
	CHECK_POINTER(backend, "combine", places);
	return backend->unchecked.combine(backend, to, from, places, chosen, scale, accumulate);
}

static enum status route_backward(struct backend *backend, const struct routing *routing, struct tensor dlogits,
				  struct tensor logits, struct tensor weights, const void *experts, const void *places,
				  struct tensor dy, struct tensor outputs)
{
	bool fits = routing_fits(routing, weights, logits) && floats(dlogits) && same(dlogits, logits) && floats(dy) &&
		    floats(outputs) && dy.rows == logits.rows && dy.cols == outputs.cols;
	CHECK(backend, "route_backward", fits, {"dlogits", dlogits}, {"logits", logits}, {"weights", weights}, {"dy", dy},
	      {"outputs", outputs});
	CHECK_POINTER(backend, "route_backward", experts);
	CHECK_POINTER(backend, "route_backward", places);
	return backend->unchecked.route_backward(backend, routing, dlogits, logits, weights, experts, places, dy, outputs);
}

static enum status column_norms(struct backend *backend, void *sums, struct tensor x)
{
	CHECK(backend, "column_norms", floats(x), {"x", x});
	CHECK_POINTER(backend, "column_norms", sums);
	return backend->unchecked.column_norms(backend, sums, x);
}

static enum status add_saliency(struct backend *backend, struct tensor scores, struct tensor gradient, struct tensor weight)
{
	CHECK(backend, "add_saliency",
	      typed(scores, DTYPE_F32) && typed(gradient, DTYPE_F32) && floats(weight) && same(gradient, scores) &&
		      same(weight, scores),
	      {"scores", scores}, {"gradient", gradient}, {"weight", weight});
	return backend->unchecked.add_saliency(backend, scores, gradient, weight);
}

/* A rank is 16 bits wide. */
static enum status check_rank_width(struct backend *backend, const char *operation, int64_t cols)
{
	if (cols <= 65536) return STATUS_OK;
	return error_set(&backend->error, STATUS_INVALID, "%s: a weight with %lld columns, at most 65536 can be ranked", operation,
			 (long long)cols);
}

static enum status check_ranking(struct backend *backend, const char *operation, enum importance importance, struct tensor rank,
				 struct tensor weight, const void *sums, double sequences)
{
	CHECK(backend, operation, typed(rank, DTYPE_U16) && floats(weight) && same(rank, weight), {"rank", rank},
	      {"weight", weight});
	if (importance > IMPORTANCE_MAGNITUDE)
		return error_set(&backend->error, STATUS_INTERNAL, "%s: by importance %d, which no backend knows", operation,
				 (int)importance);
	if (importance != IMPORTANCE_WANDA) return STATUS_OK;
	CHECK_POINTER(backend, operation, sums);
	if (!(sequences > 0)) return error_set(&backend->error, STATUS_INTERNAL, "%s: norms of %g sequences", operation, sequences);
	return STATUS_OK;
}

static enum status rank_rows(struct backend *backend, enum importance importance, struct tensor rank, struct tensor weight,
			     const void *sums, double sequences)
{
	TRY(check_ranking(backend, "rank_rows", importance, rank, weight, sums, sequences));
	TRY(check_rank_width(backend, "rank_rows", weight.cols));
	return backend->unchecked.rank_rows(backend, importance, rank, weight, sums, sequences);
}

static enum status check_candidates(struct backend *backend, const char *operation, int64_t candidates)
{
	if (candidates >= 2 && candidates <= 256) return STATUS_OK;
	return error_set(&backend->error, STATUS_INTERNAL, "%s: %lld candidate rates, not 2 to 256", operation,
			 (long long)candidates);
}

static enum status check_ends(struct backend *backend, const char *operation, int below, int above)
{
	if (below >= 0 && above >= 0 && (int64_t)below + above < CANDIDATES_WHOLE) return STATUS_OK;
	return error_set(&backend->error, STATUS_INTERNAL, "%s: candidates between %d and %d of %d", operation, below,
			 CANDIDATES_WHOLE - above, CANDIDATES_WHOLE);
}

static enum status bin_ranks(struct backend *backend, struct tensor bin, struct tensor rank, int candidates, int below, int above)
{
	CHECK(backend, "bin_ranks", typed(bin, DTYPE_U8) && typed(rank, DTYPE_U16) && same(bin, rank), {"bin", bin},
	      {"rank", rank});
	TRY(check_candidates(backend, "bin_ranks", candidates));
	TRY(check_ends(backend, "bin_ranks", below, above));
	TRY(check_rank_width(backend, "bin_ranks", rank.cols));
	return backend->unchecked.bin_ranks(backend, bin, rank, candidates, below, above);
}

static enum status rank_groups(struct backend *backend, enum importance importance, struct tensor rank, struct tensor weight,
			       const void *sums, double sequences, int of)
{
	TRY(check_ranking(backend, "rank_groups", importance, rank, weight, sums, sequences));
	if (of < 2 || of > PATTERN_MOST || weight.cols % of != 0)
		return error_set(&backend->error, STATUS_INTERNAL, "rank_groups: groups of %d in rows of %lld", of,
				 (long long)weight.cols);
	return backend->unchecked.rank_groups(backend, importance, rank, weight, sums, sequences, of);
}

static enum status invert_factor(struct backend *backend, struct tensor inverse, struct tensor negated, struct tensor a, void *bad)
{
	bool fits = typed(a, DTYPE_F32) && a.rows == a.cols && a.rows <= FACTOR_TILE && typed(inverse, DTYPE_F32) &&
		    same(inverse, a) && typed(negated, DTYPE_F32) && same(negated, a);
	CHECK(backend, "invert_factor", fits, {"inverse", inverse}, {"negated", negated}, {"a", a});
	CHECK_POINTER(backend, "invert_factor", bad);
	return backend->unchecked.invert_factor(backend, inverse, negated, a, bad);
}

static enum status prune_columns(struct backend *backend, struct tensor weight, struct tensor negated_error, struct tensor factor,
				 int64_t zeros, const struct pattern *pattern)
{
	int64_t n = weight.rows * weight.cols;
	bool fits = typed(weight, DTYPE_F32) && weight.cols <= PRUNE_COLUMNS && typed(negated_error, DTYPE_F32) &&
		    same(negated_error, weight) && typed(factor, DTYPE_F32) && sized(factor, weight.cols, weight.cols) &&
		    n <= UINT32_MAX;
	CHECK(backend, "prune_columns", fits, {"weight", weight}, {"negated_error", negated_error}, {"factor", factor});
	bool groups = pattern->of >= 2 && pattern->of <= PATTERN_MOST && weight.cols % pattern->of == 0 && pattern->keep >= 0 &&
		      pattern->keep <= pattern->of;
	if (pattern->of ? !groups : zeros < 0 || zeros > n)
		return error_set(&backend->error, STATUS_INTERNAL, "prune_columns: %lld zeros, or %d of each %d, of [%lld, %lld]",
				 (long long)zeros, pattern->keep, pattern->of, (long long)weight.rows, (long long)weight.cols);
	return backend->unchecked.prune_columns(backend, weight, negated_error, factor, zeros, pattern);
}

/* ---- ADMM and least squares -------------------------------------------------------------------------------------------------- */

/* Whether all are F32 of one shape. */
static bool alike(struct tensor first, const struct tensor *others, int n)
{
	bool fits = typed(first, DTYPE_F32);
	for (int i = 0; i < n; i++)
		fits = fits && typed(others[i], DTYPE_F32) && same(others[i], first);
	return fits;
}

static enum status scale(struct backend *backend, struct tensor y, struct tensor x, const void *rows, const void *cols,
			 float factor, bool accumulate)
{
	CHECK(backend, "scale", alike(y, &x, 1), {"y", y}, {"x", x});
	return backend->unchecked.scale(backend, y, x, rows, cols, factor, accumulate);
}

static enum status project(struct backend *backend, struct tensor w, struct tensor u, struct tensor rhs, struct tensor b, float rho,
			   const struct cut *cut)
{
	int64_t n = w.rows * w.cols;
	CHECK(backend, "project", alike(w, (struct tensor[]){u, rhs, b}, 3) && n <= UINT32_MAX, {"w", w}, {"u", u}, {"rhs", rhs},
	      {"b", b});
	int keep = cut->pattern.keep, of = cut->pattern.of;
	bool groups = of >= 2 && of <= PATTERN_MOST && w.cols % of == 0 && keep >= 0 && keep <= of;
	int64_t most = of && groups ? w.cols / of * (of - keep) : n;
	if ((of && !groups) || cut->zeros < 0 || cut->zeros > most)
		return error_set(&backend->error, STATUS_INTERNAL, "project: %lld zeros, or %d of each %d kept, of [%lld, %lld]",
				 (long long)cut->zeros, keep, of, (long long)w.rows, (long long)w.cols);
	return backend->unchecked.project(backend, w, u, rhs, b, rho, cut);
}

static enum status keep_where(struct backend *backend, struct tensor out, struct tensor weight, struct tensor support)
{
	CHECK(backend, "keep_where", alike(out, (struct tensor[]){weight, support}, 2), {"out", out}, {"weight", weight},
	      {"support", support});
	return backend->unchecked.keep_where(backend, out, weight, support);
}

static enum status conjugate_start(struct backend *backend, struct tensor r, struct tensor p, void *energy, struct tensor target,
				   struct tensor product, struct tensor support, struct tensor diagonal, float lambda)
{
	bool fits = alike(r, (struct tensor[]){p, target, product, support}, 4) && typed(diagonal, DTYPE_F32) &&
		    sized(diagonal, 1, r.cols);
	CHECK(backend, "conjugate_start", fits, {"r", r}, {"p", p}, {"target", target}, {"product", product}, {"support", support},
	      {"diagonal", diagonal});
	CHECK_POINTER(backend, "conjugate_start", energy);
	return backend->unchecked.conjugate_start(backend, r, p, energy, target, product, support, diagonal, lambda);
}

static enum status conjugate_step(struct backend *backend, struct tensor x, struct tensor r, struct tensor p, void *energy,
				  struct tensor product, struct tensor support, struct tensor diagonal, float lambda)
{
	bool fits =
		alike(x, (struct tensor[]){r, p, product, support}, 4) && typed(diagonal, DTYPE_F32) && sized(diagonal, 1, x.cols);
	CHECK(backend, "conjugate_step", fits, {"x", x}, {"r", r}, {"p", p}, {"product", product}, {"support", support},
	      {"diagonal", diagonal});
	CHECK_POINTER(backend, "conjugate_step", energy);
	return backend->unchecked.conjugate_step(backend, x, r, p, energy, product, support, diagonal, lambda);
}

/* The parameters of a grid over weights of that shape. */
static bool grid_fits(const struct grid *grid, struct tensor weight, struct tensor steps, struct tensor zeros,
		      struct tensor strength)
{
	if (grid->bits < 2 || grid->bits > 8 || grid->group < 1 || weight.cols % grid->group) return false;
	int64_t groups = weight.cols / grid->group;
	return typed(steps, DTYPE_F32) && sized(steps, weight.rows, groups) && typed(zeros, DTYPE_F32) && same(zeros, steps) &&
	       (!strength.data ||
		(typed(strength, DTYPE_F32) && sized(strength, weight.rows, grid->symmetric ? groups : 2 * groups)));
}

static enum status quantize(struct backend *backend, const struct grid *grid, struct tensor out, struct tensor steps,
			    struct tensor zeros, struct tensor weight, struct tensor strength)
{
	bool fits = floats(out) && floats(weight) && same(out, weight) && dtype_size(grid->step) <= sizeof(float) &&
		    grid_fits(grid, weight, steps, zeros, strength);
	CHECK(backend, "quantize", fits, {"out", out}, {"steps", steps}, {"zeros", zeros}, {"weight", weight},
	      {"strength", strength});
	return backend->unchecked.quantize(backend, grid, out, steps, zeros, weight, strength);
}

static enum status quantize_columns(struct backend *backend, const struct grid *grid, struct tensor weight,
				    struct tensor negated_error, struct tensor support, struct tensor factor, struct tensor steps,
				    struct tensor zeros)
{
	int64_t group = steps.cols > 0 ? weight.cols / steps.cols : 0;
	struct grid here = {grid->bits, grid->symmetric, group, DTYPE_F32};
	bool fits = weight.cols <= PRUNE_COLUMNS && alike(weight, (struct tensor[]){negated_error, support}, 2) &&
		    typed(factor, DTYPE_F32) && sized(factor, weight.cols, weight.cols) &&
		    grid_fits(&here, weight, steps, zeros, (struct tensor){0});
	CHECK(backend, "quantize_columns", fits, {"weight", weight}, {"negated_error", negated_error}, {"support", support},
	      {"factor", factor}, {"steps", steps}, {"zeros", zeros});
	return backend->unchecked.quantize_columns(backend, grid, weight, negated_error, support, factor, steps, zeros);
}

static enum status quantize_backward(struct backend *backend, const struct grid *grid, struct tensor dstrength, struct tensor g,
				     struct tensor weight, struct tensor steps, struct tensor zeros, struct tensor strength)
{
	bool fits = typed(g, DTYPE_F32) && floats(weight) && same(g, weight) && strength.data &&
		    grid_fits(grid, weight, steps, zeros, strength) && typed(dstrength, DTYPE_F32) && same(dstrength, strength);
	CHECK(backend, "quantize_backward", fits, {"dstrength", dstrength}, {"g", g}, {"weight", weight}, {"steps", steps},
	      {"zeros", zeros}, {"strength", strength});
	return backend->unchecked.quantize_backward(backend, grid, dstrength, g, weight, steps, zeros, strength);
}

static enum status mask_weights(struct backend *backend, struct tensor out, struct tensor weight, struct tensor rank,
				const void *threshold, bool shared)
{
	bool fits = floats(out) && floats(weight) && same(out, weight) && typed(rank, DTYPE_U16) && same(rank, weight);
	CHECK(backend, "mask_weights", fits, {"out", out}, {"weight", weight}, {"rank", rank});
	CHECK_POINTER(backend, "mask_weights", threshold);
	return backend->unchecked.mask_weights(backend, out, weight, rank, threshold, shared);
}

static enum status order_ranks(struct backend *backend, struct tensor order, struct tensor rank)
{
	CHECK(backend, "order_ranks", typed(order, DTYPE_U16) && typed(rank, DTYPE_U16) && same(order, rank), {"order", order},
	      {"rank", rank});
	TRY(check_rank_width(backend, "order_ranks", rank.cols));
	return backend->unchecked.order_ranks(backend, order, rank);
}

static enum status move_mask(struct backend *backend, struct tensor out, struct tensor weight, struct tensor rank,
			     struct tensor order, void *held, const void *threshold, bool shared)
{
	bool fits = floats(out) && floats(weight) && same(out, weight) && typed(rank, DTYPE_U16) && same(rank, weight) &&
		    typed(order, DTYPE_U16) && same(order, weight);
	CHECK(backend, "move_mask", fits, {"out", out}, {"weight", weight}, {"rank", rank}, {"order", order});
	CHECK_POINTER(backend, "move_mask", held);
	CHECK_POINTER(backend, "move_mask", threshold);
	return backend->unchecked.move_mask(backend, out, weight, rank, order, held, threshold, shared);
}

static enum status binned_gradient(struct backend *backend, struct tensor sums, struct tensor dy, struct tensor x,
				   struct tensor weight, struct tensor bin, bool shared)
{
	bool fits = typed(sums, DTYPE_F32) && sums.rows == (shared ? 1 : weight.rows) && floats(dy) && floats(x) &&
		    dy.dtype == x.dtype && dy.rows == x.rows && floats(weight) && sized(weight, dy.cols, x.cols) &&
		    typed(bin, DTYPE_U8) && same(bin, weight);
	CHECK(backend, "binned_gradient", fits, {"sums", sums}, {"dy", dy}, {"x", x}, {"weight", weight}, {"bin", bin});
	TRY(check_candidates(backend, "binned_gradient", sums.cols + 1));
	return backend->unchecked.binned_gradient(backend, sums, dy, x, weight, bin, shared);
}

static bool rates_fit(const struct rates *rates, struct tensor t, int64_t cols)
{
	return typed(t, DTYPE_F32) && sized(t, rates->groups, cols);
}

static enum status rates_forward(struct backend *backend, const struct rates *rates, struct tensor beta, void *s, void *threshold,
				 void *stats, struct tensor theta, double target, double lambda)
{
	TRY(check_candidates(backend, "rates_forward", rates->candidates));
	TRY(check_ends(backend, "rates_forward", rates->below, rates->above));
	struct tensor expected = {beta.data, rates->groups, rates->candidates, rates->candidates, DTYPE_F32};
	CHECK(backend, "rates_forward", rates_fit(rates, beta, rates->candidates) && rates_fit(rates, theta, rates->candidates),
	      {"beta", beta}, {"theta", theta}, {"expected", expected});
	const void *cols = rates->cols, *share = rates->share;
	CHECK_POINTER(backend, "rates_forward", cols);
	CHECK_POINTER(backend, "rates_forward", share);
	CHECK_POINTER(backend, "rates_forward", s);
	CHECK_POINTER(backend, "rates_forward", threshold);
	CHECK_POINTER(backend, "rates_forward", stats);
	if (!(target > 0)) return error_set(&backend->error, STATUS_INTERNAL, "rates_forward: a target of %g", target);
	return backend->unchecked.rates_forward(backend, rates, beta, s, threshold, stats, theta, target, lambda);
}

static enum status rates_backward(struct backend *backend, const struct rates *rates, struct tensor dtheta, struct tensor theta,
				  struct tensor beta, struct tensor sums, const void *stats)
{
	TRY(check_candidates(backend, "rates_backward", rates->candidates));
	TRY(check_ends(backend, "rates_backward", rates->below, rates->above));
	struct tensor expected = {beta.data, rates->groups, rates->candidates, rates->candidates, DTYPE_F32};
	bool fits = rates_fit(rates, dtheta, rates->candidates) && rates_fit(rates, theta, rates->candidates) &&
		    rates_fit(rates, beta, rates->candidates) && rates_fit(rates, sums, rates->candidates - 1);
	CHECK(backend, "rates_backward", fits, {"dtheta", dtheta}, {"theta", theta}, {"beta", beta}, {"sums", sums},
	      {"expected", expected});
	const void *share = rates->share;
	CHECK_POINTER(backend, "rates_backward", share);
	CHECK_POINTER(backend, "rates_backward", stats);
	return backend->unchecked.rates_backward(backend, rates, dtheta, theta, beta, sums, stats);
}

static enum status reconstruction(struct backend *backend, void *stats, struct tensor dy, struct tensor y, struct tensor ref,
				  bool accumulate)
{
	bool fits = floats(y) && floats(ref) && same(y, ref) && (!dy.data || (floats(dy) && same(dy, y)));
	CHECK(backend, "reconstruction", fits, {"dy", dy}, {"y", y}, {"ref", ref});
	CHECK_POINTER(backend, "reconstruction", stats);
	return backend->unchecked.reconstruction(backend, stats, dy, y, ref, accumulate);
}

static enum status weighted_error(struct backend *backend, void *stats, struct tensor dy, struct tensor y, struct tensor ref,
				  struct tensor weight, double factor, bool accumulate)
{
	bool fits = floats(y) && floats(ref) && same(y, ref) && (!dy.data || (floats(dy) && same(dy, y))) &&
		    typed(weight, DTYPE_F32) && sized(weight, 1, y.cols);
	CHECK(backend, "weighted_error", fits, {"dy", dy}, {"y", y}, {"ref", ref}, {"weight", weight});
	CHECK_POINTER(backend, "weighted_error", stats);
	return backend->unchecked.weighted_error(backend, stats, dy, y, ref, weight, factor, accumulate);
}

static enum status divergence(struct backend *backend, void *stats, struct tensor dlogits, struct tensor logits,
			      struct tensor wanted, float softcap, double factor, bool accumulate)
{
	bool fits = floats(logits) && logits.cols > 0 && floats(wanted) && same(wanted, logits) &&
		    (!dlogits.data || (floats(dlogits) && same(dlogits, logits)));
	CHECK(backend, "divergence", fits, {"dlogits", dlogits}, {"logits", logits}, {"wanted", wanted});
	CHECK_POINTER(backend, "divergence", stats);
	return backend->unchecked.divergence(backend, stats, dlogits, logits, wanted, softcap, factor, accumulate);
}

static enum status prodigy_step(struct backend *backend, const struct prodigy *prodigy, int64_t n, void *theta, const void *theta0,
				void *m, void *v, void *s, const void *gradient, void *state)
{
	if (n < 0) return error_set(&backend->error, STATUS_INTERNAL, "prodigy_step: %lld parameters", (long long)n);
	CHECK_POINTER(backend, "prodigy_step", state);
	return backend->unchecked.prodigy_step(backend, prodigy, n, theta, theta0, m, v, s, gradient, state);
}

static enum status adamw_step(struct backend *backend, const struct adamw *adamw, struct tensor theta, struct tensor m,
			      struct tensor v, struct tensor gradient, struct tensor copy)
{
	bool fits = typed(theta, DTYPE_F32) && typed(m, DTYPE_F32) && same(m, theta) && typed(v, DTYPE_F32) && same(v, theta) &&
		    typed(gradient, DTYPE_F32) && same(gradient, theta) && (!copy.data || (floats(copy) && same(copy, theta)));
	CHECK(backend, "adamw_step", fits, {"theta", theta}, {"m", m}, {"v", v}, {"gradient", gradient}, {"copy", copy});
	if (adamw->step < 1)
		return error_set(&backend->error, STATUS_INTERNAL, "adamw_step: step %d of [%lld, %lld] parameters", adamw->step,
				 (long long)theta.rows, (long long)theta.cols);
	return backend->unchecked.adamw_step(backend, adamw, theta, m, v, gradient, copy);
}

static enum status token_logprobs(struct backend *backend, void *out, struct tensor logits, const void *targets, float softcap)
{
	CHECK(backend, "token_logprobs", floats(logits) && logits.cols > 0, {"logits", logits});
	CHECK_POINTER(backend, "token_logprobs", out);
	CHECK_POINTER(backend, "token_logprobs", targets);
	return backend->unchecked.token_logprobs(backend, out, logits, targets, softcap);
}

void backend_check_operations(struct backend *backend)
{
	backend->checked = backend->unchecked; /* with what takes no tensors */
#define PUT(operation)                                                                                                             \
	if (backend->unchecked.operation) backend->checked.operation = operation
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
	PUT(attention_sinks);
	PUT(attention_backward);
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
	PUT(bin_ranks);
	PUT(mask_weights);
	PUT(order_ranks);
	PUT(move_mask);
	PUT(binned_gradient);
	PUT(rates_forward);
	PUT(rates_backward);
	PUT(reconstruction);
	PUT(weighted_error);
	PUT(divergence);
	PUT(prodigy_step);
	PUT(adamw_step);
	PUT(token_logprobs);
#undef PUT
	backend->ops = &backend->checked;
}

enum status backend_allocate(struct backend *backend, int64_t rows, int64_t cols, enum dtype type, struct tensor *ret,
			     struct error *err)
{
	struct tensor tensor = tensor_make(NULL, rows, cols, type);
	enum status status = backend->ops->alloc(backend, tensor_bytes(&tensor), &tensor.data);
	if (status != STATUS_OK) {
		*err = backend->error;
		return status;
	}
	*ret = tensor;
	return STATUS_OK;
}
