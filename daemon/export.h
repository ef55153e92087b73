/* `besad export`: a model directory as a GGUF file, outside any job. */
#ifndef BESAD_DAEMON_EXPORT_H
#define BESAD_DAEMON_EXPORT_H

#include "daemon/options.h"

int export_model(const struct options *); /* the exit status */

#endif
