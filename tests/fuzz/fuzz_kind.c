/* libFuzzer over data files of every kind, packed and not: what they are, their rows, and the texts in these. The first byte
 * says the name and the field. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "engine/text/documents.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_texts(const struct file *file, enum data_kind kind, const char *field)
{
	struct documents *documents;
	struct warnings warnings = {0};
	struct error err = {0};
	const char *text;
	size_t bytes;
	if (documents_open(file, kind, field, &warnings, &documents, &err) != STATUS_OK) abort();
	enum status status;
	while ((status = documents_next(documents, &text, &bytes, &err)) == STATUS_OK && text)
		if (!utf8_valid(text, bytes)) abort();
	if (status != STATUS_OK && !err.message[0]) abort();
	documents_close(documents);
	warnings_free(&warnings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"blob", "a.txt", "a.jsonl", "A.JSON.GZ", "a.ndjson.zst", "a.safetensors"};
	static const char *const fields[] = {"text", "messages", "data.text", "list.0.content", "a.b.c"};
	static char path[] = "/tmp/fuzz-kind-XXXXXX";
	static int fd = -1;
	struct file file;
	struct error err = {0};
	enum data_kind kind;
	enum compression compression;
	if (fd < 0 && (fd = mkstemp(path)) < 0) abort();
	if (size < 1) return 0;
	if (ftruncate(fd, 0) || pwrite(fd, data + 1, size - 1, 0) != (ssize_t)size - 1) abort();
	if (file_open_read(path, &file, &err) != STATUS_OK) abort();
	enum status status = data_kind_find(&file, names[data[0] % 6], &kind, &compression, &err);
	if (status != STATUS_OK && !strstr(err.message, path)) abort();
	if (status == STATUS_OK && kind != DATA_TEXT && kind != DATA_TOKENS) read_texts(&file, kind, fields[data[0] / 6 % 5]);
	file_close(&file);
	return 0;
}
