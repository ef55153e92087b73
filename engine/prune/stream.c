/* File format: "BESAHID1", then I64 sequences, tokens, hidden in host byte order, padding to 64 bytes, then the F32 values. It is read by
 * the machine that wrote it. A file under its final name is whole: it was fsynced before it got that name. */
#include "engine/prune/stream.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

static size_t sequence_bytes(const struct stream *stream)
{
	return (size_t)(stream->tokens * stream->hidden) * sizeof(float);
}

enum status stream_create(struct backend *backend, int64_t sequences, int64_t tokens, int64_t hidden, int64_t batch,
			  struct stream *ret, struct error *err)
{
	struct stream stream = {.backend = backend, .sequences = sequences, .tokens = tokens, .hidden = hidden};
	size_t bytes;
	if (__builtin_mul_overflow((size_t)sequences, sequence_bytes(&stream), &bytes))
		return error_set(err, STATUS_NO_MEMORY, "%" PRId64 " sequences of hidden states are too many", sequences);
	enum status status = backend->ops->alloc(backend, bytes, &stream.device);
	if (status == STATUS_NO_MEMORY && !backend->unified) {
		stream.device = NULL;
		void *host = NULL;
		status = backend->ops->alloc_host(backend, bytes, &host);
		stream.host = host;
		for (int i = 0; i < 2; i++) {
			struct tensor *room = &stream.staging[i];
			*room = tensor_make(NULL, batch * tokens, hidden, DTYPE_F32);
			if (status == STATUS_OK) status = backend->ops->alloc(backend, tensor_bytes(room), &room->data);
		}
	}
	if (status != STATUS_OK) {
		*err = backend->error;
		error_prefix(err, "hidden states of %" PRId64 " sequences of %" PRId64 " tokens", sequences, tokens);
		backend->ops->release(backend, stream.staging[0].data);
		backend->ops->release_host(backend, stream.host);
		return status;
	}
	*ret = stream;
	return STATUS_OK;
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

/* Gives out the room that holds sequences first …: the one into which they were fetched, or that into which they are uploaded now. */
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

enum { HEADER_BYTES = 64 };

static void fill_header(const struct stream *stream, char header[HEADER_BYTES])
{
	int64_t sizes[3] = {stream->sequences, stream->tokens, stream->hidden};
	memset(header, 0, HEADER_BYTES);
	memcpy(header, "BESAHID1", 8);
	memcpy(header + 8, sizes, sizeof sizes);
}

/* Moves sequence `i` between the file and the stream. `row` is room for one sequence; unused where host memory is the stream. */
static enum status move_sequence(struct stream *stream, const struct file *file, int64_t i, bool save, float *row,
				 struct error *err)
{
	struct backend *backend = stream->backend;
	size_t bytes = sequence_bytes(stream);
	int64_t offset = HEADER_BYTES + i * (int64_t)bytes;
	struct tensor batch;
	if (stream->host || backend->unified) {
		row = stream->host ? host_rows(stream, i) : (float *)stream->device + i * stream->tokens * stream->hidden;
		return save ? file_write(file, row, bytes, offset, err) : file_read(file, row, bytes, offset, err);
	}
	TRY(stream_batch(stream, i, 1, false, &batch));
	if (save) {
		TRY(backend->ops->side_download(backend, row, batch.data, bytes, err));
		return file_write(file, row, bytes, offset, err);
	}
	TRY(file_read(file, row, bytes, offset, err));
	enum status status = backend->ops->upload(backend, batch.data, row, bytes);
	if (status != STATUS_OK) *err = backend->error;
	return status;
}

static enum status move_all(struct stream *stream, const struct file *file, bool save, struct error *err)
{
	float *row = malloc(sequence_bytes(stream));
	if (!row) return error_set(err, STATUS_NO_MEMORY, "no memory for a sequence of hidden states");
	enum status status = save ? STATUS_OK : drop_ahead(stream);
	if (status != STATUS_OK) *err = stream->backend->error;
	for (int64_t i = 0; status == STATUS_OK && i < stream->sequences; i++)
		status = move_sequence(stream, file, i, save, row, err);
	free(row);
	return status;
}

enum status stream_save(struct stream *stream, const char *path, struct error *err)
{
	char temporary[4096], header[HEADER_BYTES];
	struct file file;
	if (snprintf(temporary, sizeof temporary, "%s.new", path) >= (int)sizeof temporary)
		return error_set(err, STATUS_INVALID, "path too long: %s", path);
	int64_t bytes = HEADER_BYTES + stream->sequences * (int64_t)sequence_bytes(stream);
	TRY(file_create(temporary, bytes, &file, err));
	fill_header(stream, header);
	enum status status = file_write(&file, header, sizeof header, 0, err);
	if (status == STATUS_OK) status = move_all(stream, &file, true, err);
	if (status == STATUS_OK) status = file_sync(&file, err);
	file_close(&file);
	return status == STATUS_OK ? file_rename(temporary, path, err) : status;
}

enum status stream_load(struct stream *stream, const char *path, struct error *err)
{
	char header[HEADER_BYTES], expected[HEADER_BYTES];
	struct file file;
	TRY(file_open_read(path, &file, err));
	fill_header(stream, expected);
	enum status status = file_read(&file, header, sizeof header, 0, err);
	if (status == STATUS_OK && memcmp(header, expected, sizeof header) != 0)
		status = error_set(err, STATUS_INVALID,
				   "%s: not the hidden states of %" PRId64 " × %" PRId64 " × %" PRId64 " that this job needs", path,
				   stream->sequences, stream->tokens, stream->hidden);
	if (status == STATUS_OK) status = move_all(stream, &file, false, err);
	file_close(&file);
	return status;
}
