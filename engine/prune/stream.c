/* File format: "BESAHID2", then I64 sequences, tokens, hidden and U32 CRC-32 of the values in host byte order, padding to 64
 * bytes, then the F32 values. It is read by the machine that wrote it. A file under its final name is whole: it was fsynced
 * before it got that name; what happens to it behind that the checksum tells. An earlier besad wrote "BESAHID1", without one. */
#include "engine/prune/stream.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "base/place.h"

enum { HEADER_BYTES = 64, PIECE_BYTES = 4 << 20, SAVE_MOST_THREADS = 16 };

static size_t sequence_bytes(const struct stream *stream)
{
	return (size_t)(stream->tokens * stream->hidden) * sizeof(float);
}

static enum status failed(const struct stream *stream, enum status status, struct error *err)
{
	if (status == STATUS_OK) return STATUS_OK;
	*err = stream->backend->error;
	return error_prefix(err, "hidden states of %" PRId64 " sequences of %" PRId64 " tokens", stream->sequences, stream->tokens);
}

/* The memory that the whole of it takes. */
static enum status whole_bytes(const struct stream *stream, size_t *ret, struct error *err)
{
	if (!__builtin_mul_overflow((size_t)stream->sequences, sequence_bytes(stream), ret)) return STATUS_OK;
	return error_set(err, STATUS_NO_MEMORY, "%" PRId64 " sequences of hidden states are too many", stream->sequences);
}

enum status stream_create(struct backend *backend, int64_t sequences, int64_t tokens, int64_t hidden, int64_t batch,
			  struct stream *ret, struct error *err)
{
	struct stream stream = {.backend = backend, .sequences = sequences, .tokens = tokens, .hidden = hidden};
	size_t bytes;
	TRY(whole_bytes(&stream, &bytes, err));
	enum status status = backend->ops->alloc(backend, bytes, &stream.device);
	if (status == STATUS_NO_MEMORY && !backend->unified)
		return stream_create_on_host(backend, sequences, tokens, hidden, batch, ret, err);
	TRY(failed(&stream, status, err));
	*ret = stream;
	return STATUS_OK;
}

enum status stream_create_on_host(struct backend *backend, int64_t sequences, int64_t tokens, int64_t hidden, int64_t batch,
				  struct stream *ret, struct error *err)
{
	struct stream stream = {.backend = backend, .sequences = sequences, .tokens = tokens, .hidden = hidden};
	size_t bytes;
	void *host = NULL;
	TRY(whole_bytes(&stream, &bytes, err));
	enum status status = backend->ops->alloc_host(backend, bytes, &host);
	stream.host = host;
	for (int i = 0; i < 2; i++) {
		struct tensor *room = &stream.staging[i];
		*room = tensor_make(NULL, batch * tokens, hidden, DTYPE_F32);
		if (status == STATUS_OK) status = backend->ops->alloc(backend, tensor_bytes(room), &room->data);
	}
	if (status == STATUS_OK) {
		*ret = stream;
		return STATUS_OK;
	}
	failed(&stream, status, err);
	stream_release(&stream);
	return status;
}

void stream_release(struct stream *stream)
{
	if (!stream->backend) return;
	stream->backend->ops->release(stream->backend, stream->device);
	for (int i = 0; i < 2; i++)
		stream->backend->ops->release(stream->backend, stream->staging[i].data);
	stream->backend->ops->release_host(stream->backend, stream->host);
	*stream = (struct stream){0};
}

static float *host_rows(const struct stream *stream, int64_t first)
{
	return stream->host + first * stream->tokens * stream->hidden;
}

/* Starts to bring sequences first … into the other room, which what was issued so far may still use. */
static enum status fetch_ahead(struct stream *stream, int64_t first, int64_t count)
{
	struct backend *backend = stream->backend;
	if (first + count > stream->sequences) count = stream->sequences - first;
	if (count <= 0) return STATUS_OK;
	struct tensor to = tensor_rows(stream->staging[!stream->turn], 0, count * stream->tokens);
	TRY(backend->ops->fetch(backend, to.data, host_rows(stream, first), tensor_bytes(&to)));
	stream->ahead = first;
	stream->ahead_count = count;
	return STATUS_OK;
}

/* What was fetched is no longer what the host has, or not what is wanted. */
static enum status drop_ahead(struct stream *stream)
{
	if (stream->ahead_count == 0) return STATUS_OK;
	stream->ahead_count = 0;
	return stream->backend->ops->fetched(stream->backend);
}

/* Gives out the room that holds sequences first …: the one into which they were fetched, or that into which they are uploaded
 * now. */
static enum status take_batch(struct stream *stream, int64_t first, int64_t count, struct tensor *ret)
{
	struct backend *backend = stream->backend;
	bool here = stream->ahead_count == count && stream->ahead == first;
	TRY(drop_ahead(stream));
	if (here) stream->turn = !stream->turn;
	*ret = tensor_rows(stream->staging[stream->turn], 0, count * stream->tokens);
	if (!here) TRY(backend->ops->upload(backend, ret->data, host_rows(stream, first), tensor_bytes(ret)));
	return fetch_ahead(stream, first + count, count);
}

enum status stream_batch(struct stream *stream, int64_t first, int64_t count, bool load, struct tensor *ret)
{
	if (stream->device) {
		struct tensor all = tensor_make(stream->device, stream->sequences * stream->tokens, stream->hidden, DTYPE_F32);
		*ret = tensor_rows(all, first * stream->tokens, count * stream->tokens);
		return STATUS_OK;
	}
	if (load) return take_batch(stream, first, count, ret);
	*ret = tensor_rows(stream->staging[stream->turn], 0, count * stream->tokens);
	return STATUS_OK;
}

enum status stream_gather(struct stream *stream, const int64_t *sequences, int64_t count, struct tensor to)
{
	struct backend *backend = stream->backend;
	for (int64_t i = 0; i < count; i++) {
		struct tensor place = tensor_rows(to, i * stream->tokens, stream->tokens), from;
		if (stream->host) {
			TRY(backend->ops->upload(backend, place.data, host_rows(stream, sequences[i]), tensor_bytes(&place)));
			continue;
		}
		TRY(stream_batch(stream, sequences[i], 1, true, &from));
		TRY(backend->ops->copy(backend, place.data, from.data, tensor_bytes(&from)));
	}
	return STATUS_OK;
}

enum status stream_store(struct stream *stream, int64_t first, int64_t count, struct tensor values)
{
	struct backend *backend = stream->backend;
	if (stream->host) {
		if (first < stream->ahead + stream->ahead_count && stream->ahead < first + count) TRY(drop_ahead(stream));
		return backend->ops->download(backend, host_rows(stream, first), values.data, tensor_bytes(&values));
	}
	struct tensor to;
	TRY(stream_batch(stream, first, count, false, &to));
	return to.data == values.data ? STATUS_OK : backend->ops->copy(backend, to.data, values.data, tensor_bytes(&values));
}

struct header {
	char magic[8];
	int64_t sequences, tokens, hidden;
	uint32_t crc32;
	char padding[HEADER_BYTES - 36];
};

static struct header header_of(const struct stream *stream, uint32_t crc)
{
	return (struct header){"BESAHID2", stream->sequences, stream->tokens, stream->hidden, crc, ""};
}

/* What a file of an earlier besad begins with. */
static struct header unchecked_header(const struct stream *stream)
{
	struct header header = header_of(stream, 0);
	header.magic[7] = '1';
	return header;
}

/* ---- to disk ------------------------------------------------------------------------------------------------------------- */

/* A stream on its way to a file, piece by piece, by several threads. */
struct saving {
	const struct stream *stream;
	const struct file *file;
	size_t bytes;
	pthread_mutex_t lock; /* of the rest, and of the backend: one thread at a time may bring something from the device */
	size_t next;          /* the first byte that nobody has taken */
	uint32_t *crcs;       /* of the pieces that are written */
	enum status status;
	struct error err;
};

/* Bytes `at` … of a stream that is in host memory; NULL for one on a device. */
static char *host_bytes(const struct stream *stream, size_t at)
{
	if (stream->host) return (char *)stream->host + at;
	return stream->backend->unified ? (char *)stream->device + at : NULL;
}

static void fail(struct saving *saving, enum status status, const struct error *err)
{
	pthread_mutex_lock(&saving->lock);
	if (saving->status == STATUS_OK) {
		saving->status = status;
		saving->err = *err;
	}
	pthread_mutex_unlock(&saving->lock);
}

/* Takes the next piece, and brings it into `room` where it is on a device. False when there is none, or something has failed. */
static bool take_piece(struct saving *saving, char *room, size_t *ret_at, size_t *ret_bytes)
{
	struct backend *backend = saving->stream->backend;
	pthread_mutex_lock(&saving->lock);
	size_t at = saving->next, left = saving->bytes - at, bytes = left < PIECE_BYTES ? left : PIECE_BYTES;
	saving->next += bytes;
	if (saving->status == STATUS_OK && bytes > 0 && room)
		saving->status =
			backend->ops->side_download(backend, room, (const char *)saving->stream->device + at, bytes, &saving->err);
	bool taken = saving->status == STATUS_OK && bytes > 0;
	pthread_mutex_unlock(&saving->lock);
	*ret_at = at;
	*ret_bytes = bytes;
	return taken;
}

static void *save_pieces(void *context)
{
	struct saving *saving = context;
	struct error err;
	size_t at, bytes;
	char *room = NULL;
	if (!host_bytes(saving->stream, 0)) {
		room = malloc(PIECE_BYTES);
		if (!room) {
			fail(saving, error_set(&err, STATUS_NO_MEMORY, "no memory for a piece of the hidden states"), &err);
			return NULL;
		}
	}
	while (take_piece(saving, room, &at, &bytes)) {
		const char *from = room ? room : host_bytes(saving->stream, at);
		enum status status = file_write(saving->file, from, bytes, HEADER_BYTES + (int64_t)at, &err);
		saving->crcs[at / PIECE_BYTES] = (uint32_t)crc32_z(0, (const Bytef *)from, bytes);
		if (status != STATUS_OK) fail(saving, status, &err);
	}
	free(room);
	return NULL;
}

static uint32_t crc_of_pieces(const uint32_t *crcs, size_t bytes)
{
	uLong crc = 0;
	for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
		size_t piece = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
		crc = crc32_combine(crc, crcs[at / PIECE_BYTES], (z_off_t)piece);
	}
	return (uint32_t)crc;
}

/* By this thread, and by as many others as can be had of those that were asked for. */
static enum status save_all(const struct stream *stream, const struct file *file, int threads, uint32_t *ret_crc, struct error *err)
{
	struct saving saving = {
		.stream = stream, .file = file, .bytes = (size_t)stream->sequences * sequence_bytes(stream), .status = STATUS_OK};
	saving.crcs = malloc((saving.bytes / PIECE_BYTES + 1) * sizeof *saving.crcs);
	if (!saving.crcs) return error_set(err, STATUS_NO_MEMORY, "no memory for checksums");
	pthread_t others[SAVE_MOST_THREADS];
	int count = 0;
	pthread_mutex_init(&saving.lock, NULL);
	while (count + 1 < threads && count < SAVE_MOST_THREADS && ((size_t)count + 1) * PIECE_BYTES < saving.bytes &&
	       pthread_create(&others[count], NULL, save_pieces, &saving) == 0)
		count++;
	save_pieces(&saving);
	for (int i = 0; i < count; i++)
		pthread_join(others[i], NULL);
	pthread_mutex_destroy(&saving.lock);
	if (saving.status != STATUS_OK)
		*err = saving.err;
	else
		*ret_crc = crc_of_pieces(saving.crcs, saving.bytes);
	free(saving.crcs);
	return saving.status;
}

static enum status load_all(struct stream *stream, const struct file *file, uint32_t *ret_crc, struct error *err)
{
	struct backend *backend = stream->backend;
	size_t bytes = (size_t)stream->sequences * sequence_bytes(stream);
	char *to = host_bytes(stream, 0);
	if (drop_ahead(stream) != STATUS_OK) {
		*err = backend->error;
		return err->status;
	}
	if (to) {
		TRY(file_read(file, to, bytes, HEADER_BYTES, err));
		*ret_crc = (uint32_t)crc32_z(0, (const Bytef *)to, bytes);
		return STATUS_OK;
	}
	char *room = malloc(PIECE_BYTES);
	if (!room) return error_set(err, STATUS_NO_MEMORY, "no memory for a piece of the hidden states");
	enum status status = STATUS_OK;
	uLong crc = 0;
	for (size_t at = 0, piece; status == STATUS_OK && at < bytes; at += piece) {
		piece = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
		status = file_read(file, room, piece, HEADER_BYTES + (int64_t)at, err);
		if (status != STATUS_OK) break;
		crc = crc32_z(crc, (const Bytef *)room, piece);
		status = backend->ops->upload(backend, (char *)stream->device + at, room, piece);
		if (status != STATUS_OK) *err = backend->error;
	}
	free(room);
	*ret_crc = (uint32_t)crc;
	return status;
}

int64_t stream_file_bytes(int64_t sequences, int64_t tokens, int64_t hidden)
{
	return HEADER_BYTES + sequences * tokens * hidden * (int64_t)sizeof(float);
}

/* By how many threads. */
struct writing {
	const struct stream *stream;
	int threads;
};

static enum status write_file(void *context, const struct file *file, struct error *err)
{
	const struct writing *writing = context;
	uint32_t crc = 0;
	TRY(save_all(writing->stream, file, writing->threads, &crc, err));
	const struct header header = header_of(writing->stream, crc);
	return file_write(file, &header, sizeof header, 0, err);
}

enum status stream_save(const struct stream *stream, const char *path, int threads, struct error *err)
{
	int64_t bytes = stream_file_bytes(stream->sequences, stream->tokens, stream->hidden);
	return place_fill(path, bytes, write_file, &(struct writing){stream, threads}, err);
}

enum status stream_load(struct stream *stream, const char *path, struct error *err)
{
	struct header header = {0};
	struct file file;
	uint32_t crc = 0;
	TRY(file_open_read(path, &file, err));
	enum status status = file_read(&file, &header, sizeof header, 0, err);
	const struct header expected = header_of(stream, header.crc32), before = unchecked_header(stream);
	bool unchecked = status == STATUS_OK && memcmp(&header, &before, sizeof header) == 0;
	if (status == STATUS_OK && !unchecked && memcmp(&header, &expected, sizeof header) != 0)
		status = error_set(err, STATUS_INVALID,
				   "%s: not the hidden states of %" PRId64 " × %" PRId64 " × %" PRId64 " that this job needs", path,
				   stream->sequences, stream->tokens, stream->hidden);
	if (status == STATUS_OK) status = load_all(stream, &file, &crc, err);
	if (status == STATUS_OK && !unchecked && crc != header.crc32)
		status = error_set(
			err, STATUS_INVALID,
			"%s: is damaged: its checksum is %08x, and was %08x when it was written; the job cannot go on from it: "
			"look after the disk, and submit the job again",
			path, crc, header.crc32);
	file_close(&file);
	return status;
}
