/* What a spec says of the stages that follow a method. */
#include "engine/spec/sections.h"

static const char *const refit_names[] = {"none", "least_squares", "block", "global", NULL};

static void settle(struct spec_parser *parser, const struct fields *fields, void *at)
{
	const struct refit_settings *refit = at;
	if (parser->spec->method == METHOD_NONE && refit->method != REFIT_NONE)
		fields_problem(fields, "method", "the method none prunes nothing that could be fitted: leave refit out");
}

static const struct spec_row refit_rows[] = {
	{
		.key = "method",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct refit_settings, method),
		.names = refit_names,
		.range = {.standard = REFIT_NONE},
		.help = "how the weights that are kept make up for those that went",
		.label = "Refit",
	},
	{
		.key = "epochs",
		.kind = SPEC_INT,
		SPEC_AT(struct refit_settings, epochs),
		.range = {1, 100, 2},
		.help = "of `block` and `global`: how often a block is trained on every calibration sequence",
		.label = "Epochs",
	},
	{
		.key = "batch_size",
		.kind = SPEC_INT,
		SPEC_AT(struct refit_settings, batch_size),
		.range = {1, SPEC_MAX_SAMPLES, 4},
		.help = "of `block` and `global`: sequences of a step; never more than `calibration.samples`",
		.label = "Batch size",
	},
	{
		.key = "learning_rate",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct refit_settings, learning_rate),
		.range = {0, 1, 0},
		.help = "of `block` and `global`: Adam's, after a rise over the first twentieth of the steps; it falls to 0 along "
			"a cosine. 0 "
			"is 0.028 divided by the root of the model's hidden size",
		.hint = "0 for one that fits the model's width.",
		.label = "Learning rate",
	},
	{
		.key = "norms",
		.kind = SPEC_BOOL,
		SPEC_AT(struct refit_settings, norms),
		.range = {.standard = true},
		.help = "of `block` and `global`: whether norms' weights and all biases are trained too, and not only the weights "
			"of linears",
		.label = "Norms and biases too",
	},
	{
		.key = "cg_steps",
		.kind = SPEC_INT,
		SPEC_AT(struct refit_settings, cg_steps),
		.range = {1, 1000, 30},
		.help = "of `least_squares`: steps of conjugate gradients",
		.label = "Steps of conjugate gradients",
	},
	{
		.key = "cg_damping",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct refit_settings, cg_damping),
		.range = {1e-6, 100, 0.01},
		.help = "of `least_squares`: what holds the weights to their values, as a part of the mean of the Gram matrix' "
			"diagonal",
		.label = "Damping of conjugate gradients",
	},
	{
		.key = "global_epochs",
		.kind = SPEC_INT,
		SPEC_AT(struct refit_settings, global_epochs),
		.range = {1, 100, 1},
		.help = "of `global`: how often the whole model is trained on every calibration sequence, behind the last block",
		.label = "Epochs of the whole model",
	},
	{
		.key = "global_learning_rate",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct refit_settings, global_learning_rate),
		.range = {1e-8, 1, 1e-3},
		.help = "of `global`: Adam's, when the whole model is trained; it rises and falls as `learning_rate`",
		.label = "Learning rate of the whole model",
	},
};

const struct spec_section stage_refit_settings = {
	SPEC_ROWS(refit_rows),
	.settle = settle,
	.title = "Refit",
	.folded = true,
	.help = "what becomes of the weights that the method keeps",
};
