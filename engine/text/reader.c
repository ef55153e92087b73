#include "engine/text/reader.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "engine/file.h"

enum { CHUNK = 1 << 18, GZIP_WINDOW = 15 + 16 };

struct reader {
	struct file file;
	int64_t at; /* bytes of the file read so far */
	unsigned char input[CHUNK];

	bool gzip, in_member; /* a gzip file is a row of members, each with a checksum */
	z_stream zlib;
	char inflated[CHUNK];

	/* What reader_line has not given out yet of the last stretch, and the line that it puts together of several. */
	const char *rest;
	size_t rest_bytes;
	char *line;
	size_t line_capacity;
	int64_t line_number;
};

enum status reader_open(const char *path, struct reader **ret, struct error *err)
{
	unsigned char magic[2] = {0};
	struct reader *reader = calloc(1, sizeof *reader);
	if (!reader) return error_set(err, STATUS_NO_MEMORY, "no memory to read %s", path);
	enum status status = file_open_read(path, &reader->file, err);
	if (status == STATUS_OK && reader->file.size >= 2) status = file_read(&reader->file, magic, sizeof magic, 0, err);
	if (status == STATUS_OK && magic[0] == 0x1f && magic[1] == 0x8b) {
		reader->gzip = inflateInit2(&reader->zlib, GZIP_WINDOW) == Z_OK;
		if (!reader->gzip) status = error_set(err, STATUS_NO_MEMORY, "no memory to inflate %s", path);
	}
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
	if (reader->gzip) inflateEnd(&reader->zlib);
	file_close(&reader->file);
	free(reader->line);
	free(reader);
}

/* The next bytes of the file itself, into `input`; *ret is 0 at its end. */
static enum status read_input(struct reader *reader, size_t *ret, struct error *err)
{
	int64_t left = reader->file.size - reader->at;
	size_t bytes = left < CHUNK ? (size_t)left : CHUNK;
	TRY(file_read(&reader->file, reader->input, bytes, reader->at, err));
	reader->at += (int64_t)bytes;
	*ret = bytes;
	return STATUS_OK;
}

static enum status inflate_next(struct reader *reader, size_t *ret, struct error *err)
{
	z_stream *zlib = &reader->zlib;
	zlib->next_out = (unsigned char *)reader->inflated;
	zlib->avail_out = CHUNK;
	while (zlib->avail_out == CHUNK) {
		if (zlib->avail_in == 0) {
			size_t bytes;
			TRY(read_input(reader, &bytes, err));
			if (bytes == 0 && reader->in_member)
				return error_set(err, STATUS_INVALID, "%s: the gzip data is cut short", reader->file.path);
			if (bytes == 0) break;
			zlib->next_in = reader->input;
			zlib->avail_in = (unsigned)bytes;
		}
		reader->in_member = true;
		int result = inflate(zlib, Z_NO_FLUSH);
		if (result == Z_MEM_ERROR) return error_set(err, STATUS_NO_MEMORY, "no memory to inflate %s", reader->file.path);
		if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
			return error_set(err, STATUS_INVALID, "%s: bad gzip data near byte %" PRId64 ": %s", reader->file.path,
					 reader->at - zlib->avail_in, zlib->msg ? zlib->msg : "not deflated");
		if (result == Z_STREAM_END) {
			reader->in_member = false;
			inflateReset(zlib);
		}
	}
	*ret = CHUNK - zlib->avail_out;
	return STATUS_OK;
}

enum status reader_next(struct reader *reader, const char **ret, size_t *ret_bytes, struct error *err)
{
	TRY(reader->gzip ? inflate_next(reader, ret_bytes, err) : read_input(reader, ret_bytes, err));
	*ret = reader->gzip ? reader->inflated : (const char *)reader->input;
	return STATUS_OK;
}

/* Appends to `line`, which holds `used` bytes. */
static enum status append(struct reader *reader, size_t used, const char *bytes, size_t count, struct error *err)
{
	if (used + count > READER_MAX_LINE)
		return error_set(err, STATUS_INVALID, "%s: line %" PRId64 " is longer than %d bytes", reader->file.path,
				 reader->line_number, READER_MAX_LINE);
	if (used + count > reader->line_capacity) {
		size_t capacity = 2 * (used + count);
		char *line = realloc(reader->line, capacity);
		if (!line) return error_set(err, STATUS_NO_MEMORY, "no memory to read %s", reader->file.path);
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
