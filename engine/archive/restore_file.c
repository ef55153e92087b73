/* archive_file_restore: the pieces of an archive, back as they were. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "engine/archive/archive_file.h"
#include "engine/archive/parallel.h"

struct restoring {
	const struct archive_file *archive;
	const struct file *to; /* or NULL */
};

static enum status restore_blocks(const struct restoring *r, const struct archived_tensor *tensor, struct piece *piece,
				  struct piece_room *room, void **ret_dense, struct error *err)
{
	const struct file *file = r->archive->file;
	const struct packing *p = &tensor->packing;
	int64_t unit = packing_block_bytes(p), mask_unit = packing_block_mask_bytes(p), blocks = piece->end - piece->begin;
	int64_t first = tensor->offsets[piece->begin], values_bytes = tensor->offsets[piece->end] - first;
	/* A block takes at most so much; what is larger is damaged, and not read. */
	if (values_bytes > blocks * block_most_bytes(p))
		return error_set(err, STATUS_INVALID, "%s: tensor '%s' has too many values", file->path, tensor->info.name);
	char *dense;
	uint8_t *mask, *values;
	TRY(piece_buffer(room, PIECE_DENSE, (size_t)(blocks * unit), &dense, err));
	TRY(piece_buffer(room, PIECE_MASK, (size_t)(blocks * mask_unit) + 1, &mask, err));
	TRY(piece_buffer(room, PIECE_VALUES, (size_t)values_bytes + 1, &values, err));
	TRY(block_room_make(p, &room->block, err));
	TRY(file_read(file, mask, (size_t)(blocks * mask_unit), tensor->mask_at + piece->begin * mask_unit, err));
	TRY(file_read(file, values, (size_t)values_bytes, tensor->values_at + first, err));
	if (encoding_is_coded(p->encoding)) huffman_table(tensor->lengths, room->code.table);
	for (int64_t block = piece->begin; block < piece->end; block++) {
		int64_t i = block - piece->begin, at = tensor->offsets[block], kept;
		const char *wrong = block_restore(p, block, &room->code, mask + i * mask_unit, values + (at - first),
						  (size_t)(tensor->offsets[block + 1] - at), &room->block, dense + i * unit, &kept);
		if (wrong)
			return error_set(err, STATUS_INVALID, "%s: block %lld of tensor '%s' %s", file->path, (long long)block,
					 tensor->info.name, wrong);
		piece->values += kept;
	}
	*ret_dense = dense;
	return STATUS_OK;
}

static enum status restore_piece(void *context, struct piece *piece, struct piece_room *room, struct error *err)
{
	const struct restoring *r = context;
	const struct archived_tensor *tensor = &r->archive->tensors[piece->tensor];
	void *dense;
	if (tensor->packing.blocks) {
		TRY(restore_blocks(r, tensor, piece, room, &dense, err));
	} else {
		TRY(piece_buffer(room, PIECE_DENSE, (size_t)piece->bytes + 1, &dense, err));
		TRY(file_read(r->archive->file, dense, (size_t)piece->bytes, tensor->values_at + piece->at, err));
	}
	piece->crc32 = (uint32_t)crc32_z(0, dense, (size_t)piece->bytes);
	return r->to ? file_write(r->to, dense, (size_t)piece->bytes, tensor->info.offset + piece->at, err) : STATUS_OK;
}

static enum status check_tensors(const struct archive_file *archive, const struct pieces *pieces, struct error *err)
{
	for (size_t i = 0; i < pieces->count;) {
		const struct archived_tensor *tensor = &archive->tensors[pieces->items[i].tensor];
		int64_t values = 0;
		size_t first = i;
		if (pieces_crc32(pieces, first, &i) != tensor->entry.crc32)
			return error_set(err, STATUS_INVALID, "%s: tensor '%s' is damaged: its checksum is another",
					 archive->file->path, tensor->info.name);
		for (size_t j = first; j < i; j++)
			values += pieces->items[j].values;
		if (encoding_has_mask(tensor->entry.encoding) && values != tensor->entry.nonzeros)
			return error_set(err, STATUS_INVALID, "%s: tensor '%s' has not as many values as its entry says",
					 archive->file->path, tensor->info.name);
	}
	return STATUS_OK;
}

enum status archive_file_restore(const struct archive_file *archive, const struct file *to, const atomic_bool *stop,
				 struct error *err)
{
	struct restoring r = {archive, to};
	struct pieces pieces = {0};
	enum status status = to ? file_write(to, archive->head, (size_t)archive->head_bytes, 0, err) : STATUS_OK;
	for (size_t i = 0; i < archive->count && status == STATUS_OK; i++) {
		const struct archived_tensor *tensor = &archive->tensors[i];
		status = pieces_add(&pieces, i, tensor->packing.blocks ? &tensor->packing : NULL, tensor->info.bytes, err);
	}
	if (status == STATUS_OK) status = pieces_work(&pieces, restore_piece, &r, stop, err);
	if (status == STATUS_OK) status = check_tensors(archive, &pieces, err);
	pieces_free(&pieces);
	return status;
}
