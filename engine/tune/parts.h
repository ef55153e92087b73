/* Parts of the device's memory on their way to a file and back, one behind the other. */
#ifndef BESAD_ENGINE_PARTS_H
#define BESAD_ENGINE_PARTS_H

#include "base/file.h"
#include "engine/compute/backend.h"

struct part {
	void *data;
	size_t bytes;
};

/* One without data has no bytes. */
struct part part_of(const struct tensor *);

int64_t parts_bytes(const struct part *, int n);

/* To the file, from its byte `at` on, and back. *ret_crc: the CRC-32 of all of them. */
enum status parts_write(struct backend *, const struct part *, int n, const struct file *, int64_t at, uint32_t *ret_crc,
			struct error *err);
enum status parts_read(struct backend *, const struct part *, int n, const struct file *, int64_t at, uint32_t *ret_crc,
		       struct error *err);

#endif
