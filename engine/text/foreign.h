/* Files that besad does not read, told by their first bytes, so that each is refused by its name and not read as text. */
#ifndef BESAD_ENGINE_FOREIGN_H
#define BESAD_ENGINE_FOREIGN_H

#include "base/file.h"
#include "engine/text/unpack.h"

/* `head` are the first bytes of the file, unpacked where it is packed; 512 or more where it has so many. STATUS_UNSUPPORTED,
 * with what the file is and what to do, or STATUS_OK where nothing is known against it. */
enum status foreign_refuse(const struct file *file, const char *head, size_t bytes, enum compression, struct error *err);

#endif
