#include "engine/methods/one_shot/settings.h"

#include "engine/spec/sections.h"

static const struct spec_row rows[] = {
	{
		.key = "importance",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct one_shot_settings, importance),
		.names = spec_importance_names,
		.range = {.standard = IMPORTANCE_WANDA},
		.help = "what orders the weights of a row, as `besa.importance`",
		.label = "Importance",
	},
};

const struct spec_section method_one_shot_settings = {
	SPEC_ROWS(rows),   .size = sizeof(struct one_shot_settings), .title = "One-shot", .folded = true,
	.of_method = true, .help = "of the method one_shot",
};
