/* Runs of operations as CUDA graphs. */
#ifndef BESAD_CUDA_RECORDING_H
#define BESAD_CUDA_RECORDING_H

#include "cuda/context.h"

enum status cuda_record_begin(struct backend *);
enum status cuda_record_end(struct backend *, struct recording **ret);
enum status cuda_replay(struct backend *, struct recording *);
void cuda_release_recording(struct backend *, struct recording *);

#endif
