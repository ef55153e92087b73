/* The sections of a spec (descriptor.h). spec_top is the one list: its rows are the fields of the spec in their order, and the
 * sections among them. */
#ifndef BESAD_ENGINE_SECTIONS_H
#define BESAD_ENGINE_SECTIONS_H

#include <limits.h>

#include "engine/spec/descriptor.h"
#include "engine/spec/paths.h"
#include "engine/text/field.h"

extern const struct spec_section spec_top;

extern const struct spec_section method_besa_settings; /* struct besa_settings */
#define DECLARE_SETTINGS(name) extern const struct spec_section method_##name##_settings;
METHOD_SETTINGS(DECLARE_SETTINGS)
extern const struct spec_section stage_refit_settings; /* struct refit_settings */

extern const struct spec_section spec_quantization;          /* struct quantization_settings */
extern const struct spec_section spec_allocation;            /* struct allocation */
extern const struct spec_section spec_calibration;           /* struct calibration */
extern const struct spec_section spec_evaluation;            /* struct spec */
extern const struct spec_section spec_hardware;              /* struct hardware_settings */
extern const struct spec_section spec_progress, spec_notify; /* struct spec */

extern const char *const spec_rounding_names[];   /* by enum quantization_rounding; ends with NULL */
extern const char *const spec_importance_names[]; /* by enum importance; ends with NULL */

/* ---- what fields of several sections share --------------------------------------------------------------------------------- */

enum { SPEC_MAX_SAMPLES = 65536, SPEC_FIELD_CHARACTERS = FIELD_MAX / 4 };

extern const struct spec_row spec_data_path, spec_data_field; /* definitions of the contract */

/* A data file: members `path` and `place`. */
#define SPEC_DATA_PATH(owner)                                                                                                      \
	.key = "path", .kind = SPEC_FILE, SPEC_AT(owner, path), .place = offsetof(owner, place), .limit = PATH_CHARACTERS,         \
	.type = &spec_data_path

/* Where the text of a row is: a member `field`. */
#define SPEC_DATA_FIELD(owner)                                                                                                     \
	.key = "field", .kind = SPEC_TEXT, SPEC_AT(owner, field), .limit = SPEC_FIELD_CHARACTERS,                                  \
	.empty = "is empty; it must name the field of a row that holds its text, such as \"text\"", .type = &spec_data_field

/* T: a member `sequence_length`. */
#define SPEC_SEQUENCE_LENGTH(owner)                                                                                                \
	.key = "sequence_length", .kind = SPEC_INT, SPEC_AT(owner, sequence_length), .range = {2, INT_MAX, 0}, .depends = true,    \
	.find_range = spec_find_sequence_range, .label = "Sequence length"

void spec_find_sequence_range(const struct spec_parser *, struct spec_range *);

#endif
