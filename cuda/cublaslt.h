/* cuBLASLt, loaded at run time: besad built with CUDA starts on a machine that has none of its libraries. */
#ifndef BESAD_CUDA_CUBLASLT_H
#define BESAD_CUDA_CUBLASLT_H

#include <cublasLt.h>

extern "C" {
#include "base/error.h"
}

struct cublaslt {
	decltype(&cublasLtCreate) create;
	decltype(&cublasLtDestroy) destroy;
	decltype(&cublasLtGetStatusString) status_string;
	decltype(&cublasLtMatmul) matmul;
	decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
	decltype(&cublasLtMatmulDescCreate) desc_create;
	decltype(&cublasLtMatmulDescDestroy) desc_destroy;
	decltype(&cublasLtMatmulDescSetAttribute) desc_set;
	decltype(&cublasLtMatrixLayoutCreate) layout_create;
	decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
	decltype(&cublasLtMatmulPreferenceCreate) preference_create;
	decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
	decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
};

/* Looks in the loader's path, then in the toolkit's library directory of the build. The library stays loaded.
 * STATUS_UNSUPPORTED, with the loader's reason, when it is not there or lacks a function. */
enum status cublaslt_load(struct cublaslt *ret, struct error *err);

#endif
