/* The list of models that clients may name. */
#ifndef BESAD_DAEMON_MODELS_H
#define BESAD_DAEMON_MODELS_H

#include "daemon/catalog.h"

/* The directories below the roots that hold a model, also those that cannot be pruned, as the contract's list: {name, title,
 * family, blocks, bytes, supported, reason}, name being what a job's `model` takes. */
extern const struct catalog_kind models_kind;

#endif
