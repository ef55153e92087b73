/* What weights are rounded to, and when. */
#include <inttypes.h>
#include <stdio.h>

#include "engine/model/packed_form.h"
#include "engine/spec/sections.h"

static const char *const order_names[] = {"joint", "prune_first", "quantize_first", "auto", NULL};
enum { ORDER_AUTO = QUANTIZE_BEFORE + 1 };

static const char *const format_names[] = {"packed", "dequantized", "auto", NULL};
enum { FORMAT_AUTO = QUANTIZATION_DEQUANTIZED + 1 };

const char *const spec_rounding_names[] = {"nearest", "feedback", NULL};

/* What a client may let besad choose of, the first that fits. */
static const int usual_groups[] = {128, 64, 32, 16};

/* A linear whose columns `group` does not divide, for people. */
static const struct spec_linear *find_uneven(const struct spec_parser *parser, int64_t group)
{
	for (int i = 0; i < parser->n_linears; i++)
		if (parser->linears[i].cols % group) return &parser->linears[i];
	return NULL;
}

/* Nothing is known of the model of a stored spec, whose group is settled. */
static void settle_group(const struct spec_parser *parser, const struct fields *fields, struct quantization_settings *settings)
{
	const struct spec_linear *uneven = NULL;
	bool given = settings->group_size != 0;
	if (settings->group_size == GROUP_IS_CHANNEL) return;
	for (size_t i = 0; !given && i < sizeof usual_groups / sizeof *usual_groups; i++) {
		settings->group_size = usual_groups[i];
		uneven = find_uneven(parser, settings->group_size);
		if (!uneven) return;
	}
	uneven = find_uneven(parser, settings->group_size);
	if (!uneven) return;
	fields_problem(fields, "group_size",
		       "%s%d does not divide the columns of '%s' [%" PRId64 ", %" PRId64 "]: it must divide those of all linears; "
		       "\"channel\" is one group a row",
		       given ? "" : "is needed: even ", settings->group_size, uneven->path, uneven->rows, uneven->cols);
}

/* Only BESA learns, without a pattern, and only while nothing else changes the weights behind it. */
static const char *objection_to_joint(const struct spec *spec)
{
	if (spec->method != METHOD_BESA) return "the method besa alone learns it together with what it prunes";
	if (spec->pattern.of) return "under a pattern besa learns nothing";
	if (spec->besa.reconstruct != RECONSTRUCT_BLOCK) return "it is learned of whole blocks alone ('besa.reconstruct')";
	if (spec->refit.method == REFIT_LEAST_SQUARES) return "the refit would take the weights from their grids again";
	if (spec->quantization.rounding != ROUND_TO_NEAREST)
		return "it learns with weights that are rounded to the nearest ('rounding')";
	return NULL;
}

/* Weights that lie on their grids must stay as they are. */
static const char *objection_to_quantizing_first(const struct spec *spec)
{
	if (spec->method == METHOD_SPARSEGPT || spec->method == METHOD_ADMM) return "the method changes the weights that it keeps";
	if (spec->refit.method != REFIT_NONE) return "the refit would take the weights from their grids again";
	if (spec->quantization.rounding != ROUND_TO_NEAREST)
		return "the feedback would go to weights that are pruned later ('rounding')";
	return NULL;
}

static void settle_order(const struct spec *spec, const struct fields *fields, struct quantization_settings *settings)
{
	const char *joint = objection_to_joint(spec), *first = objection_to_quantizing_first(spec);
	const char *objection = settings->order == QUANTIZE_JOINTLY ? joint : settings->order == QUANTIZE_BEFORE ? first : NULL;
	if ((int)settings->order == ORDER_AUTO)
		settings->order = joint ? QUANTIZE_AFTER : QUANTIZE_JOINTLY;
	else if (objection)
		fields_problem(fields, "order", "\"%s\": %s; give \"prune_first\", or leave it out", order_names[settings->order],
			       objection);
}

/* A stored spec without the field is older than it is, and wrote weights. */
static void settle_format(const struct spec_parser *parser, const struct fields *fields, struct quantization_settings *settings)
{
	const char *objection = packed_form_has_bits(settings->bits) ? parser->unpackable : "only 4 and 8 bits can be";
	if (settings->format == QUANTIZATION_PACKED && objection)
		fields_problem(fields, "format", "\"packed\": %s; give \"dequantized\", or leave it out", objection);
	if ((int)settings->format != FORMAT_AUTO) return;
	bool stored = parser->n_linears == 0;
	settings->format = objection || stored ? QUANTIZATION_DEQUANTIZED : QUANTIZATION_PACKED;
}

static void settle(struct spec_parser *parser, const struct fields *fields, void *at)
{
	struct quantization_settings *settings = at;
	const struct spec *spec = parser->spec;
	if (!settings->bits) return;
	if (settings->bits > 4 && settings->bits < 8) fields_problem(fields, "bits", "must be 2, 3, 4 or 8");
	settle_group(parser, fields, settings);
	if (spec->refit.method == REFIT_GLOBAL && settings->rounding == ROUND_WITH_FEEDBACK)
		fields_problem(
			fields, "rounding",
			"\"feedback\": the refit \"global\" trains weights through rounding to the nearest; give \"nearest\", or "
			"a 'refit.method' of \"block\", which comes before the feedback");
	settle_order(spec, fields, settings);
	settle_format(parser, fields, settings);
}

static const struct spec_row rows[] = {
	{
		.key = "bits",
		.kind = SPEC_INT,
		SPEC_AT(struct quantization_settings, bits),
		.range = {2, 8, 0},
		.required = "is required: 2, 3, 4 or 8",
		.depends = true,
		.help = "of a weight: 2, 3, 4 or 8. `format` says how the output holds them",
		.label = "Bits",
		.hint = "2, 3, 4 or 8; without it weights are not quantized.",
		.placeholder = "none",
		.option = {"bits", "N", .help = "quantize the weights to so many bits"},
	},
	{
		.key = "group_size",
		.kind = SPEC_INT,
		SPEC_AT(struct quantization_settings, group_size),
		.range = {16, 128, 0},
		.word = "channel",
		.wrong = "must be a whole number from 16 to 128, or \"channel\"",
		.depends = true,
		.help = "neighbouring weights of a row that share a scale; it must divide the columns of all linears. Default: the "
			"largest of 128, 64, 32 and 16 that does. `channel` is a whole row",
		.label = "Group size",
		.hint = "16 to 128, or channel for a whole row.",
		.placeholder = "the largest that fits",
	},
	{
		.key = "symmetric",
		.kind = SPEC_BOOL,
		SPEC_AT(struct quantization_settings, symmetric),
		.range = {.standard = true},
		.help = "whether scales alone are stored, or zero points too",
		.label = "Symmetric",
	},
	{
		.key = "order",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct quantization_settings, order),
		.names = order_names,
		.resolved = ORDER_AUTO,
		.range = {.standard = ORDER_AUTO},
		.help = "`joint`: besa learns how to clip the weights together with its rates; `prune_first`: weights are rounded "
			"when they are pruned and refitted; `quantize_first`: before they are pruned. `auto` is `joint` where that "
			"can "
			"be, else `prune_first`",
		.label = "Order",
	},
	{
		.key = "rounding",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct quantization_settings, rounding),
		.names = spec_rounding_names,
		.range = {.standard = ROUND_TO_NEAREST},
		.help = "`nearest`: each weight goes to the nearest value of its group; `feedback`: the weights that follow in its "
			"row make up for what it loses there, as in GPTQ, by the calibration, which it takes",
		.label = "Rounding",
	},
	{
		.key = "format",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct quantization_settings, format),
		.names = format_names,
		.resolved = FORMAT_AUTO,
		.range = {.standard = FORMAT_AUTO},
		.help = "of the output: `packed` codes, the form pack-quantized of compressed-tensors, with 4 and 8 bits; or "
			"`dequantized`: "
			"the weights that the codes stand for, in the model's type, and no smaller. `auto` is `packed` where that "
			"can be",
		.label = "Format",
	},
};

const struct spec_section spec_quantization = {
	SPEC_ROWS(rows),
	.settle = settle,
	.title = "Quantization",
	.folded = true,
	.help = "what the weights of linears are rounded to; left out: nothing. What is pruned is zero all the same",
};
