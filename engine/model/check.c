#include "engine/model/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "engine/model/block.h"

enum { NAMES_TOLD = 3 };

/* What old versions of transformers wrote and none reads. */
static bool is_leftover(const char *name)
{
	static const char *const ends[] = {".rotary_emb.inv_freq", ".attn.masked_bias", ".attn.bias", ".attention.masked_bias",
					   ".attention.bias"};
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
		if (text_ends_with(name, ends[i])) return true;
	return false;
}

static void tell_unused(const struct model *model, struct warnings *warnings)
{
	const struct checkpoint *c = &model->checkpoint;
	const char *names[NAMES_TOLD] = {"", "", ""};
	size_t count = 0;
	for (size_t i = 0; i < c->n_tensors; i++) {
		const char *name = c->tensors[i].name;
		bool second_head = model->config.tied_embeddings && text_ends_with(name, "lm_head.weight");
		bool other_part = model->config.multimodal && !strstr(name, "language_model.");
		if (model->seen[i] || second_head || other_part || is_leftover(name)) continue;
		if (count < NAMES_TOLD) names[count] = name;
		count++;
	}
	if (!count) return;
	warnings_add(warnings,
		     "the weights have %zu tensor%s that config.json does not ask for (%s%s%s%s%s%s): not used, as by "
		     "transformers; the model may "
		     "have been made with another config.json",
		     count, count == 1 ? "" : "s", names[0], count > 1 ? ", " : "", names[1], count > 2 ? ", " : "", names[2],
		     count > NAMES_TOLD ? ", …" : "");
}

enum status model_check_all(struct model *model, struct warnings *warnings, struct error *err)
{
	model->seen = calloc(model->checkpoint.n_tensors + 1, sizeof *model->seen);
	if (!model->seen) return error_set(err, STATUS_NO_MEMORY, "no memory to check the model");
	enum status status = model_check(model, err);
	if (status == STATUS_OK) status = block_check(model, err);
	if (status == STATUS_OK) tell_unused(model, warnings);
	free(model->seen);
	model->seen = NULL;
	return status;
}
