#include "engine/text/reader.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/unpack.h"

struct reader {
	const struct file *file;
	struct unpack *unpack;
	bool begun;

	/* What reader_line has not given out yet of the last stretch, and the line that it puts together of several. */
	const char *rest;
	size_t rest_bytes;
	char *line;
	size_t line_capacity;
	int64_t line_number;
};

enum status reader_open(const struct file *file, struct reader **ret, struct error *err)
{
	struct reader *reader = calloc(1, sizeof *reader);
	if (!reader) return error_set(err, STATUS_NO_MEMORY, "no memory to read %s", file->path);
	reader->file = file;
	enum status status = unpack_open(file, &reader->unpack, err);
	if (status != STATUS_OK) {
		reader_close(reader);
		return status;
	}
	*ret = reader;
	return STATUS_OK;
}

void reader_close(struct reader *reader)
{
	if (!reader) return;
	unpack_close(reader->unpack);
	free(reader->line);
	free(reader);
}

enum status reader_next(struct reader *reader, const char **ret, size_t *ret_bytes, struct error *err)
{
	static const char mark[] = "\xef\xbb\xbf";
	enum { MARK = sizeof mark - 1 };
	TRY(unpack_next(reader->unpack, ret, ret_bytes, err));
	if (!reader->begun && *ret_bytes >= MARK && memcmp(*ret, mark, MARK) == 0) {
		*ret += MARK;
		*ret_bytes -= MARK;
	}
	reader->begun = true;
	return STATUS_OK;
}

/* Appends to `line`, which holds `used` bytes. */
static enum status append(struct reader *reader, size_t used, const char *bytes, size_t count, struct error *err)
{
	if (used + count > READER_MAX_LINE)
		return error_set(err, STATUS_INVALID, "%s: line %" PRId64 " is longer than %d bytes", reader->file->path,
				 reader->line_number, READER_MAX_LINE);
	if (used + count > reader->line_capacity) {
		size_t capacity = 2 * (used + count);
		char *line = realloc(reader->line, capacity);
		if (!line) return error_set(err, STATUS_NO_MEMORY, "no memory to read %s", reader->file->path);
		reader->line = line;
		reader->line_capacity = capacity;
	}
	memcpy(reader->line + used, bytes, count);
	return STATUS_OK;
}

enum status reader_line(struct reader *reader, const char **ret, size_t *ret_bytes, struct error *err)
{
	size_t used = 0;
	reader->line_number++;
	for (;;) {
		if (reader->rest_bytes == 0) {
			TRY(reader_next(reader, &reader->rest, &reader->rest_bytes, err));
			if (reader->rest_bytes == 0) break;
		}
		const char *start = reader->rest, *newline = memchr(start, '\n', reader->rest_bytes);
		size_t count = newline ? (size_t)(newline - start) : reader->rest_bytes;
		reader->rest += count + (newline != NULL);
		reader->rest_bytes -= count + (newline != NULL);
		if (newline && used == 0) { /* the whole line lies in the stretch */
			*ret = start;
			*ret_bytes = count;
			return STATUS_OK;
		}
		TRY(append(reader, used, start, count, err));
		used += count;
		if (newline) break;
	}
	*ret = used > 0 ? reader->line : NULL;
	*ret_bytes = used;
	return STATUS_OK;
}

int64_t reader_line_number(const struct reader *reader)
{
	return reader->line_number;
}
