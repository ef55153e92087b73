/* What is found out of the zeros' worth on hardware. */
#include "engine/spec/sections.h"

static const struct spec_row rows[] = {
	{
		.key = "simulate",
		.kind = SPEC_BOOL,
		SPEC_AT(struct hardware_settings, simulate),
		.help = "simulate the pruned model on ViTCoD's accelerator: cycles of each kind of layers, and how many times "
			"fewer "
			"than without zeros, in the result",
		.more = "Three ways of counting, as docs/hardware.md states them; the last takes memory traffic into account. Of "
			"the "
			"method `none` it is the model itself that is simulated.",
		.label = "Simulate an accelerator",
		.hint = "How many cycles the zeros save on ViTCoD's array of processing elements.",
		.option = {"simulate", .help = "simulate what the zeros save on an accelerator"},
	},
};

const struct spec_section spec_hardware = {
	SPEC_ROWS(rows),
	.title = "Hardware",
	.folded = true,
	.help = "what is found out of the zeros' worth on hardware",
};
