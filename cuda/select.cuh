/* The smallest of many scores: a radix search for the last that goes. Keys are a score's bits above its place, so that no two
 * are equal and of equal scores the earlier goes. A type of keys has n, how many, and operator()(i), the key of the i-th. */
#ifndef BESAD_CUDA_SELECT_CUH
#define BESAD_CUDA_SELECT_CUH

#include "cuda/launch.cuh"

enum { SELECT_THREADS = 256, SELECT_DIGITS = 256 };

struct selection {
	uint64_t limit; /* its digits that are found; in the end the last key that goes, or one before the first that stays */
	int64_t left;   /* of those that begin so, how many go */
	uint32_t counts[SELECT_DIGITS];
	int done; /* all that begin so go */
};

static __device__ __forceinline__ uint64_t select_key(uint32_t score, int64_t place)
{
	return (uint64_t)score << 32 | (uint32_t)place;
}

/* Whether a key begins as the limit that is found down to `shift` + 8. */
static __device__ __forceinline__ bool select_begins(uint64_t key, uint64_t limit, int shift)
{
	return shift == 56 || key >> (shift + 8) == limit >> (shift + 8);
}

/* The next digit, from how many keys have which; for one thread. */
static __device__ __forceinline__ void select_digit(uint64_t *limit, int64_t *left, int *done, const uint32_t *counts, int shift)
{
	int digit = 0;
	while (digit < SELECT_DIGITS - 1 && *left > counts[digit])
		*left -= counts[digit++];
	*limit |= (uint64_t)digit << shift;
	*done = *left == counts[digit];
	if (*done) *limit |= ((uint64_t)1 << shift) - 1;
}

static __global__ void select_begin_kernel(selection *s, int64_t count)
{
	s->limit = 0;
	s->left = count;
	s->done = 0;
	for (int i = 0; i < SELECT_DIGITS; i++)
		s->counts[i] = 0;
}

template <class Keys> __global__ void __launch_bounds__(SELECT_THREADS) select_count_kernel(selection *s, Keys keys, int shift)
{
	__shared__ uint32_t counts[SELECT_DIGITS];
	int64_t step = (int64_t)gridDim.x * SELECT_THREADS;
	if (s->done) return;
	uint64_t limit = s->limit;
	counts[threadIdx.x] = 0;
	__syncthreads();
	for (int64_t i = (int64_t)blockIdx.x * SELECT_THREADS + threadIdx.x; i < keys.n; i += step) {
		uint64_t key = keys(i);
		if (select_begins(key, limit, shift)) atomicAdd(&counts[key >> shift & (SELECT_DIGITS - 1)], 1u);
	}
	__syncthreads();
	if (counts[threadIdx.x]) atomicAdd(&s->counts[threadIdx.x], counts[threadIdx.x]);
}

static __global__ void select_choose_kernel(selection *s, int shift)
{
	if (s->done) return;
	select_digit(&s->limit, &s->left, &s->done, s->counts, shift);
	for (int i = 0; i < SELECT_DIGITS; i++)
		s->counts[i] = 0;
}

/* s->limit, on the device, such that `count` ≥ 1 keys are not above it. */
template <class Keys> static enum status select_limit(struct cuda *c, struct selection *s, const Keys &keys, int64_t count)
{
	int64_t blocks = index_ceil_div(keys.n, SELECT_THREADS * 8), most = 4 * (int64_t)c->processors;
	dim3 grid((unsigned)(blocks < most ? blocks : most));
	TRY(LAUNCH(c, select_begin_kernel, dim3(1), dim3(1), 0, s, count));
	for (int shift = 56; shift >= 0; shift -= 8) {
		TRY(LAUNCH(c, select_count_kernel<Keys>, grid, dim3(SELECT_THREADS), 0, s, keys, shift));
		TRY(LAUNCH(c, select_choose_kernel, dim3(1), dim3(1), 0, s, shift));
	}
	return STATUS_OK;
}

#endif
