/* The types of weights that a GGUF is written with. */
#ifndef BESAD_ENGINE_EXPORT_TYPE_H
#define BESAD_ENGINE_EXPORT_TYPE_H

/* ROW(enumerator, name, type of most matrices, its number in "general.file_type") */
#define EXPORT_TYPES(ROW)                                                                                                          \
	ROW(F16, "f16", BLOCK_F16, 1)                                                                                              \
	ROW(Q8_0, "q8_0", BLOCK_Q8_0, 7) ROW(Q4_0, "q4_0", BLOCK_Q4_0, 2) ROW(Q4_1, "q4_1", BLOCK_Q4_1, 3)

#define EXPORT_ENUMERATOR(enumerator, ...) EXPORT_##enumerator,
enum export_type { EXPORT_TYPES(EXPORT_ENUMERATOR) EXPORT_COUNT };

/* What a job calls the file of a type. */
#define EXPORT_FILE_OF(enumerator, name, ...) "model-" name ".gguf",

#endif
