/* Settings of the method besa. */
#include "engine/spec/sections.h"

static const char *const granularity_names[] = {"row", "layer", NULL};
static const char *const reconstruct_names[] = {"block", "half_block", "layer", "two_blocks", NULL};
const char *const spec_importance_names[] = {"wanda", "magnitude", "sparsegpt", "sparsegpt_published", "gradient", NULL};
static const char *const optimizer_names[] = {"prodigy", "adamw", NULL};
static const char *const target_names[] = {"block", "dense_stream", NULL};
static const char *const parameterization_names[] = {"sigmoid", "softmax", "auto", NULL};
enum { PARAM_AUTO = PARAM_SOFTMAX + 1 };

static void find_batch_range(const struct spec_parser *parser, struct spec_range *range)
{
	range->high = parser->spec->calibration.samples;
}

/* A job that began without them goes on without them (restore.h). */
static void find_safeguards(const struct spec_parser *parser, struct spec_range *range)
{
	if (parser->roots->places) range->standard = false;
}

/* What learning two blocks at once does not go with; NULL: nothing. */
static const char *objection_to_two_blocks(const struct spec *spec, const struct besa_settings *besa)
{
	if (spec->pattern.of) return "under a pattern besa learns nothing";
	if (besa->importance != IMPORTANCE_WANDA && besa->importance != IMPORTANCE_MAGNITUDE)
		return "the weights of the second block are ranked by \"wanda\" or \"magnitude\" alone ('importance')";
	return NULL;
}

/* The parameterization that "auto" stands for, and Prodigy's factor for it where the client gave none. */
static void settle(struct spec_parser *parser, const struct fields *fields, void *at)
{
	struct besa_settings *besa = at;
	if (besa->granularity == GRANULARITY_LAYER && besa->rows_per_group > 1)
		fields_problem(fields, "rows_per_group",
			       "is %d; by layer all rows of a layer share a rate: 'granularity' must be "
			       "\"row\"",
			       besa->rows_per_group);
	if (besa->reconstruct != RECONSTRUCT_BLOCK && besa->target == TARGET_DENSE_STREAM)
		fields_problem(fields, "reconstruct",
			       "is \"%s\", whose target is what the dense weights give on the same inputs: 'target' must be "
			       "\"block\"",
			       reconstruct_names[besa->reconstruct]);
	const char *objection = objection_to_two_blocks(parser->spec, besa);
	if (besa->reconstruct == RECONSTRUCT_TWO_BLOCKS && objection)
		fields_problem(fields, "reconstruct", "is \"two_blocks\": %s", objection);
	if ((int)besa->parameterization == PARAM_AUTO) besa->parameterization = PARAM_SIGMOID;
	if (besa->d_coef == 0) besa->d_coef = besa->parameterization == PARAM_SIGMOID ? 5 : 50;
}

static const struct spec_row rows[] = {
	{
		.key = "granularity",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct besa_settings, granularity),
		.names = granularity_names,
		.range = {.standard = GRANULARITY_ROW},
		.help = "what has a rate of its own",
		.label = "Granularity",
	},
	{
		.key = "rows_per_group",
		.kind = SPEC_INT,
		SPEC_AT(struct besa_settings, rows_per_group),
		.range = {1, 65536, 1},
		.help = "by row: how many neighbouring rows share a rate; the last group of a layer may have fewer",
		.label = "Rows per group",
		.hint = "",
	},
	{
		.key = "reconstruct",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct besa_settings, reconstruct),
		.names = reconstruct_names,
		.range = {.standard = RECONSTRUCT_BLOCK},
		.help = "whose output learning is to give again: the block's; one after the other that of attention and of the "
			"MLP, or each layer's own; or, by `two_blocks`, the next block's, which learns with it, and again in its "
			"turn, at about twice the time; all but `block` with the target `block`",
		.label = "Reconstruct",
	},
	{
		.key = "importance",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct besa_settings, importance),
		.names = spec_importance_names,
		.range = {.standard = IMPORTANCE_WANDA},
		.help = "what orders the weights of a row: by `sparsegpt` the error that SparseGPT would make good, w²/u², u being "
			"the "
			"diagonal of the upper Cholesky factor of the inverse of the inputs' Gram matrix; by `sparsegpt_published` "
			"w²/u, "
			"which the published code of BESA calls SparseGPT; by `gradient` |weight × gradient| of the block's loss, "
			"its "
			"reference moved at random",
		.label = "Importance",
	},
	{
		.key = "candidates",
		.kind = SPEC_INT,
		SPEC_AT(struct besa_settings, candidates),
		.range = {2, 256, 101},
		.help = "pruning rates that a learned rate is a mixture of: evenly spread about the target, under `softmax` from 0 "
			"to 1",
		.label = "Candidate rates",
	},
	{
		.key = "lambda",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct besa_settings, lambda),
		.range = {0, 1e6, 5},
		.help = "weight of the sparsity term of the loss",
		.label = "Lambda",
	},
	{
		.key = "epochs",
		.kind = SPEC_INT,
		SPEC_AT(struct besa_settings, epochs),
		.range = {1, 100, 1},
		.help = "how often a block learns from every calibration sequence",
		.label = "Epochs",
	},
	{
		.key = "batch_size",
		.kind = SPEC_INT,
		SPEC_AT(struct besa_settings, batch_size),
		.range = {1, SPEC_MAX_SAMPLES, 1},
		.find_range = find_batch_range,
		.help = "sequences of a step; not more than `calibration.samples`",
		.label = "Batch size",
	},
	{
		.key = "optimizer",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct besa_settings, optimizer),
		.names = optimizer_names,
		.range = {.standard = OPTIMIZER_PRODIGY},
		.help = "what makes steps of gradients",
		.label = "Optimizer",
	},
	{
		.key = "d_coef",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct besa_settings, d_coef),
		.range = {1e-6, 1e6, 0},
		.depends = true,
		.help = "of prodigy; 5 for the sigmoid, 50 for softmax",
		.label = "Prodigy's d_coef",
	},
	{
		.key = "learning_rate",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct besa_settings, learning_rate),
		.range = {1e-8, 10, 0.01},
		.help = "of adamw",
		.label = "AdamW's learning rate",
		.hint = "",
	},
	{
		.key = "target",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct besa_settings, target),
		.names = target_names,
		.range = {.standard = TARGET_BLOCK},
		.help = "whose output a block is to give again: the dense block's on the same inputs, or that of the dense model",
		.label = "Target",
	},
	{
		.key = "parameterization",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct besa_settings, parameterization),
		.names = parameterization_names,
		.resolved = PARAM_AUTO,
		.range = {.standard = PARAM_AUTO},
		.help = "of the rates; under `sigmoid`, which `auto` is, they stay near the target, under `softmax` they may be "
			"any",
		.label = "Parameterization",
	},
	{
		.key = "safeguards",
		.kind = SPEC_BOOL,
		SPEC_AT(struct besa_settings, safeguards),
		.range = {.standard = true},
		.find_range = find_safeguards,
		.help = "no block ends with a larger loss than it would with equal rates: learning that diverges goes on from its "
			"best with "
			"smaller steps; `false`: as published",
		.label = "Safeguards",
	},
};

const struct spec_section method_besa_settings = {
	SPEC_ROWS(rows), .settle = settle,  .title = "BESA settings",
	.folded = true,  .of_method = true, .help = "settings of the method besa",
};
