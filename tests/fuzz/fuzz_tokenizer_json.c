/* libFuzzer over the tokenizer.json reader and the encoder. The input is the file and, behind a byte 0xff (which JSON cannot
 * hold), a text to encode. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/bpe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode(const struct bpe *bpe, const char *text, size_t bytes)
{
	int32_t *ids;
	size_t count;
	struct error err;
	if (bpe_encode(bpe, text, bytes, &ids, &count, &err) != STATUS_OK) return;
	for (size_t i = 0; i < count; i++)
		if (ids[i] < 0 || ids[i] >= bpe_vocab_size(bpe)) abort();
	free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char sample[] =
		"The cat's 12 <s>  hats \r\n\xff \xe2\x96\x81 e\xcc\x81 \xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x98\x80\n";
	const uint8_t *separator = memchr(data, 0xff, size);
	size_t json = separator ? (size_t)(separator - data) : size;
	struct bpe *bpe;
	struct error err;
	if (bpe_load((const char *)data, json, "tokenizer.json", &bpe, &err) != STATUS_OK) return 0;
	if (bpe_bos(bpe) >= bpe_vocab_size(bpe)) abort();
	encode(bpe, sample, sizeof sample - 1);
	if (separator) encode(bpe, (const char *)separator + 1, size - json - 1);
	bpe_free(bpe);
	return 0;
}
