#include "engine/text/unpack.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

enum { CHUNK = 1 << 18, GZIP_WINDOW = 15 + 16, ZSTD_WINDOW_LOG = 27 };

struct unpack {
	const struct file *file;
	int64_t at; /* bytes of the file read so far */
	enum compression compression;
	bool in_part;       /* within a gzip member or a zstd frame, each with a checksum or a size of its own */
	size_t ready, used; /* bytes of `input` that are there, and that are unpacked */
	unsigned char input[CHUNK];
	bool zlib_ready;
	z_stream zlib;
	ZSTD_DStream *zstd;
	char output[CHUNK];
};

const char *compression_name(enum compression compression)
{
	static const char *const names[] = {"none", "gzip", "zstd"};
	return names[compression];
}

static enum compression compression_of(const unsigned char head[4])
{
	uint32_t word = (uint32_t)head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 24;
	if (head[0] == 0x1f && head[1] == 0x8b) return COMPRESSION_GZIP;
	if (word == ZSTD_MAGICNUMBER || (word & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START) return COMPRESSION_ZSTD;
	return COMPRESSION_NONE;
}

enum status unpack_open(const struct file *file, struct unpack **ret, struct error *err)
{
	unsigned char head[4] = {0};
	struct unpack *unpack = calloc(1, sizeof *unpack);
	if (!unpack) return error_set(err, STATUS_NO_MEMORY, "no memory to read %s", file->path);
	unpack->file = file;
	enum status status = STATUS_OK;
	size_t bytes = file->size < (int64_t)sizeof head ? (size_t)file->size : sizeof head;
	if (bytes > 0) status = file_read(file, head, bytes, 0, err);
	unpack->compression = compression_of(head);
	if (status == STATUS_OK && unpack->compression == COMPRESSION_GZIP) {
		unpack->zlib_ready = inflateInit2(&unpack->zlib, GZIP_WINDOW) == Z_OK;
		if (!unpack->zlib_ready) status = error_set(err, STATUS_NO_MEMORY, "no memory to unpack %s", file->path);
	}
	if (status == STATUS_OK && unpack->compression == COMPRESSION_ZSTD) {
		unpack->zstd = ZSTD_createDStream();
		if (!unpack->zstd || ZSTD_isError(ZSTD_DCtx_setParameter(unpack->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG)))
			status = error_set(err, STATUS_NO_MEMORY, "no memory to unpack %s", file->path);
	}
	if (status != STATUS_OK) {
		unpack_close(unpack);
		return status;
	}
	*ret = unpack;
	return STATUS_OK;
}

void unpack_close(struct unpack *unpack)
{
	if (!unpack) return;
	if (unpack->zlib_ready) inflateEnd(&unpack->zlib);
	ZSTD_freeDStream(unpack->zstd);
	free(unpack);
}

enum compression unpack_compression(const struct unpack *unpack)
{
	return unpack->compression;
}

/* The next bytes of the file itself; `ready` is 0 at its end. */
static enum status read_input(struct unpack *unpack, struct error *err)
{
	int64_t left = unpack->file->size - unpack->at;
	size_t bytes = left < CHUNK ? (size_t)left : CHUNK;
	TRY(file_read(unpack->file, unpack->input, bytes, unpack->at, err));
	unpack->at += (int64_t)bytes;
	unpack->ready = bytes;
	unpack->used = 0;
	return STATUS_OK;
}

/* Where in the file the unpacking is. */
static int64_t position(const struct unpack *unpack)
{
	return unpack->at - (int64_t)(unpack->ready - unpack->used);
}

static enum status inflate_some(struct unpack *unpack, size_t *filled, struct error *err)
{
	z_stream *zlib = &unpack->zlib;
	/* Zeros behind a member are padding, as gzip takes them; nothing begins with one. */
	while (!unpack->in_part && unpack->used < unpack->ready && unpack->input[unpack->used] == 0 && position(unpack) > 0)
		unpack->used++;
	if (unpack->used == unpack->ready) return STATUS_OK;
	zlib->next_in = unpack->input + unpack->used;
	zlib->avail_in = (unsigned)(unpack->ready - unpack->used);
	zlib->next_out = (unsigned char *)unpack->output + *filled;
	zlib->avail_out = (unsigned)(CHUNK - *filled);
	unpack->in_part = true;
	int result = inflate(zlib, Z_NO_FLUSH);
	unpack->used = unpack->ready - zlib->avail_in;
	*filled = CHUNK - zlib->avail_out;
	if (result == Z_MEM_ERROR) return error_set(err, STATUS_NO_MEMORY, "no memory to unpack %s", unpack->file->path);
	if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
		return error_set(err, STATUS_INVALID, "%s: bad gzip data near byte %" PRId64 ": %s", unpack->file->path,
				 position(unpack), zlib->msg ? zlib->msg : "not deflated");
	if (result == Z_STREAM_END) {
		unpack->in_part = false;
		inflateReset(zlib);
	}
	return STATUS_OK;
}

static enum status decompress_some(struct unpack *unpack, size_t *filled, struct error *err)
{
	ZSTD_inBuffer from = {unpack->input, unpack->ready, unpack->used};
	ZSTD_outBuffer to = {unpack->output, CHUNK, *filled};
	size_t result = ZSTD_decompressStream(unpack->zstd, &to, &from);
	unpack->used = from.pos;
	*filled = to.pos;
	unpack->in_part = result != 0;
	if (!ZSTD_isError(result)) return STATUS_OK;
	ZSTD_ErrorCode code = ZSTD_getErrorCode(result);
	if (code == ZSTD_error_memory_allocation)
		return error_set(err, STATUS_NO_MEMORY, "no memory to unpack %s", unpack->file->path);
	if (code == ZSTD_error_frameParameter_windowTooLarge)
		return error_set(
			err, STATUS_UNSUPPORTED,
			"%s: the zstd data needs a window of more than 128 MiB; unpack it with zstd -d --long=31, or pack it "
			"again with --long=%d or less",
			unpack->file->path, ZSTD_WINDOW_LOG);
	return error_set(err, STATUS_INVALID, "%s: bad zstd data near byte %" PRId64 ": %s", unpack->file->path, position(unpack),
			 ZSTD_getErrorName(result));
}

enum status unpack_next(struct unpack *unpack, const char **ret, size_t *ret_bytes, struct error *err)
{
	size_t filled = 0;
	if (unpack->compression == COMPRESSION_NONE) {
		TRY(read_input(unpack, err));
		*ret = (const char *)unpack->input;
		*ret_bytes = unpack->ready;
		return STATUS_OK;
	}
	while (filled < CHUNK) {
		size_t before = filled;
		if (unpack->used == unpack->ready) TRY(read_input(unpack, err));
		bool ended = unpack->ready == 0;
		if (ended && !unpack->in_part) break;
		TRY((unpack->compression == COMPRESSION_GZIP ? inflate_some : decompress_some)(unpack, &filled, err));
		/* At the end of the file a decoder may still hold output. */
		if (ended && unpack->in_part && filled == before)
			return error_set(err, STATUS_INVALID, "%s: the %s data is cut short", unpack->file->path,
					 compression_name(unpack->compression));
	}
	*ret = unpack->output;
	*ret_bytes = filled;
	return STATUS_OK;
}
