/* The bytes of a file from front to back, unpacked where it is gzip or zstd, without holding it in memory. */
#ifndef BESAD_ENGINE_UNPACK_H
#define BESAD_ENGINE_UNPACK_H

#include <stddef.h>

#include "base/error.h"
#include "base/file.h"

enum compression { COMPRESSION_NONE, COMPRESSION_GZIP, COMPRESSION_ZSTD };

/* "none", "gzip", "zstd". */
const char *compression_name(enum compression);

struct unpack;

/* The file's first bytes say how it is packed. A gzip file is one or more members, with zeros behind them at most (as gzip
 * reads it); a zstd file one or more frames, skippable ones too, each with a window of at most 128 MiB (zstd's own limit).
 * `file` is borrowed and must stay open. */
enum status unpack_open(const struct file *file, struct unpack **ret, struct error *err);
void unpack_close(struct unpack *);
enum compression unpack_compression(const struct unpack *);

/* The next stretch of bytes, valid until the next call; *ret_bytes is 0 at the end. Only the last stretch is shorter than 256
 * KiB. */
enum status unpack_next(struct unpack *, const char **ret, size_t *ret_bytes, struct error *err);

#endif
