/* What a device may answer and the emulator seldom does: errors that stay and errors that do not, cuBLASLt's refusals, less
 * shared memory, copies that are late. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/prune/stream.h"
#include "tests/cuda/emulated_backend.h"

static float *random_floats(int64_t n)
{
	float *values = malloc((size_t)n * sizeof *values);
	assert_non_null(values);
	for (int64_t i = 0; i < n; i++)
		values[i] = (float)rand() / (float)RAND_MAX - 0.5f;
	return values;
}

/* A tensor of random values, the same for the same seed. */
static struct tensor random_tensor(int64_t rows, int64_t cols, enum dtype type, unsigned seed)
{
	struct tensor f32 = tensor_make(NULL, rows, cols, DTYPE_F32), to = tensor_make(NULL, rows, cols, type);
	srand(seed);
	float *values = random_floats(rows * cols);
	RUN(OPS->alloc(backend, tensor_bytes(&f32), &f32.data));
	RUN(OPS->upload(backend, f32.data, values, tensor_bytes(&f32)));
	RUN(OPS->alloc(backend, tensor_bytes(&to), &to.data));
	RUN(OPS->convert(backend, to, f32));
	OPS->release(backend, f32.data);
	free(values);
	return to;
}

static float *fetch(struct tensor t)
{
	struct tensor f32 = tensor_make(NULL, t.rows, t.cols, DTYPE_F32);
	float *values = malloc(tensor_bytes(&f32));
	assert_non_null(values);
	RUN(OPS->alloc(backend, tensor_bytes(&f32), &f32.data));
	RUN(OPS->convert(backend, f32, t));
	RUN(OPS->download(backend, values, f32.data, tensor_bytes(&f32)));
	OPS->release(backend, f32.data);
	return values;
}

static void expect_near(const float *a, const float *b, int64_t n, double bound)
{
	double error = 0, norm = 0;
	for (int64_t i = 0; i < n; i++) {
		double d = (double)a[i] - (double)b[i];
		error += d * d;
		norm += (double)b[i] * (double)b[i];
	}
	if (!(norm > 0 && error <= bound * norm)) fail_msg("normalised mean squared error %.3g, at most %.1g", error / norm, bound);
}

/* ---- errors ------------------------------------------------------------------------------------------------------------------ */

/* A launch that is refused is that launch's error, not the next one's too; nor is it what another call has left. */
static void test_error_that_passes(void **state)
{
	(void)state;
	struct attention a = {1, 64, 1, 1, 64, 0.125f, 0, 0};
	struct tensor q = random_tensor(64, 64, DTYPE_F32, 1), out = random_tensor(64, 64, DTYPE_F32, 2);
	struct tensor lse = random_tensor(1, 64, DTYPE_F32, 3);
	emulator_faults.shared_memory = 4096; /* after the backend was made */
	assert_int_equal(OPS->attention_forward(backend, &a, out, lse, q, q, q), STATUS_BACKEND);
	emulator_faults.shared_memory = 0;
	assert_non_null(strstr(backend->error.message, "forward_kernel"));
	assert_false(backend_cuda_lost());
	RUN(OPS->add(backend, out, q));
	RUN(OPS->attention_forward(backend, &a, out, lse, q, q, q));
	emulator_leave_error();
	RUN(OPS->add(backend, out, q));
	RUN(OPS->sync(backend));
}

/* An access to no memory: every call fails from then on, this process can make no other backend, and what ends does not hang. */
static void test_error_that_stays(void **state)
{
	(void)state;
	struct error err;
	struct backend *other = NULL;
	struct tensor x = random_tensor(8, 8, DTYPE_F32, 1), nowhere = tensor_make((void *)64, 8, 8, DTYPE_F32);
	char byte;
	assert_false(backend_cuda_lost());
	RUN(OPS->add(backend, x, nowhere));
	assert_int_equal(OPS->sync(backend), STATUS_BACKEND);
	assert_non_null(strstr(backend->error.message, "cudaErrorIllegalAddress"));
	assert_true(backend_cuda_lost());
	assert_int_equal(OPS->download(backend, &byte, x.data, 1), STATUS_BACKEND);
	assert_int_equal(OPS->side_download(backend, &byte, x.data, 1, &err), STATUS_BACKEND);
	assert_int_equal(backend_cuda_create(0, &other, &err), STATUS_BACKEND);
	assert_non_null(strstr(err.message, "another process"));
	assert_null(other);
}

static void test_too_little_shared_memory(void **state)
{
	(void)state;
	struct error err;
	struct backend *other = NULL;
	emulator_faults.shared_memory = 48 << 10;
	assert_int_equal(backend_cuda_create(0, &other, &err), STATUS_UNSUPPORTED);
	assert_non_null(strstr(err.message, "shared memory"));
}

/* ---- cuBLASLt ---------------------------------------------------------------------------------------------------------------- */

enum { ROWS = 40, COLS = 56, INNER = 2000 };

static float *product(enum dtype type)
{
	struct tensor a = random_tensor(ROWS, INNER, type, 5), b = random_tensor(INNER, COLS, type, 6);
	struct tensor c = random_tensor(ROWS, COLS, type, 7);
	RUN(OPS->matmul(backend, c, a, false, b, false, false));
	float *values = fetch(c);
	OPS->release(backend, a.data);
	OPS->release(backend, b.data);
	OPS->release(backend, c.data);
	return values;
}

/* What the double sum, rounded once, gives: parts of a sum that are rounded to 16 bits each are further off. */
static void test_sums_in_fp32(void **state)
{
	static const enum dtype types[] = {DTYPE_BF16, DTYPE_F16};
	static const double bounds[] = {4e-6, 6e-8};
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct tensor ta = random_tensor(ROWS, INNER, types[i], 5), tb = random_tensor(INNER, COLS, types[i], 6);
		float *a = fetch(ta), *b = fetch(tb), *expected = malloc(ROWS * COLS * sizeof *expected);
		assert_non_null(expected);
		for (int64_t r = 0; r < ROWS; r++)
			for (int64_t c = 0; c < COLS; c++) {
				double sum = 0;
				for (int64_t k = 0; k < INNER; k++)
					sum += (double)a[r * INNER + k] * (double)b[k * COLS + c];
				expected[r * COLS + c] = (float)sum;
			}
		float *got = product(types[i]);
		expect_near(got, expected, ROWS * COLS, bounds[i]);
		free(a);
		free(b);
		free(expected);
		free(got);
	}
}

static void test_choices_that_will_not_do(void **state)
{
	(void)state;
	emulator_faults.unusable_choices = 3;
	float *fourth = product(DTYPE_F32);
	assert_true(emulator_faults.matmuls > 0); /* the library computed it, by its fourth choice */
	close_backend(NULL);
	open_backend(NULL);
	emulator_faults.unusable_choices = 8;
	float *none = product(DTYPE_F32);
	assert_int_equal(emulator_faults.matmuls, 0);
	close_backend(NULL);
	open_backend(NULL);
	emulator_faults.matmul_refuses = true;
	float *refused = product(DTYPE_F32);
	assert_int_equal(emulator_faults.matmuls, 0);
	expect_near(none, fourth, ROWS * COLS, 1e-11);
	assert_memory_equal(refused, none, ROWS * COLS * sizeof *none);
	free(fourth);
	free(none);
	free(refused);
}

/* ---- 99 KiB of shared memory ------------------------------------------------------------------------------------------------- */

enum { TOKENS = 70, ATTENTION_OUTPUTS = 4 };

static void attend(enum dtype type, int dim, float *out[ATTENTION_OUTPUTS])
{
	struct attention a = {1, TOKENS, 2, 1, dim, 0.1f, 0, 0};
	struct tensor q = random_tensor(TOKENS, 2 * dim, type, 1), k = random_tensor(TOKENS, dim, type, 2);
	struct tensor v = random_tensor(TOKENS, dim, type, 3), dout = random_tensor(TOKENS, 2 * dim, type, 4);
	struct tensor y = random_tensor(TOKENS, 2 * dim, type, 5), lse = random_tensor(2, TOKENS, DTYPE_F32, 6);
	struct tensor dq = random_tensor(TOKENS, 2 * dim, type, 7), dk = random_tensor(TOKENS, dim, type, 8);
	struct tensor dv = random_tensor(TOKENS, dim, type, 9), results[ATTENTION_OUTPUTS] = {y, dq, dk, dv};
	RUN(OPS->attention_forward(backend, &a, y, lse, q, k, v));
	RUN(OPS->attention_backward(backend, &a, dq, dk, dv, q, k, v, y, lse, dout));
	for (int i = 0; i < ATTENTION_OUTPUTS; i++)
		out[i] = fetch(results[i]);
	struct tensor *all[] = {&q, &k, &v, &dout, &y, &lse, &dq, &dk, &dv};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		OPS->release(backend, all[i]->data);
}

static float *binned(void)
{
	enum { R = 10, C = 96, BINS = 255 };
	struct tensor dy = random_tensor(16, R, DTYPE_BF16, 1), x = random_tensor(16, C, DTYPE_BF16, 2);
	struct tensor weight = random_tensor(R, C, DTYPE_BF16, 3), bin = tensor_make(NULL, R, C, DTYPE_U8);
	struct tensor sums = random_tensor(R, BINS, DTYPE_F32, 4);
	unsigned char bins[R * C];
	for (int i = 0; i < R * C; i++)
		bins[i] = (unsigned char)(i * 7 % BINS);
	RUN(OPS->alloc(backend, sizeof bins, &bin.data));
	RUN(OPS->upload(backend, bin.data, bins, sizeof bins));
	RUN(OPS->binned_gradient(backend, sums, dy, x, weight, bin, false));
	return fetch(sums);
}

/* The tiles of devices with less shared memory compute the same. */
static void test_small_tiles(void **state)
{
	static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
	(void)state;
	for (int pass = 0; pass < 6; pass++) {
		enum dtype type = types[pass / 2];
		int dim = pass % 2 ? 256 : 128, heads_of_output[] = {2, 2, 1, 1};
		float *large[ATTENTION_OUTPUTS], *small[ATTENTION_OUTPUTS];
		attend(type, dim, large);
		close_backend(NULL);
		emulator_faults.shared_memory = 99 << 10;
		open_backend(NULL);
		attend(type, dim, small);
		close_backend(NULL);
		open_backend(NULL);
		for (int i = 0; i < ATTENTION_OUTPUTS; i++) {
			expect_near(small[i], large[i], TOKENS * dim * heads_of_output[i], type == DTYPE_F32 ? 1e-11 : 1e-7);
			free(small[i]);
			free(large[i]);
		}
	}
	float *large = binned();
	close_backend(NULL);
	emulator_faults.shared_memory = 99 << 10;
	open_backend(NULL);
	float *small = binned();
	assert_memory_equal(small, large, 10 * 255 * sizeof *small);
	free(small);
	free(large);
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

enum { RELEASED = 1000 };

/* Releases memory that something issued before still writes, and expects in it what another stream writes when it is given out
 * again. */
static void release_and_reuse(void *written)
{
	struct error err;
	float from[RELEASED], back[RELEASED];
	void *again;
	for (int i = 0; i < RELEASED; i++)
		from[i] = (float)i;
	OPS->release(backend, written);
	do /* others of that size may be idle too */
		RUN(OPS->alloc(backend, sizeof from, &again));
	while (again != written);
	if (OPS->side_upload(backend, again, from, sizeof from, &err) != STATUS_OK) fail_msg("%s", err.message);
	RUN(OPS->fetched(backend));
	RUN(OPS->sync(backend));
	RUN(OPS->download(backend, back, again, sizeof back));
	assert_memory_equal(back, from, sizeof back);
}

/* `release` waits, for operations and for what is fetched: another stream may fill the memory as soon as it is given out again. */
static void test_release_waits(void **state)
{
	(void)state;
	struct tensor x = random_tensor(1, RELEASED, DTYPE_F32, 1), y = random_tensor(1, RELEASED, DTYPE_F32, 2);
	void *host;
	RUN(OPS->add(backend, x, y));
	release_and_reuse(x.data);
	RUN(OPS->alloc_host(backend, RELEASED * sizeof(float), &host));
	memset(host, 0, RELEASED * sizeof(float));
	RUN(OPS->fetch(backend, y.data, host, RELEASED * sizeof(float)));
	release_and_reuse(y.data);
	OPS->release_host(backend, host);
}

/* A fetch goes on beside the operations: who has waited for these has not waited for it, and it may read the host's memory
 * still. */
static void test_fetch_is_beside(void **state)
{
	enum { N = 1000 };
	(void)state;
	struct tensor x = random_tensor(1, N, DTYPE_F32, 1);
	float back[N];
	void *host;
	RUN(OPS->alloc_host(backend, sizeof back, &host));
	memset(host, 0, sizeof back);
	RUN(OPS->fetch(backend, x.data, host, sizeof back));
	RUN(OPS->sync(backend));
	for (int i = 0; i < N; i++)
		((float *)host)[i] = (float)i;
	RUN(OPS->fetched(backend));
	RUN(OPS->download(backend, back, x.data, sizeof back));
	assert_memory_equal(back, host, sizeof back);
	OPS->release_host(backend, host);
}

/* Hidden states on the host come to the device while the batch before is computed with, and are what the host has when they are
 * asked for. */
static void test_stream_ahead(void **state)
{
	enum {
		SEQUENCES = 15,
		HIDDEN = 256,
		BATCH = 2,
		N = TOKENS * HIDDEN,
		LIMIT = (64 << 20) + 900000
	}; /* less than the stream */
	(void)state;
	struct error err;
	struct stream stream;
	float *values = random_floats(SEQUENCES * N), *got = malloc(BATCH * N * sizeof *got);
	struct tensor x;
	close_backend(NULL);
	if (backend_cuda_create(LIMIT, &backend, &err) != STATUS_OK) fail_msg("%s", err.message);
	if (stream_create(backend, SEQUENCES, TOKENS, HIDDEN, BATCH, &stream, &err) != STATUS_OK) fail_msg("%s", err.message);
	assert_non_null(stream.host);
	memcpy(stream.host, values, SEQUENCES * N * sizeof *values);
	struct tensor sums[2] = {random_tensor(BATCH * TOKENS, HIDDEN, DTYPE_F32, 3),
				 random_tensor(BATCH * TOKENS, HIDDEN, DTYPE_F32, 4)};
	for (int pass = 0; pass < 2; pass++) {
		emulator_faults.side_streams_hurry = pass == 1;
		for (int64_t i = 0; i < SEQUENCES + BATCH; i += BATCH) {
			int64_t n = i + BATCH <= SEQUENCES ? BATCH : SEQUENCES - i, before = i - BATCH;
			struct tensor part = tensor_rows(sums[i / BATCH % 2], 0, (i < SEQUENCES ? n : 1) * TOKENS);
			if (i < SEQUENCES) {
				RUN(stream_batch(&stream, i, n, true, &x));
				assert_int_equal(stream.ahead_count > 0, i + BATCH < SEQUENCES);
			}
			if (before >= 0) { /* what used the batch before is waited for only now */
				int64_t count = before + BATCH <= SEQUENCES ? BATCH : SEQUENCES - before;
				RUN(OPS->download(backend, got, sums[before / BATCH % 2].data, (size_t)count * N * sizeof *got));
				assert_memory_equal(got, values + before * N, (size_t)count * N * sizeof *got);
			}
			if (i >= SEQUENCES) continue;
			RUN(OPS->zero(backend, part.data, tensor_bytes(&part)));
			RUN(OPS->add(backend, part, x));
			if (i != 2 || pass != 1) continue;
			/* What is on its way changes on the host meanwhile. */
			RUN(OPS->zero(backend, x.data, tensor_bytes(&x)));
			RUN(stream_store(&stream, 5, 1, tensor_rows(x, 0, TOKENS)));
			memset(values + 5 * N, 0, N * sizeof *values);
		}
	}
	stream_release(&stream);
	OPS->release(backend, sums[0].data);
	OPS->release(backend, sums[1].data);
	free(values);
	free(got);
}

static int heal(void **state)
{
	emulator_heal();
	return close_backend(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_error_that_passes, open_backend, close_backend),
		cmocka_unit_test_setup_teardown(test_too_little_shared_memory, open_backend, close_backend),
		cmocka_unit_test_setup_teardown(test_sums_in_fp32, open_backend, close_backend),
		cmocka_unit_test_setup_teardown(test_choices_that_will_not_do, open_backend, close_backend),
		cmocka_unit_test_setup_teardown(test_small_tiles, open_backend, close_backend),
		cmocka_unit_test_setup_teardown(test_release_waits, open_backend, close_backend),
		cmocka_unit_test_setup_teardown(test_fetch_is_beside, open_backend, close_backend),
		cmocka_unit_test_setup_teardown(test_stream_ahead, open_backend, close_backend),
		cmocka_unit_test_setup_teardown(test_error_that_stays, open_backend, heal), /* last: the device stays lost */
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
