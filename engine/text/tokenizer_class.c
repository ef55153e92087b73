#include "engine/text/tokenizer_class.h"

#include <string.h>

#include "engine/text/tokenizer_config.h"

#define LLAMA_MODEL "{\"fuse_unk\":true,\"byte_fallback\":true}"
#define BYTES_MODEL "{\"fuse_unk\":false}"
#define BYTES_GPT2 "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define BYTES_SPLIT(regex)                                                                                                         \
	"{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex                            \
	"\"},\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}"
#define METASPACE "{\"type\":\"Metaspace\",\"replacement\":\"▁\",\"prepend_scheme\":\"always\",\"split\":false}"
#define QWEN2                                                                                                                      \
	"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|"  \
	"\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define QWEN35                                                                                                                     \
	"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{L}\\\\p{M}]+|\\\\p{N}| "                                \
	"?[^\\\\s\\\\p{L}\\\\p{M}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define END "<|endoftext|>"

static const char *const code_llama[] = {"▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>", "<FILL_ME>", NULL};

static const struct tokenizer_class backend = {.name = "TokenizersBackend"};

static const struct tokenizer_class classes[] = {
	{.name = "LlamaTokenizer",
	 .rebuilt = true,
	 .known = true,
	 .bos = "<s>",
	 .eos = "</s>",
	 .unk = "<unk>",
	 .pretokenizer = METASPACE,
	 .model = LLAMA_MODEL,
	 .prefix = PREFIX_METASPACE,
	 .prefix_by_default = true},
	{.name = "CodeLlamaTokenizer",
	 .rebuilt = true,
	 .known = true,
	 .bos = "<s>",
	 .eos = "</s>",
	 .unk = "<unk>",
	 .own = code_llama,
	 .pretokenizer = METASPACE,
	 .model = LLAMA_MODEL,
	 .names_unk = true,
	 .prefix = PREFIX_FIRST,
	 .prefix_by_default = true,
	 .post = POST_BOS},
	{.name = "GemmaTokenizer",
	 .rebuilt = true,
	 .known = true,
	 .bos = "<bos>",
	 .eos = "<eos>",
	 .unk = "<unk>",
	 .pad = "<pad>",
	 .mask = "<mask>",
	 .normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"▁\"}",
	 .pretokenizer = "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":\"MergedWithPrevious\"}",
	 .model = LLAMA_MODEL,
	 .names_unk = true},
	{.name = "Qwen2Tokenizer",
	 .rebuilt = true,
	 .known = true,
	 .eos = END,
	 .unk = END,
	 .pad = END,
	 .normalizer = "{\"type\":\"NFC\"}",
	 .pretokenizer = BYTES_SPLIT(QWEN2),
	 .model = BYTES_MODEL,
	 .plain_special = true,
	 .prefix = PREFIX_BYTES},
	{.name = "Qwen3_5Tokenizer",
	 .rebuilt = true,
	 .known = true,
	 .eos = END,
	 .unk = END,
	 .pad = END,
	 .normalizer = "{\"type\":\"NFC\"}",
	 .pretokenizer = BYTES_SPLIT(QWEN35),
	 .model = BYTES_MODEL,
	 .prefix = PREFIX_BYTES},
	{.name = "GPT2Tokenizer",
	 .rebuilt = true,
	 .known = true,
	 .bos = END,
	 .eos = END,
	 .unk = END,
	 .pretokenizer = BYTES_GPT2,
	 .model = BYTES_MODEL,
	 .prefix = PREFIX_BYTES},
	{.name = "GPTNeoXTokenizer",
	 .rebuilt = true,
	 .known = true,
	 .bos = END,
	 .eos = END,
	 .unk = END,
	 .pad = "<|padding|>",
	 .normalizer = "{\"type\":\"NFC\"}",
	 .pretokenizer = BYTES_GPT2,
	 .model = BYTES_MODEL,
	 .post = POST_NOTHING,
	 .prefix = PREFIX_BYTES},
#define OTHER(class)                                                                                                               \
	{                                                                                                                          \
		.name = class, .rebuilt = true                                                                                     \
	}
	OTHER("AlbertTokenizer"),
	OTHER("BarthezTokenizer"),
	OTHER("BertTokenizer"),
	OTHER("BigBirdTokenizer"),
	OTHER("BlenderbotTokenizer"),
	OTHER("CamembertTokenizer"),
	OTHER("CLIPTokenizer"),
	OTHER("CodeGenTokenizer"),
	OTHER("CohereTokenizer"),
	OTHER("DebertaTokenizer"),
	OTHER("DebertaV2Tokenizer"),
	OTHER("FunnelTokenizer"),
	OTHER("HerbertTokenizer"),
	OTHER("MBartTokenizer"),
	OTHER("MBart50Tokenizer"),
	OTHER("MPNetTokenizer"),
	OTHER("NllbTokenizer"),
	OTHER("OpenAIGPTTokenizer"),
	OTHER("PegasusTokenizer"),
	OTHER("ReformerTokenizer"),
	OTHER("RemBertTokenizer"),
	OTHER("RobertaTokenizer"),
	OTHER("SeamlessM4TTokenizer"),
	OTHER("SplinterTokenizer"),
	OTHER("T5Tokenizer"),
	OTHER("UdopTokenizer"),
	OTHER("WhisperTokenizer"),
	OTHER("XGLMTokenizer"),
	OTHER("XLMRobertaTokenizer"),
	OTHER("XLNetTokenizer"),
};

/* The classes that transformers has registered for model types (TOKENIZER_MAPPING_NAMES), of those types that may come here;
 * `sure`: the tokenizer_config.json is known to be wrong (MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS). Types that are not here,
 * as "llama", have none. */
static const struct {
	const char *model_type, *class;
	bool sure;
} registered[] = {
	{"aria", "TokenizersBackend", false},
	{"code_llama", "CodeLlamaTokenizer", false},
	{"codegen", "GPT2Tokenizer", false},
	{"cohere", "CohereTokenizer", false},
	{"cohere2", "CohereTokenizer", false},
	{"dbrx", "GPT2Tokenizer", false},
	{"ernie4_5", "TokenizersBackend", true},
	{"ernie4_5_moe", "TokenizersBackend", true},
	{"falcon_mamba", "GPTNeoXTokenizer", false},
	{"flex_olmo", "TokenizersBackend", false},
	{"gemma", "GemmaTokenizer", false},
	{"gemma2", "GemmaTokenizer", false},
	{"gemma3", "GemmaTokenizer", false},
	{"gemma3_text", "GemmaTokenizer", false},
	{"gemma3n", "GemmaTokenizer", false},
	{"gemma3n_text", "GemmaTokenizer", false},
	{"glm", "TokenizersBackend", false},
	{"glm4", "TokenizersBackend", false},
	{"glm4_moe", "TokenizersBackend", false},
	{"gpt2", "GPT2Tokenizer", false},
	{"gpt_bigcode", "TokenizersBackend", false},
	{"gpt_neo", "GPT2Tokenizer", false},
	{"gpt_neox", "GPTNeoXTokenizer", false},
	{"gptj", "GPT2Tokenizer", false},
	{"granite", "TokenizersBackend", false},
	{"granitemoe", "TokenizersBackend", false},
	{"granitemoehybrid", "TokenizersBackend", false},
	{"hyperclovax", "TokenizersBackend", true},
	{"internlm2", "TokenizersBackend", true},
	{"internlm3", "TokenizersBackend", true},
	{"jais2", "GPT2Tokenizer", false},
	{"jamba", "TokenizersBackend", true},
	{"mamba", "GPTNeoXTokenizer", false},
	{"mamba2", "GPTNeoXTokenizer", false},
	{"minicpm3", "TokenizersBackend", true},
	{"minimax_m2", "TokenizersBackend", true},
	{"ministral", "TokenizersBackend", false},
	{"ministral3", "TokenizersBackend", false},
	{"mistral", "TokenizersBackend", false},
	{"mistral3", "TokenizersBackend", false},
	{"mixtral", "TokenizersBackend", false},
	{"mpt", "GPTNeoXTokenizer", false},
	{"nemotron", "TokenizersBackend", true},
	{"olmo", "GPTNeoXTokenizer", false},
	{"olmo2", "TokenizersBackend", false},
	{"olmo3", "TokenizersBackend", false},
	{"olmoe", "GPTNeoXTokenizer", false},
	{"opt", "GPT2Tokenizer", false},
	{"persimmon", "TokenizersBackend", false},
	{"phi", "GPT2Tokenizer", false},
	{"phi3", "TokenizersBackend", true},
	{"phimoe", "TokenizersBackend", true},
	{"qwen2", "Qwen2Tokenizer", true},
	{"qwen2_moe", "Qwen2Tokenizer", false},
	{"qwen3", "Qwen2Tokenizer", false},
	{"qwen3_5", "Qwen3_5Tokenizer", true},
	{"qwen3_5_moe", "Qwen3_5Tokenizer", true},
	{"qwen3_5_moe_text", "Qwen3_5Tokenizer", true},
	{"qwen3_5_text", "Qwen3_5Tokenizer", false},
	{"qwen3_moe", "Qwen2Tokenizer", false},
	{"qwen3_next", "Qwen2Tokenizer", false},
	{"recurrent_gemma", "GemmaTokenizer", false},
	{"rwkv", "GPTNeoXTokenizer", false},
	{"smolvlm", "TokenizersBackend", true},
	{"stablelm", "TokenizersBackend", false},
	{"starcoder2", "GPT2Tokenizer", false},
	{"xlstm", "GPTNeoXTokenizer", false},
};

static bool is_name(const char *name, size_t length, const char *other)
{
	return strlen(other) == length && memcmp(name, other, length) == 0;
}

/* The class of a name, "Fast" or not; the backend for one that is not in the table. */
static const struct tokenizer_class *find_class(const char *name)
{
	size_t length = strlen(name);
	if (length > 4 && strcmp(name + length - 4, "Fast") == 0) length -= 4;
	for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
		if (is_name(name, length, classes[i].name)) return &classes[i];
	return &backend;
}

const struct tokenizer_class *tokenizer_class_choose(const char *named, const char *model_type, bool bytes,
						     const struct tokenizer_class **ret_overruled)
{
	*ret_overruled = NULL;
	const char *known = NULL;
	bool sure = false;
	for (size_t i = 0; i < sizeof registered / sizeof *registered && model_type; i++)
		if (strcmp(model_type, registered[i].model_type) == 0) {
			known = registered[i].class;
			sure = registered[i].sure;
		}
	if (!named) return known ? find_class(known) : &backend;
	const struct tokenizer_class *class = find_class(named);
	if (bytes && !sure && strcmp(class->name, "LlamaTokenizer") == 0) return &backend;
	if (!known || strcmp(find_class(known)->name, class->name) == 0) return class;
	if (!find_class(known)->rebuilt) return &backend;
	if (!sure) return class;
	/* Version 5 alone writes its backend's name, and would not read the file otherwise itself. */
	if (class->rebuilt || strcmp(named, backend.name) == 0) return find_class(known);
	*ret_overruled = find_class(known);
	return class;
}

/* The first regular expression below a node, or NULL. */
static const char *find_regex(const cJSON *node)
{
	const cJSON *child;
	cJSON_ArrayForEach(child, node)
	{
		if (cJSON_IsString(child) && child->string && strcmp(child->string, "Regex") == 0) return child->valuestring;
		const char *regex = find_regex(child);
		if (regex) return regex;
	}
	return NULL;
}

bool tokenizer_class_splits_alike(const struct tokenizer_class *class, const cJSON *tree)
{
	cJSON *mine = class->pretokenizer ? cJSON_Parse(class->pretokenizer) : NULL;
	const char *regex = find_regex(mine), *other = find_regex(cJSON_GetObjectItemCaseSensitive(tree, "pre_tokenizer"));
	bool alike = regex && other ? strcmp(regex, other) == 0 : !regex == !other;
	cJSON_Delete(mine);
	return alike;
}

/* ---- building ------------------------------------------------------------------------------------------------------------- */
static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory to load a tokenizer");
}

/* Makes `key` of the object what the JSON says, or takes it away. */
static enum status set(cJSON *object, const char *key, const char *json, struct error *err)
{
	cJSON_DeleteItemFromObjectCaseSensitive(object, key);
	if (!json) return STATUS_OK;
	cJSON *item = cJSON_Parse(json);
	if (item && cJSON_AddItemToObject(object, key, item)) return STATUS_OK;
	cJSON_Delete(item);
	return no_memory(err);
}

static enum status set_prefix(const struct tokenizer_config *config, cJSON *tree, struct error *err)
{
	const struct tokenizer_class *class = config->class;
	cJSON *part = cJSON_GetObjectItemCaseSensitive(tree, "pre_tokenizer");
	bool prefix = tokenizer_config_flag(config, "add_prefix_space", class->prefix_by_default);
	if (class->prefix == PREFIX_METASPACE || class->prefix == PREFIX_FIRST) {
		bool first = class->prefix == PREFIX_FIRST || !tokenizer_config_flag(config, "legacy", false);
		return set(part, "prepend_scheme", prefix ? (first ? "\"first\"" : "\"always\"") : "\"never\"", err);
	}
	if (class->prefix != PREFIX_BYTES || !prefix) return STATUS_OK;
	cJSON *steps = cJSON_GetObjectItemCaseSensitive(part, "pretokenizers");
	if (steps) part = steps->child->prev; /* the last */
	return set(part, "add_prefix_space", "true", err);
}

/* A vocabulary of tokens and scores becomes one of tokens and ids. */
static enum status number_vocabulary(cJSON *model, struct error *err)
{
	const cJSON *entry, *array = cJSON_GetObjectItemCaseSensitive(model, "vocab");
	if (!cJSON_IsArray(array)) return STATUS_OK;
	cJSON *numbered = cJSON_CreateObject();
	double id = 0;
	enum status status = numbered ? STATUS_OK : no_memory(err);
	cJSON_ArrayForEach(entry, array)
	{
		const cJSON *token = cJSON_IsArray(entry) ? entry->child : entry;
		cJSON *number = cJSON_IsString(token) ? cJSON_CreateNumber(id++) : NULL;
		if (!number || !cJSON_AddItemToObject(numbered, token->valuestring, number)) {
			cJSON_Delete(number);
			status = cJSON_IsString(token)
					 ? no_memory(err)
					 : error_set(err, STATUS_INVALID, "tokenizer.json: model: 'vocab' holds no token");
		}
		if (status != STATUS_OK) break;
	}
	/* Not replaced: without memory for the key cJSON makes a member of no name. */
	if (status == STATUS_OK) cJSON_DeleteItemFromObjectCaseSensitive(model, "vocab");
	if (status == STATUS_OK && cJSON_AddItemToObject(model, "vocab", numbered)) return STATUS_OK;
	cJSON_Delete(numbered);
	return status == STATUS_OK ? no_memory(err) : status;
}

static enum status rebuild_model(const struct tokenizer_config *config, cJSON *model, struct error *err)
{
	static const char *const kept[] = {"vocab", "merges"};
	TRY(number_vocabulary(model, err));
	cJSON *options = cJSON_Parse(config->class->model), *item, *next;
	if (!options) return no_memory(err);
	for (item = model->child; item; item = next) {
		next = item->next;
		if (strcmp(item->string, kept[0]) && strcmp(item->string, kept[1]))
			cJSON_Delete(cJSON_DetachItemViaPointer(model, item));
	}
	enum status status = STATUS_OK;
	while (status == STATUS_OK && options->child) {
		item = cJSON_DetachItemViaPointer(options, options->child);
		if (!cJSON_AddItemToObject(model, item->string, item)) {
			cJSON_Delete(item);
			status = no_memory(err);
		}
	}
	cJSON_Delete(options);
	TRY(status);
	TRY(set(model, "type", "\"BPE\"", err));
	if (!cJSON_GetObjectItemCaseSensitive(model, "merges")) TRY(set(model, "merges", "[]", err));
	const char *unk = config->class->names_unk ? tokenizer_config_token(config, "unk_token") : NULL;
	return unk && !cJSON_AddStringToObject(model, "unk_token", unk) ? no_memory(err) : STATUS_OK;
}

enum status tokenizer_class_rebuild(const struct tokenizer_config *config, cJSON *tree, struct error *err)
{
	const struct tokenizer_class *class = config->class;
	cJSON *model = cJSON_GetObjectItemCaseSensitive(tree, "model");
	if (!cJSON_IsObject(model)) return error_set(err, STATUS_INVALID, "tokenizer.json: model must be an object");
	TRY(rebuild_model(config, model, err));
	TRY(set(tree, "added_tokens", NULL, err));
	TRY(set(tree, "normalizer", class->normalizer, err));
	TRY(set(tree, "pre_tokenizer", class->pretokenizer, err));
	return set_prefix(config, tree, err);
}
