/* Rows to experts and back. */
#include "engine/compute/cpu/isa/isa.h"

static void dispatch(const struct tensor *to, const struct tensor *from, const int32_t *sources, int chosen, const float *scale,
		     int64_t first, int64_t last)
{
	float buffer[PIECE], target[PIECE];
	size_t row_bytes = (size_t)to->cols * dtype_size(to->dtype);
	for (int64_t row = first; row < last; row++) {
		int64_t choice = sources[row], token = choice / chosen;
		void *out = (void *)(uintptr_t)at(to, row, 0);
		if (choice < 0) {
			memset(out, 0, row_bytes);
			continue;
		}
		if (!scale && to->dtype == from->dtype) {
			memcpy(out, at(from, token, 0), row_bytes);
			continue;
		}
		float factor = scale ? scale[choice] : 1;
		for (int64_t col = 0; col < to->cols; col += PIECE) {
			int64_t n = least(PIECE, to->cols - col);
			const float *x = row_read(from, token, col, n, buffer);
			float *y = row_target(to, row, col, target);
#pragma omp simd
			for (int64_t i = 0; i < n; i++)
				y[i] = factor * x[i];
			row_finish(to, row, col, n, y);
		}
	}
}

static void combine(const struct tensor *to, const struct tensor *from, const int32_t *places, int chosen, const float *scale,
		    bool accumulate, int64_t first, int64_t last)
{
	float buffer[PIECE], sum[PIECE];
	for (int64_t row = first; row < last; row++) {
		for (int64_t col = 0; col < to->cols; col += PIECE) {
			int64_t n = least(PIECE, to->cols - col);
			if (accumulate)
				load_floats(sum, at(to, row, col), to->dtype, n);
			else
				memset(sum, 0, (size_t)n * sizeof *sum);
			for (int64_t choice = row * chosen; choice < (row + 1) * chosen; choice++) {
				const float *x = row_read(from, places[choice], col, n, buffer);
				float factor = scale ? scale[choice] : 1;
#pragma omp simd
				for (int64_t i = 0; i < n; i++)
					sum[i] += factor * x[i];
			}
			store_floats((void *)(uintptr_t)at(to, row, col), to->dtype, sum, n);
		}
	}
}

static float dot(const struct tensor *a, int64_t row, const struct tensor *b, int64_t other)
{
	float a_buffer[PIECE], b_buffer[PIECE], sum = 0;
	for (int64_t col = 0; col < a->cols; col += PIECE) {
		int64_t n = least(PIECE, a->cols - col);
		const float *x = row_read(a, row, col, n, a_buffer), *y = row_read(b, other, col, n, b_buffer);
		float part = 0;
#pragma omp simd reduction(+ : part)
		for (int64_t i = 0; i < n; i++)
			part += x[i] * y[i];
		sum += part;
	}
	return sum;
}

const struct route_kernels ISA_NAME(route_kernels) = {.dispatch = dispatch, .combine = combine, .dot = dot};
