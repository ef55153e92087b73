#include "cuda/cublaslt.h"

#include <dlfcn.h>
#include <stdio.h>

#define STRING_(x) #x
#define STRING(x) STRING_(x)
#define LIBRARY "libcublasLt.so." STRING(CUBLAS_VER_MAJOR)

template <typename F> static bool find(void *library, const char *name, F *ret)
{
	*ret = reinterpret_cast<F>(dlsym(library, name));
	return *ret != nullptr;
}

enum status cublaslt_load(struct cublaslt *ret, struct error *err)
{
	struct cublaslt lt;
	char reason[256];
	void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		snprintf(reason, sizeof reason, "%s", dlerror());
		library = dlopen(BESAD_CUDA_LIBRARIES "/" LIBRARY, RTLD_NOW | RTLD_LOCAL);
	}
	if (!library) return error_set(err, STATUS_UNSUPPORTED, "cannot load %s: %s", LIBRARY, reason);
	if (!find(library, "cublasLtCreate", &lt.create) || !find(library, "cublasLtDestroy", &lt.destroy) ||
	    !find(library, "cublasLtGetStatusString", &lt.status_string) || !find(library, "cublasLtMatmul", &lt.matmul) ||
	    !find(library, "cublasLtMatmulAlgoGetHeuristic", &lt.heuristic) ||
	    !find(library, "cublasLtMatmulDescCreate", &lt.desc_create) ||
	    !find(library, "cublasLtMatmulDescDestroy", &lt.desc_destroy) ||
	    !find(library, "cublasLtMatmulDescSetAttribute", &lt.desc_set) ||
	    !find(library, "cublasLtMatrixLayoutCreate", &lt.layout_create) ||
	    !find(library, "cublasLtMatrixLayoutDestroy", &lt.layout_destroy) ||
	    !find(library, "cublasLtMatmulPreferenceCreate", &lt.preference_create) ||
	    !find(library, "cublasLtMatmulPreferenceDestroy", &lt.preference_destroy) ||
	    !find(library, "cublasLtMatmulPreferenceSetAttribute", &lt.preference_set)) {
		dlclose(library);
		return error_set(err, STATUS_UNSUPPORTED, "%s lacks a function that besad needs", LIBRARY);
	}
	*ret = lt;
	return STATUS_OK;
}
