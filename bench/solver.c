/* The rates at which the solvers run on the CPU backend, each against a large matrix product's in the same run: of a linear
 * [ROWS, COLS] whose inputs are TOKENS vectors. Prints one JSON object; `gflops` count what a textbook counts (a Gram matrix as
 * a whole product, (A + ρ·1)⁻¹ as COLS³ for Cholesky's factor, its inverse and their product), `fraction` is of the rate of the
 * large product, and of AdamW's step of a large copy's. "linear" is all that method `admm` solves for one linear by its
 * defaults. Seconds are the least of several runs, of CPU time on one thread, which a busy machine disturbs less.
 *
 * Usage: solver [ROWS COLS TOKENS [THREADS]]; by default SmolLM2-135M's down_proj and 32,768 tokens */
#include <stdio.h>
#include <stdlib.h>

#include "bench/cpu_bench.h"
#include "engine/job/progress.h"
#include "engine/prune/factor.h"

enum { LARGE = 2048, ITERATIONS = 20, CG_STEPS = 30, PASS = 8 * 256 };

/* Small random numbers, with rows as far apart as the engine lays them. */
static struct tensor random_tensor(int64_t rows, int64_t cols)
{
	return random_matrix(tensor_padded(NULL, rows, cols, DTYPE_F32));
}

struct problem {
	struct tensor w, u, b, product, r, p, support; /* F32 [R,C] */
	struct tensor x;                               /* F32 [T,C] */
	struct tensor gram, work, inverse, diagonal;
	void *energy;
	struct factor factor;
	struct cut half;
};

static void gram(struct problem *p)
{
	check(backend->ops->matmul(backend, p->gram, p->x, true, p->x, false, false));
}

static void invert(struct problem *p)
{
	double lambda = (double)p->x.rows;
	check(backend->ops->convert(backend, p->work, p->gram));
	check(factor_damped(&p->factor, p->work, &lambda));
	struct tensor u = factor_part(&p->factor, 0, p->gram.rows, 0, p->gram.rows);
	check(backend->ops->matmul(backend, p->inverse, u, true, u, false, false));
}

static void admm_iteration(struct problem *p)
{
	check(backend->ops->matmul(backend, p->w, p->product, false, p->inverse, false, false));
	check(backend->ops->project(backend, p->w, p->u, p->product, p->b, 1, &p->half));
}

static void cg_step(struct problem *p)
{
	check(backend->ops->matmul(backend, p->product, p->p, false, p->gram, false, false));
	check(backend->ops->conjugate_step(backend, p->r, p->b, p->p, p->energy, p->product, p->support, p->diagonal, 1));
}

static void adamw(struct problem *p)
{
	const struct adamw settings = {1e-3f, 0.9f, 0.99f, 1e-10f, 0, 1, true};
	check(backend->ops->adamw_step(backend, &settings, p->w, p->u, p->b, p->r, p->p));
}

/* The least seconds of some runs. */
static double time_of(void (*run)(struct problem *), struct problem *p)
{
	double best = 1e9, end = now() + 1;
	for (int i = 0; i < 3 || now() < end; i++) {
		double start = now();
		run(p);
		double seconds = now() - start;
		if (seconds < best) best = seconds;
	}
	return best;
}

static void large_matmul(struct problem *p)
{
	check(backend->ops->matmul(backend, p->w, p->u, false, p->b, true, false));
}

static void large_copy(struct problem *p)
{
	check(backend->ops->convert(backend, p->w, p->u));
}

static void print(const char *name, double seconds, double flops, double rate)
{
	printf(",\n  \"%s\": {\"seconds\": %.3e, \"gflops\": %.1f, \"fraction\": %.3f}", name, seconds, flops / seconds * 1e-9,
	       flops / seconds / rate);
}

int main(int argc, char **argv)
{
	struct error err;
	int64_t rows = argc > 3 ? atoll(argv[1]) : 576, cols = argc > 3 ? atoll(argv[2]) : 1536,
		tokens = argc > 3 ? atoll(argv[3]) : 32768;
	if (argc == 2 || argc == 3 || rows <= 0 || cols <= 0 || tokens <= 0 || rows > 1 << 16 || cols > 1 << 16 ||
	    tokens > 1 << 24) {
		fprintf(stderr, "usage: solver [ROWS COLS TOKENS [THREADS]]\n");
		return 2;
	}
	if (backend_cpu_create(argc > 4 ? atoi(argv[4]) : 0, &backend, &err) != STATUS_OK) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	struct problem large = {
		.w = random_tensor(LARGE, LARGE), .u = random_tensor(LARGE, LARGE), .b = random_tensor(LARGE, LARGE)};
	double rate = 2.0 * LARGE * LARGE * LARGE / time_of(large_matmul, &large);
	double copy = 8.0 * LARGE * LARGE / time_of(large_copy, &large);
	/* A pass is observed batch by batch. */
	int64_t batch = tokens < PASS ? tokens : PASS;
	struct problem p = {.w = random_tensor(rows, cols),
			    .u = random_tensor(rows, cols),
			    .b = random_tensor(rows, cols),
			    .product = random_tensor(rows, cols),
			    .r = random_tensor(rows, cols),
			    .p = random_tensor(rows, cols),
			    .support = random_tensor(rows, cols),
			    .x = random_tensor(batch, cols),
			    .gram = random_tensor(cols, cols),
			    .work = random_tensor(cols, cols),
			    .inverse = random_tensor(cols, cols),
			    .diagonal = random_tensor(1, cols),
			    .energy = allocate((size_t)rows * sizeof(float)),
			    .half = {{0, 0}, rows * cols / 2, NULL}};
	if (factor_create(backend, cols, &p.factor, &err) != STATUS_OK) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	double r = (double)rows, c = (double)cols, passes = (double)tokens / (double)batch;
	double grams = passes * time_of(gram, &p), inverse = time_of(invert, &p), admm = time_of(admm_iteration, &p);
	double cg = time_of(cg_step, &p), step = time_of(adamw, &p);
	double flops = 2 * (double)tokens * c * c + c * c * c + (ITERATIONS + CG_STEPS) * 2 * r * c * c;
	printf("{\"rows\": %lld, \"cols\": %lld, \"tokens\": %lld, \"threads\": %d, \"matmul_gflops\": %.1f, \"copy_gbps\": %.1f",
	       (long long)rows, (long long)cols, (long long)tokens, backend->threads, rate * 1e-9, copy * 1e-9);
	print("gram", grams, 2 * (double)tokens * c * c, rate);
	print("inverse", inverse, c * c * c, rate);
	print("admm_iteration", admm, 2 * r * c * c, rate);
	print("cg_step", cg, 2 * r * c * c, rate);
	print("linear", grams + inverse + ITERATIONS * admm + CG_STEPS * cg, flops, rate);
	printf(",\n  \"adamw\": {\"seconds\": %.3e, \"gbps\": %.1f, \"fraction\": %.3f}}\n", step, 32 * r * c / step * 1e-9,
	       32 * r * c / step / copy);
	factor_release(&p.factor);
	backend_destroy(backend);
	return 0;
}
