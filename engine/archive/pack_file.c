#include "engine/archive/pack_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "engine/archive/parallel.h"

enum {
	GROUP_BYTES = 64 << 20, /* of tensors that are measured at once: the counts of all their blocks are in memory then */
	HEADER_ENTRIES = 512,   /* bytes that a packed tensor takes in the header beyond a plain one */
	MAX_NAME = 900          /* with what goes before and behind it, still a name that besad reads */
};

static const int value_bits[] = {4, 8, 16, 32};

/* The parts of a packed tensor, in the order of the file. A plain one has values alone. */
enum part { PART_LENGTHS, PART_OFFSETS, PART_MASK, PART_VALUES, PARTS };

/* What was counted in a tensor's blocks. */
struct counts {
	int64_t *nonzeros;
	/* Of 16-bit floats, how often each symbol is among what is not zero; NULL where nothing is coded. Of codes, how often each
	 * byte and each half of a byte is there. */
	uint32_t (*symbols)[HUFFMAN_SYMBOLS];
	uint32_t (*nibbles)[BLOCK_NIBBLES];
};

struct packed {
	const struct tensor_info *info;
	struct packing packing; /* where it can be packed; of codes, with those of any size until it is chosen */
	struct packing_entry entry;
	struct counts counts; /* while it is measured */
	int64_t *offsets;     /* of the blocks in the values, and their end */
	uint8_t lengths[HUFFMAN_SYMBOLS];
	int64_t at[PARTS]; /* in the file's data */
};

struct pack {
	const struct file *from;
	const atomic_bool *stop;
	bool coded;
	struct tensor_info *infos;
	size_t count;
	struct packed *tensors; /* in the order of the file */
	struct piece head;      /* what the input begins with: its bytes and their checksum */
	int64_t data_bytes;     /* of the archive */
	struct buffer header;
	struct file to;
};

static enum status no_memory(const struct pack *pack, struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory to archive %s", pack->from->path);
}

static enum status changed(const struct pack *pack, struct error *err)
{
	return error_set(err, STATUS_INVALID, "%s: changed while it was archived", pack->from->path);
}

/* ---- the input ----------------------------------------------------------------------------------------------------------- */

static int by_offset(const void *a, const void *b)
{
	const struct tensor_info *x = ((const struct packed *)a)->info, *y = ((const struct packed *)b)->info;
	if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
	return x->bytes != y->bytes ? (x->bytes < y->bytes ? -1 : 1) : strcmp(x->name, y->name);
}

static enum status read_head(struct pack *pack, struct error *err)
{
	unsigned char first[SAFETENSORS_LENGTH_BYTES], *head;
	TRY(file_read(pack->from, first, sizeof first, 0, err));
	pack->head.bytes = SAFETENSORS_LENGTH_BYTES + (int64_t)safetensors_header_length(first);
	if (pack->head.bytes > pack->from->size) return changed(pack, err);
	head = malloc((size_t)pack->head.bytes);
	if (!head) return no_memory(pack, err);
	enum status status = file_read(pack->from, head, (size_t)pack->head.bytes, 0, err);
	if (status == STATUS_OK) pack->head.crc32 = (uint32_t)crc32_z(0, head, (size_t)pack->head.bytes);
	free(head);
	return status;
}

static enum status read_input(struct pack *pack, struct error *err)
{
	TRY(safetensors_read(pack->from, &pack->infos, &pack->count, err));
	TRY(read_head(pack, err));
	pack->tensors = calloc(pack->count + 1, sizeof *pack->tensors);
	if (!pack->tensors) return no_memory(pack, err);
	for (size_t i = 0; i < pack->count; i++) {
		const struct tensor_info *info = &pack->infos[i];
		if (strlen(info->name) > MAX_NAME)
			return error_set(err, STATUS_UNSUPPORTED,
					 "%s: tensor '%.100s…' has a name of more than %d bytes, which an archive cannot hold",
					 pack->from->path, info->name, MAX_NAME);
		pack->tensors[i].info = info;
		for (size_t j = 0; j < sizeof value_bits / sizeof *value_bits; j++)
			if (packing_fits(info, value_bits[j]))
				pack->tensors[i].packing = packing_of(info, ARCHIVE_PLAIN, value_bits[j], 0, ARCHIVE_BLOCK_ROWS);
	}
	qsort(pack->tensors, pack->count, sizeof *pack->tensors, by_offset);
	return STATUS_OK;
}

/* ---- measuring: what is in each block ------------------------------------------------------------------------------------ */

static enum status measure_piece(void *context, struct piece *piece, struct piece_room *room, struct error *err)
{
	struct pack *pack = context;
	struct packed *tensor = &pack->tensors[piece->tensor];
	const struct packing *p = &tensor->packing;
	int64_t unit = packing_block_bytes(p);
	char *dense;
	TRY(piece_buffer(room, PIECE_DENSE, (size_t)piece->bytes + 1, &dense, err));
	TRY(file_read(pack->from, dense, (size_t)piece->bytes, tensor->info->offset + piece->at, err));
	piece->crc32 = (uint32_t)crc32_z(0, (const Bytef *)dense, (size_t)piece->bytes);
	const struct counts *counts = &tensor->counts;
	for (int64_t block = piece->begin; p->blocks && block < piece->end; block++) {
		const char *begin = dense + (block - piece->begin) * unit;
		int64_t values = packing_rows(p, block) * p->cols;
		if (packing_has_codes(p))
			block_count_codes((const uint8_t *)begin, values * p->bits / 8, counts->symbols[block],
					  counts->nibbles[block]);
		else
			counts->nonzeros[block] =
				block_count(begin, values, p->bits, counts->symbols ? counts->symbols[block] : NULL);
	}
	return STATUS_OK;
}

/* How often a code is there in a block: code c's is at c. What a block holds of a value v of floats that are not zero is at v. */
static const uint32_t *counted(const struct counts *counts, const struct packing *p, int64_t block)
{
	return p->bits == 4 ? counts->nibbles[block] : counts->symbols[block];
}

static int symbols_of(const struct packing *p)
{
	return p->bits == 4 ? BLOCK_NIBBLES : HUFFMAN_SYMBOLS;
}

/* How many values of a block are kept where there is a bitmap. */
static int64_t kept_of(const struct counts *counts, const struct packing *p, int64_t block)
{
	if (!packing_has_codes(p)) return counts->nonzeros[block];
	return packing_rows(p, block) * p->cols - counted(counts, p, block)[p->zero];
}

/* Adds how often each symbol is among the values of a block that are kept by a bitmap. */
static void add_symbols(const struct counts *counts, const struct packing *p, int64_t block, uint64_t totals[HUFFMAN_SYMBOLS])
{
	const uint32_t *symbols = counted(counts, p, block);
	/* Symbol 0 is of no code that is kept, but may be of a float that is. */
	for (int i = packing_has_codes(p); i < symbols_of(p); i++)
		totals[i] += symbols[i ^ p->zero];
}

/* The bits that these take in codes of such lengths. */
static uint64_t bits_of(const struct counts *counts, const struct packing *p, int64_t block, const uint8_t lengths[HUFFMAN_SYMBOLS])
{
	const uint32_t *symbols = counted(counts, p, block);
	uint64_t bits = 0;
	for (int i = packing_has_codes(p); i < symbols_of(p); i++)
		bits += (uint64_t)symbols[i ^ p->zero] * lengths[i];
	return bits;
}

/* Where the blocks of a tensor begin if it is packed so, and the code that makes its symbols shortest; returns the bytes that it
 * takes. */
static int64_t lay_blocks(const struct counts *counts, const struct packing *p, int64_t *offsets, uint8_t lengths[HUFFMAN_SYMBOLS])
{
	bool coded = encoding_is_coded(p->encoding), has_mask = encoding_has_mask(p->encoding);
	uint64_t totals[HUFFMAN_SYMBOLS] = {0};
	int64_t zeros = 0, at = 0;
	for (int64_t block = 0; coded && block < p->blocks; block++) {
		add_symbols(counts, p, block, totals);
		zeros += packing_rows(p, block) * p->cols - kept_of(counts, p, block);
	}
	if (!has_mask) totals[0] += (uint64_t)zeros;
	huffman_lengths(totals, lengths);
	for (int64_t block = 0; block < p->blocks; block++) {
		int64_t all = packing_rows(p, block) * p->cols, kept = kept_of(counts, p, block);
		uint64_t bits = coded ? bits_of(counts, p, block, lengths) : 0;
		if (!has_mask) {
			bits += (uint64_t)(all - kept) * lengths[0];
			kept = all;
		}
		offsets[block] = at;
		at += block_bytes(p, kept, bits);
	}
	offsets[p->blocks] = at;
	return at + packing_mask_bytes(p) + packing_offsets_bytes(p) + packing_lengths_bytes(p) + HEADER_ENTRIES;
}

/* The code that is there most often. */
static uint8_t most_frequent(const struct counts *counts, const struct packing *p)
{
	uint64_t totals[HUFFMAN_SYMBOLS] = {0};
	int most = 0;
	for (int64_t block = 0; block < p->blocks; block++)
		for (int i = 0; i < symbols_of(p); i++)
			totals[i] += counted(counts, p, block)[i];
	for (int i = 1; i < symbols_of(p); i++)
		if (totals[i] > totals[most]) most = i;
	return (uint8_t)most;
}

/* The smallest form of a tensor, as values of so many bits: into *best, which takes *best_bytes so far, where it is smaller. */
static void choose_encoding(const struct pack *pack, const struct packed *tensor, int bits, int64_t *offsets, struct packing *best,
			    int64_t *best_bytes)
{
	struct packing p = packing_of(tensor->info, ARCHIVE_PLAIN, bits, 0, ARCHIVE_BLOCK_ROWS);
	uint8_t lengths[HUFFMAN_SYMBOLS];
	if (packing_has_codes(&p)) p.zero = most_frequent(&tensor->counts, &p);
	for (int encoding = ARCHIVE_MASK; encoding < ARCHIVE_ENCODINGS; encoding++) {
		p.encoding = (enum archive_encoding)encoding;
		if (encoding_is_coded(p.encoding) && (!pack->coded || bits == 32)) continue;
		int64_t bytes = lay_blocks(&tensor->counts, &p, offsets, lengths);
		if (bytes >= *best_bytes) continue;
		*best_bytes = bytes;
		*best = p;
	}
}

/* The smallest form of a tensor that was measured. */
static enum status choose(struct pack *pack, struct packed *tensor, struct error *err)
{
	struct packing *p = &tensor->packing;
	int64_t best = tensor->info->bytes;
	int64_t *offsets = malloc(((size_t)p->blocks + 1) * sizeof *offsets);
	if (!offsets) return no_memory(pack, err);
	for (size_t i = 0; i < sizeof value_bits / sizeof *value_bits; i++)
		if (packing_fits(tensor->info, value_bits[i])) choose_encoding(pack, tensor, value_bits[i], offsets, p, &best);
	if (p->encoding == ARCHIVE_PLAIN) {
		free(offsets);
		return STATUS_OK;
	}
	lay_blocks(&tensor->counts, p, offsets, tensor->lengths);
	tensor->offsets = offsets;
	tensor->entry.encoding = p->encoding;
	tensor->entry.bits = p->bits;
	tensor->entry.zero = p->zero;
	tensor->entry.block_rows = p->block_rows;
	for (int64_t block = 0; block < p->blocks; block++)
		tensor->entry.nonzeros += kept_of(&tensor->counts, p, block);
	return STATUS_OK;
}

static void free_counts(struct packed *tensor)
{
	free(tensor->counts.nonzeros);
	free(tensor->counts.symbols);
	free(tensor->counts.nibbles);
	tensor->counts = (struct counts){0};
}

static enum status make_counts(const struct pack *pack, struct packed *tensor, struct error *err)
{
	size_t blocks = (size_t)tensor->packing.blocks;
	struct counts *counts = &tensor->counts;
	bool of_codes = packing_has_codes(&tensor->packing), of_symbols = of_codes || (pack->coded && tensor->packing.bits == 16);
	if (!blocks) return STATUS_OK;
	if (!of_codes) counts->nonzeros = calloc(blocks, sizeof *counts->nonzeros);
	if (of_codes) counts->nibbles = calloc(blocks, sizeof *counts->nibbles);
	if (of_symbols) counts->symbols = calloc(blocks, sizeof *counts->symbols);
	if ((of_codes ? !counts->nibbles : !counts->nonzeros) || (of_symbols && !counts->symbols)) return no_memory(pack, err);
	return STATUS_OK;
}

static enum status measure_group(struct pack *pack, size_t begin, size_t end, struct error *err)
{
	struct pieces pieces = {0};
	enum status status = STATUS_OK;
	for (size_t i = begin; i < end && status == STATUS_OK; i++) {
		struct packed *tensor = &pack->tensors[i];
		status = make_counts(pack, tensor, err);
		if (status == STATUS_OK)
			status = pieces_add(&pieces, i, tensor->packing.blocks ? &tensor->packing : NULL, tensor->info->bytes, err);
	}
	if (status == STATUS_OK) status = pieces_work(&pieces, measure_piece, pack, pack->stop, err);
	for (size_t i = 0; i < pieces.count && status == STATUS_OK;) {
		struct packed *tensor = &pack->tensors[pieces.items[i].tensor];
		tensor->entry.crc32 = pieces_crc32(&pieces, i, &i);
		if (tensor->packing.blocks) status = choose(pack, tensor, err);
	}
	for (size_t i = begin; i < end; i++)
		free_counts(&pack->tensors[i]);
	pieces_free(&pieces);
	return status;
}

static enum status measure(struct pack *pack, struct error *err)
{
	for (size_t begin = 0, end; begin < pack->count; begin = end) {
		int64_t bytes = 0;
		for (end = begin; end < pack->count && (end == begin || bytes < GROUP_BYTES); end++)
			bytes += pack->tensors[end].info->bytes;
		TRY(measure_group(pack, begin, end, err));
	}
	return STATUS_OK;
}

/* ---- the layout ---------------------------------------------------------------------------------------------------------- */

/* Adds a tensor to the header, behind the data so far. */
static enum status add_tensor(struct pack *pack, struct tensor_info *info, int64_t *ret_at, struct error *err)
{
	TRY(stored_bytes(info, &info->bytes, err));
	*ret_at = info->offset = pack->data_bytes;
	pack->data_bytes += info->bytes;
	buffer_append(&pack->header, ",", 1);
	safetensors_print_entry(&pack->header, info);
	return STATUS_OK;
}

static enum status add_part(struct pack *pack, struct packed *tensor, enum part part, struct error *err)
{
	static const char *const suffixes[PARTS] = {ARCHIVE_LENGTHS_SUFFIX, ARCHIVE_OFFSETS_SUFFIX, ARCHIVE_MASK_SUFFIX,
						    ARCHIVE_VALUES_SUFFIX};
	const struct packing *p = &tensor->packing;
	bool coded = encoding_is_coded(p->encoding), bytes = packing_values_are_bytes(p);
	int64_t value = bytes ? 1 : p->bits / 8;
	struct tensor_info infos[PARTS] = {
		{.dtype = DTYPE_U8, .rank = 1, .shape = {packing_lengths_bytes(p)}},
		{.dtype = DTYPE_I64, .rank = 1, .shape = {packing_offsets_bytes(p) / (int64_t)sizeof(int64_t)}},
		{.dtype = DTYPE_U8, .rank = 3, .shape = {p->blocks, p->block_rows, p->stride}},
		{.dtype = bytes ? DTYPE_U8 : tensor->info->dtype, .rank = 1, .shape = {tensor->offsets[p->blocks] / value}},
	};
	bool there[PARTS] = {coded, true, encoding_has_mask(p->encoding), true};
	char name[MAX_NAME + 16];
	if (!there[part]) return STATUS_OK;
	snprintf(name, sizeof name, "%s%s", tensor->info->name, suffixes[part]);
	infos[part].name = name;
	return add_tensor(pack, &infos[part], &tensor->at[part], err);
}

static bool is_aligned(const struct packed *tensor)
{
	return tensor->info->bytes % ARCHIVE_ALIGNMENT == 0;
}

/* Plain tensors: those that leave the next one aligned, then the others, the widest types first. */
static enum status add_plain(struct pack *pack, struct error *err)
{
	for (int width = 16; width >= 1; width /= 2)
		for (size_t i = 0; i < pack->count; i++) {
			struct packed *tensor = &pack->tensors[i];
			struct tensor_info info = *tensor->info;
			bool now = is_aligned(tensor) ? width == 16 : width == (int)stored_width(&info);
			if (tensor->packing.encoding == ARCHIVE_PLAIN && now)
				TRY(add_tensor(pack, &info, &tensor->at[PART_VALUES], err));
		}
	return STATUS_OK;
}

static enum status add_metadata(struct pack *pack, struct error *err)
{
	static const char start[] = "\0\0\0\0\0\0\0\0{\"__metadata__\":{\"format\":\"besad\"";
	struct buffer *header = &pack->header, value = {0};
	buffer_append(header, start, sizeof start - 1);
	buffer_printf(header, ",\"version\":\"%d\",\"file_bytes\":\"%" PRId64 "\"", ARCHIVE_VERSION, pack->from->size);
	buffer_printf(header, ",\"head_bytes\":\"%" PRId64 "\",\"head_crc32\":\"%08" PRIx32 "\"", pack->head.bytes,
		      pack->head.crc32);
	for (size_t i = 0; i < pack->count; i++) {
		const struct packed *tensor = &pack->tensors[i];
		char key[MAX_NAME + 16];
		value.size = 0;
		packing_print(&tensor->entry, tensor->info, &value);
		snprintf(key, sizeof key, "%s%s", ARCHIVE_TENSOR_PREFIX, tensor->info->name);
		buffer_append(header, ",", 1);
		buffer_json_string(header, key);
		buffer_append(header, ":", 1);
		if (value.data) buffer_json_string(header, value.data);
	}
	bool failed = value.failed;
	buffer_free(&value);
	buffer_append(header, "}", 1);
	return failed || header->failed ? no_memory(pack, err) : STATUS_OK;
}

/* Fills the header up, so that the data are aligned, and writes its length in front. */
static enum status end_header(struct pack *pack, struct error *err)
{
	static const char padding[ARCHIVE_ALIGNMENT + 1] = "                                                                ";
	struct buffer *header = &pack->header;
	struct tensor_info *infos;
	size_t count;
	buffer_append(header, "}", 1);
	buffer_append(header, padding, (size_t)archive_align((int64_t)header->size) - header->size);
	if (header->failed) return no_memory(pack, err);
	for (size_t i = 0, length = header->size - SAFETENSORS_LENGTH_BYTES; i < SAFETENSORS_LENGTH_BYTES; i++)
		header->data[i] = (char)(length >> (8 * i));
	enum status status = safetensors_parse(header->data, header->size, (int64_t)header->size + pack->data_bytes, "the archive",
					       &infos, &count, err);
	if (status != STATUS_OK) return error_prefix(err, "%s cannot be archived", pack->from->path);
	tensor_infos_free(infos, count);
	return STATUS_OK;
}

static enum status lay_out(struct pack *pack, struct error *err)
{
	int64_t ignored;
	struct tensor_info head = {.name = ARCHIVE_HEAD, .dtype = DTYPE_U8, .rank = 1, .shape = {archive_align(pack->head.bytes)}};
	TRY(add_metadata(pack, err));
	TRY(add_tensor(pack, &head, &ignored, err));
	for (size_t i = 0; i < pack->count; i++)
		for (int part = 0; part < PARTS && pack->tensors[i].packing.encoding != ARCHIVE_PLAIN; part++)
			TRY(add_part(pack, &pack->tensors[i], part, err));
	TRY(add_plain(pack, err));
	return end_header(pack, err);
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

static enum status write_data(const struct pack *pack, const void *bytes, int64_t count, int64_t at, struct error *err)
{
	return file_write(&pack->to, bytes, (size_t)count, (int64_t)pack->header.size + at, err);
}

static enum status write_blocks(const struct pack *pack, const struct packed *tensor, const struct piece *piece,
				struct piece_room *room, struct error *err)
{
	const struct packing *p = &tensor->packing;
	int64_t unit = packing_block_bytes(p), mask_unit = packing_block_mask_bytes(p);
	int64_t mask_bytes = (piece->end - piece->begin) * mask_unit;
	int64_t first = tensor->offsets[piece->begin], values_bytes = tensor->offsets[piece->end] - first;
	char *dense;
	uint8_t *mask, *values;
	TRY(piece_buffer(room, PIECE_DENSE, (size_t)piece->bytes, &dense, err));
	TRY(piece_buffer(room, PIECE_MASK, (size_t)mask_bytes + 1, &mask, err));
	TRY(piece_buffer(room, PIECE_VALUES, (size_t)(values_bytes + block_most_bytes(p)), &values, err));
	TRY(block_room_make(p, &room->block, err));
	TRY(file_read(pack->from, dense, (size_t)piece->bytes, tensor->info->offset + piece->at, err));
	memcpy(room->code.lengths, tensor->lengths, sizeof tensor->lengths);
	huffman_codes(tensor->lengths, room->code.codes);
	for (int64_t block = piece->begin; block < piece->end; block++) {
		int64_t i = block - piece->begin, at = tensor->offsets[block];
		int64_t bytes = block_pack(p, block, &room->code, dense + i * unit, &room->block, mask + i * mask_unit,
					   values + (at - first));
		/* Before the next one is written behind it. */
		if (bytes != tensor->offsets[block + 1] - at) return changed(pack, err);
	}
	TRY(write_data(pack, mask, mask_bytes, tensor->at[PART_MASK] + piece->begin * mask_unit, err));
	return write_data(pack, values, values_bytes, tensor->at[PART_VALUES] + first, err);
}

static enum status write_piece(void *context, struct piece *piece, struct piece_room *room, struct error *err)
{
	const struct pack *pack = context;
	const struct packed *tensor = &pack->tensors[piece->tensor];
	if (tensor->packing.encoding != ARCHIVE_PLAIN) return write_blocks(pack, tensor, piece, room, err);
	void *buffer;
	TRY(piece_buffer(room, PIECE_DENSE, (size_t)piece->bytes + 1, &buffer, err));
	TRY(file_read(pack->from, buffer, (size_t)piece->bytes, tensor->info->offset + piece->at, err));
	return write_data(pack, buffer, piece->bytes, tensor->at[PART_VALUES] + piece->at, err);
}

/* What is small: the header, the input's, and the offsets and lengths. */
static enum status write_rest(const struct pack *pack, struct error *err)
{
	TRY(file_write(&pack->to, pack->header.data, pack->header.size, 0, err));
	TRY(file_copy_bytes(pack->from, 0, &pack->to, (int64_t)pack->header.size, pack->head.bytes, err));
	for (size_t i = 0; i < pack->count; i++) {
		const struct packed *tensor = &pack->tensors[i];
		const struct packing *p = &tensor->packing;
		if (p->encoding == ARCHIVE_PLAIN) continue;
		/* What fills the offsets up is their end once more. */
		int64_t end = tensor->offsets[p->blocks], at = tensor->at[PART_OFFSETS];
		int64_t bytes = (p->blocks + 1) * (int64_t)sizeof end;
		TRY(write_data(pack, tensor->offsets, bytes, at, err));
		for (; bytes < packing_offsets_bytes(p); bytes += (int64_t)sizeof end)
			TRY(write_data(pack, &end, sizeof end, at + bytes, err));
		TRY(write_data(pack, tensor->lengths, packing_lengths_bytes(p), tensor->at[PART_LENGTHS], err));
	}
	return STATUS_OK;
}

static enum status write_all(const struct pack *pack, struct error *err)
{
	struct pieces pieces = {0};
	enum status status = write_rest(pack, err);
	for (size_t i = 0; i < pack->count && status == STATUS_OK; i++) {
		const struct packed *tensor = &pack->tensors[i];
		bool plain = tensor->packing.encoding == ARCHIVE_PLAIN;
		status = pieces_add(&pieces, i, plain ? NULL : &tensor->packing, tensor->info->bytes, err);
	}
	if (status == STATUS_OK) status = pieces_work(&pieces, write_piece, (void *)pack, pack->stop, err);
	pieces_free(&pieces);
	return status == STATUS_OK ? file_sync(&pack->to, err) : status;
}

static enum status pack_all(struct pack *pack, const struct place *to, const char *name, struct packed_file *ret, struct error *err)
{
	struct packed_file packed;
	struct stat before, after;
	if (fstat(pack->from->fd, &before) != 0) return error_errno(err, "%s", pack->from->path);
	TRY(read_input(pack, err));
	TRY(measure(pack, err));
	TRY(lay_out(pack, err));
	packed.bytes = (int64_t)pack->header.size + pack->data_bytes;
	TRY(sha256_bytes(pack->header.data, pack->header.size, packed.head_sha256, err));
	TRY(place_create(to, name, packed.bytes, &pack->to, err));
	TRY(write_all(pack, err));
	if (fstat(pack->from->fd, &after) != 0) return error_errno(err, "%s", pack->from->path);
	if (before.st_mtim.tv_sec != after.st_mtim.tv_sec || before.st_mtim.tv_nsec != after.st_mtim.tv_nsec)
		return changed(pack, err);
	*ret = packed;
	return STATUS_OK;
}

enum status pack_file(const struct file *from, const struct place *to, const char *name, bool coded, const atomic_bool *stop,
		      struct packed_file *ret, struct error *err)
{
	struct pack pack = {.from = from, .stop = stop, .coded = coded, .to.fd = -1};
	enum status status = pack_all(&pack, to, name, ret, err);
	for (size_t i = 0; i < pack.count && pack.tensors; i++)
		free(pack.tensors[i].offsets);
	free(pack.tensors);
	tensor_infos_free(pack.infos, pack.count);
	buffer_free(&pack.header);
	file_close(&pack.to);
	return status;
}
