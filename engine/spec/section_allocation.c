/* How the zeros of a model are divided among its blocks. */
#include "engine/spec/sections.h"

static const char *const method_names[] = {"uniform", "outlier", "loss", NULL};

static void settle(struct spec_parser *parser, const struct fields *fields, void *at)
{
	const struct allocation *allocation = at;
	if (parser->spec->method == METHOD_NONE && allocation->method != ALLOCATION_UNIFORM)
		fields_problem(fields, "method", "the method none prunes nothing that could be divided: leave allocation out");
}

static const struct spec_row rows[] = {
	{
		.key = "method",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct allocation, method),
		.names = method_names,
		.range = {.standard = ALLOCATION_UNIFORM},
		.help = "how the zeros are divided among the blocks: `uniform` gives each the same share, `outlier` (OWL) fewer to "
			"those that have more weights of outstanding importance, `loss` as many to each as make the sum of their "
			"losses "
			"smallest",
		.more = "The model gets exactly `round(sparsity · weights)` zeros in all, and each block exactly what it was "
			"allotted, "
			"with any method. What is not uniform is found in a pass over the dense model before the first block, and "
			"excludes patterns of N:M.",
		.label = "Allocation",
		.hint = "How the zeros are divided among the blocks.",
	},
	{
		.key = "deviation",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct allocation, deviation),
		.range = {0, 0.5, 0.08},
		.help = "of `loss`: the most by which a block's sparsity differs from the target; of `outlier`: half of the range "
			"that the blocks' "
			"sparsities span (OWL's lambda)",
		.more = "It is less where a block would lose three quarters less, or keep three quarters less, than at the target.",
		.label = "Deviation",
	},
	{
		.key = "threshold",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct allocation, threshold),
		.range = {1, 1000, 5},
		.help = "of `outlier`: a weight is outstanding whose importance, |w| · ‖x‖, is so many times the mean of its block "
			"(OWL's M)",
		.label = "Outliers from",
	},
};

const struct spec_section spec_allocation = {
	SPEC_ROWS(rows),
	.settle = settle,
	.title = "Allocation",
	.folded = true,
	.help = "how the zeros are divided among the blocks",
};
