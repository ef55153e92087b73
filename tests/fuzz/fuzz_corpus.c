/* libFuzzer over calibration and evaluation files of every kind; the first byte says under which name. Stands in for the
 * tokenizer, which has a target of its own: a byte is an id. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/text/corpus.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VOCAB = 256, LENGTH = 8, SAMPLES = 3 };

enum status tokenizer_load(const struct place *model, int64_t vocab, struct warnings *warnings, struct tokenizer **ret,
			   struct error *err)
{
	(void)model;
	(void)vocab;
	(void)warnings;
	(void)err;
	*ret = NULL;
	return STATUS_OK;
}

void tokenizer_free(struct tokenizer *tokenizer)
{
	(void)tokenizer;
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
	(void)tokenizer;
	return 1;
}

enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t bytes, int32_t **ret_ids,
			     size_t *ret_count, struct error *err)
{
	(void)tokenizer;
	int32_t *ids = malloc((bytes + 1) * sizeof *ids);
	if (!ids) return error_set(err, STATUS_NO_MEMORY, "no memory");
	for (size_t i = 0; i < bytes; i++)
		ids[i] = (unsigned char)text[i];
	*ret_ids = ids;
	*ret_count = bytes;
	return STATUS_OK;
}

static void check(enum status status, struct sequences *sequences, const struct error *err)
{
	if (status != STATUS_OK) {
		if (!err->message[0]) abort();
		return;
	}
	if (sequences->count < 1 || sequences->length != LENGTH) abort();
	for (int64_t i = 0; i < sequences->count * sequences->length; i++)
		if (sequences->ids[i] < 0 || sequences->ids[i] >= VOCAB) abort();
	sequences_free(sequences);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const kinds[] = {"txt", "jsonl", "safetensors", "json.gz"};
	static const char *const fields[] = {"text", "messages"};
	static char directory[] = "/tmp/fuzz-corpus-XXXXXX";
	static int ready;
	char path[64];
	struct sequences sequences;
	struct error err = {0};
	if (!ready && !mkdtemp(directory)) abort();
	ready = 1;
	if (size < 1) return 0;
	snprintf(path, sizeof path, "%s/file.%s", directory, kinds[data[0] % 4]);
	FILE *file = fopen(path, "wb");
	if (!file || fwrite(data + 1, 1, size - 1, file) != size - 1 || fclose(file)) abort();
	const struct data_source source = {&PLACE(path), path, fields[data[0] / 4 % 2]};
	check(corpus_calibration(&source, &PLACE(directory), VOCAB, SAMPLES, LENGTH, data[0], NULL, NULL, &sequences, &err),
	      &sequences, &err);
	err = (struct error){0};
	check(corpus_evaluation(&source, &PLACE(directory), VOCAB, LENGTH, "\n\n", NULL, NULL, &sequences, &err), &sequences, &err);
	unlink(path);
	return 0;
}
