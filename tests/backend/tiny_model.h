/* Small random LLaMA models on disk, for tests of whole blocks. */
#ifndef BESAD_TESTS_TINY_MODEL_H
#define BESAD_TESTS_TINY_MODEL_H

struct tiny_shape {
	int hidden, intermediate, heads, kv_heads, layers, vocab;
};

/* Writes config.json and model.safetensors (F32, seeded random weights) into a new temporary directory and returns its path,
 * which the caller frees after tiny_model_remove. Fails the running test when it cannot. */
char *tiny_model_write(const struct tiny_shape *shape, unsigned seed);
void tiny_model_remove(char *directory);

#endif
