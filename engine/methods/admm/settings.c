#include "engine/methods/admm/settings.h"

#include "engine/spec/sections.h"

static void settle(struct spec_parser *parser, const struct fields *fields, void *at)
{
	struct admm_settings *admm = at;
	if (admm->ramp > admm->iterations && !fields_get(fields, "ramp")) admm->ramp = admm->iterations;
	if (parser->spec->pattern.of) admm->rates = ADMM_UNIFORM; /* the pattern says what each row loses */
	if (admm->ramp > admm->iterations)
		fields_problem(fields, "ramp", "is %d; it must not be more than 'iterations', %d", admm->ramp, admm->iterations);
}

static const char *const rates_names[] = {"uniform", "layer", "row", NULL};

static const struct spec_row rows[] = {
	{
		.key = "rates",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct admm_settings, rates),
		.names = rates_names,
		.range = {.standard = ADMM_UNIFORM},
		.help = "whose share of a block's zeros is learned, by BESA and its settings: each layer's or each row's; "
			"`uniform`: all lose the same, as they do under a pattern",
		.label = "Rates",
	},
	{
		.key = "iterations",
		.kind = SPEC_INT,
		SPEC_AT(struct admm_settings, iterations),
		.range = {1, 1000, 20},
		.help = "steps of ADMM, which find the weights that stay",
		.label = "Iterations",
		.hint = "",
	},
	{
		.key = "ramp",
		.kind = SPEC_INT,
		SPEC_AT(struct admm_settings, ramp),
		.range = {1, 1000, 15},
		.help = "iterations over which the sparsity rises to the target; not more than `iterations`, and by default no "
			"more either",
		.label = "Ramp",
		.hint = "iterations over which the sparsity rises",
	},
	{
		.key = "damping",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct admm_settings, damping),
		.range = {1e-6, 100, 0.1},
		.help = "what is added to the diagonal of the inputs' Gram matrix, which is scaled to ones: more trusts the "
			"calibration "
			"less",
		.label = "Damping",
		.hint = "",
	},
	{
		.key = "rho",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct admm_settings, rho),
		.range = {1e-3, 1000, 1},
		.help = "weight of the constraint that the weights be sparse",
		.label = "Rho",
		.hint = "",
	},
	{
		.key = "cg_steps",
		.kind = SPEC_INT,
		SPEC_AT(struct admm_settings, cg_steps),
		.range = {0, 1000, 30},
		.help = "steps of conjugate gradients, which find what the weights that stay become; 0 leaves them as they are",
		.label = "Steps of conjugate gradients",
		.hint = "",
	},
	{
		.key = "cg_damping",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct admm_settings, cg_damping),
		.range = {1e-6, 100, 0.01},
		.help = "what holds these to their values, as a part of the mean of the Gram matrix' diagonal",
		.label = "Damping of conjugate gradients",
		.hint = "",
	},
};

const struct spec_section method_admm_settings = {
	SPEC_ROWS(rows), .settle = settle,  .size = sizeof(struct admm_settings), .title = "ADMM",
	.folded = true,  .of_method = true, .help = "of the method admm",
};
