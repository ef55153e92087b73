#include "engine/methods/sparsegpt/settings.h"

#include "engine/spec/sections.h"

static const struct spec_row rows[] = {
	{
		.key = "dampening",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct sparsegpt_settings, dampening),
		.range = {1e-6, 10, 0.01},
		.help = "what is added to the diagonal of the inputs' Gram matrix, as a part of its mean: more trusts the "
			"calibration less",
		.label = "Dampening",
		.hint = "",
	},
};

const struct spec_section method_sparsegpt_settings = {
	SPEC_ROWS(rows),   .size = sizeof(struct sparsegpt_settings), .title = "SparseGPT", .folded = true,
	.of_method = true, .help = "of the method sparsegpt",
};
