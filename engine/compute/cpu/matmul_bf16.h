/* Products of bf16 matrices by oneDNN's matmul primitive, for processors with AVX512_BF16 or AMX. */
#ifndef BESAD_ENGINE_CPU_MATMUL_BF16_H
#define BESAD_ENGINE_CPU_MATMUL_BF16_H

#include "engine/compute/cpu/cpu.h"

/* As matmul of engine/compute/backend.h, checked already and not empty; a and b BF16, c BF16 or F32. */
enum status cpu_matmul_bf16(struct cpu_backend *, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			    bool transpose_b, bool accumulate);

#endif
