/* Paths of a spec: models, data files and outputs below the operator's roots. */
#ifndef BESAD_ENGINE_SPEC_PATHS_H
#define BESAD_ENGINE_SPEC_PATHS_H

#include <stdbool.h>

#include "base/place.h"
#include "engine/spec/descriptor.h"

enum { PATH_CHARACTERS = 1000 };

/* The field `key`: a file below the data roots, of a kind that can be read. *ret_text is what the client wrote; both stay as they
 * are where it is missing, and what is wrong is a problem. */
void path_parse_file(struct spec_parser *, const struct fields *, const char *key, char **ret_text, struct place *ret);

/* The same of a directory below the model roots that holds a model besad can prune; parser->max_positions and columns become the
 * model's. */
void path_parse_model(struct spec_parser *, const struct fields *, const char *key, char **ret_text, struct place *ret);

bool path_is_file(const struct place *);

/* Why `text` cannot be a path below the output root, or NULL. */
const char *path_output_objection(const char *text);

#endif
