/* The bytes or lines of a text file, unpacked where it is gzip or zstd, from front to back without holding it in memory. A
 * byte-order mark at its beginning is dropped. */
#ifndef BESAD_ENGINE_READER_H
#define BESAD_ENGINE_READER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/file.h"

enum { READER_MAX_LINE = 64 << 20 };

struct reader;

/* `file` is borrowed and must stay open. */
enum status reader_open(const struct file *file, struct reader **ret, struct error *err);
void reader_close(struct reader *);

/* The next stretch of bytes, valid until the next call; *ret_bytes is 0 at the end. */
enum status reader_next(struct reader *, const char **ret, size_t *ret_bytes, struct error *err);

/* The next line without its newline, valid until the next call; *ret is NULL at the end. Not to be mixed with reader_next. */
enum status reader_line(struct reader *, const char **ret, size_t *ret_bytes, struct error *err);

/* The number of the line that reader_line gave last; 1 for the first. */
int64_t reader_line_number(const struct reader *);

#endif
