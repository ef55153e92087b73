/* The rows of a spec as a JSON schema. */
#ifndef BESAD_ENGINE_SPEC_SCHEMA_H
#define BESAD_ENGINE_SPEC_SCHEMA_H

#include "engine/spec/descriptor.h"

/* What a client may send as the section, `spec_top` for a whole spec, in JSON Schema 2020-12; what several fields share is in
 * `$defs`. That a range depends on the model, or fields on each other, it cannot say: the descriptions do.
 *
 * `x-besad` of a property is what it does not know: `form` {label, hint, group, placeholder, start, title, folded, method}, as
 * struct spec_row and struct spec_section have them; `option` {name, letter, argument, percent, help} of besactl; `optional`: a
 * resolved spec may lack it; `resolved`: how many of its names a resolved spec may show.
 *
 * The caller frees it; NULL without memory. */
cJSON *spec_schema(const struct spec_section *);

#endif
