/* Special tokens and chat templates, as gguf.SpecialVocab of llama.cpp's converter finds them. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "engine/export/vocabulary.h"

static const struct {
	const char *token, *id, *key; /* in tokenizer_config.json, in config.json, in the GGUF */
} kinds[] = {
	{"bos_token", "bos_token_id", "bos_token_id"},     {"eos_token", "eos_token_id", "eos_token_id"},
	{"unk_token", "unk_token_id", "unknown_token_id"}, {"sep_token", "sep_token_id", "seperator_token_id"},
	{"pad_token", "pad_token_id", "padding_token_id"}, {"mask_token", "mask_token_id", "mask_token_id"},
};

static const cJSON *member(const cJSON *object, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* The content of a token, a string or an object; NULL for none. */
static const char *token_text(const cJSON *config, const char *key)
{
	const cJSON *token = member(config, key);
	return cJSON_GetStringValue(cJSON_IsObject(token) ? member(token, "content") : token);
}

static bool same(const char *a, const char *b)
{
	return a && b && strcmp(a, b) == 0;
}

/* ---- ids ------------------------------------------------------------------------------------------------------------------- */

/* Of a token by its text, among those added to a tokenizer.json; -1 for none. */
static int find_added(const cJSON *json, const char *text)
{
	const cJSON *entry;
	cJSON_ArrayForEach(entry, member(json, "added_tokens")) if (same(cJSON_GetStringValue(member(entry, "content")), text) &&
								    cJSON_IsNumber(member(entry, "id"))) return member(entry, "id")
		->valueint;
	return -1;
}

static void add_ids(struct gguf *gguf, const struct tokenizer_files *files, int64_t vocab)
{
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		char key[64];
		const char *text = token_text(files->config, kinds[i].token);
		const cJSON *said = member(files->model_config, kinds[i].id);
		int id = text ? find_added(files->json, text) : -1;
		if ((id < 0 || id >= vocab) && cJSON_IsNumber(said)) id = said->valueint;
		if (id < 0 || id >= vocab) continue;
		snprintf(key, sizeof key, "tokenizer.ggml.%s", kinds[i].key);
		gguf_u32(gguf, key, (uint32_t)id);
	}
}

/* ---- around a text --------------------------------------------------------------------------------------------------------- */

struct around {
	enum placed bos, eos;
};

/* The special token at one end of a template, or NULL. */
static const char *template_token(const cJSON *single, int index)
{
	return cJSON_GetStringValue(member(member(cJSON_GetArrayItem(single, index), "SpecialToken"), "id"));
}

static void read_processor(const cJSON *processor, const cJSON *config, struct around *around)
{
	const char *type = cJSON_GetStringValue(member(processor, "type"));
	const cJSON *single = member(processor, "single");
	int length = cJSON_GetArraySize(single);
	if (same(type, "ByteLevel")) {
		if (around->bos == PLACED_UNKNOWN) around->bos = PLACED_NOT;
		if (around->eos == PLACED_UNKNOWN) around->eos = PLACED_NOT;
	}
	if (!same(type, "TemplateProcessing") || length < 2) return;
	const char *first = template_token(single, 0), *last = template_token(single, length - 1);
	const char *bos = token_text(config, "bos_token");
	if (first) around->bos = same(first, bos) || same(first, token_text(config, "cls_token")) ? PLACED : PLACED_NOT;
	if (last) around->eos = same(last, token_text(config, "eos_token")) ? PLACED : PLACED_NOT;
}

static void read_flag(const cJSON *config, const char *key, enum placed *ret)
{
	const cJSON *flag = member(config, key);
	if (*ret == PLACED_UNKNOWN && cJSON_IsBool(flag)) *ret = cJSON_IsTrue(flag) ? PLACED : PLACED_NOT;
}

static void add_around(struct gguf *gguf, const struct tokenizer_files *files, enum placed bos)
{
	struct around around = {PLACED_UNKNOWN, PLACED_UNKNOWN};
	const cJSON *processor = member(files->json, "post_processor"), *list = member(processor, "processors"), *entry;
	if (!list && processor) read_processor(processor, files->config, &around);
	cJSON_ArrayForEach(entry, list) read_processor(entry, files->config, &around);
	read_flag(files->config, "add_bos_token", &around.bos);
	read_flag(files->config, "add_eos_token", &around.eos);
	if (!around.bos) around.bos = bos;
	if (around.bos) gguf_bool(gguf, "tokenizer.ggml.add_bos_token", around.bos == PLACED);
	if (around.eos) gguf_bool(gguf, "tokenizer.ggml.add_eos_token", around.eos == PLACED);
}

/* ---- chat templates -------------------------------------------------------------------------------------------------------- */

static const char *template_text(const cJSON *entry, char name[64])
{
	const char *given = cJSON_GetStringValue(member(entry, "name"));
	if (!given || !*given) return NULL;
	snprintf(name, 64, "%s", given);
	for (char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c)) *c = '_';
	return cJSON_GetStringValue(member(entry, "template"));
}

static void add_templates(struct gguf *gguf, const cJSON *list)
{
	const cJSON *entry;
	char name[64], key[128];
	uint64_t others = 0;
	cJSON_ArrayForEach(entry, list)
	{
		const char *text = template_text(entry, name);
		if (!text) continue;
		bool standard = strcmp(name, "default") == 0;
		others += !standard;
		snprintf(key, sizeof key, "tokenizer.chat_template%s%s", standard ? "" : ".", standard ? "" : name);
		gguf_text(gguf, key, text);
	}
	if (!others) return;
	gguf_array(gguf, "tokenizer.chat_templates", GGUF_TEXT, others);
	cJSON_ArrayForEach(entry, list) if (template_text(entry, name) && strcmp(name, "default") != 0)
		gguf_add_text(gguf, name, strlen(name));
}

void special_tokens_add(struct gguf *gguf, const struct tokenizer_files *files, int64_t vocab, enum placed bos)
{
	const cJSON *template = member(files->config, "chat_template");
	add_ids(gguf, files, vocab);
	add_around(gguf, files, bos);
	if (cJSON_IsString(template))
		gguf_text(gguf, "tokenizer.chat_template", template->valuestring);
	else if (cJSON_IsArray(template))
		add_templates(gguf, template);
	else if (files->template)
		gguf_text(gguf, "tokenizer.chat_template", files->template);
}
