/* libFuzzer over the head of a safetensors file. What the parser accepts must lie in the file, without overlap, and match its
 * shape. */
#include <stdint.h>
#include <stdlib.h>

#include "engine/model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int64_t elements(const struct tensor_info *info)
{
	int64_t n = 1;
	for (int i = 0; i < info->rank; i++)
		n *= info->shape[i];
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* The first byte says how many bytes of tensors follow the head. */
	if (size < 1) return 0;
	int64_t file_size = (int64_t)size - 1 + data[0], covered = 0;
	struct tensor_info *infos;
	size_t count;
	struct error err;
	if (safetensors_parse(data + 1, size - 1, file_size, "model.safetensors", &infos, &count, &err) != STATUS_OK) return 0;
	for (size_t i = 0; i < count; i++) {
		if (infos[i].offset < 8 || infos[i].bytes < 0 || infos[i].bytes > file_size - infos[i].offset) abort();
		if (!infos[i].opaque && elements(&infos[i]) * (int64_t)dtype_size(infos[i].dtype) != infos[i].bytes) abort();
		covered += infos[i].bytes;
	}
	if (covered > file_size - 8) abort();
	tensor_infos_free(infos, count);
	return 0;
}
