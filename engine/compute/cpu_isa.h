/* How much of the processor the CPU's kernels may use. */
#ifndef BESAD_ENGINE_COMPUTE_CPU_ISA_H
#define BESAD_ENGINE_COMPUTE_CPU_ISA_H

#include <stdlib.h>
#include <string.h>

/* The most of x86-64-v2, -v3 and -v4 that may be used, be it there or not: 4, or what the environment's BESAD_CPU_ISA=v2|v3 asks
 * for instead, as ONEDNN_MAX_CPU_ISA does of oneDNN. */
static inline int cpu_isa_most(void)
{
	const char *asked = getenv("BESAD_CPU_ISA");
	return asked && !strcmp(asked, "v2") ? 2 : asked && !strcmp(asked, "v3") ? 3 : 4;
}

#endif
