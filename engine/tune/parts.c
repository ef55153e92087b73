#include "engine/tune/parts.h"

#include <stdlib.h>

#include <zlib.h>

enum { PIECE_BYTES = 4 << 20 };

struct part part_of(const struct tensor *tensor)
{
	return (struct part){tensor->data, tensor->data ? tensor_bytes(tensor) : 0};
}

int64_t parts_bytes(const struct part *parts, int n)
{
	int64_t bytes = 0;
	for (int i = 0; i < n; i++)
		bytes += (int64_t)parts[i].bytes;
	return bytes;
}

/* On its way between the device and a file. */
struct transfer {
	struct backend *backend;
	const struct file *file;
	char *room; /* host memory for a piece; NULL where the device's memory is the host's */
	int64_t at; /* in the file */
	uLong crc;  /* of what is in front of that */
	bool write;
};

static enum status failed(const struct transfer *t, enum status status, struct error *err)
{
	if (status != STATUS_OK) *err = t->backend->error;
	return status;
}

static enum status move_piece(struct transfer *t, char *device, size_t bytes, struct error *err)
{
	const struct backend_ops *ops = t->backend->ops;
	char *host = t->room ? t->room : device;
	if (t->write && t->room) TRY(failed(t, ops->download(t->backend, host, device, bytes), err));
	TRY(t->write ? file_write(t->file, host, bytes, t->at, err) : file_read(t->file, host, bytes, t->at, err));
	t->crc = crc32_z(t->crc, (const Bytef *)host, bytes);
	if (!t->write && t->room) TRY(failed(t, ops->upload(t->backend, device, host, bytes), err));
	t->at += (int64_t)bytes;
	return STATUS_OK;
}

static enum status move_part(struct transfer *t, const struct part *part, struct error *err)
{
	for (size_t at = 0, bytes; at < part->bytes; at += bytes) {
		bytes = part->bytes - at < PIECE_BYTES ? part->bytes - at : PIECE_BYTES;
		TRY(move_piece(t, (char *)part->data + at, bytes, err));
	}
	return STATUS_OK;
}

static enum status move_all(struct transfer *t, const struct part *parts, int n, uint32_t *ret_crc, struct error *err)
{
	if (!t->backend->unified) {
		t->room = malloc(PIECE_BYTES);
		if (!t->room) return error_set(err, STATUS_NO_MEMORY, "no memory to move weights between the device and a file");
	}
	enum status status = t->room ? STATUS_OK : failed(t, t->backend->ops->sync(t->backend), err);
	for (int i = 0; status == STATUS_OK && i < n; i++)
		status = move_part(t, &parts[i], err);
	free(t->room);
	*ret_crc = (uint32_t)t->crc;
	return status;
}

enum status parts_write(struct backend *backend, const struct part *parts, int n, const struct file *file, int64_t at,
			uint32_t *ret_crc, struct error *err)
{
	struct transfer transfer = {.backend = backend, .file = file, .at = at, .write = true};
	return move_all(&transfer, parts, n, ret_crc, err);
}

enum status parts_read(struct backend *backend, const struct part *parts, int n, const struct file *file, int64_t at,
		       uint32_t *ret_crc, struct error *err)
{
	struct transfer transfer = {.backend = backend, .file = file, .at = at};
	return move_all(&transfer, parts, n, ret_crc, err);
}
