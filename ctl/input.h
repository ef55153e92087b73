/* Files that the user names; unlike the engine's, they may be pipes. */
#ifndef BESAD_CTL_INPUT_H
#define BESAD_CTL_INPUT_H

#include "base/buffer.h"
#include "base/error.h"

/* All of `path`, of `limit` bytes at most; "-" is standard input. ret->data is never NULL afterwards. */
enum status input_read(const char *path, size_t limit, struct buffer *ret, struct error *err);

#endif
