/* What tests make the emulated device do. A program on it can be told by its environment:
 *   EMULATOR_SHARED=BYTES   what a block may have of shared memory (H100's 232,448 by default)
 *   EMULATOR_FAULT=FILE     the launch that finds FILE removes it and is an access to no memory
 *   EMULATOR_REFUSE=FILE    the launch that finds FILE removes it and is refused: an error that passes
 *   EMULATOR_GONE=FILE      while FILE is there no device is found */
#ifndef EMULATOR_FAULTS_H
#define EMULATOR_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

struct emulator_faults {
	size_t shared_memory;    /* as EMULATOR_SHARED; 0 for that, or its default */
	int unusable_choices;    /* of cuBLASLt's first choices, whose state is no success */
	bool matmul_refuses;     /* cublasLtMatmul answers that it does not support what the heuristic chose */
	bool choices_add_parts;  /* of a sum in D's type, where the preference allows that: set at first */
	bool side_streams_hurry; /* work on other streams than a backend's first is done as soon as it may be, not as late */
	int matmuls;             /* counts what cublasLtMatmul computed */
};

#ifdef __cplusplus
extern "C"
#else
extern
#endif
	struct emulator_faults emulator_faults;

#ifdef __cplusplus
extern "C"
#endif
	void
	emulator_heal(void); /* takes back an error that stays, which no device does */

#ifdef __cplusplus
extern "C"
#endif
	void
	emulator_leave_error(void); /* as a call does whose error nobody takes */

#endif
