/* Runs of operations as CUDA graphs. */
#include "cuda/memory.h"

#include <new>

struct recording {
	cudaGraphExec_t graph = nullptr;
	struct cuda_scratch *scratch = nullptr;
};

static enum status record_begin(struct backend *backend)
{
	struct cuda *c = cuda_begin(backend, "record_begin", {});
	/* Of this thread alone: another one may transfer meanwhile. */
	cudaError_t error = backend->dry ? cudaSuccess : cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal);
	if (error != cudaSuccess) {
		(void)cudaGetLastError();
		return cuda_refuse(c, STATUS_UNSUPPORTED, "cudaStreamBeginCapture: %s", cudaGetErrorName(error));
	}
	cuda_scratch_begin(c);
	return STATUS_OK;
}

static enum status instantiate(struct cuda *c, cudaGraph_t graph, struct recording **ret)
{
	struct recording *r = new (std::nothrow) recording();
	if (!r) return cuda_refuse(c, STATUS_NO_MEMORY, "no host memory");
	cudaError_t error = c->base.dry ? cudaSuccess : cudaGraphInstantiate(&r->graph, graph, 0);
	if (error != cudaSuccess) {
		(void)cudaGetLastError();
		delete r;
		return cuda_refuse(c, STATUS_UNSUPPORTED, "cudaGraphInstantiate: %s", cudaGetErrorName(error));
	}
	*ret = r;
	return STATUS_OK;
}

static enum status record_end(struct backend *backend, struct recording **ret)
{
	struct cuda *c = cuda_begin(backend, "record_end", {});
	struct cuda_scratch *scratch = nullptr;
	cudaGraph_t graph = nullptr;
	cudaError_t error = backend->dry ? cudaSuccess : cudaStreamEndCapture(c->stream, &graph);
	enum status status = cuda_scratch_end(c, &scratch);
	if (error != cudaSuccess || (!graph && !backend->dry)) {
		(void)cudaGetLastError();
		status = cuda_refuse(c, STATUS_UNSUPPORTED, "cudaStreamEndCapture: %s", cudaGetErrorName(error));
	}
	if (status == STATUS_OK) status = instantiate(c, graph, ret);
	if (graph) (void)cudaGraphDestroy(graph);
	if (status == STATUS_OK)
		(*ret)->scratch = scratch;
	else
		cuda_scratch_release(c, scratch);
	return status;
}

static enum status replay(struct backend *backend, struct recording *recording)
{
	struct cuda *c = cuda_begin(backend, "replay", {});
	if (backend->dry) return STATUS_OK;
	CUDA_TRY(c, cudaGraphLaunch(recording->graph, c->stream));
	return STATUS_OK;
}

static void release_recording(struct backend *backend, struct recording *recording)
{
	struct cuda *c = (struct cuda *)backend;
	if (!recording) return;
	if (!backend->dry) {
		(void)cudaStreamSynchronize(c->stream);
		(void)cudaGraphExecDestroy(recording->graph);
	}
	cuda_scratch_release(c, recording->scratch);
	delete recording;
}

void cuda_recording_operations(struct backend_ops *ops)
{
	ops->record_begin = record_begin;
	ops->record_end = record_end;
	ops->replay = replay;
	ops->release_recording = release_recording;
}
