/* Whole blocks: the forward against a plain double-precision block, the gradients against finite differences of it, and BESA's
 * gradient of the learnables against finite differences of its straight-through surrogate (besa.md 1.7). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/methods/besa/learn.h"
#include "tests/backend/tiny_model.h"

static const struct tiny_shape SHAPE = {.hidden = 24, .intermediate = 40, .heads = 6, .kv_heads = 2, .layers = 2, .vocab = 11};
enum { TOKENS = 9, BATCH = 2, ROWS = TOKENS * BATCH, PRODUCTS = 4 };

struct fixture {
	char *directory;
	struct model model;
	struct backend *backend;
	struct block block;
	struct activations activations;
	double *weights[FUSED_COUNT], *norm1, *norm2, *rope; /* of the block, in double */
	float x[ROWS * 24], wanted[ROWS * 24];
	const double *behind; /* of a second block, instead of x; else NULL */
};

static void ok(enum status status, const struct error *err)
{
	if (status != STATUS_OK) fail_msg("%s: %s", status_name(status), err->message);
}

static double *download_double(struct backend *backend, struct tensor tensor)
{
	int64_t count = tensor.rows * tensor.cols;
	float *host = malloc((size_t)count * sizeof *host);
	double *wide = malloc((size_t)count * sizeof *wide);
	ok(backend->ops->download(backend, host, tensor.data, (size_t)count * sizeof *host), &backend->error);
	for (int64_t i = 0; i < count; i++)
		wide[i] = host[i];
	free(host);
	return wide;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct error err;
	f->directory = tiny_model_write(&SHAPE, 7);
	ok(backend_cpu_create(2, &f->backend, &err), &err);
	ok(model_open(&PLACE(f->directory), NULL, &f->model, &err), &err);
	ok(block_check(&f->model, &err), &err);
	ok(block_create(&f->model, f->backend, DTYPE_F32, TOKENS, &f->block, &err), &err);
	ok(block_load(&f->block, &f->model, 1, &err), &err);
	ok(activations_create(&f->block, BATCH, TOKENS, true, &f->activations, &err), &err);
	for (int i = 0; i < PRODUCTS; i++)
		f->weights[i] = download_double(f->backend, f->block.weight[i]);
	f->norm1 = download_double(f->backend, f->block.norm1);
	f->norm2 = download_double(f->backend, f->block.norm2);
	f->rope = download_double(f->backend, f->block.rope);
	srand(3);
	for (int i = 0; i < ROWS * SHAPE.hidden; i++) {
		f->x[i] = 2 * (float)rand() / (float)RAND_MAX - 1;
		f->wanted[i] = 2 * (float)rand() / (float)RAND_MAX - 1;
	}
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	activations_release(&f->activations, f->backend);
	block_release(&f->block);
	model_close(&f->model);
	backend_destroy(f->backend);
	tiny_model_remove(f->directory);
	for (int i = 0; i < PRODUCTS; i++)
		free(f->weights[i]);
	free(f->norm1);
	free(f->norm2);
	free(f->rope);
	free(f);
	return 0;
}

/* ---- the block in double ----------------------------------------------------------------------------------------------------- */

static void plain_norm(double *y, const double *x, const double *weight, double eps)
{
	int n = SHAPE.hidden;
	for (int t = 0; t < ROWS; t++) {
		double sum = 0;
		for (int j = 0; j < n; j++)
			sum += x[t * n + j] * x[t * n + j];
		for (int j = 0; j < n; j++)
			y[t * n + j] = x[t * n + j] / sqrt(sum / n + eps) * weight[j];
	}
}

static void plain_linear(double *y, const double *x, const double *w, int rows, int cols, bool add)
{
	for (int t = 0; t < ROWS; t++)
		for (int i = 0; i < rows; i++) {
			double sum = add ? y[t * rows + i] : 0;
			for (int j = 0; j < cols; j++)
				sum += x[t * cols + j] * w[i * cols + j];
			y[t * rows + i] = sum;
		}
}

static void plain_rope(double *head, const double *table, int dim)
{
	for (int i = 0; i < dim / 2; i++) {
		double a = head[i], b = head[i + dim / 2], c = table[i], s = table[dim / 2 + i];
		head[i] = a * c - b * s;
		head[i + dim / 2] = b * c + a * s;
	}
}

static void plain_attention(const struct fixture *f, double *out, double *qkv)
{
	int dim = SHAPE.hidden / SHAPE.heads, width = (SHAPE.heads + 2 * SHAPE.kv_heads) * dim;
	for (int t = 0; t < ROWS; t++)
		for (int h = 0; h < SHAPE.heads + SHAPE.kv_heads; h++)
			plain_rope(qkv + t * width + h * dim, f->rope + t % TOKENS * dim, dim);
	for (int t = 0; t < ROWS; t++)
		for (int h = 0; h < SHAPE.heads; h++) {
			int group = h / (SHAPE.heads / SHAPE.kv_heads), first = t / TOKENS * TOKENS;
			double logits[TOKENS], sum = 0;
			for (int u = first; u <= t; u++) {
				double dot = 0;
				for (int i = 0; i < dim; i++)
					dot += qkv[t * width + h * dim + i] * qkv[u * width + (SHAPE.heads + group) * dim + i];
				logits[u - first] = exp(dot / sqrt(dim));
				sum += logits[u - first];
			}
			for (int i = 0; i < dim; i++) {
				double value = 0;
				for (int u = first; u <= t; u++)
					value += logits[u - first] / sum *
						 qkv[u * width + (SHAPE.heads + SHAPE.kv_heads + group) * dim + i];
				out[t * SHAPE.hidden + h * dim + i] = value;
			}
		}
}

enum { H = 24, I = 40, QKV = 40, WIDEST = 2 * I };

/* What is computed in a block on the way: the inputs of the fused matrices, what attention's half gives, and the whole. */
struct plain {
	double n1[ROWS * H], out[ROWS * H], n2[ROWS * H], mlp[ROWS * I], h[ROWS * H], y[ROWS * H];
};

/* The block with the fused weights given. */
static void plain_block(const struct fixture *f, double *const weights[FUSED_COUNT], struct plain *p)
{
	static double x[ROWS * H], qkv[ROWS * QKV], gate_up[ROWS * 2 * I];
	for (int i = 0; i < ROWS * H; i++)
		p->h[i] = x[i] = f->behind ? f->behind[i] : f->x[i];
	plain_norm(p->n1, x, f->norm1, 1e-5);
	plain_linear(qkv, p->n1, weights[FUSED_QKV], QKV, H, false);
	plain_attention(f, p->out, qkv);
	plain_linear(p->h, p->out, weights[FUSED_O], H, H, true);
	plain_norm(p->n2, p->h, f->norm2, 1e-5);
	plain_linear(gate_up, p->n2, weights[FUSED_MLP_IN], 2 * I, H, false);
	for (int t = 0; t < ROWS; t++)
		for (int i = 0; i < I; i++) {
			double g = gate_up[t * 2 * I + i];
			p->mlp[t * I + i] = g / (1 + exp(-g)) * gate_up[t * 2 * I + I + i];
		}
	memcpy(p->y, p->h, sizeof p->y);
	plain_linear(p->y, p->mlp, weights[FUSED_MLP_OUT], H, I, true);
}

/* The reconstruction loss of besa.md 1.8 over all rows as one batch. */
static double plain_miss(const double *y, const double *wanted, int cols)
{
	double loss = 0;
	for (int h = 0; h < cols; h++) {
		double norm = 0, error = 0;
		for (int t = 0; t < ROWS; t++) {
			norm += wanted[t * cols + h] * wanted[t * cols + h];
			error += pow(wanted[t * cols + h] - y[t * cols + h], 2);
		}
		loss += error / norm;
	}
	return loss / cols;
}

static double plain_loss(const struct fixture *f, double *const weights[FUSED_COUNT])
{
	struct plain p;
	double wanted[ROWS * H];
	for (int i = 0; i < ROWS * H; i++)
		wanted[i] = f->wanted[i];
	plain_block(f, weights, &p);
	return plain_miss(p.y, wanted, H);
}

/* The loss of the part of a block that the fused matrix is in, with the weights given, against the dense ones in that part. */
static double plain_part_loss(const struct fixture *f, enum reconstruct reconstruct, enum fused fused,
			      double *const weights[FUSED_COUNT])
{
	static struct plain p, dense;
	double *mixed[FUSED_COUNT], y[ROWS * WIDEST], wanted[ROWS * WIDEST];
	plain_block(f, weights, &p);
	if (reconstruct == RECONSTRUCT_LAYER) {
		const double *const inputs[FUSED_COUNT] = {p.n1, p.out, p.n2, p.mlp};
		int rows = (int)f->block.layout.fused_rows[fused], cols = (int)f->block.layout.fused_cols[fused];
		plain_linear(y, inputs[fused], weights[fused], rows, cols, false);
		plain_linear(wanted, inputs[fused], f->weights[fused], rows, cols, false);
		return plain_miss(y, wanted, rows);
	}
	bool attention = fused < FUSED_MLP_IN;
	for (int i = 0; i < PRODUCTS; i++)
		mixed[i] = attention == (i < FUSED_MLP_IN) ? f->weights[i] : weights[i];
	plain_block(f, mixed, &dense);
	return attention ? plain_miss(p.h, dense.h, H) : plain_miss(p.y, dense.y, H);
}

/* ---- forward and dW ---------------------------------------------------------------------------------------------------------- */

static struct tensor new_tensor(struct backend *backend, int64_t rows, int64_t cols, const void *values)
{
	struct tensor tensor = tensor_make(NULL, rows, cols, DTYPE_F32);
	ok(backend->ops->alloc(backend, tensor_bytes(&tensor), &tensor.data), &backend->error);
	if (values) ok(backend->ops->upload(backend, tensor.data, values, tensor_bytes(&tensor)), &backend->error);
	return tensor;
}

static void test_forward(void **state)
{
	struct fixture *f = *state;
	struct tensor x = new_tensor(f->backend, ROWS, SHAPE.hidden, f->x), y = new_tensor(f->backend, ROWS, SHAPE.hidden, NULL);
	struct plain expected;
	double error = 0, norm = 0;
	ok(block_activate_dense(&f->block), &f->backend->error);
	ok(block_forward(&f->block, &f->activations, BATCH, x, y, NULL), &f->backend->error);
	double *got = download_double(f->backend, y);
	plain_block(f, f->weights, &expected);
	for (int i = 0; i < ROWS * SHAPE.hidden; i++) {
		error += (got[i] - expected.y[i]) * (got[i] - expected.y[i]);
		norm += expected.y[i] * expected.y[i];
	}
	assert_true(error / norm < 1e-11);
	free(got);
	f->backend->ops->release(f->backend, x.data);
	f->backend->ops->release(f->backend, y.data);
}

/* The first tokens of a sequence give what they give as a sequence of their own: order_check asks only them. */
static void test_forward_of_starts(void **state)
{
	enum { FEW = 5 };
	struct fixture *f = *state;
	struct tensor x = new_tensor(f->backend, ROWS, SHAPE.hidden, f->x), y = new_tensor(f->backend, FEW, SHAPE.hidden, NULL);
	struct activations few = activations_of_starts(&f->block, &f->activations, FEW);
	struct plain expected;
	ok(block_activate_dense(&f->block), &f->backend->error);
	plain_block(f, f->weights, &expected);
	for (int s = 0; s < BATCH; s++) {
		double error = 0, norm = 0;
		ok(block_forward(&f->block, &few, 1, tensor_rows(x, s * TOKENS, FEW), y, NULL), &f->backend->error);
		double *got = download_double(f->backend, y);
		for (int i = 0; i < FEW * SHAPE.hidden; i++) {
			double wanted = expected.y[s * TOKENS * SHAPE.hidden + i];
			error += (got[i] - wanted) * (got[i] - wanted);
			norm += wanted * wanted;
		}
		assert_true(error / norm < 1e-11);
		free(got);
	}
	f->backend->ops->release(f->backend, x.data);
	f->backend->ops->release(f->backend, y.data);
}

/* G = dyᵀ·x of every fused matrix, as the backward hands them out. */
struct gradients {
	struct fixture *f;
	double *of[FUSED_COUNT];
	int order[FUSED_COUNT], calls;
};

static enum status keep_gradient(void *context, int fused, const struct product_gradient *gradient)
{
	struct gradients *g = context;
	struct tensor dw = new_tensor(g->f->backend, gradient->dy.cols, gradient->x.cols, NULL);
	ok(g->f->backend->ops->matmul(g->f->backend, dw, gradient->dy, true, gradient->x, false, false), &g->f->backend->error);
	g->of[fused] = download_double(g->f->backend, dw);
	g->order[g->calls++] = fused;
	g->f->backend->ops->release(g->f->backend, dw.data);
	return STATUS_OK;
}

static void compute_gradients(struct fixture *f, struct gradients *g)
{
	struct backend *backend = f->backend;
	struct tensor x = new_tensor(backend, ROWS, SHAPE.hidden, f->x),
		      wanted = new_tensor(backend, ROWS, SHAPE.hidden, f->wanted);
	struct tensor y = new_tensor(backend, ROWS, SHAPE.hidden, NULL), dy = new_tensor(backend, ROWS, SHAPE.hidden, NULL);
	void *stats;
	*g = (struct gradients){.f = f};
	ok(backend->ops->alloc(backend, STEP_STATS * sizeof(double), &stats), &backend->error);
	ok(block_forward(&f->block, &f->activations, BATCH, x, y, NULL), &backend->error);
	ok(backend->ops->reconstruction(backend, stats, dy, y, wanted, false), &backend->error);
	ok(block_backward(&f->block, &f->activations, BATCH, dy, keep_gradient, g, NULL), &backend->error);
	struct tensor *tensors[] = {&x, &wanted, &y, &dy};
	for (int i = 0; i < 4; i++)
		backend->ops->release(backend, tensors[i]->data);
	backend->ops->release(backend, stats);
}

/* Every part of the backward is on the way to the weights of q, k and v, so their differences prove the dX of all later parts
 * too. */
static void check_against_differences(const struct fixture *f, const struct gradients *g, double *weights[FUSED_COUNT])
{
	const double step = 1e-5;
	for (int fused = 0; fused < PRODUCTS; fused++) {
		int64_t count = f->block.layout.fused_rows[fused] * f->block.layout.fused_cols[fused];
		double error = 0, norm = 0;
		for (int64_t i = 0; i < count; i += 7) {
			double kept = weights[fused][i];
			weights[fused][i] = kept + step;
			double above = plain_loss(f, weights);
			weights[fused][i] = kept - step;
			double below = plain_loss(f, weights), difference = (above - below) / (2 * step);
			weights[fused][i] = kept;
			error += pow(g->of[fused][i] - difference, 2);
			norm += difference * difference;
		}
		if (!(error / norm < 1e-9)) fail_msg("fused matrix %d: NMSE %g against finite differences", fused, error / norm);
	}
}

static void free_gradients(struct gradients *g)
{
	for (int i = 0; i < PRODUCTS; i++)
		free(g->of[i]);
}

static void test_weight_gradients(void **state)
{
	struct fixture *f = *state;
	struct gradients g;
	ok(block_activate_dense(&f->block), &f->backend->error);
	compute_gradients(f, &g);
	assert_int_equal(g.calls, PRODUCTS);
	check_against_differences(f, &g, f->weights);
	free_gradients(&g);
}

/* The same with a fixed mask: half of every row is zero. */
static void test_weight_gradients_of_a_masked_block(void **state)
{
	struct fixture *f = *state;
	struct mask mask;
	struct error err;
	struct gradients g;
	double *masked[FUSED_COUNT];
	ok(mask_create(&f->block, &mask, &err), &err);
	ok(mask_rank(&mask, &f->block, IMPORTANCE_MAGNITUDE, NULL, 1, (struct pattern){0}), &f->backend->error);
	for (int i = 0; i < f->block.layout.n_linears; i++)
		for (int64_t r = 0; r < f->block.layout.linears[i].rows; r++)
			mask.host_thresholds[f->block.layout.linears[i].row + r] = (int32_t)f->block.layout.linears[i].cols / 2;
	ok(mask_set(&mask, &f->block), &f->backend->error);
	ok(mask_apply(&mask, &f->block, f->block.active), &f->backend->error);
	for (int i = 0; i < PRODUCTS; i++)
		masked[i] = download_double(f->backend, f->block.active[i]);
	compute_gradients(f, &g);
	check_against_differences(f, &g, masked);
	free_gradients(&g);
	for (int i = 0; i < PRODUCTS; i++)
		free(masked[i]);
	mask_release(&mask);
}

/* ---- BESA's dθ --------------------------------------------------------------------------------------------------------------- */

struct surrogate {
	const struct fixture *f;
	const struct gradients *g;
	uint16_t *rank[FUSED_COUNT];
	const struct spec *spec;
	int64_t groups, first[8], per; /* of each linear the first, and rows of a group */
	const struct part *part;
};

/* Candidate d in parts of 10⁶ · (D − 1): from 0 to 1, or, of the sigmoid, evenly about the target, which is above a half. */
static int64_t candidate(const struct spec *spec, int d)
{
	int64_t steps = spec->besa.candidates - 1, low = 0;
	if (spec->besa.parameterization == PARAM_SIGMOID) low = llround(1e6 * (2 * spec->sparsity - 1));
	return low * steps + (1000000 - low) * (steps - d);
}

/* ⟨G, W ⊙ P(θ)⟩ + λ·((ŝ − s*)/s*)², from the definition: P(r) = 1 − Σ_{d : k_d > r} β_d. */
static double surrogate(const struct surrogate *s, const double *theta)
{
	const struct block_layout *layout = &s->f->block.layout;
	int candidates = s->spec->besa.candidates;
	double value = 0, rate = 0;
	for (int l = 0; l < layout->n_linears; l++) {
		const struct linear *linear = &layout->linears[l];
		if (linear->fused < s->part->first || linear->fused > s->part->last) continue;
		for (int64_t r = 0; r < linear->rows; r++) {
			int64_t group = s->first[l] + r / s->per;
			double beta[256], sum = 0, expected = 0;
			for (int d = 0; d < candidates; d++) {
				double t = theta[group * candidates + d];
				beta[d] = exp(s->spec->besa.parameterization == PARAM_SIGMOID ? 1 / (1 + exp(-t)) : t);
				sum += beta[d];
			}
			for (int d = 0; d < candidates; d++) {
				beta[d] /= sum;
				expected += beta[d] * (double)candidate(s->spec, d) / (1e6 * (candidates - 1));
			}
			rate += expected * (double)linear->cols / s->part->params;
			for (int64_t j = 0; j < linear->cols; j++) {
				int64_t at = (linear->first + r) * linear->cols + j;
				double keep = 1;
				for (int d = 0; d < candidates; d++)
					if (linear->cols * candidate(s->spec, d) / (1000000 * (candidates - 1)) >
					    s->rank[linear->fused][at])
						keep -= beta[d];
				value += s->g->of[linear->fused][at] * s->f->weights[linear->fused][at] * keep;
			}
		}
	}
	double miss = (rate - s->spec->sparsity) / s->spec->sparsity;
	return value + s->spec->besa.lambda * miss * miss;
}

/* BESA's learnables on the block, at random values of θ, with its inputs and what it is to give. */
struct learner {
	struct mask mask;
	struct besa besa;
	struct stream x, wanted;
	double *theta;
};

static struct spec spec_of(enum granularity granularity, int rows_per_group, enum parameterization parameterization,
			   enum reconstruct reconstruct)
{
	return (struct spec){.sparsity = 0.6,
			     .besa = {.granularity = granularity,
				      .rows_per_group = rows_per_group,
				      .parameterization = parameterization,
				      .reconstruct = reconstruct,
				      .candidates = 13,
				      .lambda = 5,
				      .epochs = 1,
				      .batch_size = BATCH}};
}

static void open_learner(struct fixture *f, const struct spec *spec, struct learner *l)
{
	struct backend *backend = f->backend;
	struct error err;
	ok(mask_create(&f->block, &l->mask, &err), &err);
	ok(mask_rank(&l->mask, &f->block, IMPORTANCE_MAGNITUDE, NULL, 1, (struct pattern){0}), &backend->error);
	ok(besa_create(spec, &f->block, &l->mask, NULL, TOKENS, &l->besa, &err), &err);
	ok(stream_create(backend, BATCH, TOKENS, SHAPE.hidden, BATCH, &l->x, &err), &err);
	ok(stream_create(backend, BATCH, TOKENS, SHAPE.hidden, BATCH, &l->wanted, &err), &err);
	struct tensor values = new_tensor(backend, ROWS, SHAPE.hidden, f->x);
	ok(stream_store(&l->x, 0, BATCH, values), &backend->error);
	ok(backend->ops->upload(backend, values.data, f->wanted, sizeof f->wanted), &backend->error);
	ok(stream_store(&l->wanted, 0, BATCH, values), &backend->error);
	backend->ops->release(backend, values.data);
	for (int i = 0; i < PRODUCTS; i++)
		ok(backend->ops->bin_ranks(backend, l->besa.bin[i], l->mask.rank[i], spec->besa.candidates, l->besa.rates.below,
					   l->besa.rates.above),
		   &backend->error);
	int64_t count = l->besa.rates.groups * spec->besa.candidates;
	float *start = malloc((size_t)count * sizeof *start);
	l->theta = malloc((size_t)count * sizeof *l->theta);
	for (int64_t i = 0; i < count; i++)
		l->theta[i] = start[i] = 2 * (float)rand() / (float)RAND_MAX - 1;
	ok(backend->ops->upload(backend, l->besa.theta.data, start, (size_t)count * sizeof *start), &backend->error);
	free(start);
}

static void close_learner(struct learner *l)
{
	free(l->theta);
	stream_release(&l->x);
	stream_release(&l->wanted);
	besa_release(&l->besa);
	mask_release(&l->mask);
}

/* BESA's gradient of its part against that of the surrogate; g: of the part's loss by the weights, as they are masked now. */
static void compare_with_surrogate(struct fixture *f, const struct spec *spec, struct learner *l, const struct gradients *g)
{
	struct backend *backend = f->backend;
	const struct part *part = l->besa.part;
	struct surrogate s = {.f = f, .g = g, .spec = spec, .part = part};
	double *gradient = download_double(backend, l->besa.gradient), error = 0, norm = 0;
	s.per = spec->besa.granularity == GRANULARITY_LAYER ? f->block.layout.rows : spec->besa.rows_per_group;
	for (int i = 0; i < f->block.layout.n_linears; i++) {
		s.first[i] = s.groups;
		s.groups += (f->block.layout.linears[i].rows + s.per - 1) / s.per; /* the last one may be smaller */
	}
	assert_int_equal(l->besa.rates.groups, s.groups);
	for (int i = 0; i < PRODUCTS; i++) {
		const struct tensor *rank = &l->mask.rank[i];
		s.rank[i] = malloc(tensor_bytes(rank));
		ok(backend->ops->download(backend, s.rank[i], rank->data, tensor_bytes(rank)), &backend->error);
	}
	int64_t first = part->group * spec->besa.candidates, end = first + part->groups * spec->besa.candidates;
	for (int64_t i = first; i < end; i += s.per == 1 ? 17 : 1) {
		double kept = l->theta[i], step = 1e-4;
		l->theta[i] = kept + step;
		double above = surrogate(&s, l->theta);
		l->theta[i] = kept - step;
		double difference = (above - surrogate(&s, l->theta)) / (2 * step);
		l->theta[i] = kept;
		error += pow(gradient[i] - difference, 2);
		norm += difference * difference;
	}
	if (!(error / norm < 1e-8)) fail_msg("NMSE %g against finite differences of the surrogate", error / norm);
	for (int i = 0; i < PRODUCTS; i++)
		free(s.rank[i]);
	free(gradient);
}

static void check_theta_gradient(struct fixture *f, enum granularity granularity, int rows_per_group,
				 enum parameterization parameterization)
{
	const struct spec spec = spec_of(granularity, rows_per_group, parameterization, RECONSTRUCT_BLOCK);
	struct learner l;
	struct gradients g;
	open_learner(f, &spec, &l);
	ok(besa_gradient(&l.besa, &l.x, &l.wanted, 0, BATCH), &f->backend->error);
	compute_gradients(f, &g); /* with the masks that besa_gradient left active */
	compare_with_surrogate(f, &spec, &l, &g);
	free_gradients(&g);
	close_learner(&l);
}

/* The gradient of a part's loss by its weights, by finite differences of the block in double. */
static void differences_of_part(struct fixture *f, const struct spec *spec, const struct part *part, struct gradients *g)
{
	const double step = 1e-5;
	double *weights[FUSED_COUNT];
	*g = (struct gradients){.f = f};
	for (int i = 0; i < PRODUCTS; i++)
		weights[i] = download_double(f->backend, f->block.active[i]); /* without gaps: the rows are short */
	for (int fused = (int)part->first; fused <= (int)part->last; fused++) {
		int64_t count = f->block.layout.fused_rows[fused] * f->block.layout.fused_cols[fused];
		g->of[fused] = malloc((size_t)count * sizeof(double));
		for (int64_t i = 0; i < count; i++) {
			double kept = weights[fused][i];
			weights[fused][i] = kept + step;
			double above = plain_part_loss(f, spec->besa.reconstruct, fused, weights);
			weights[fused][i] = kept - step;
			double below = plain_part_loss(f, spec->besa.reconstruct, fused, weights);
			weights[fused][i] = kept;
			g->of[fused][i] = (above - below) / (2 * step);
		}
	}
	for (int i = 0; i < PRODUCTS; i++)
		free(weights[i]);
}

/* Each part's loss and gradient, where the parts before it are masked by their rates. */
static void check_parts(struct fixture *f, enum reconstruct reconstruct, enum granularity granularity, int rows_per_group,
			int parts)
{
	const struct spec spec = spec_of(granularity, rows_per_group, PARAM_SIGMOID, reconstruct);
	struct learner l;
	struct gradients g;
	double stats[STEP_STATS], *weights[FUSED_COUNT];
	open_learner(f, &spec, &l);
	assert_int_equal(l.besa.n_parts, parts);
	for (int i = 0; i < parts; i++) {
		l.besa.part = &l.besa.parts[i];
		ok(besa_gradient(&l.besa, &l.x, NULL, 0, BATCH), &f->backend->error);
		ok(f->backend->ops->download(f->backend, stats, l.besa.stats, sizeof stats), &f->backend->error);
		for (int j = 0; j < PRODUCTS; j++)
			weights[j] = download_double(f->backend, f->block.active[j]);
		double loss = plain_part_loss(f, reconstruct, l.besa.part->first, weights);
		assert_true(fabs(stats[STEP_RECONSTRUCTION] - loss) < 1e-5 * loss);
		differences_of_part(f, &spec, l.besa.part, &g);
		compare_with_surrogate(f, &spec, &l, &g);
		free_gradients(&g);
		for (int j = 0; j < PRODUCTS; j++)
			free(weights[j]);
	}
	close_learner(&l);
}

/* ---- two blocks -------------------------------------------------------------------------------------------------------------- */

/* What is behind the fixture's block: the model's other one. */
static void open_second(const struct fixture *f, struct fixture *second)
{
	struct error err;
	*second = *f;
	ok(block_create(&f->model, f->backend, DTYPE_F32, TOKENS, &second->block, &err), &err);
	ok(block_load(&second->block, &f->model, 0, &err), &err);
	for (int i = 0; i < PRODUCTS; i++)
		second->weights[i] = download_double(f->backend, second->block.weight[i]);
	second->norm1 = download_double(f->backend, second->block.norm1);
	second->norm2 = download_double(f->backend, second->block.norm2);
}

static void close_second(struct fixture *second)
{
	for (int i = 0; i < PRODUCTS; i++)
		free(second->weights[i]);
	free(second->norm1);
	free(second->norm2);
	block_release(&second->block);
}

static double plain_pair_loss(const struct fixture *f, struct fixture *second, double *const weights[2][FUSED_COUNT])
{
	static struct plain p;
	plain_block(f, weights[0], &p);
	second->behind = p.y;
	return plain_loss(second, weights[1]);
}

/* The gradient of the pair's loss by the weights of one of its blocks, by finite differences in double. */
static void differences_of_pair(const struct fixture *f, struct fixture *second, double *weights[2][FUSED_COUNT], int which,
				struct gradients *g)
{
	const double step = 1e-5;
	*g = (struct gradients){0};
	for (int fused = 0; fused < PRODUCTS; fused++) {
		int64_t count = f->block.layout.fused_rows[fused] * f->block.layout.fused_cols[fused];
		g->of[fused] = malloc((size_t)count * sizeof(double));
		for (int64_t i = 0; i < count; i++) {
			double kept = weights[which][fused][i];
			weights[which][fused][i] = kept + step;
			double above = plain_pair_loss(f, second, weights);
			weights[which][fused][i] = kept - step;
			double below = plain_pair_loss(f, second, weights);
			weights[which][fused][i] = kept;
			g->of[fused][i] = (above - below) / (2 * step);
		}
	}
}

static void check_pair(struct fixture *f, enum granularity granularity, int rows_per_group)
{
	const struct spec spec = spec_of(granularity, rows_per_group, PARAM_SIGMOID, RECONSTRUCT_TWO_BLOCKS);
	struct fixture second, *of[2] = {f, &second};
	struct learner learners[2];
	struct gradients g;
	double stats[STEP_STATS], *weights[2][FUSED_COUNT];
	open_second(f, &second);
	for (int i = 0; i < 2; i++)
		open_learner(of[i], &spec, &learners[i]);
	learners[0].besa.second = &learners[1].besa;
	ok(besa_gradient(&learners[0].besa, &learners[0].x, &learners[0].wanted, 0, BATCH), &f->backend->error);
	ok(f->backend->ops->download(f->backend, stats, learners[0].besa.stats, sizeof stats), &f->backend->error);
	for (int i = 0; i < 2; i++)
		for (int j = 0; j < PRODUCTS; j++)
			weights[i][j] = download_double(f->backend, of[i]->block.active[j]);
	double loss = plain_pair_loss(f, &second, weights);
	assert_true(fabs(stats[STEP_RECONSTRUCTION] - loss) < 1e-5 * loss);
	for (int i = 0; i < 2; i++) {
		differences_of_pair(f, &second, weights, i, &g);
		compare_with_surrogate(of[i], &spec, &learners[i], &g);
		free_gradients(&g);
	}
	for (int i = 0; i < 2; i++) {
		for (int j = 0; j < PRODUCTS; j++)
			free(weights[i][j]);
		close_learner(&learners[i]);
	}
	close_second(&second);
}

static void test_theta_gradient_by_row(void **state)
{
	check_theta_gradient(*state, GRANULARITY_ROW, 1, PARAM_SIGMOID);
	check_theta_gradient(*state, GRANULARITY_ROW, 1, PARAM_SOFTMAX);
}

/* Linears have 8, 24 and 40 rows: groups that do and do not divide them, and fewer or more than the rows of each. */
static void test_theta_gradient_by_rows(void **state)
{
	static const int rows[] = {2, 3, 5, 16, 24, 100};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		check_theta_gradient(*state, GRANULARITY_ROW, rows[i], PARAM_SIGMOID);
}

static void test_theta_gradient_by_layer(void **state)
{
	check_theta_gradient(*state, GRANULARITY_LAYER, 1, PARAM_SIGMOID);
	check_theta_gradient(*state, GRANULARITY_LAYER, 1, PARAM_SOFTMAX);
}

static void test_halves(void **state)
{
	check_parts(*state, RECONSTRUCT_HALF_BLOCK, GRANULARITY_ROW, 1, 2);
	check_parts(*state, RECONSTRUCT_HALF_BLOCK, GRANULARITY_LAYER, 1, 2);
}

static void test_layers(void **state)
{
	check_parts(*state, RECONSTRUCT_LAYER, GRANULARITY_ROW, 1, 4);
	check_parts(*state, RECONSTRUCT_LAYER, GRANULARITY_ROW, 3, 4);
	check_parts(*state, RECONSTRUCT_LAYER, GRANULARITY_LAYER, 1, 4);
}

static void test_two_blocks(void **state)
{
	check_pair(*state, GRANULARITY_ROW, 1);
	check_pair(*state, GRANULARITY_ROW, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forward),
		cmocka_unit_test(test_forward_of_starts),
		cmocka_unit_test(test_weight_gradients),
		cmocka_unit_test(test_weight_gradients_of_a_masked_block),
		cmocka_unit_test(test_theta_gradient_by_row),
		cmocka_unit_test(test_theta_gradient_by_rows),
		cmocka_unit_test(test_theta_gradient_by_layer),
		cmocka_unit_test(test_halves),
		cmocka_unit_test(test_layers),
		cmocka_unit_test(test_two_blocks),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
