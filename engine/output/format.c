#include "engine/output/format.h"

#include "base/json.h"
#include "engine/output/in_place.h"
#include "engine/output/pack.h"
#include "engine/output/rewrite.h"

struct packed_form format_packing(const struct spec *spec)
{
	const struct quantization_settings *settings = &spec->quantization;
	if (!settings->bits || settings->format != QUANTIZATION_PACKED) return (struct packed_form){0};
	return (struct packed_form){.bits = settings->bits,
				    .group = settings->group_size == GROUP_IS_CHANNEL ? 0 : settings->group_size,
				    .symmetric = settings->symmetric};
}

static bool is_rewritten(const struct spec *spec, const struct model *model)
{
	return format_packing(spec).bits || model->config.packing.bits;
}

/* A plan, and the members that it borrows. */
struct rewritten {
	struct plan plan;
	cJSON *config;
};

static void release(struct rewritten *rewritten)
{
	plan_free(&rewritten->plan);
	cJSON_Delete(rewritten->config);
}

static enum status make_config(const struct model *model, const struct packed_form *packing, cJSON **ret, struct error *err)
{
	static const char key[] = "quantization_config";
	cJSON *config = cJSON_CreateObject();
	if (packing->bits)
		json_add(config, key, pack_config(model, packing));
	else
		cJSON_AddNullToObject(config, key);
	cJSON_AddNullToObject(config, "compression_config"); /* what it was called before */
	if (json_ran_out() || cJSON_GetArraySize(config) != 2) {
		cJSON_Delete(config);
		return error_set(err, STATUS_NO_MEMORY, "no memory for a config");
	}
	*ret = config;
	return STATUS_OK;
}

/* On failure `ret` is released. */
static enum status make_plan(const struct spec *spec, const struct model *model, struct rewritten *ret, struct error *err)
{
	const struct packed_form packing = format_packing(spec);
	*ret = (struct rewritten){0};
	TRY(plan_create(&model->checkpoint, &ret->plan, err));
	enum status status = packing.bits ? pack_plan(model, &packing, &ret->plan, err) : STATUS_OK;
	if (status == STATUS_OK) status = make_config(model, &packing, &ret->config, err);
	ret->plan.config = ret->config;
	if (status != STATUS_OK) release(ret);
	return status;
}

enum status format_open(const struct spec *spec, const struct model *model, const struct place *work, struct writer **ret,
			struct error *err)
{
	struct rewritten rewritten;
	struct writer *writer = NULL;
	if (!is_rewritten(spec, model)) return in_place_open(&spec->model_place, &model->checkpoint, work, ret, err);
	TRY(make_plan(spec, model, &rewritten, err));
	enum status status = rewrite_open(&spec->model_place, &rewritten.plan, work, &writer, err);
	release(&rewritten);
	if (status == STATUS_OK && format_packing(spec).bits) status = pack_write_shapes(model, writer, err);
	if (status == STATUS_OK)
		*ret = writer;
	else
		writer_close(writer);
	return status;
}

enum status format_bytes(const struct spec *spec, const struct model *model, int64_t *ret, struct error *err)
{
	struct rewritten rewritten;
	if (!is_rewritten(spec, model)) return in_place_bytes(&spec->model_place, &model->checkpoint, ret, err);
	TRY(make_plan(spec, model, &rewritten, err));
	enum status status = rewrite_bytes(&spec->model_place, &rewritten.plan, ret, err);
	release(&rewritten);
	return status;
}
