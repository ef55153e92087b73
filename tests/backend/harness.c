#include "tests/backend/harness.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct backend *backend;

struct backend *test_backend(void)
{
	if (backend) return backend;
	const char *name = getenv("BESAD_TEST_BACKEND"), *threads = getenv("BESAD_TEST_THREADS");
	struct error err;
	enum status status = name && !strcmp(name, "cuda") ? backend_cuda_create(0, &backend, &err)
							   : backend_cpu_create(threads ? atoi(threads) : 0, &backend, &err);
	if (status != STATUS_OK) {
		fprintf(stderr, "no backend: %s\n", err.message);
		exit(1);
	}
	fprintf(stderr, "backend %s: %s\n", backend->name, backend->device);
	return backend;
}

void test_backend_end(void)
{
	backend_destroy(backend);
	backend = NULL;
}

int test_backend_teardown(void **state)
{
	(void)state;
	test_backend_end();
	return 0;
}

/* splitmix64 */
static uint64_t random_bits(void)
{
	static uint64_t state;
	if (!state) {
		const char *seed = getenv("BESAD_TEST_SEED");
		state = seed ? strtoull(seed, NULL, 10) : 20240227;
	}
	uint64_t z = state += 0x9e3779b97f4a7c15;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

double random_uniform(double low, double high)
{
	return low + (high - low) * ((double)(random_bits() >> 11) * 0x1p-53);
}

double random_normal(void)
{
	double u = 1 - random_uniform(0, 1);
	return sqrt(-2 * log(u)) * cos(2 * M_PI * random_uniform(0, 1));
}

int random_below(int n)
{
	return (int)(random_bits() >> 33) % n;
}

double *doubles(int64_t n)
{
	double *values = calloc((size_t)n + 1, sizeof *values);
	assert_non_null(values);
	return values;
}

double *uniform(int64_t n, double low, double high)
{
	double *values = doubles(n);
	for (int64_t i = 0; i < n; i++)
		values[i] = random_uniform(low, high);
	return values;
}

double *integers(int64_t n, int below)
{
	double *values = doubles(n);
	for (int64_t i = 0; i < n; i++)
		values[i] = random_below(below);
	return values;
}

double *copy_of(const double *from, int64_t n)
{
	double *copy = doubles(n);
	memcpy(copy, from, (size_t)n * sizeof *copy);
	return copy;
}

const enum dtype float_types[3] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
const char *const float_names[3] = {"f32", "bf16", "f16"};
const int64_t row_shapes[ROW_SHAPES][2] = {{1, 1}, {1, 7}, {3, 1}, {5, 20}, {17, 64}, {33, 191}, {64, 192}, {7, 1025}, {2, 2050}};

/* ---- element types ----------------------------------------------------------------------------------------------------------- */

double round_to_type(double value, enum dtype type)
{
	int fraction_bits = type == DTYPE_BF16 ? 7 : 10, least_exponent = type == DTYPE_BF16 ? -126 : -14;
	double largest = type == DTYPE_BF16 ? 0x1.fep127 : 65504;
	switch (type) {
	case DTYPE_F32:
		return (double)(float)value;
	case DTYPE_BF16:
	case DTYPE_F16:
		break;
	default:
		return value;
	}
	if (value == 0 || !isfinite(value)) return value;
	int exponent = ilogb(value);
	if (exponent < least_exponent) exponent = least_exponent;
	double unit = ldexp(1, exponent - fraction_bits), rounded = nearbyint(value / unit) * unit;
	return fabs(rounded) > largest ? copysign(INFINITY, value) : rounded;
}

static uint16_t half_bits(double value)
{
	uint16_t sign = signbit(value) ? 0x8000 : 0;
	value = fabs(value);
	if (isnan(value)) return 0x7e00;
	if (isinf(value)) return sign | 0x7c00;
	if (value < 0x1p-14) return sign | (uint16_t)(value * 0x1p24);
	int exponent = ilogb(value);
	return sign | (uint16_t)((exponent + 15) << 10) | (uint16_t)((ldexp(value, -exponent) - 1) * 1024);
}

static void encode(unsigned char *to, double value, enum dtype type)
{
	float f = (float)value;
	uint32_t bits;
	uint16_t half;
	memcpy(&bits, &f, sizeof bits);
	switch (type) {
	case DTYPE_F32:
		memcpy(to, &f, sizeof f);
		break;
	case DTYPE_BF16:
		half = (uint16_t)(bits >> 16);
		memcpy(to, &half, sizeof half);
		break;
	case DTYPE_F16:
		half = half_bits(value);
		memcpy(to, &half, sizeof half);
		break;
	case DTYPE_F64:
		memcpy(to, &value, sizeof value);
		break;
	case DTYPE_I64:
		memcpy(to, &(int64_t){(int64_t)value}, 8);
		break;
	case DTYPE_I32:
		memcpy(to, &(int32_t){(int32_t)value}, 4);
		break;
	case DTYPE_U16:
		memcpy(to, &(uint16_t){(uint16_t)value}, 2);
		break;
	case DTYPE_U8:
		*to = (unsigned char)value;
		break;
	}
}

static double decode(const unsigned char *from, enum dtype type)
{
	union {
		float f32;
		double f64;
		uint16_t u16;
		int32_t i32;
		int64_t i64;
		uint32_t bits;
	} u = {.i64 = 0};
	memcpy(&u, from, dtype_size(type));
	switch (type) {
	case DTYPE_F32:
		return (double)u.f32;
	case DTYPE_BF16:
		u.bits <<= 16;
		return (double)u.f32;
	case DTYPE_F16: {
		int exponent = u.u16 >> 10 & 31, fraction = u.u16 & 1023;
		double sign = u.u16 & 0x8000 ? -1 : 1;
		if (exponent == 31) return fraction ? NAN : sign * INFINITY;
		return sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
	}
	case DTYPE_F64:
		return u.f64;
	case DTYPE_I64:
		return (double)u.i64;
	case DTYPE_I32:
		return u.i32;
	case DTYPE_U16:
		return u.u16;
	case DTYPE_U8:
		return *from;
	}
	return NAN;
}

/* ---- operands ---------------------------------------------------------------------------------------------------------------- */

enum { LEFT = 3, GUARD = 256 }; /* columns of a gap that stand left of the tensor; bytes around the whole */

static size_t offset_of(const struct operand *o, int64_t row, int64_t col)
{
	int64_t left = o->tensor.stride > o->tensor.cols ? LEFT : 0;
	return GUARD + (size_t)(row * o->tensor.stride + left + col) * dtype_size(o->tensor.dtype);
}

static struct operand operand_make(double *value, int64_t rows, int64_t cols, enum dtype type, int gap, bool input)
{
	struct operand o = {.tensor = {NULL, rows, cols, cols + gap, type}, .value = value, .input = input};
	struct backend *b = test_backend();
	o.size = 2 * GUARD + (size_t)(rows * (cols + gap)) * dtype_size(type);
	o.bytes = malloc(o.size);
	assert_non_null(o.bytes);
	memset(o.bytes, 0xff, o.size);
	for (int64_t row = 0; row < rows && value; row++) {
		for (int64_t col = 0; col < cols; col++) {
			double *v = &value[row * cols + col];
			*v = round_to_type(*v, type);
			encode(o.bytes + offset_of(&o, row, col), *v, type);
		}
	}
	RUN(b->ops->alloc(b, o.size, &o.memory));
	RUN(b->ops->upload(b, o.memory, o.bytes, o.size));
	o.tensor.data = (char *)o.memory + offset_of(&o, 0, 0);
	return o;
}

static double *normals(int64_t n)
{
	double *value = doubles(n);
	for (int64_t i = 0; i < n; i++)
		value[i] = random_normal();
	return value;
}

struct operand operand_input(double *value, int64_t rows, int64_t cols, enum dtype type, int gap)
{
	return operand_make(value, rows, cols, type, gap, true);
}

struct operand operand_random(int64_t rows, int64_t cols, enum dtype type, int gap)
{
	return operand_make(normals(rows * cols), rows, cols, type, gap, true);
}

struct operand operand_output(int64_t rows, int64_t cols, enum dtype type, int gap)
{
	return operand_make(NULL, rows, cols, type, gap, false);
}

struct operand operand_inout(int64_t rows, int64_t cols, enum dtype type, int gap)
{
	return operand_make(normals(rows * cols), rows, cols, type, gap, false);
}

struct operand operand_none(void)
{
	return (struct operand){.input = true};
}

void operand_fetch(struct operand *o)
{
	struct backend *b = test_backend();
	struct tensor t = o->tensor;
	size_t element = dtype_size(t.dtype);
	unsigned char *now = malloc(o->size);
	assert_non_null(now);
	RUN(b->ops->download(b, now, o->memory, o->size));
	free(o->value);
	o->value = doubles(t.rows * t.cols);
	for (int64_t row = 0; row < t.rows; row++) {
		for (int64_t col = 0; col < t.cols; col++) {
			unsigned char *at = now + offset_of(o, row, col);
			o->value[row * t.cols + col] = decode(at, t.dtype);
			if (isnan(o->value[row * t.cols + col]))
				fail_msg("element (%lld, %lld) of [%lld, %lld] was not written, or is NaN", (long long)row,
					 (long long)col, (long long)t.rows, (long long)t.cols);
			memset(at, 0xff, element);
		}
	}
	for (size_t i = 0; i < o->size; i++)
		if (now[i] != 0xff)
			fail_msg("the operation wrote outside its output [%lld, %lld]", (long long)t.rows, (long long)t.cols);
	free(now);
}

static void free_one(struct operand *o)
{
	struct backend *b = test_backend();
	if (o->memory && o->input) {
		unsigned char *now = malloc(o->size);
		assert_non_null(now);
		RUN(b->ops->download(b, now, o->memory, o->size));
		if (memcmp(now, o->bytes, o->size))
			fail_msg("the operation changed its input [%lld, %lld]", (long long)o->tensor.rows,
				 (long long)o->tensor.cols);
		free(now);
	}
	b->ops->release(b, o->memory);
	free(o->bytes);
	free(o->value);
	*o = (struct operand){.input = true};
}

void operand_free(struct operand *first, ...)
{
	va_list list;
	va_start(list, first);
	for (struct operand *o = first; o; o = va_arg(list, struct operand *))
		free_one(o);
	va_end(list);
}

/* ---- comparison -------------------------------------------------------------------------------------------------------------- */

double bound_of(enum dtype type)
{
	return type == DTYPE_BF16 ? 1e-5 : type == DTYPE_F16 ? 1e-6 : 1e-9;
}

void expect_close(const double *out, const double *expected, int64_t n, double bound, const char *format, ...)
{
	char text[256];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	double error = 0, norm = 0;
	for (int64_t i = 0; i < n; i++) {
		error += (out[i] - expected[i]) * (out[i] - expected[i]);
		norm += expected[i] * expected[i];
	}
	if (getenv("BESAD_TEST_VERBOSE")) fprintf(stderr, "%-60s %.1e\n", text, norm > 0 ? error / norm : error);
	if (n < 16 && bound > 1e-9) bound *= 2; /* one bf16 alone can be off by 2⁻⁸: 1.5e-5 */
	if (!(error <= bound * norm)) fail_msg("%s: normalised mean squared error %.3g, at most %.1g", text, error / norm, bound);
}

void expect_equal(const double *out, const double *expected, int64_t n, const char *format, ...)
{
	char text[256];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	for (int64_t i = 0; i < n; i++)
		if (out[i] != expected[i])
			fail_msg("%s: element %lld is %.17g, not %.17g", text, (long long)i, out[i], expected[i]);
}
