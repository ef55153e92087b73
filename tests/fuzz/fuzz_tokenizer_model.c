/* libFuzzer over tokenizer.model: what the sentencepiece library takes must also encode. */
#include <stdint.h>
#include <stdlib.h>

#include "engine/text/sentencepiece.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char text[] = "Hello  world, caf\xc3\xa9 \xe4\xb8\xad\xe6\x96\x87 1234 \xff\xfe x\n";
	struct piece_model *model;
	struct error err = {0};
	int32_t *ids;
	size_t count;
	if (sentencepiece_load((const char *)data, size, "tokenizer.model", &model, &err) != STATUS_OK) {
		if (!err.message[0]) abort();
		return 0;
	}
	int64_t pieces = sentencepiece_count(model);
	if (sentencepiece_bos(model) >= pieces || sentencepiece_id(model, "<s>") >= pieces) abort();
	if (sentencepiece_encode(model, text, sizeof text - 1, &ids, &count, &err) == STATUS_OK) {
		for (size_t i = 0; i < count; i++)
			if (ids[i] < 0 || ids[i] >= pieces) abort();
		free(ids);
	}
	sentencepiece_free(model);
	return 0;
}
