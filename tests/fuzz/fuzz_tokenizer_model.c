/* libFuzzer over tokenizer.model in a directory with a tokenizer_config.json and an added_tokens.json: the input is the model
 * and, behind each of two bytes 0xff 0xfe, one of these files. What loads must also encode. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char directory[] = "/tmp/besad-fuzz-XXXXXX";

static void write_file(const char *name, const uint8_t *data, size_t size)
{
	char path[64];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	FILE *file = fopen(path, "wb");
	if (!file || fwrite(data, 1, size, file) != size || fclose(file) != 0) abort();
}

static void remove_directory(void)
{
	static const char *const names[] = {"tokenizer.model", "tokenizer_config.json", "added_tokens.json"};
	char path[64];
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(path, sizeof path, "%s/%s", directory, names[i]);
		unlink(path);
	}
	rmdir(directory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char text[] = "Hello  world,<s>caf\xc3\xa9 \xe4\xb8\xad\xe6\x96\x87 1234 \xff\xfe x\n";
	static const uint8_t none[] = "{}";
	if (directory[sizeof directory - 2] == 'X') {
		if (!mkdtemp(directory)) abort();
		atexit(remove_directory);
	}
	const uint8_t *config = memmem(data, size, "\xff\xfe", 2), *end = data + size;
	const uint8_t *added = config ? memmem(config + 2, (size_t)(end - config - 2), "\xff\xfe", 2) : NULL;
	write_file("tokenizer.model", data, (size_t)((config ? config : end) - data));
	write_file("tokenizer_config.json", config ? config + 2 : none, config ? (size_t)((added ? added : end) - config - 2) : 2);
	write_file("added_tokens.json", added ? added + 2 : none, added ? (size_t)(end - added - 2) : 2);

	struct tokenizer *tokenizer;
	struct warnings warnings = {0};
	struct error err = {0};
	int32_t *ids;
	size_t count;
	enum status status = tokenizer_load(&PLACE(directory), 1 << 20, &warnings, &tokenizer, &err);
	warnings_free(&warnings);
	if (status != STATUS_OK) {
		if (!err.message[0]) abort();
		return 0;
	}
	if (tokenizer_encode(tokenizer, text, sizeof text - 1, &ids, &count, &err) == STATUS_OK) free(ids);
	tokenizer_free(tokenizer);
	return 0;
}
