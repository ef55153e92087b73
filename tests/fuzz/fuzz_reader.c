/* libFuzzer over text files, plain and packed: read by lines and by stretches, they hold the same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/text/reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Bytes of the whole text, or -1 for an error; by lines, newlines are not counted. */
static int64_t read_all(const char *path, int by_lines)
{
	struct reader *reader;
	struct file file;
	struct error err;
	const char *part;
	size_t bytes;
	int64_t total = 0;
	if (file_open_read(path, &file, &err) != STATUS_OK) abort();
	enum status status = reader_open(&file, &reader, &err);
	if (status != STATUS_OK) abort();
	while ((status = (by_lines ? reader_line : reader_next)(reader, &part, &bytes, &err)) == STATUS_OK) {
		if (by_lines ? !part : !bytes) break;
		for (size_t i = 0; i < bytes; i++)
			total += by_lines || part[i] != '\n';
		if (by_lines && memchr(part, '\n', bytes)) abort();
	}
	reader_close(reader);
	file_close(&file);
	return status == STATUS_OK ? total : -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char path[] = "/tmp/fuzz-reader-XXXXXX";
	static int fd = -1;
	if (fd < 0 && (fd = mkstemp(path)) < 0) abort();
	if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size) abort();
	int64_t by_lines = read_all(path, 1), by_bytes = read_all(path, 0);
	if (by_lines > by_bytes && by_bytes >= 0) abort();
	return 0;
}
