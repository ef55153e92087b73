/* matmul by cuBLASLt.
 *
 * cuBLASLt is column-major: a row-major [R, C] with stride s is a column-major [C, R] with leading dimension s. So C =
 * op(A)·op(B) is computed as Cᵀ = op(B)ᵀ·op(A)ᵀ: B comes first, and each operand is transposed for cuBLASLt exactly where the
 * caller says so.
 *
 * The algorithm for a shape is the first of the library's choices that it says will do, kept in a table. It is not chosen by
 * timing: two runs of a job, or one resumed, must give the same bits, and another algorithm rounds in another order. A sum in
 * parts is added in fp32, never in a result's 16 bits. What the library has no algorithm for (it may refuse strides or addresses
 * that are no multiple of 16 bytes, when it is asked or when it is called) a plain kernel computes. */
#include "cuda/cublaslt.h"
#include "cuda/launch.cuh"
#include "cuda/tuning.h"

#include <map>
#include <new>
#include <tuple>

/* What the choice depends on: sizes, strides, types, transposes, and how far the pointers are aligned. */
typedef std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int, int, unsigned, unsigned> shape_key;

struct plan {
	bool found = false; /* cuBLASLt has an algorithm */
	cublasLtMatmulDesc_t operation = nullptr;
	cublasLtMatrixLayout_t first = nullptr, second = nullptr, addend = nullptr, result = nullptr;
	cublasLtMatmulAlgo_t algorithm;
	size_t workspace = 0;
};

enum { CHOICES = 8 };

struct cuda_matmuls {
	int choice = 0; /* how many choices that would do are passed over: 0 but in a bench */
	struct cublaslt lt;
	cublasLtHandle_t handle = nullptr;
	void *workspace = nullptr;
	std::map<shape_key, plan> plans;
};

static enum status fail(struct cuda *c, cublasStatus_t status, const char *what)
{
	cuda_note_error(cudaSuccess);
	return cuda_refuse(c, status == CUBLAS_STATUS_ALLOC_FAILED ? STATUS_NO_MEMORY : STATUS_BACKEND, "%s failed in %s: %s", what,
			   __FILE__, c->matmuls->lt.status_string(status));
}

#define LT_TRY(c, name, ...)                                                                                                       \
	do {                                                                                                                       \
		cublasStatus_t lt_status_ = (c)->matmuls->lt.name(__VA_ARGS__);                                                    \
		if (lt_status_ != CUBLAS_STATUS_SUCCESS) return fail(c, lt_status_, "cublasLt " #name);                            \
	} while (0)

enum status cuda_matmuls_create(struct cuda *c)
{
	c->matmuls = new (std::nothrow) cuda_matmuls;
	if (!c->matmuls) return cuda_refuse(c, STATUS_NO_MEMORY, "no host memory");
	if (!c->base.dry) {
		TRY(cublaslt_load(&c->matmuls->lt, &c->base.error));
		LT_TRY(c, create, &c->matmuls->handle);
	}
	return cuda_allocate(c, WORKSPACE_BYTES, &c->matmuls->workspace);
}

static void free_plan(const struct cublaslt *lt, const plan &p)
{
	if (p.operation) lt->desc_destroy(p.operation);
	if (p.first) lt->layout_destroy(p.first);
	if (p.second) lt->layout_destroy(p.second);
	if (p.addend) lt->layout_destroy(p.addend);
	if (p.result) lt->layout_destroy(p.result);
}

void cuda_matmuls_destroy(struct cuda *c)
{
	cuda_matmuls *m = c->matmuls;
	if (!m) return;
	for (const auto &entry : m->plans)
		free_plan(&m->lt, entry.second);
	if (m->handle) m->lt.destroy(m->handle);
	delete m;
}

static cudaDataType_t data_type(int dtype)
{
	return dtype == DTYPE_F32 ? CUDA_R_32F : dtype == DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

static uint32_t alignment(const void *p)
{
	uintptr_t a = (uintptr_t)p;
	return a % 256 == 0 ? 256 : (uint32_t)(a & (0 - a));
}

static enum status fill_plan(struct cuda *c, plan *p, const struct tensor &C, const struct tensor &A, bool transpose_a,
			     const struct tensor &B, bool transpose_b, const struct tensor &addend,
			     cublasLtMatmulPreference_t preference)
{
	cublasLtHandle_t handle = c->matmuls->handle;
	int32_t op_first = transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, op_second = transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
	uint32_t align_first = alignment(B.data), align_second = alignment(A.data), align_result = alignment(C.data);
	uint32_t align_addend = alignment(addend.data);
	uint64_t workspace = WORKSPACE_BYTES;
	uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
	cublasLtMatmulHeuristicResult_t choices[CHOICES];
	int found = 0, skip = c->matmuls->choice;

	/* Plain 32F: tf32 is only used where a caller asks for it, and none does. */
	LT_TRY(c, desc_create, &p->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
	LT_TRY(c, desc_set, p->operation, CUBLASLT_MATMUL_DESC_TRANSA, &op_first, sizeof op_first);
	LT_TRY(c, desc_set, p->operation, CUBLASLT_MATMUL_DESC_TRANSB, &op_second, sizeof op_second);
	LT_TRY(c, layout_create, &p->first, data_type(B.dtype), (uint64_t)B.cols, (uint64_t)B.rows, B.stride);
	LT_TRY(c, layout_create, &p->second, data_type(A.dtype), (uint64_t)A.cols, (uint64_t)A.rows, A.stride);
	LT_TRY(c, layout_create, &p->addend, data_type(C.dtype), (uint64_t)C.cols, (uint64_t)C.rows, addend.stride);
	LT_TRY(c, layout_create, &p->result, data_type(C.dtype), (uint64_t)C.cols, (uint64_t)C.rows, C.stride);
	LT_TRY(c, preference_set, preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
	LT_TRY(c, preference_set, preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align_first, sizeof align_first);
	LT_TRY(c, preference_set, preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align_second, sizeof align_second);
	LT_TRY(c, preference_set, preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align_addend, sizeof align_addend);
	LT_TRY(c, preference_set, preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align_result, sizeof align_result);
	if (C.dtype != DTYPE_F32)
		LT_TRY(c, preference_set, preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions);
	cublasStatus_t status = c->matmuls->lt.heuristic(handle, p->operation, p->first, p->second, p->addend, p->result,
							 preference, CHOICES, choices, &found);
	if (status == CUBLAS_STATUS_NOT_SUPPORTED) return STATUS_OK;
	if (status != CUBLAS_STATUS_SUCCESS) return fail(c, status, "cublasLtMatmulAlgoGetHeuristic");
	for (int i = 0; i < found && !p->found; i++) {
		if (choices[i].state != CUBLAS_STATUS_SUCCESS || choices[i].workspaceSize > workspace || skip-- > 0) continue;
		p->found = true;
		p->algorithm = choices[i].algo;
		p->workspace = choices[i].workspaceSize;
	}
	return STATUS_OK;
}

static enum status find_plan(struct cuda *c, const struct tensor &C, const struct tensor &A, bool transpose_a,
			     const struct tensor &B, bool transpose_b, const struct tensor &addend, plan **ret)
{
	cuda_matmuls *m = c->matmuls;
	unsigned align = alignment(A.data) << 20 | alignment(B.data) << 10 | alignment(C.data);
	shape_key key(C.rows, C.cols, transpose_a ? A.rows : A.cols, A.stride, B.stride, C.stride, addend.stride,
		      A.dtype * 8 + C.dtype, transpose_a * 2 + transpose_b, align, alignment(addend.data));
	auto found = m->plans.find(key);
	if (found == m->plans.end()) {
		cublasLtMatmulPreference_t preference;
		plan p;
		LT_TRY(c, preference_create, &preference);
		enum status status = fill_plan(c, &p, C, A, transpose_a, B, transpose_b, addend, preference);
		m->lt.preference_destroy(preference);
		if (status != STATUS_OK) {
			free_plan(&m->lt, p);
			return status;
		}
		found = m->plans.emplace(key, p).first;
	}
	*ret = &found->second;
	return STATUS_OK;
}

/* Blocks of TILE × TILE threads, one element of C each. */
enum { TILE = 16 };

__global__ void __launch_bounds__(TILE *TILE) plain_kernel(view c, view a, bool transpose_a, view b, bool transpose_b, view addend,
							   bool accumulate, int64_t rows, int64_t cols, int64_t inner)
{
	__shared__ float left[TILE][TILE + 1], right[TILE][TILE + 1];
	int64_t row = (int64_t)blockIdx.x * TILE + threadIdx.y, col = (int64_t)blockIdx.y * TILE + threadIdx.x;
	float sum[1] = {0}, x[1];
	for (int64_t k = 0; k < inner; k += TILE) {
		x[0] = 0;
		if (row < rows && k + threadIdx.x < inner) {
			if (transpose_a)
				load<1>(a, k + threadIdx.x, row, x);
			else
				load<1>(a, row, k + threadIdx.x, x);
		}
		left[threadIdx.y][threadIdx.x] = x[0];
		x[0] = 0;
		if (col < cols && k + threadIdx.y < inner) {
			if (transpose_b)
				load<1>(b, col, k + threadIdx.y, x);
			else
				load<1>(b, k + threadIdx.y, col, x);
		}
		right[threadIdx.y][threadIdx.x] = x[0];
		__syncthreads();
#pragma unroll
		for (int i = 0; i < TILE; i++)
			sum[0] += left[threadIdx.y][i] * right[i][threadIdx.x];
		__syncthreads();
	}
	if (row >= rows || col >= cols) return;
	if (accumulate) {
		load<1>(addend, row, col, x);
		sum[0] += x[0];
	}
	store<1>(c, row, col, sum);
}

static enum status run_plain(struct cuda *c, const struct tensor &C, const struct tensor &A, bool transpose_a,
			     const struct tensor &B, bool transpose_b, const struct tensor &addend, bool accumulate)
{
	dim3 grid((unsigned)index_ceil_div(C.rows, TILE), (unsigned)index_ceil_div(C.cols, TILE));
	return LAUNCH(c, plain_kernel, grid, dim3(TILE, TILE), 0, view_of(C), view_of(A), transpose_a, view_of(B), transpose_b,
		      view_of(addend), accumulate, C.rows, C.cols, transpose_a ? A.rows : A.cols);
}

/* C = op(A)·op(B), and, where `accumulate` is set, + addend, which is C or has its type and size. */
static enum status run(struct cuda *c, const struct tensor &C, const struct tensor &A, bool transpose_a, const struct tensor &B,
		       bool transpose_b, const struct tensor &addend, bool accumulate)
{
	plan *p = nullptr;
	if (c->base.dry) return STATUS_OK;
	float alpha = 1, beta = accumulate ? 1 : 0;
	TRY(find_plan(c, C, A, transpose_a, B, transpose_b, addend, &p));
	if (!p->found) return run_plain(c, C, A, transpose_a, B, transpose_b, addend, accumulate);
	cublasStatus_t status = c->matmuls->lt.matmul(c->matmuls->handle, p->operation, &alpha, B.data, p->first, A.data, p->second,
						      &beta, addend.data, p->addend, C.data, p->result, &p->algorithm,
						      c->matmuls->workspace, p->workspace, c->stream);
	if (status == CUBLAS_STATUS_NOT_SUPPORTED) { /* refused before anything was issued, and so in every run */
		p->found = false;
		return run_plain(c, C, A, transpose_a, B, transpose_b, addend, accumulate);
	}
	return status == CUBLAS_STATUS_SUCCESS ? STATUS_OK : fail(c, status, "cublasLtMatmul");
}

static enum status matmul(struct backend *backend, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			  bool transpose_b, bool accumulate)
{
	struct cuda *cuda = cuda_begin(backend, "matmul", {c, a, b});
	if (c.rows == 0 || c.cols == 0) return STATUS_OK;
	if ((transpose_a ? a.rows : a.cols) == 0) { /* an empty sum, which cuBLASLt refuses */
		size_t size = dtype_size(c.dtype);
		if (!accumulate && !backend->dry)
			CUDA_TRY(cuda, cudaMemset2DAsync(c.data, (size_t)c.stride * size, 0, (size_t)c.cols * size, (size_t)c.rows,
							 cuda->stream));
		return STATUS_OK;
	}
	if (c.dtype == DTYPE_F32 || c.dtype == a.dtype) return run(cuda, c, a, transpose_a, b, transpose_b, c, accumulate);

	/* cuBLASLt writes F32 or the inputs' type; another type is converted from F32. */
	auto convert = backend->unchecked.convert;
	struct scratch product(cuda);
	TRY(product.allocate((size_t)c.rows * (size_t)c.cols * sizeof(float)));
	struct tensor wide = tensor_make(product.data, c.rows, c.cols, DTYPE_F32);
	if (accumulate) TRY(convert(backend, wide, c));
	TRY(run(cuda, wide, a, transpose_a, b, transpose_b, wide, accumulate));
	return convert(backend, c, wide);
}

static enum status matmul_onto(struct backend *backend, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			       bool transpose_b, struct tensor addend)
{
	struct cuda *cuda = cuda_begin(backend, "matmul_onto", {c, a, b, addend});
	if (c.rows == 0 || c.cols == 0) return STATUS_OK;
	if ((transpose_a ? a.rows : a.cols) == 0) return backend->unchecked.convert(backend, c, addend);
	return run(cuda, c, a, transpose_a, b, transpose_b, addend, true);
}

void cuda_matmul_operations(struct backend_ops *ops)
{
	ops->matmul = matmul;
	ops->matmul_onto = matmul_onto;
}

/* ---- for benches ------------------------------------------------------------------------------------------------------------- */

void cuda_tune_choice(struct backend *backend, int choice)
{
	cuda_matmuls *m = ((struct cuda *)backend)->matmuls;
	(void)backend->ops->sync(backend);
	for (const auto &entry : m->plans)
		free_plan(&m->lt, entry.second);
	m->plans.clear();
	m->choice = choice;
}

bool cuda_tune_found(struct backend *backend)
{
	for (const auto &entry : ((struct cuda *)backend)->matmuls->plans)
		if (!entry.second.found) return false;
	return true;
}

void cuda_tune_panel(struct backend *backend, int64_t bytes)
{
	((struct cuda *)backend)->panel_bytes = bytes;
}

void *cuda_tune_stream(struct backend *backend)
{
	return ((struct cuda *)backend)->stream;
}
