#include "engine/chat/chat_template.h"

#include <stdlib.h>

#include "base/json.h"
#include "base/lfs.h"
#include "engine/chat/scope.h"
#include "engine/text/tokenizer_config.h"

enum { MAX_TEMPLATE = 256 << 10, MAX_TOKENIZER = 256 << 20 };

/* The special tokens that transformers gives to a template, where the tokenizer has them. */
static const char *const tokens[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
enum { TOKENS = sizeof tokens / sizeof *tokens };

struct chat_template {
	char *name; /* for messages */
	struct pool pool;
	struct block statements;
	struct value special[TOKENS]; /* VALUE_MISSING where there is none */
};

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory for a chat template");
}

static struct run run_of(const struct chat_template *template, struct pool *pool, struct error *err)
{
	return (struct run){.pool = pool, .name = template->name, .line = 1, .steps = run_bounds.steps, .err = err};
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */
static enum status compile(struct chat_template *template, const char *source, size_t bytes, struct error *err)
{
	struct run run = run_of(template, &template->pool, err);
	const struct token *parsed;
	if (is_lfs_pointer(source, bytes)) return lfs_pointer_error(template->name, err);
	if (bytes > MAX_TEMPLATE)
		return error_set(err, STATUS_UNSUPPORTED, "%s: a chat template of more than %d KiB", template->name,
				 MAX_TEMPLATE >> 10);
	if (!utf8_valid(source, bytes) || memchr(source, 0, bytes))
		return error_set(err, STATUS_INVALID, "%s: a chat template must be UTF-8 text", template->name);
	TRY(template_lex(&run, source, bytes, &parsed));
	run.depth = 0;
	return template_parse(&run, parsed, &template->statements);
}

static enum status read_file(struct chat_template *template, const struct place *model, struct error *err)
{
	char *source;
	size_t bytes;
	TRY(place_slurp(model, template->name, MAX_TEMPLATE, &source, &bytes, err));
	enum status status = compile(template, source, bytes, err);
	free(source);
	return status;
}

/* tokenizer_config.json has one template, or several by names, of which the "default" is meant. */
static enum status read_member(struct chat_template *template, const cJSON *json, struct error *err)
{
	const cJSON *member = cJSON_GetObjectItemCaseSensitive(json, "chat_template"), *item;
	const char *source = cJSON_GetStringValue(member);
	const cJSON *list = cJSON_IsArray(member) ? member : NULL;
	cJSON_ArrayForEach(item, list)
	{
		const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "name"));
		bool meant = name && strcmp(name, "default") == 0;
		if (meant) source = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "template"));
	}
	if (source) return compile(template, source, strlen(source), err);
	if (!member || cJSON_IsNull(member))
		return error_set(
			err, STATUS_NOT_FOUND,
			"the model has no chat template: neither chat_template.jinja nor 'chat_template' in tokenizer_config.json");
	if (cJSON_IsArray(member))
		return error_set(err, STATUS_NOT_FOUND, "tokenizer_config.json: none of the chat templates is named 'default'");
	return error_set(err, STATUS_INVALID,
			 "tokenizer_config.json: 'chat_template' must be a string, or a list of them with names");
}

/* Whether the tokenizer is one of bytes, as that decides on the class that transformers takes. */
static enum status names_bytes(const struct place *model, bool *ret, struct error *err)
{
	static const char name[] = "tokenizer.json", word[] = "\"ByteLevel\"";
	char *text;
	size_t bytes;
	TRY(place_look(model, name, ret, err));
	if (!*ret) return STATUS_OK;
	TRY(place_slurp(model, name, MAX_TOKENIZER, &text, &bytes, err));
	*ret = memmem(text, bytes, word, sizeof word - 1) != NULL;
	free(text);
	return STATUS_OK;
}

static enum status keep_tokens(struct chat_template *template, const struct tokenizer_config *config, struct error *err)
{
	struct run run = run_of(template, &template->pool, err);
	for (int i = 0; i < TOKENS; i++) {
		const char *text = tokenizer_config_token(config, tokens[i]);
		if (text) TRY(value_copy_string(&run, text, strlen(text), &template->special[i]));
	}
	return STATUS_OK;
}

static enum status read_all(struct chat_template *template, const struct place *model, struct error *err)
{
	struct tokenizer_config config = {0};
	bool there, bytes;
	TRY(place_look(model, "chat_template.jinja", &there, err));
	template->name = strdup(there ? "chat_template.jinja" : "tokenizer_config.json: chat_template");
	if (!template->name) return no_memory(err);
	TRY(names_bytes(model, &bytes, err));
	enum status status = tokenizer_config_read(model, NULL, bytes, &config, err);
	if (status == STATUS_OK) status = there ? read_file(template, model, err) : read_member(template, config.json, err);
	if (status == STATUS_OK) status = keep_tokens(template, &config, err);
	tokenizer_config_free(&config);
	return status;
}

enum status chat_template_open(const struct place *model, struct chat_template **ret, struct error *err)
{
	struct chat_template *template = calloc(1, sizeof *template);
	if (!template) return no_memory(err);
	enum status status = read_all(template, model, err);
	if (status != STATUS_OK) {
		chat_template_close(template);
		return status;
	}
	*ret = template;
	return STATUS_OK;
}

void chat_template_close(struct chat_template *template)
{
	if (!template) return;
	pool_free(&template->pool);
	free(template->name);
	free(template);
}

/* ---- rendering ----------------------------------------------------------------------------------------------------------- */
static enum status set(struct run *run, struct scope *scope, const char *name, const struct value *value)
{
	struct value key;
	TRY(value_c_string(run, name, &key));
	return scope_set(run, scope, key.text, value);
}

static enum status make_messages(struct run *run, const struct chat_message *messages, size_t count, struct value *ret)
{
	struct value *items = run_new(run, count, sizeof *items), part;
	if (!items) return run->status;
	for (size_t i = 0; i < count; i++) {
		if (!utf8_valid(messages[i].role, strlen(messages[i].role)) ||
		    !utf8_valid(messages[i].content, strlen(messages[i].content)))
			return run_fail(run, "message %zu is not UTF-8", i);
		TRY(value_dict(run, 2, &items[i]));
		TRY(value_c_string(run, messages[i].role, &part));
		TRY(dict_put_text(run, items[i].dict, "role", &part));
		TRY(value_c_string(run, messages[i].content, &part));
		TRY(dict_put_text(run, items[i].dict, "content", &part));
	}
	return value_list(run, VALUE_LIST, items, count, ret);
}

/* What transformers gives to a template. */
static enum status set_variables(struct run *run, const struct chat_template *template, const struct value *messages,
				 bool add_generation_prompt, struct scope *scope)
{
	static const struct value none = VALUE_OF_NONE;
	const struct value prompt = VALUE_OF_BOOL(add_generation_prompt);
	for (int i = 0; i < TOKENS; i++)
		if (template->special[i].kind != VALUE_MISSING) TRY(set(run, scope, tokens[i], &template->special[i]));
	TRY(set(run, scope, "messages", messages));
	TRY(set(run, scope, "tools", &none));
	TRY(set(run, scope, "documents", &none));
	return set(run, scope, "add_generation_prompt", &prompt);
}

static enum status render(struct run *run, const struct chat_template *template, const struct chat_message *messages, size_t count,
			  bool add_generation_prompt)
{
	struct value list;
	struct scope *scope = scope_new(run, NULL);
	if (!scope) return run->status;
	TRY(make_messages(run, messages, count, &list));
	TRY(set_variables(run, template, &list, add_generation_prompt, scope));
	TRY(execute_block(run, &template->statements, scope));
	if (run->out->size && memchr(run->out->data, 0, run->out->size)) return run_refuse(run, "a text with a zero byte");
	buffer_append(run->out, "", 0);
	return run->out->failed ? run_no_memory(run) : STATUS_OK;
}

enum status chat_template_render(const struct chat_template *template, const struct chat_message *messages, size_t count,
				 bool add_generation_prompt, char **ret_text, struct error *err)
{
	struct error own;
	struct pool pool = {0};
	struct buffer out = {0};
	struct run run = run_of(template, &pool, err ? err : &own);
	run.out = &out;
	if (!count) return error_set(err, STATUS_INVALID, "a conversation needs at least one message");
	enum status status = render(&run, template, messages, count, add_generation_prompt);
	pool_free(&pool);
	if (status != STATUS_OK) {
		buffer_free(&out);
		return status;
	}
	*ret_text = out.data;
	return STATUS_OK;
}
