/* cuBLASLt for the emulator: column-major products, with the library's own checks of shapes, strides, types and alignment. */
#include "cuda/cublaslt.h"
#include "tests/cuda/emulator/faults.h"

#include <platform.cuh>
#include <vector>

enum { CHOICES = 8, PARTS = 16 };

static float element(const void *data, cudaDataType_t type, int64_t i)
{
	if (type == CUDA_R_32F) return ((const float *)data)[i];
	return type == CUDA_R_16F ? to_float(((const f16 *)data)[i]) : to_float(((const bf16 *)data)[i]);
}

static void set_element(void *data, cudaDataType_t type, int64_t i, float x)
{
	if (type == CUDA_R_32F)
		((float *)data)[i] = x;
	else if (type == CUDA_R_16F)
		((f16 *)data)[i] = from_float<f16>(x);
	else
		((bf16 *)data)[i] = from_float<bf16>(x);
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *ret)
{
	*ret = (cublasLtHandle_t) new int;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
	delete (int *)handle;
	return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
	return status == CUBLAS_STATUS_SUCCESS ? "success" : "invalid value";
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *ret, cublasComputeType_t, cudaDataType_t)
{
	*ret = new emulator_matmul();
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t p)
{
	delete p;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t which, const void *value,
					      size_t)
{
	memcpy(which == CUBLASLT_MATMUL_DESC_TRANSA ? &desc->transpose_a : &desc->transpose_b, value, sizeof(int32_t));
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *ret, cudaDataType_t type, uint64_t rows, uint64_t cols,
					  int64_t leading)
{
	if (leading < (int64_t)rows) return CUBLAS_STATUS_INVALID_VALUE;
	*ret = new emulator_layout{type, rows, cols, leading};
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t p)
{
	delete p;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *ret)
{
	*ret = new emulator_preference{{256, 256, 256, 256}, 7};
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
	delete p;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t which,
						    const void *value, size_t)
{
	int i = which - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
	if (which == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) memcpy(&p->reductions, value, sizeof p->reductions);
	if (i >= 0) memcpy(&p->align[i], value, sizeof p->align[i]);
	return CUBLAS_STATUS_SUCCESS;
}

static uint64_t op_rows(cublasLtMatrixLayout_t m, int32_t transpose)
{
	return transpose ? m->cols : m->rows;
}

static uint64_t op_cols(cublasLtMatrixLayout_t m, int32_t transpose)
{
	return transpose ? m->rows : m->cols;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
					      cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t,
					      cublasLtMatmulPreference_t p, int wanted, cublasLtMatmulHeuristicResult_t *ret,
					      int *ret_found)
{
	bool fits = op_rows(a, desc->transpose_a) == c->rows && op_cols(b, desc->transpose_b) == c->cols &&
		    op_cols(a, desc->transpose_a) == op_rows(b, desc->transpose_b) && a->type == b->type &&
		    (c->type == a->type || c->type == CUDA_R_32F);
	*ret_found = 0;
	if (!fits) return CUBLAS_STATUS_INVALID_VALUE;
	/* The library has said no to less: matmul.cu must have an answer. */
	if (a->type != CUDA_R_32F && (p->align[0] < 4 || p->align[1] < 4)) return CUBLAS_STATUS_NOT_SUPPORTED;
	bool narrow = c->type != CUDA_R_32F, adds = p->reductions & ~(uint32_t)CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
	for (int i = 0; i < wanted && i < CHOICES; i++) {
		ret[i] = {};
		/* The choice remembers the alignment it was made for; a call with less must fail. */
		ret[i].algo.chosen = (int)(p->align[0] | p->align[1] << 10 | p->align[3] << 20);
		ret[i].algo.addend = (int)p->align[2];
		ret[i].algo.parts = narrow && adds && emulator_faults.choices_add_parts ? PARTS : 1;
		ret[i].state = i < emulator_faults.unusable_choices ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
		*ret_found = i + 1;
	}
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
			      cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta, const void *c,
			      cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld, const cublasLtMatmulAlgo_t *algorithm,
			      void *, size_t, cudaStream_t stream)
{
	int64_t m = (int64_t)ld->rows, n = (int64_t)ld->cols, inner = (int64_t)op_cols(la, desc->transpose_a);
	int64_t parts = algorithm->parts;
	float scale, keep;
	uint32_t align = (uint32_t)algorithm->chosen;
	if ((uintptr_t)a % (align & 1023) || (uintptr_t)b % (align >> 10 & 1023) || (uintptr_t)d % (align >> 20) ||
	    (uintptr_t)c % (uint32_t)algorithm->addend)
		return CUBLAS_STATUS_INVALID_VALUE;
	if (emulator_faults.matmul_refuses) return CUBLAS_STATUS_NOT_SUPPORTED;
	emulator_faults.matmuls++;
	memcpy(&scale, alpha, sizeof scale);
	memcpy(&keep, beta, sizeof keep);
	cudaError_t error = emulator_issue(stream, [=] {
		std::vector<float> row((size_t)m), first((size_t)(m * inner));
		for (int64_t k = 0; k < inner; k++)
			for (int64_t i = 0; i < m; i++)
				first[(size_t)(k * m + i)] =
					element(a, la->type, desc->transpose_a ? k + i * la->leading : i + k * la->leading);
		for (int64_t j = 0; j < n; j++) {
			for (int64_t i = 0; i < m; i++)
				row[(size_t)i] = 0;
			for (int64_t k = 0; k < inner; k++) {
				bool part = parts > 1 && k > 0 && k % ((inner + parts - 1) / parts) == 0;
				for (int64_t i = 0; i < m && part; i++)
					row[(size_t)i] = ld->type == CUDA_R_16F ? to_float(from_float<f16>(row[(size_t)i]))
										: to_float(from_float<bf16>(row[(size_t)i]));
				float x = element(b, lb->type, desc->transpose_b ? j + k * lb->leading : k + j * lb->leading);
				for (int64_t i = 0; i < m; i++)
					row[(size_t)i] += first[(size_t)(k * m + i)] * x;
			}
			for (int64_t i = 0; i < m; i++) {
				float old = keep != 0 ? keep * element(c, lc->type, i + j * lc->leading) : 0;
				set_element(d, ld->type, i + j * ld->leading, scale * row[(size_t)i] + old);
			}
		}
	});
	return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

enum status cublaslt_load(struct cublaslt *ret, struct error *)
{
	*ret = {cublasLtCreate,
		cublasLtDestroy,
		cublasLtGetStatusString,
		cublasLtMatmul,
		cublasLtMatmulAlgoGetHeuristic,
		cublasLtMatmulDescCreate,
		cublasLtMatmulDescDestroy,
		cublasLtMatmulDescSetAttribute,
		cublasLtMatrixLayoutCreate,
		cublasLtMatrixLayoutDestroy,
		cublasLtMatmulPreferenceCreate,
		cublasLtMatmulPreferenceDestroy,
		cublasLtMatmulPreferenceSetAttribute};
	return STATUS_OK;
}
