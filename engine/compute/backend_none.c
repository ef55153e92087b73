/* Stands in for cuda/ in a build without it. */
#include "engine/compute/backend.h"

#ifdef BESAD_NO_CUDA
enum status backend_cuda_create(size_t memory_limit, struct backend **ret, struct error *err)
{
	(void)memory_limit;
	(void)ret;
	return error_set(err, STATUS_UNSUPPORTED, "this build has no CUDA: no nvcc was found when it was made");
}

bool backend_cuda_lost(void)
{
	return false;
}
#endif
