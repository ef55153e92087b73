/* The spec that submit sends: a job file, with what the options say put over it. */
#ifndef BESAD_CTL_JOBSPEC_H
#define BESAD_CTL_JOBSPEC_H

#include <cjson/cJSON.h>

#include "base/error.h"
#include "ctl/options.h"

/* `file` is NULL for none. Only what concerns the command line and the file's syntax is checked: the rest is the daemon's. */
enum status jobspec_build(const char *file, const struct setting *settings, int count, cJSON **ret, struct error *err);

/* KEY and VALUE of KEY=VALUE, which `option` takes; the caller frees *ret_key, and *ret_value lies in `text`. */
enum status jobspec_split(const char *option, const char *text, char **ret_key, const char **ret_value, struct error *err);

#endif
