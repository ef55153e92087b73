/* libFuzzer over the head of a safetensors file. What the parser accepts must lie in the file, without overlap, and match its
 * shape; and a file that is laid out for the same tensors must be read as such. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int64_t elements(const struct tensor_info *info)
{
	int64_t n = 1;
	for (int i = 0; i < info->rank; i++)
		n *= info->shape[i];
	return n;
}

static void check_same(const struct tensor_info *a, const struct tensor_info *b)
{
	if (strcmp(a->name, b->name) != 0 || a->dtype != b->dtype || a->opaque != b->opaque || a->bytes != b->bytes ||
	    a->offset != b->offset || a->rank != b->rank || memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape) != 0)
		abort();
}

static void check_written(struct tensor_info *infos, size_t count)
{
	struct tensor_info **order = malloc((count + 1) * sizeof *order), *read;
	size_t read_count;
	struct buffer head = {0};
	int64_t file_size;
	struct error err;
	for (size_t i = 0; i < count; i++)
		order[i] = &infos[i];
	if (safetensors_lay_out(order, count, "f", &head, &file_size, &err) != STATUS_OK) abort();
	if (safetensors_parse(head.data, head.size, file_size, "f", &read, &read_count, &err) != STATUS_OK) abort();
	if (head.size % 8 != 0 || read_count != count) abort();
	for (size_t i = 0; i < count; i++)
		check_same(&infos[i], &read[i]);
	tensor_infos_free(read, read_count);
	buffer_free(&head);
	free(order);
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
	check_written(infos, count);
	tensor_infos_free(infos, count);
	return 0;
}
