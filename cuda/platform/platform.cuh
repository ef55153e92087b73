/* Everything that only a GPU understands: the launch, conversions, asynchronous copies and the tensor cores' instructions. The
 * kernels use nothing else of the kind, so that tests/cuda/emulator/platform.cuh, in this file's place, runs them on the host.
 *
 * Fragments are PTX's (mma.m16n8k16 and m16n8k8). With g = lane / 4 and t = lane % 4, a lane holds of
 *   C [16×8]:  c0, c1 = (g, 2t), (g, 2t+1);  c2, c3 = the same of row g + 8
 *   A [16×16], 16-bit:  a0 = (g, 2t..2t+1), a1 = row g + 8, a2 = (g, 2t+8..2t+9), a3 = row g + 8 of these
 *   B [16×8], 16-bit:   b0 = (2t..2t+1, g), b1 = (2t+8..2t+9, g)
 *   A [16×8], tf32:     a0 = (g, t), a1 = (g+8, t), a2 = (g, t+4), a3 = (g+8, t+4);  B [8×8]: b0 = (t, g), b1 = (t+4, g) */
#ifndef BESAD_CUDA_PLATFORM_CUH
#define BESAD_CUDA_PLATFORM_CUH

#include <cuda_runtime.h>
#include <stdint.h>

struct bf16 {
	uint16_t bits;
};

struct f16 {
	uint16_t bits;
};

/* The block's dynamic shared memory as an array of `type`. */
#define SHARED_MEMORY(type, name)                                                                                                  \
	extern __shared__ __align__(128) unsigned char shared_memory_[];                                                           \
	type *name = reinterpret_cast<type *>(shared_memory_)

template <typename... P>
static cudaError_t platform_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream, P... args)
{
	if (shared > 48 * 1024) {
		cudaError_t error =
			cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
		if (error != cudaSuccess) return error;
	}
	kernel<<<grid, block, shared, stream>>>(args...);
	return cudaGetLastError();
}

static __device__ __forceinline__ float to_float(float x)
{
	return x;
}

static __device__ __forceinline__ float to_float(bf16 x)
{
	return __uint_as_float((uint32_t)x.bits << 16);
}

static __device__ __forceinline__ float to_float(f16 x)
{
	float y;
	asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
	return y;
}

template <typename T> static __device__ __forceinline__ T from_float(float x);

template <> __device__ __forceinline__ float from_float<float>(float x)
{
	return x;
}

template <> __device__ __forceinline__ bf16 from_float<bf16>(float x)
{
	bf16 y;
	asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
	return y;
}

template <> __device__ __forceinline__ f16 from_float<f16>(float x)
{
	f16 y;
	asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
	return y;
}

/* Two floats as one register of 16-bit elements, `low` in the low half. */
static __device__ __forceinline__ uint32_t pack_two(float low, float high, bf16)
{
	uint32_t y;
	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
	return y;
}

static __device__ __forceinline__ uint32_t pack_two(float low, float high, f16)
{
	uint32_t y;
	asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
	return y;
}

/* 2^x; the hardware's approximation, 2 units in the last place. */
static __device__ __forceinline__ float exp2_fast(float x)
{
	float y;
	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}

/* x rounded to tf32's 10 bits of mantissa. */
static __device__ __forceinline__ uint32_t to_tf32(float x)
{
	uint32_t y;
	asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
	return y;
}

/* Where something lies in shared memory, in bytes. */
static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
	return (uint32_t)__cvta_generic_to_shared(p);
}

/* N words at an address of shared memory and OFFSET bytes further. */
template <int OFFSET> static __device__ __forceinline__ void load_shared(uint32_t (&x)[1], uint32_t address)
{
	asm volatile("ld.shared.u32 %0, [%1+%2];" : "=r"(x[0]) : "r"(address), "n"(OFFSET) : "memory");
}

template <int OFFSET> static __device__ __forceinline__ void load_shared(uint32_t (&x)[2], uint32_t address)
{
	asm volatile("ld.shared.v2.u32 {%0,%1}, [%2+%3];" : "=r"(x[0]), "=r"(x[1]) : "r"(address), "n"(OFFSET) : "memory");
}

template <int OFFSET> static __device__ __forceinline__ void load_shared(uint32_t (&x)[4], uint32_t address)
{
	asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4+%5];"
		     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
		     : "r"(address), "n"(OFFSET)
		     : "memory");
}

/* 16 bytes that nobody writes while the kernel runs, in their turn; where `valid` is false nothing is read, and x stays. */
static __device__ __forceinline__ void load_chunk(uint4 &x, const void *p, bool valid)
{
	asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.u32 p, %5, 0;\n\t@p ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];\n\t}"
		     : "+r"(x.x), "+r"(x.y), "+r"(x.z), "+r"(x.w)
		     : "l"(p), "r"((uint32_t)valid));
}

/* Two words, or 16 bits, of what nobody reads again, nor writes while the kernel runs, OFFSET bytes behind p: they take no room in
 * the first cache. Where `valid` is false nothing is read, and x stays. */
template <int OFFSET> static __device__ __forceinline__ void load_streamed(uint2 &x, const void *p, bool valid)
{
	asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.u32 p, %3, 0;\n\t@p ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2+%4];\n\t}"
		     : "+r"(x.x), "+r"(x.y)
		     : "l"(p), "r"((uint32_t)valid), "n"(OFFSET));
}

template <int OFFSET> static __device__ __forceinline__ void load_streamed(uint32_t &x, const void *p, bool valid)
{
	asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.u32 p, %2, 0;\n\t@p ld.global.nc.L1::no_allocate.u16 %0, [%1+%3];\n\t}"
		     : "+r"(x)
		     : "l"(p), "r"((uint32_t)valid), "n"(OFFSET));
}

/* Starts a 16-byte copy to shared memory; where `valid` is false, zeros are written and `from` is not read. */
static __device__ __forceinline__ void copy_async(void *to, const void *from, bool valid)
{
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from),
		     "r"(valid ? 16 : 0)
		     : "memory");
}

static __device__ __forceinline__ void copy_async_commit()
{
	asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most PENDING of this thread's groups are under way. */
template <int PENDING> static __device__ __forceinline__ void copy_async_wait()
{
	asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* Four 8×8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8. */
static __device__ __forceinline__ void load_matrix(uint32_t (&r)[4], const void *row)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
		     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
		     : "r"((uint32_t)__cvta_generic_to_shared(row))
		     : "memory");
}

static __device__ __forceinline__ void load_matrix_transposed(uint32_t (&r)[4], const void *row)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
		     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
		     : "r"((uint32_t)__cvta_generic_to_shared(row))
		     : "memory");
}

/* c += a · b */
static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, bf16)
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
		     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, f16)
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
		     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ void mma_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
	asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
		     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif
