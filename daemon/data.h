/* The list of data files that clients may name. */
#ifndef BESAD_DAEMON_DATA_H
#define BESAD_DAEMON_DATA_H

#include "daemon/catalog.h"

/* The files below the roots, as the contract's list: {name, kind, compression, size, supported, reason}, name being what a
 * `path` in a spec takes. */
extern const struct catalog_kind data_files_kind;

#endif
