/* What a spec says of the stages that follow a method. */
#include "engine/spec/sections.h"

static const char *const refit_names[] = {"none", NULL};
static const char *const refit_later[] = {"least_squares", "block", "global", NULL};

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
		.later = refit_later,
		.range = {.standard = REFIT_NONE},
		.help = "how the weights that are kept make up for those that went",
		.label = "Refit",
	},
};

const struct spec_section stage_refit_settings = {
	SPEC_ROWS(refit_rows),
	.settle = settle,
	.title = "Refit",
	.folded = true,
	.help = "what becomes of the weights that the method keeps",
};
