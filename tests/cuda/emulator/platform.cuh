/* cuda/platform/platform.cuh for the emulator: the same functions, with the fragments' layout spelled out. */
#ifndef BESAD_CUDA_PLATFORM_CUH
#define BESAD_CUDA_PLATFORM_CUH

#include <cuda_runtime.h>
#include <vector>

extern "C" {
#include "engine/compute/half.h"
}

struct bf16 {
	uint16_t bits;
};

struct f16 {
	uint16_t bits;
};

#define SHARED_MEMORY(type, name) type *name = static_cast<type *>(emulator_shared())

template <typename... P>
static cudaError_t platform_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream, P... args)
{
	cudaError_t before = cudaGetLastError();
	if (before != cudaSuccess) return before; /* a launch reports what nobody has taken */
	if (shared > emulator_shared_limit() || block.x * block.y * block.z > 1024 || grid.y > 65535 || grid.z > 65535 ||
	    grid.x == 0 || grid.y == 0 || grid.z == 0 || emulator_asked_to_refuse())
		return emulator_fail(cudaErrorInvalidValue);
	return emulator_issue(stream, [=] { emulator_launch(grid, block, shared, [=] { kernel(args...); }); });
}

static inline float to_float(float x)
{
	return x;
}
static inline float to_float(bf16 x)
{
	return bf16_to_f32(x.bits);
}
static inline float to_float(f16 x)
{
	return f16_to_f32(x.bits);
}

template <typename T> static inline T from_float(float x);

template <> inline float from_float<float>(float x)
{
	return x;
}

template <> inline bf16 from_float<bf16>(float x)
{
	uint32_t bits = __float_as_uint(x);
	if (x != x) return {0x7fff};
	return {(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

template <> inline f16 from_float<f16>(float x)
{
	uint16_t sign = signbit(x) ? 0x8000 : 0;
	float a = fabsf(x);
	if (x != x) return {0x7fff};
	if (a >= 65520) return {(uint16_t)(sign | 0x7c00)};
	if (a < 0x1p-14f) return {(uint16_t)(sign | (uint16_t)rintf(a * 0x1p24f))};
	uint32_t bits = __float_as_uint(a);
	bits += 0xfff + (bits >> 13 & 1);
	return {(uint16_t)(sign | ((bits >> 13) - (112 << 10)))};
}

template <typename T> static inline uint32_t pack_two(float low, float high, T)
{
	return from_float<T>(low).bits | (uint32_t)from_float<T>(high).bits << 16;
}

static inline float exp2_fast(float x)
{
	return exp2f(x);
}

static inline uint32_t to_tf32(float x)
{
	return (__float_as_uint(x) + 0x1000) & 0xffffe000u;
}

static inline uint32_t shared_address(const void *p)
{
	return (uint32_t)((const char *)p - (const char *)emulator_shared());
}

template <int OFFSET, int N> static inline void load_shared(uint32_t (&x)[N], uint32_t address)
{
	memcpy(x, (const char *)emulator_shared() + (int64_t)address + OFFSET, sizeof x);
}

static inline void load_chunk(uint4 &x, const void *p, bool valid)
{
	if (valid) x = *(const uint4 *)p;
}

template <int OFFSET> static inline void load_streamed(uint2 &x, const void *p, bool valid)
{
	if (valid) x = *(const uint2 *)((const char *)p + OFFSET);
}

template <int OFFSET> static inline void load_streamed(uint32_t &x, const void *p, bool valid)
{
	if (valid) x = *(const uint16_t *)((const char *)p + OFFSET);
}

/* Copies happen when they are waited for, so that a kernel that does not wait reads what was there before. */
struct emulator_copy {
	void *to;
	const void *from;
};
std::vector<std::vector<emulator_copy>> &emulator_copy_groups(); /* of this thread; the last one is open */

static inline void copy_async(void *to, const void *from, bool valid)
{
	emulator_copy_groups().back().push_back({to, valid ? from : nullptr});
}
static inline void copy_async_commit()
{
	emulator_copy_groups().emplace_back();
}
template <int PENDING> static inline void copy_async_wait()
{
	auto &groups = emulator_copy_groups();
	while ((int)groups.size() - 1 > PENDING) {
		for (const emulator_copy &copy : groups.front())
			if (copy.from)
				memcpy(copy.to, copy.from, 16);
			else
				memset(copy.to, 0, 16);
		groups.erase(groups.begin());
	}
}

static inline void load_matrix(uint32_t (&r)[4], const void *row)
{
	const emulator_word *all = emulator_exchange(row, 16);
	int g = emulator_self->lane / 4, t = emulator_self->lane % 4;
	for (int i = 0; i < 4; i++)
		memcpy(&r[i], all[8 * i + g].bytes + 4 * t, 4);
}

static inline void load_matrix_transposed(uint32_t (&r)[4], const void *row)
{
	const emulator_word *all = emulator_exchange(row, 16);
	int g = emulator_self->lane / 4, t = emulator_self->lane % 4;
	for (int i = 0; i < 4; i++) {
		uint16_t low, high;
		memcpy(&low, all[8 * i + 2 * t].bytes + 2 * g, 2);
		memcpy(&high, all[8 * i + 2 * t + 1].bytes + 2 * g, 2);
		r[i] = low | (uint32_t)high << 16;
	}
}

typedef float emulator_four __attribute__((vector_size(16)));

/* Adds a x b, as far as DEPTH, to sums, one product after the other. */
template <int DEPTH> static inline void emulator_add_product(emulator_four (&sums)[16][2], const emulator_matrices *m)
{
	emulator_four b[DEPTH][2];
	memcpy(b, m->b, sizeof b);
	for (int row = 0; row < 16; row++) {
		emulator_four left = sums[row][0], right = sums[row][1];
		for (int k = 0; k < DEPTH; k++) {
			left += m->a[row][k] * b[k][0];
			right += m->a[row][k] * b[k][1];
		}
		sums[row][0] = left;
		sums[row][1] = right;
	}
}

static void emulator_product(emulator_matrices *m)
{
	emulator_four sums[16][2] = {}, c[16][2];
	emulator_add_product<16>(sums, m);
	memcpy(c, m->c, sizeof c);
	for (int row = 0; row < 16; row++)
		for (int half = 0; half < 2; half++)
			c[row][half] += sums[row][half];
	memcpy(m->c, c, sizeof c);
}

static void emulator_product_tf32(emulator_matrices *m)
{
	emulator_four c[16][2];
	memcpy(c, m->c, sizeof c);
	emulator_add_product<8>(c, m);
	memcpy(m->c, c, sizeof c);
}

/* With the lane's part of c there meanwhile. */
static inline void emulator_multiply(float (&c)[4], void (*product)(emulator_matrices *))
{
	float(*all)[8] = emulator_self->matrices->c;
	int g = emulator_self->lane / 4, t = emulator_self->lane % 4;
	for (int i = 0; i < 4; i++)
		all[g + i / 2 * 8][2 * t + i % 2] = c[i];
	emulator_meet(product);
	for (int i = 0; i < 4; i++)
		c[i] = all[g + i / 2 * 8][2 * t + i % 2];
}

template <typename T> static inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, T)
{
	emulator_matrices *m = emulator_self->matrices;
	int g = emulator_self->lane / 4, t = emulator_self->lane % 4;
	uint32_t b[2] = {b0, b1};
	for (int half = 0; half < 2; half++) {
		for (int i = 0; i < 4; i++)
			m->a[g + i % 2 * 8][2 * t + i / 2 * 8 + half] = to_float(T{(uint16_t)(a[i] >> (16 * half))});
		for (int i = 0; i < 2; i++)
			m->b[2 * t + 8 * i + half][g] = to_float(T{(uint16_t)(b[i] >> (16 * half))});
	}
	emulator_multiply(c, emulator_product);
}

static inline float emulator_tf32(uint32_t bits)
{
	return __uint_as_float(bits & 0xffffe000u);
}

static inline void mma_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
	emulator_matrices *m = emulator_self->matrices;
	int g = emulator_self->lane / 4, t = emulator_self->lane % 4;
	for (int i = 0; i < 4; i++)
		m->a[g + i % 2 * 8][t + i / 2 * 4] = emulator_tf32(a[i]);
	m->b[t][g] = emulator_tf32(b0);
	m->b[t + 4][g] = emulator_tf32(b1);
	emulator_multiply(c, emulator_product_tf32);
}

#endif
