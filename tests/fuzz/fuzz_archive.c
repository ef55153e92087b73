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

static void pack_and_restore(enum archive_encoding encoding, enum dtype dtype, int64_t cols, const uint8_t *data, size_t size)
{
	size_t width = dtype_size(dtype);
	int64_t rows = (int64_t)(size / width) / cols;
	struct tensor_info info = {.dtype = dtype, .rank = 2, .shape = {rows, cols}, .bytes = rows * cols * (int64_t)width};
	if (rows == 0 || rows > ARCHIVE_BLOCK_ROWS || (encoding_is_coded(encoding) && width != 2)) return;
	struct packing p = packing_of(&info, encoding, ARCHIVE_BLOCK_ROWS);
	struct block_room room = {0};
	struct block_code code;
	struct error err;
	uint32_t symbols[HUFFMAN_SYMBOLS] = {0};
	uint64_t counts[HUFFMAN_SYMBOLS], bits = 0;
	size_t most = (size_t)block_most_bytes(&p);
	uint8_t *mask = malloc((size_t)(p.block_rows * p.stride)), *values = malloc(most);
	char *dense = malloc((size_t)info.bytes), *again = malloc((size_t)info.bytes);
	int64_t found;
	if (!mask || !values || !dense || !again || block_room_make(&p, &room, &err) != STATUS_OK) abort();
	memcpy(dense, data, (size_t)info.bytes);
	int64_t kept = block_count(dense, rows * cols, width, width == 2 ? symbols : NULL);
	if (!encoding_has_mask(encoding)) {
		symbols[0] += (uint32_t)(rows * cols - kept);
		kept = rows * cols;
	}
	for (int i = 0; i < HUFFMAN_SYMBOLS; i++)
		counts[i] = symbols[i];
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
	static const enum dtype dtypes[] = {DTYPE_BF16, DTYPE_F32};
	if (size < 2) return 0;
	if (data[0] % 2)
		pack_and_restore(ARCHIVE_MASK + data[0] / 2 % 3, dtypes[data[0] / 8 % 2], 1 + data[1], data + 2, size - 2);
	else
		open_and_restore(data + 1, size - 1);
	return 0;
}
