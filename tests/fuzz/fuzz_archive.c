/* libFuzzer over archives: a packed file, opened and restored; or, where the first byte is odd, values that a block is packed of
 * and must give again, to the bit. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/archive/archive_file.h"
#include "engine/archive/block.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void open_and_restore(const uint8_t *data, size_t size)
{
	struct archive_file archive;
	struct file file;
	struct error err;
	int fd = memfd_create("archive", 0);
	char *path = strdup("archive");
	if (fd < 0 || !path || write(fd, data, size) != (ssize_t)size) abort();
	if (file_adopt(fd, path, &file, &err) != STATUS_OK) abort();
	if (archive_file_open(&file, &archive, &err) == STATUS_OK) {
		archive_file_restore(&archive, NULL, NULL, &err);
		archive_file_close(&archive);
	}
	file_close(&file);
}

static const struct kind {
	enum dtype dtype;
	int bits;
} kinds[] = {{DTYPE_BF16, 16}, {DTYPE_F32, 32}, {DTYPE_I32, 4}, {DTYPE_I32, 8}};

/* How often each symbol is among the values that are kept; returns their number. */
static int64_t count(const struct packing *p, const void *dense, uint64_t ret[HUFFMAN_SYMBOLS])
{
	uint32_t symbols[HUFFMAN_SYMBOLS] = {0}, nibbles[BLOCK_NIBBLES];
	int64_t all = p->rows * p->cols, kept;
	memset(ret, 0, HUFFMAN_SYMBOLS * sizeof *ret);
	if (packing_has_codes(p)) {
		block_count_codes(dense, all * p->bits / 8, symbols, nibbles);
		const uint32_t *codes = p->bits == 4 ? nibbles : symbols;
		kept = all - codes[p->zero];
		for (int i = 1; i < 1 << p->bits; i++)
			ret[i] = codes[i ^ p->zero];
	} else {
		kept = block_count(dense, all, p->bits, p->bits == 16 ? symbols : NULL);
		for (int i = 0; i < HUFFMAN_SYMBOLS; i++)
			ret[i] = symbols[i];
	}
	if (encoding_has_mask(p->encoding)) return kept;
	ret[0] += (uint64_t)(all - kept);
	return all;
}

/* `wide` elements of a row; codes are those of `zero`, cut to their bits. */
static void pack_and_restore(enum archive_encoding encoding, const struct kind *kind, int64_t wide, uint8_t zero,
			     const uint8_t *data, size_t size)
{
	size_t width = dtype_size(kind->dtype);
	int64_t rows = (int64_t)(size / width) / wide;
	struct tensor_info info = {.dtype = kind->dtype, .rank = 2, .shape = {rows, wide}, .bytes = rows * wide * (int64_t)width};
	if (rows == 0 || rows > ARCHIVE_BLOCK_ROWS || (encoding_is_coded(encoding) && kind->bits == 32)) return;
	zero = kind->bits > 8 ? 0 : kind->bits == 4 ? zero & 0xf : zero;
	struct packing p = packing_of(&info, encoding, kind->bits, zero, ARCHIVE_BLOCK_ROWS);
	struct block_room room = {0};
	struct block_code code;
	struct error err;
	uint64_t counts[HUFFMAN_SYMBOLS], bits = 0;
	size_t most = (size_t)block_most_bytes(&p);
	uint8_t *mask = malloc((size_t)(p.block_rows * p.stride)), *values = malloc(most);
	char *dense = malloc((size_t)info.bytes), *again = malloc((size_t)info.bytes);
	int64_t found;
	if (!mask || !values || !dense || !again || block_room_make(&p, &room, &err) != STATUS_OK) abort();
	memcpy(dense, data, (size_t)info.bytes);
	int64_t kept = count(&p, dense, counts);
	huffman_lengths(counts, code.lengths);
	huffman_codes(code.lengths, code.codes);
	if (!huffman_table(code.lengths, code.table)) abort();
	for (int i = 0; i < HUFFMAN_SYMBOLS; i++)
		bits += counts[i] * code.lengths[i];
	int64_t bytes = block_pack(&p, 0, &code, dense, &room, mask, values);
	if (bytes != block_bytes(&p, kept, bits)) abort();
	if (block_restore(&p, 0, &code, mask, values, (size_t)bytes, &room, again, &found)) abort();
	if (found != kept || memcmp(again, dense, (size_t)info.bytes) != 0) abort();
	block_room_free(&room);
	free(mask);
	free(values);
	free(dense);
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 3) return 0;
	if (data[0] % 2)
		pack_and_restore(ARCHIVE_MASK + data[0] / 2 % 3, &kinds[data[0] / 8 % 4], 1 + data[1], data[2], data + 3, size - 3);
	else
		open_and_restore(data + 1, size - 1);
	return 0;
}
