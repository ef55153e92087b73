/* libFuzzer over a safetensors file with packed linears: what is accepted is read whole, and row by row with the same result,
 * without a step out of the files. The first byte says how they are packed. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/model/packed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_BYTES = 1 << 20 };

static void read_rows(const struct checkpoint *c, const struct tensor_info *info, const char *whole, char *room)
{
	struct error err;
	struct tensor_info row = *info;
	row.bytes = info->bytes / info->shape[0];
	for (row.offset = 0; row.offset < info->bytes; row.offset += row.bytes) {
		if (checkpoint_read(c, &row, room, &err) != STATUS_OK) abort();
		if (memcmp(room, whole + row.offset, (size_t)row.bytes) != 0) abort();
	}
}

static void read_all(const struct checkpoint *c)
{
	struct error err;
	for (size_t i = 0; i < c->n_tensors; i++) {
		const struct tensor_info *info = &c->tensors[i];
		if (!info->packed || info->bytes > MOST_BYTES) continue;
		char *room = malloc(2 * (size_t)info->bytes);
		if (!room || checkpoint_read(c, info, room, &err) != STATUS_OK) abort();
		read_rows(c, info, room, room + info->bytes);
		free(room);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const int64_t groups[] = {0, 8, 16, 10};
	struct checkpoint c;
	struct error err;
	char path[64];
	if (size < 1) return 0;
	const struct packed_form packing = {data[0] & 1 ? 4 : 8, groups[data[0] >> 2 & 3], data[0] & 2};
	int fd = memfd_create("packed", 0);
	if (fd < 0 || write(fd, data + 1, size - 1) != (ssize_t)size - 1) abort();
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (checkpoint_open_file(&PLACE(path), &c, &err) == STATUS_OK) {
		if (packed_find(&c, &packing, &err) == STATUS_OK) read_all(&c);
		checkpoint_close(&c);
	}
	close(fd);
	return 0;
}
