/* The CPU's kernels as each instruction set has them, at the ends of what floats hold: what is rounded to 16 bits and back, and the
 * functions of activations and losses where their exponents leave the range. In rows of every length up to that of a few vectors,
 * since what is left of a row goes another way. */
#include <float.h>
#include <math.h>
#include <omp.h>

#include "tests/unit/scratch.h"

#include "engine/compute/backend.h"

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

enum { LONGEST = 67 };

static const char *const isas[] = {"v2", "v3", "v4"};
static struct backend *backend;
static const char *isa;

static bool supports(const char *name)
{
	__builtin_cpu_init();
	return name[1] == '2' || (name[1] == '3' ? __builtin_cpu_supports("x86-64-v3") : __builtin_cpu_supports("x86-64-v4"));
}

/* Does it with each instruction set that is here. */
static void with_each(void (*check)(void))
{
	for (size_t i = 0; i < COUNT_OF(isas); i++) {
		struct error err;
		char name[20];
		isa = isas[i];
		if (!supports(isa)) {
			print_message("no x86-64-%s here\n", isa);
			continue;
		}
		setenv("BESAD_CPU_ISA", isa, 1);
		if (backend_cpu_create(1, &backend, &err) != STATUS_OK) fail_msg("%s: %s", isa, err.message);
		unsetenv("BESAD_CPU_ISA");
		snprintf(name, sizeof name, "x86-64-%s", isa);
		if (!strstr(backend->device, name)) fail_msg("%s is asked for, and '%s' is there", isa, backend->device);
		check();
		backend_destroy(backend);
	}
}

static struct tensor row(void *data, int64_t n, enum dtype type)
{
	return tensor_make(data, 1, n, type);
}

static void expect_near(const char *what, double x, double is, double should)
{
	bool near = isnan(should) ? isnan(is) : is == should || fabs(is - should) <= 1e-6 + 2e-6 * fabs(should);
	if (!near) fail_msg("%s, %s of %.9g: %.9g, not %.9g", isa, what, x, is, should);
}

/* ---- 16 bits ----------------------------------------------------------------------------------------------------------------- */

static void check_rounding(void)
{
	static const struct {
		uint32_t bits;
		uint16_t bf16, f16;
	} cases[] = {
		{0x00000000, 0x0000, 0x0000}, {0x80000000, 0x8000, 0x8000}, {0x3f800000, 0x3f80, 0x3c00}, /* 0, -0, 1 */
		{0x3f808000, 0x3f80, 0x3c04}, {0x3f818000, 0x3f82, 0x3c0c}, /* ties of bf16, to even */
		{0x3f801000, 0x3f80, 0x3c00}, {0x3f803000, 0x3f80, 0x3c02}, /* of half */
		{0x7f800000, 0x7f80, 0x7c00}, {0xff800000, 0xff80, 0xfc00}, /* infinities */
		{0x7fc00000, 0x7fc0, 0x7e00}, {0xffc00000, 0xffc0, 0xfe00}, {0x7f800001, 0x7fc0, 0x7e00}, /* not numbers */
		{0x7f7fffff, 0x7f80, 0x7c00}, {0x477fe000, 0x4780, 0x7bff},                               /* the largest, half's */
		{0x477fefff, 0x4780, 0x7bff}, {0x477ff000, 0x4780, 0x7c00},                               /* 65519.99…, 65520 */
		{0x38800000, 0x3880, 0x0400}, {0x387fc000, 0x3880, 0x03ff}, /* where half is subnormal */
		{0x33800000, 0x3380, 0x0001}, {0x33000000, 0x3300, 0x0000}, {0x33000001, 0x3300, 0x0001}, /* half's smallest */
		{0x00000001, 0x0000, 0x0000},
	};
	float from[LONGEST];
	uint16_t to[LONGEST];
	for (int n = 1; n <= LONGEST; n++)
		for (int type = 0; type < 2; type++) {
			for (int i = 0; i < n; i++)
				memcpy(&from[i], &cases[i % (int)COUNT_OF(cases)].bits, sizeof *from);
			assert_int_equal(
				backend->ops->convert(backend, row(to, n, type ? DTYPE_F16 : DTYPE_BF16), row(from, n, DTYPE_F32)),
				STATUS_OK);
			for (int i = 0; i < n; i++) {
				size_t at = (size_t)i % COUNT_OF(cases);
				uint16_t should = type ? cases[at].f16 : cases[at].bf16;
				if (to[i] != should)
					fail_msg("%s: %#x is %#x of %s, not %#x", isa, cases[at].bits, to[i],
						 type ? "half" : "bf16", should);
			}
		}
}

static double half_value(uint16_t bits)
{
	int exponent = bits >> 10 & 31, fraction = bits & 1023;
	double size = exponent == 31 ? (fraction ? NAN : INFINITY)
		      : exponent     ? ldexp(1024 + fraction, exponent - 25)
				     : ldexp(fraction, -24);
	return bits & 0x8000 ? -size : size;
}

/* Every number of 16 bits. */
static void check_widening(void)
{
	static uint16_t from[65536];
	static float to[65536];
	for (int i = 0; i < 65536; i++)
		from[i] = (uint16_t)i;
	for (int64_t n = 65536 - 15; n <= 65536; n++) {
		assert_int_equal(backend->ops->convert(backend, row(to, n, DTYPE_F32), row(from + 65536 - n, n, DTYPE_F16)),
				 STATUS_OK);
		for (int i = 0; i < n; i++) {
			double should = half_value(from[65536 - n + i]);
			if (isnan(should) ? !isnan(to[i]) : to[i] != should)
				fail_msg("%s: half %#x is %g", isa, from[65536 - n + i], (double)to[i]);
		}
	}
	assert_int_equal(backend->ops->convert(backend, row(to, 65536, DTYPE_F32), row(from, 65536, DTYPE_BF16)), STATUS_OK);
	for (uint32_t i = 0; i < 65536; i++) {
		uint32_t bits;
		memcpy(&bits, &to[i], sizeof bits);
		bool is_nan = (i & 0x7fff) > 0x7f80; /* one that signals is quiet behind arithmetic */
		if (is_nan ? !isnan(to[i]) : bits != i << 16) fail_msg("%s: bf16 %#x is %#x", isa, i, bits);
	}
}

static void test_sixteen_bits(void **state)
{
	(void)state;
	with_each(check_rounding);
	with_each(check_widening);
}

/* ---- products ---------------------------------------------------------------------------------------------------------------- */

/* A product of so many rows, columns and of an inner dimension, added to what is in C, whose type this is. */
static void multiply_by(struct backend *by, const int64_t shape[3], enum dtype type, int transposes, float *a, float *b, void *c)
{
	int64_t m = shape[0], n = shape[1], k = shape[2];
	bool at = transposes & 1, bt = transposes & 2;
	struct tensor left = tensor_make(a, at ? k : m, at ? m : k, DTYPE_F32),
		      right = tensor_make(b, bt ? n : k, bt ? k : n, DTYPE_F32);
	assert_int_equal(by->ops->matmul(by, tensor_make(c, m, n, type), left, at, right, bt, true), STATUS_OK);
}

/* By one thread and by five: a sum does not depend on who makes it, or beside which others. One thread makes the second C, which
 * is no fp32, in two turns of rows, each by two stretches of the inner dimension. */
static void check_threads(void)
{
	static const int64_t shapes[][3] = {{230, 700, 600}, {1150, 240, 520}};
	struct error err;
	struct backend *five, *one = backend;
	setenv("BESAD_CPU_ISA", isa, 1);
	assert_int_equal(backend_cpu_create(5, &five, &err), STATUS_OK);
	unsetenv("BESAD_CPU_ISA");
	for (size_t shape = 0; shape < COUNT_OF(shapes); shape++) {
		const int64_t *s = shapes[shape];
		enum dtype type = shape ? DTYPE_F16 : DTYPE_F32;
		size_t bytes = (size_t)(s[0] * s[1]) * dtype_size(type);
		float *a = calloc((size_t)(s[0] * s[2]), sizeof *a), *b = calloc((size_t)(s[1] * s[2]), sizeof *b);
		void *c = calloc(1, bytes), *d = calloc(1, bytes);
		assert_true(a && b && c && d);
		for (int i = 0; i < s[0] * s[2]; i++)
			a[i] = (float)sin(i);
		for (int i = 0; i < s[1] * s[2]; i++)
			b[i] = (float)cos(i);
		for (int transposes = 0; transposes < 4; transposes++) {
			multiply_by(one, s, type, transposes, a, b, c);
			multiply_by(five, s, type, transposes, a, b, d);
			if (memcmp(c, d, bytes) != 0) fail_msg("%s: products by one thread and by five differ", isa);
		}
		free(a), free(b), free(c), free(d);
	}
	backend_destroy(five);
}

static void test_products_by_threads(void **state)
{
	(void)state;
	with_each(check_threads);
}

/* ---- activations ------------------------------------------------------------------------------------------------------------- */

static const float edges[] = {0,  -0.0f, 1,     -1,     0.01f, -0.01f, 9.9f, -9.9f, 10.1f,  -10.1f,  30,  -30,  80,  -80,
			      87, -87,   87.4f, -87.4f, 88.4f, -88.4f, 100,  -100,  500.5f, -500.5f, 1e4, -1e4, 1e9, -1e9};

static double sigmoid(double x)
{
	return 1 / (1 + exp(-x));
}

static double activation(enum activation_kind kind, double x)
{
	switch (kind) {
	case ACTIVATION_SILU:
		return x * sigmoid(x);
	case ACTIVATION_GELU_TANH:
		return x / 2 * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
	case ACTIVATION_GELU:
		return x / 2 * (1 + erf(x / sqrt(2)));
	case ACTIVATION_RELU:
		return x > 0 ? x : 0;
	default: { /* 1.702 and 7 */
		double g = fmin(x, 7);
		return g * sigmoid(1.702 * g);
	}
	}
}

static double slope(enum activation_kind kind, double x)
{
	double h = 1e-4;
	return (activation(kind, x + h) - activation(kind, x - h)) / (2 * h);
}

static void fill(float *to, int n)
{
	for (int i = 0; i < n; i++)
		to[i] = edges[i % (int)COUNT_OF(edges)];
}

static void check_activation(enum activation_kind kind, int n, bool alone)
{
	static const char *const names[] = {"silu", "gelu_tanh", "gelu", "relu", "clamped_swiglu"};
	float x[LONGEST], up[LONGEST], y[LONGEST], dy[LONGEST], dx[LONGEST], dup[LONGEST];
	struct activation with = {kind, 1.702f, 7};
	struct tensor none = {0};
	fill(x, n);
	for (int i = 0; i < n; i++)
		up[i] = kind == ACTIVATION_CLAMPED_SWIGLU ? 1 : 2, dy[i] = 1;
	struct tensor ups = alone ? none : row(up, n, DTYPE_F32), dups = alone ? none : row(dup, n, DTYPE_F32);
	struct tensor gate = row(x, n, DTYPE_F32);
	assert_int_equal(backend->ops->activation_forward(backend, with, row(y, n, DTYPE_F32), gate, ups), STATUS_OK);
	assert_int_equal(
		backend->ops->activation_backward(backend, with, row(dx, n, DTYPE_F32), dups, row(dy, n, DTYPE_F32), gate, ups),
		STATUS_OK);
	double by = alone ? 1 : 2; /* of CLAMPED_SWIGLU 1 + 1 */
	for (int i = 0; i < n; i++) {
		double at = (double)x[i], value = activation(kind, at);
		expect_near(names[kind], at, (double)y[i], by * value);
		if (!alone) expect_near(names[kind], at, (double)dup[i], value);
		if (!isfinite(dx[i])) fail_msg("%s, the slope of %s at %g is %g", isa, names[kind], at, (double)dx[i]);
		if (fabs(at) < 1e3 && at != 0 && fabs((double)dx[i] - by * slope(kind, at)) > 1e-4)
			fail_msg("%s, the slope of %s at %g is %g", isa, names[kind], at, (double)dx[i]);
	}
}

static void check_activations(void)
{
	for (int n = 1; n <= LONGEST; n++)
		for (enum activation_kind kind = ACTIVATION_SILU; kind <= ACTIVATION_CLAMPED_SWIGLU; kind++) {
			check_activation(kind, n, false);
			if (kind != ACTIVATION_CLAMPED_SWIGLU) check_activation(kind, n, true);
		}
}

static void test_activations(void **state)
{
	(void)state;
	with_each(check_activations);
}

/* ---- logits ------------------------------------------------------------------------------------------------------------------ */

static double capped(double x, double softcap)
{
	return softcap > 0 ? softcap * tanh(x / softcap) : x;
}

/* The logarithm of the sum of exponents. */
static double log_sum(const float *x, int n, double softcap)
{
	double top = -INFINITY, sum = 0;
	for (int i = 0; i < n; i++)
		top = fmax(top, capped((double)x[i], softcap));
	for (int i = 0; i < n; i++)
		sum += exp(capped((double)x[i], softcap) - top);
	return top + log(sum);
}

static void check_logits(void)
{
	for (int n = 1; n <= LONGEST; n++)
		for (int c = 0; c < 2; c++) {
			float x[LONGEST], wanted[LONGEST], dx[LONGEST], softcap = c ? 30 : 0;
			fill(x, n < 24 ? n : 24); /* beyond are numbers that nothing but themselves would be left of */
			for (int i = 24; i < n; i++)
				x[i] = edges[i % 24] / 3;
			for (int i = 0; i < n; i++)
				wanted[i] = x[(i + 1) % n] / 4;
			double logprob, stats[STEP_STATS] = {0}, sum = 0, from = log_sum(x, n, softcap),
					to = log_sum(wanted, n, softcap);
			int32_t target = n - 1;
			assert_int_equal(backend->ops->token_logprobs(backend, &logprob, row(x, n, DTYPE_F32), &target, softcap),
					 STATUS_OK);
			expect_near("the log of a token's part", (double)x[target], logprob,
				    capped((double)x[target], softcap) - from);
			assert_int_equal(backend->ops->divergence(backend, stats, row(dx, n, DTYPE_F32), row(x, n, DTYPE_F32),
								  row(wanted, n, DTYPE_F32), softcap, 1, false),
					 STATUS_OK);
			for (int i = 0; i < n; i++) {
				double p = capped((double)wanted[i], softcap) - to, q = capped((double)x[i], softcap) - from;
				sum += exp(p) * (p - q);
				double by_cap = c ? 1 - pow(tanh((double)x[i] / 30), 2) : 1;
				expect_near("a logit's slope", (double)x[i], (double)dx[i], (exp(q) - exp(p)) * by_cap);
			}
			if (fabs(stats[STEP_RECONSTRUCTION] - sum) > 1e-4 * (1 + sum))
				fail_msg("%s, the divergence of %d logits is %g, not %g", isa, n, stats[STEP_RECONSTRUCTION], sum);
		}
}

static void test_logits(void **state)
{
	(void)state;
	with_each(check_logits);
}

/* ---- the backend ------------------------------------------------------------------------------------------------------------- */

static void test_creation(void **state)
{
	(void)state;
	struct error err;
	assert_int_equal(backend_cpu_create(-1, &backend, &err), STATUS_INVALID);
	assert_string_equal(err.message, "-1 threads");
	assert_int_equal(backend_cpu_create(0, &backend, &err), STATUS_OK);
	assert_int_equal(backend->threads, omp_get_max_threads());
	void *memory;
	assert_int_equal(backend->ops->alloc(backend, 0, &memory), STATUS_OK);
	assert_non_null(memory);
	assert_int_equal(backend->ops->upload(backend, memory, NULL, 0), STATUS_OK);
	assert_int_equal(backend->ops->zero(backend, memory, 0), STATUS_OK);
	backend->ops->release(backend, memory);
	assert_int_equal(backend->ops->alloc(backend, SIZE_MAX / 2, &memory), STATUS_NO_MEMORY);
	backend_destroy(backend);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_sixteen_bits), cmocka_unit_test(test_products_by_threads),
					   cmocka_unit_test(test_activations), cmocka_unit_test(test_logits),
					   cmocka_unit_test(test_creation)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
