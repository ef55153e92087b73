/* Presets: named specs of what is done to a model's weights, which a client's own fields override. */
#ifndef BESAD_ENGINE_PRESET_H
#define BESAD_ENGINE_PRESET_H

#include "engine/spec/descriptor.h"

extern const char *const preset_names[]; /* ends with NULL */

/* The row `preset` of spec_top: an index of preset_names, or PRESET_NONE. */
void preset_parse(struct spec_parser *, const struct fields *, const struct spec_row *, void *at);

/* What the client asks for, an object, with the fields of its preset where it gave none; the caller frees it. A spec that names
 * neither a preset nor a method, and has no section of BESA's settings, which means that method, has the preset "balanced". NULL
 * without memory. */
cJSON *preset_fill(const struct fields *client);

#endif
