/* What is found out of the zeros' worth on hardware. */
#include "engine/spec/sections.h"

/* Specs of versions that did not know it stay what they were. */
static bool is_measured(const void *at)
{
	return ((const struct hardware_settings *)at)->measure;
}

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
	{
		.key = "measure",
		.kind = SPEC_BOOL,
		SPEC_AT(struct hardware_settings, measure),
		.shown = is_measured,
		.help = "time the products of one token with the pruned model's linears on this machine's processor, dense and "
			"with the zeros left out, for each kind of layers, in the result",
		.more = "On the processor also where the job ran on a device, when everything else is done and no product of "
			"the job's is under way; other programs of the machine disturb it. docs/hardware.md says what is timed. Of "
			"the method `none` it is the model itself.",
		.label = "Measure on this processor",
		.hint = "How much faster decoding's products are without the zeros, timed on the processor.",
		.option = {"measure", .help = "time what the zeros save on this machine's processor"},
	},
};

const struct spec_section spec_hardware = {
	SPEC_ROWS(rows),
	.title = "Hardware",
	.folded = true,
	.help = "what is found out of the zeros' worth on hardware",
};
