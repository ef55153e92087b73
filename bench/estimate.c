/* A paper estimate of BESA on one H200: the time of whole models from FLOP and byte counts. Prints the tables of
 * bench/estimate.md. Nothing in it is measured: the rates below are assumptions, to be replaced by what `make bench-cuda` finds.
 *
 * The counts follow engine/model/block.c and the CUDA backend's operations: every operand of an operation is read or written
 * once from device memory, unless a comment says otherwise. */
#include <stdio.h>

/* Assumed rates of an H200 (datasheet: 989 TFLOP/s dense bf16, 4.8 TB/s). */
static const double PEAK = 750e12;      /* FLOP/s of a large bf16 matmul: 76 % of the datasheet */
static const double MATMUL = 650e12;    /* of cuBLASLt at these shapes */
static const double ATTENTION = 250e12; /* of the own kernels, on mma.sync */
static const double MEMORY = 3.6e12;    /* bytes/s of own kernels: 80 % of a copy at 4.5 TB/s */
static const double MATMUL_F32 = 50e12; /* of cuBLASLt on F32 without tensor cores (datasheet: 67) */
static const double LAUNCH = 3e-6;      /* seconds lost per launch where it is not hidden: between dependent kernels */
static const double LOAD = 2e9;         /* bytes/s from the file system to the device, and back into the output */

/* The share of a block's weights that come or go in a learning step: measured, on a CPU, in the bundled model (128 steps of a
 * batch of one; 0.09 to 0.13 % a step, from block to block). Of other models it is an assumption. */
static const double MOVED = 0.0011;
static const double MOVE_BYTES = 98; /* of one that moves, at most: cuda/index.h */

enum { SAMPLES = 128, TOKENS = 2048, CANDIDATES = 101 };

struct model {
	const char *name;
	double blocks, hidden, intermediate, heads, kv_heads, vocab;
};

static const struct model MODELS[] = {
	{"LLaMA-2-7B", 32, 4096, 11008, 32, 32, 32000},
	{"LLaMA-2-13B", 40, 5120, 13824, 40, 40, 32000},
	{"LLaMA-2-70B", 80, 8192, 28672, 64, 8, 32000},
	{"Llama-3.1-405B", 126, 16384, 53248, 128, 8, 128256},
};

struct counts {
	double params, rows, qkv_params, qkv_rows; /* of a block's linears */
};

static struct counts count(const struct model *m)
{
	double key = m->hidden / m->heads * m->kv_heads;
	struct counts c = {.qkv_rows = m->hidden + 2 * key};
	c.qkv_params = m->hidden * c.qkv_rows;
	c.params = c.qkv_params + m->hidden * m->hidden + 3 * m->hidden * m->intermediate;
	c.rows = c.qkv_rows + 2 * m->hidden + 2 * m->intermediate;
	return c;
}

/* Bytes per token of a forward's own kernels: two norms (F32 in, bf16 out), rope, swiglu. The residual stream is read and written
 * by the products that are added to it. */
static double forward_bytes(const struct model *m, const struct counts *c)
{
	return 2 * 6 * m->hidden + 4 * c->qkv_rows + 6 * m->intermediate;
}

/* … and of a backward's: two roundings of the gradient, swiglu's backward, a norm's backward, rope back, δ, the loss (y and the
 * reference twice, the gradient once). */
static double backward_bytes(const struct model *m, const struct counts *c)
{
	return 2 * 6 * m->hidden + 10 * m->intermediate + 14 * m->hidden + 4 * c->qkv_rows + 4 * m->hidden + 20 * m->hidden;
}

struct seconds {
	double load, reference, rank, learn, final, write, block;
	double matmul, attention, memory, launches; /* of the learning */
};

static struct seconds estimate(const struct model *m)
{
	struct counts c = count(m);
	struct seconds s = {0};
	double tokens = (double)SAMPLES * TOKENS, causal = 4 * m->hidden * (TOKENS + 1) / 2; /* attention FLOP per token, forward */
	double forward = tokens * (2 * c.params / MATMUL + causal / ATTENTION + forward_bytes(m, &c) / MEMORY);
	double norms = tokens * 2 * (3 * m->hidden + m->intermediate) / MEMORY;

	s.load = c.params * 2 / LOAD;
	s.reference = forward + norms + c.params * 4 / MEMORY; /* active = dense weights */
	/* Four radix passes read an 8-byte entry twice and write it once; bins read a rank and write a byte, orders read and write
	 * one. */
	s.rank = c.params * (4 * 24 + 3 + 4) / MEMORY;
	s.matmul = tokens * 2 * (c.params + (c.params - c.qkv_params) + c.params) / MATMUL;
	s.attention = tokens * causal * (1 + 3.5) / ATTENTION; /* the backward does seven products, the forward two */
	/* Per step: what masks move over, and what is known of the rows, the gradient's panels written and read in fp32 with W and
	 * the bins, rates and Prodigy. */
	double per_step =
		c.params * MOVED * MOVE_BYTES + c.rows * 12 + c.params * (8 + 2 + 1) + c.rows * CANDIDATES * (8 + 16 + 52);
	s.memory = (tokens * (forward_bytes(m, &c) + backward_bytes(m, &c)) + SAMPLES * per_step) / MEMORY;
	s.launches = SAMPLES * 60 * LAUNCH;
	s.learn = s.matmul + s.attention + s.memory + s.launches;
	s.final = forward + c.params * 6 / MEMORY + tokens * 8 * m->hidden / MEMORY;
	s.write = (c.params * 2 + tokens * m->hidden * 4) / LOAD; /* the block, and the hidden states behind it for a resume */
	s.block = s.load + s.reference + s.rank + s.learn + s.final + s.write;
	return s;
}

/* What method admm solves in a block, by its defaults: of each product's inputs, C columns, a Gram matrix, a factor and an
 * inverse; of each linear so many products [R,C]·[C,C]. */
enum {
	SOLVER_PRODUCTS = 1 + 19 + 1 + 30
}; /* the target, ADMM's iterations but the first, and conjugate gradients with their start */

struct solver {
	double grams, factors, products; /* seconds */
};

static struct solver solve(const struct model *m)
{
	struct counts c = count(m);
	double tokens = (double)SAMPLES * TOKENS, h = m->hidden, i = m->intermediate;
	double squares = 3 * h * h + i * i, cubes = 3 * h * h * h + i * i * i;
	double linears = (c.qkv_rows + h + 2 * i) * h * h + h * i * i; /* Σ R·C² */
	/* The factor and its inverse by tiles, two thirds of a cube each times two, and UᵀU. */
	return (struct solver){2 * tokens * squares / MATMUL, (4.0 / 3 + 2) * cubes / MATMUL_F32,
			       SOLVER_PRODUCTS * 2 * linears / MATMUL_F32};
}

static void print_solver(const struct model *m)
{
	struct solver s = solve(m);
	double besa = estimate(m).reference + estimate(m).rank + estimate(m).learn + estimate(m).final;
	printf("| %s | %.0f | %.2f s | %.2f s | %.2f s | %.1f |\n", m->name, m->intermediate, s.grams, s.factors, s.products,
	       (s.grams + s.factors + s.products) / besa);
}

int main(void)
{
	enum { COUNT = sizeof MODELS / sizeof *MODELS };
	printf("| model | params/block | load | reference | rank | learn | final | write | block | of peak | model | overlapped | "
	       "of peak | model |\n"
	       "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
	for (int i = 0; i < COUNT; i++) {
		struct seconds s = estimate(&MODELS[i]);
		struct counts c = count(&MODELS[i]);
		double tokens = (double)SAMPLES * TOKENS, causal = 4 * MODELS[i].hidden * (TOKENS + 1) / 2;
		double flop = tokens * (2 * (2 * c.params + c.params + (c.params - c.qkv_params) + c.params) + causal * (3 + 2.5));
		/* The block before is written while this one is pruned, up to its final pass; then the next one is fetched. */
		double beside = s.reference + s.rank + s.learn;
		if (s.write > beside) beside = s.write;
		double overlapped = beside + s.final > s.write + s.load ? beside + s.final : s.write + s.load;
		printf("| %s | %.0f M | %.2f s | %.2f s | %.3f s | %.2f s | %.2f s | %.2f s ", MODELS[i].name, c.params / 1e6,
		       s.load, s.reference, s.rank, s.learn, s.final, s.write);
		printf("| %.1f s | %.0f %% | %.1f min | %.1f s | %.0f %% | %.1f min |\n", s.block, 100 * flop / s.block / PEAK,
		       s.block * MODELS[i].blocks / 60, overlapped, 100 * flop / overlapped / PEAK,
		       overlapped * MODELS[i].blocks / 60);
	}
	printf("\n| model | matmuls | attention | memory-bound kernels | launches |\n| --- | --- | --- | --- | --- |\n");
	for (int i = 0; i < COUNT; i++) {
		struct seconds s = estimate(&MODELS[i]);
		printf("| %s | %.2f s | %.2f s | %.2f s | %.3f s |\n", MODELS[i].name, s.matmul, s.attention, s.memory, s.launches);
	}
	printf("\n| model | columns of down_proj | Gram matrices | factors, inverses | products | of BESA's block |\n"
	       "| --- | --- | --- | --- | --- | --- |\n");
	for (int i = 0; i < COUNT; i++)
		print_solver(&MODELS[i]);
	return 0;
}
