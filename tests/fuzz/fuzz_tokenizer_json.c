/* libFuzzer over the tokenizer.json reader and the encoder. The input is the file and, behind a byte 0xff (which JSON cannot
 * hold), a text to encode. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/tokenizer_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode(const struct tokenizer_json *tokenizer, const char *text, size_t bytes)
{
	int32_t *ids;
	size_t count;
	struct error err;
	if (tokenizer_json_encode(tokenizer, text, bytes, &ids, &count, &err) != STATUS_OK) return;
	for (size_t i = 0; i < count; i++)
		if (ids[i] < 0 || ids[i] >= tokenizer_json_size(tokenizer)) abort();
	free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char sample[] =
		"The cat's 12 <s>  hats \r\n\xff \xe2\x96\x81 e\xcc\x81 \xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x98\x80\n";
	const uint8_t *separator = memchr(data, 0xff, size);
	size_t json = separator ? (size_t)(separator - data) : size;
	struct tokenizer_json *tokenizer;
	struct error err;
	cJSON *tree;
	if (json_parse((const char *)data, json, "tokenizer.json", &tree, &err) != STATUS_OK) return 0;
	/* The file's added tokens once more, as a tokenizer_config.json may have them. */
	enum status status = tokenizer_json_load(tree, cJSON_GetObjectItemCaseSensitive(tree, "added_tokens"), size & 1,
						 "tokenizer.json", &tokenizer, &err);
	cJSON_Delete(tree);
	if (status != STATUS_OK) return 0;
	encode(tokenizer, sample, sizeof sample - 1);
	if (separator) encode(tokenizer, (const char *)separator + 1, size - json - 1);
	tokenizer_json_free(tokenizer);
	return 0;
}
