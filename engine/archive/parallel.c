#include "engine/archive/parallel.h"

#include <stdlib.h>

#include <zlib.h>

enum status piece_buffer(struct piece_room *room, enum piece_buffer which, size_t bytes, void *ret, struct error *err)
{
	if (bytes > room->bytes[which]) {
		free(room->buffers[which]);
		room->bytes[which] = 0;
		room->buffers[which] = aligned_alloc(ARCHIVE_ALIGNMENT, (size_t)archive_align((int64_t)bytes));
		if (!room->buffers[which])
			return error_set(err, STATUS_NO_MEMORY, "no memory for a part of a tensor (%zu bytes)", bytes);
		room->bytes[which] = bytes;
	}
	*(void **)ret = room->buffers[which];
	return STATUS_OK;
}

static void free_room(struct piece_room *room)
{
	for (int i = 0; i < PIECE_BUFFERS; i++)
		free(room->buffers[i]);
	block_room_free(&room->block);
}

static enum status add(struct pieces *pieces, const struct piece *piece, struct error *err)
{
	if (pieces->count == pieces->room) {
		size_t room = pieces->room + pieces->room / 2 + 64;
		struct piece *grown = realloc(pieces->items, room * sizeof *grown);
		if (!grown) return error_set(err, STATUS_NO_MEMORY, "no memory to list the parts of a file");
		pieces->items = grown;
		pieces->room = room;
	}
	pieces->items[pieces->count++] = *piece;
	return STATUS_OK;
}

enum status pieces_add(struct pieces *pieces, size_t tensor, const struct packing *p, int64_t bytes, struct error *err)
{
	int64_t unit = p ? packing_block_bytes(p) : 1, end = p ? p->blocks : bytes;
	int64_t step = PIECE_BYTES / unit > 0 ? PIECE_BYTES / unit : 1;
	int64_t begin = 0;
	do { /* one of nothing for a tensor of nothing */
		struct piece piece = {
			.tensor = tensor, .begin = begin, .end = end - begin < step ? end : begin + step, .at = begin * unit};
		piece.bytes = (piece.end == end ? bytes : piece.end * unit) - piece.at;
		TRY(add(pieces, &piece, err));
		begin = piece.end;
	} while (begin < end);
	return STATUS_OK;
}

void pieces_free(struct pieces *pieces)
{
	free(pieces->items);
	*pieces = (struct pieces){0};
}

uint32_t pieces_crc32(const struct pieces *pieces, size_t first, size_t *ret_next)
{
	uLong sum = crc32(0, NULL, 0);
	size_t i = first;
	for (; i < pieces->count && pieces->items[i].tensor == pieces->items[first].tensor; i++)
		sum = crc32_combine(sum, pieces->items[i].crc32, pieces->items[i].bytes);
	*ret_next = i;
	return (uint32_t)sum;
}

static enum status work_on(struct piece *piece, piece_work work, void *context, struct piece_room *room, const atomic_bool *stop,
			   struct error *err)
{
	if (stop && atomic_load(stop)) return error_set(err, STATUS_CANCELLED, "stopped");
	return work(context, piece, room, err);
}

enum status pieces_work(struct pieces *pieces, piece_work work, void *context, const atomic_bool *stop, struct error *err)
{
	atomic_bool failed = false;
	enum status status = STATUS_OK;
#pragma omp parallel
	{
		struct piece_room room = {0};
		struct error own;
#pragma omp for schedule(dynamic)
		for (size_t i = 0; i < pieces->count; i++) {
			if (atomic_load(&failed)) continue;
			enum status result = work_on(&pieces->items[i], work, context, &room, stop, &own);
			if (result == STATUS_OK || atomic_exchange(&failed, true)) continue;
			/* Nobody but the first to fail comes here. */
			status = result;
			*err = own;
		}
		free_room(&room);
	}
	return status;
}
