/* Every field of every family's config.json, one after the other with a value of a kind that it cannot have: it is refused, and by
 * its name, unless it is one that nothing here depends on. */
#include <dirent.h>
#include <unistd.h>

#include "tests/unit/scratch.h"

#include "base/json.h"
#include "engine/model/config.h"

static enum status parse(const cJSON *json, struct error *err)
{
	struct model_config config;
	return model_config_parse(json, "config.json", NULL, &config, err);
}

static cJSON *read_config(struct scratch *s, const char *directory, const char *name)
{
	char path[300], *text;
	size_t size;
	cJSON *json;
	snprintf(path, sizeof path, "%s/%s/config.json", directory, name);
	if (access(path, R_OK) != 0) return NULL;
	SUCCEEDS(file_slurp(path, 1 << 20, &text, &size, &s->err));
	SUCCEEDS(json_parse_python(text, size, path, &json, &s->err));
	free(text);
	return json;
}

/* What a model's blocks do not hang on: how it was trained, what is done with it, and what is asked alone whether it is set. */
static const char *const ignored[] = {
	/* in training */
	"attention_dropout", "attn_pdrop", "classifier_dropout", "dropout", "embd_pdrop", "embedding_dropout", "hidden_dropout",
	"init_std", "initializer_range", "layerdrop", "output_router_logits", "pretraining_tp", "resid_pdrop", "residual_dropout",
	"router_aux_loss_coef", "router_jitter_noise",
	/* in use */
	"dtype", "eos_token_id", "is_decoder", "pad_token_id", "reorder_and_upcast_attn", "summary_activation",
	"summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj", "transformers_version", "use_cache",
	/* whether they are set */
	"do_layer_norm_before", "layer_norm_elementwise_affine", "scale_attn_weights",
	/* told in other fields as well, where they are there */
	"_sliding_window_pattern", "original_max_position_embeddings"};

static bool is_ignored(const char *family, const char *key)
{
	for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
		if (strcmp(ignored[i], key) == 0) return true;
	return strncmp(family, "qwen", 4) == 0 && strcmp(key, "intermediate_size") == 0; /* of no layer, where all have experts */
}

struct value {
	const char *json;
	bool fits; /* it may, that is */
};

/* What is refused names the file and the field; and what must be, is. */
static void try_with(struct scratch *s, cJSON *root, cJSON *object, const char *key, struct value value, const char *family)
{
	cJSON *was = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(object, key), true);
	assert_true(cJSON_ReplaceItemInObjectCaseSensitive(object, key, cJSON_Parse(value.json)));
	s->err = (struct error){0};
	enum status status = parse(root, &s->err);
	assert_true(cJSON_ReplaceItemInObjectCaseSensitive(object, key, was));
	if (status == STATUS_OK) {
		if (!value.fits && !is_ignored(family, key)) fail_msg("%s takes '%s': %s", family, key, value.json);
		return;
	}
	bool known = status == STATUS_INVALID || status == STATUS_UNSUPPORTED;
	if (!known || status != s->err.status || strncmp(s->err.message, "config.json: ", 13) != 0)
		fail_msg("%s, '%s': %s: %s, \"%s\"", family, key, value.json, status_name(status), s->err.message);
	/* What follows from several fields may be told of another of them. */
	if (!value.fits && !strstr(s->err.message, key))
		fail_msg("%s, '%s': %s: \"%s\" does not name it", family, key, value.json, s->err.message);
}

static void try_each(struct scratch *s, cJSON *root, cJSON *object, const char *family)
{
	static const struct value numbers[] = {{"{\"x\":1}", false}, {"\"x\"", false}, {"-1", true},  {"1e18", true},
					       {"0", true},          {"0.5", true},    {"null", true}},
				  others[] = {{"{\"x\":1}", false}, {"null", true}, {"17", true}, {"false", true}, {"true", true}},
				  lists[] = {{"\"x\"", false}, {"{\"x\":1}", false}, {"[]", true},
					     {"[null]", true}, {"[17,\"x\"]", true}, {"null", true}},
				  objects[] = {{"\"x\"", false}, {"[1]", false}, {"null", true}, {"{}", true}};
	int n = cJSON_GetArraySize(object);
	for (int i = 0; i < n; i++) {
		cJSON *item = cJSON_GetArrayItem(object, i);
		char *key = strdup(item->string);
		assert_non_null(key);
		bool number = cJSON_IsNumber(item), list = cJSON_IsArray(item), inner = cJSON_IsObject(item);
		const struct value *values = number ? numbers : list ? lists : inner ? objects : others;
		size_t count = number ? 7 : list ? 6 : inner ? 4 : 5;
		if (inner) try_each(s, root, item, family);
		for (size_t v = 0; v < count; v++)
			try_with(s, root, object, key, values[v], family);
		free(key);
	}
}

static void test_every_field(void **state)
{
	struct scratch *s = *state;
	static const char *const directories[] = {"tests/data/families", "tests/data/saved"};
	for (int d = 0; d < 2; d++) {
		DIR *directory = opendir(directories[d]);
		assert_non_null(directory);
		for (struct dirent *entry; (entry = readdir(directory));) {
			cJSON *json = read_config(s, directories[d], entry->d_name);
			if (!json) continue;
			SUCCEEDS(parse(json, &s->err));
			try_each(s, json, json, entry->d_name);
			cJSON_Delete(json);
		}
		closedir(directory);
	}
}

/* ---- rotary embeddings ------------------------------------------------------------------------------------------------------- */

#define SIZES                                                                                                                      \
	"\"hidden_size\":64,\"intermediate_size\":160,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":100,"       \
	"\"max_position_embeddings\":512,\"rope_theta\":1e6"
#define EIGHT "[1,1.5,2,2.5,3,3.5,4,4.5]"

/* Every field of each kind of scaling, and another value of it. */
static const struct scaling {
	const char *model_type, *more, *object;
	const char *keys[10], *others[10];
} scalings[] = {
	{"llama", "", "{\"rope_type\":\"linear\",\"factor\":2}", {"factor"}, {"4"}},
	{"llama", "", "{\"rope_type\":\"dynamic\",\"factor\":2}", {"factor"}, {"4"}},
	{"llama",
	 "",
	 "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":"
	 "64}",
	 {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
	 {"4", "2", "8", "128"}},
	{"llama",
	 "",
	 "{\"rope_type\":\"yarn\",\"factor\":4,\"beta_fast\":32,\"beta_slow\":1,\"mscale\":1,\"mscale_all_dim\":0.5,\"truncate\":"
	 "true,"
	 "\"original_max_position_embeddings\":128}",
	 {"factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate", "original_max_position_embeddings"},
	 {"2", "16", "2", "2", "1", "false", "64"}},
	{"llama", "", "{\"rope_type\":\"yarn\",\"factor\":4,\"attention_factor\":1.5}", {"attention_factor"}, {"2"}},
	{"ministral3",
	 ",\"num_key_value_heads\":4",
	 "{\"rope_type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":128,\"llama_4_scaling_beta\":0.1}",
	 {"llama_4_scaling_beta"},
	 {"0.2"}},
	{"phi3",
	 ",\"original_max_position_embeddings\":128",
	 "{\"rope_type\":\"longrope\",\"short_factor\":" EIGHT ",\"long_factor\":" EIGHT "}",
	 {"short_factor", "long_factor"},
	 {"[1,1.5,2,2.5,3,3.5,4,5]", "[1,1.5,2,2.5,3,3.5,4,5]"}},
};

static cJSON *config_with(const struct scaling *scaling, bool both)
{
	char text[2000];
	snprintf(text, sizeof text, "{\"model_type\":\"%s\"," SIZES "%s,\"rope_scaling\":%s%s%s}", scaling->model_type,
		 scaling->more, scaling->object, both ? ",\"rope_parameters\":" : "", both ? scaling->object : "");
	cJSON *json = cJSON_Parse(text);
	assert_non_null(json);
	return json;
}

static void test_every_field_of_scaling(void **state)
{
	struct scratch *s = *state;
	for (size_t i = 0; i < sizeof scalings / sizeof *scalings; i++) {
		cJSON *json = config_with(&scalings[i], false);
		SUCCEEDS(parse(json, &s->err));
		try_each(s, json, json, scalings[i].model_type);
		cJSON_Delete(json);
	}
}

/* What both objects say is taken where it is the same, and is a contradiction where any field is not. */
static void test_scaling_told_twice(void **state)
{
	struct scratch *s = *state;
	for (size_t i = 0; i < sizeof scalings / sizeof *scalings; i++)
		for (int k = 0; k < 10 && scalings[i].keys[k]; k++) {
			cJSON *json = config_with(&scalings[i], true);
			cJSON *parameters = cJSON_GetObjectItem(json, "rope_parameters");
			cJSON_AddNumberToObject(parameters, "rope_theta", 1e6);
			SUCCEEDS(parse(json, &s->err));
			cJSON_ReplaceItemInObject(parameters, scalings[i].keys[k], cJSON_Parse(scalings[i].others[k]));
			if (parse(json, &s->err) != STATUS_INVALID || !strstr(s->err.message, "contradict each other"))
				fail_msg("%s of %s: taken", scalings[i].keys[k], scalings[i].object);
			cJSON_Delete(json);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {SCRATCH_TEST(test_every_field), SCRATCH_TEST(test_every_field_of_scaling),
					   SCRATCH_TEST(test_scaling_told_twice)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
