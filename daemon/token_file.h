#ifndef BESAD_DAEMON_TOKEN_FILE_H
#define BESAD_DAEMON_TOKEN_FILE_H

#include "api/token.h"

/* The tokens in a file, freed with tokens_free. STATUS_INVALID where they are none, or where others than who runs besad can read
 * or write the file. */
enum status token_file_read(const char *path, struct tokens **ret, struct error *err);

#endif
