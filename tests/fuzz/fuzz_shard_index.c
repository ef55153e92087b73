/* libFuzzer over model.safetensors.index.json. The names that it gives must be plain, sorted and distinct. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/shard_index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct json_stream stream;
	struct error err;
	char **names;
	int count;
	json_stream_memory(&stream, (const char *)data, size, "model.safetensors.index.json");
	if (shard_index_files(&stream, &names, &count, &err) != STATUS_OK) return 0;
	if (count < 1 || names[count]) abort();
	for (int i = 0; i < count; i++)
		if (!*names[i] || strchr(names[i], '/') || (i && strcmp(names[i - 1], names[i]) >= 0)) abort();
	for (int i = 0; i < count; i++)
		free(names[i]);
	free(names);
	return 0;
}
