/* What a GGUF is told of a model, its tokens and its tensors, by the pairs that are written, and what is refused. */
#include "tests/unit/scratch.h"

#include <math.h>

#include "base/buffer.h"
#include "engine/export/architecture.h"
#include "engine/export/export.h"
#include "engine/export/vocabulary.h"

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

/* ---- pairs as text
 * -------------------------------------------------------------------------------------------------------------- */

struct reader {
	const char *at, *end;
};

static void take(struct reader *reader, void *ret, size_t bytes)
{
	assert_true(bytes <= (size_t)(reader->end - reader->at));
	memcpy(ret, reader->at, bytes);
	reader->at += bytes;
}

static void print_text(struct reader *reader, struct buffer *out)
{
	uint64_t bytes;
	take(reader, &bytes, sizeof bytes);
	assert_true(bytes <= (size_t)(reader->end - reader->at));
	buffer_append(out, reader->at, bytes);
	reader->at += bytes;
}

static void print_value(struct reader *reader, uint32_t type, struct buffer *out)
{
	uint32_t number = 0;
	float real;
	switch (type) {
	case 4: /* u32 */
	case GGUF_I32:
		take(reader, &number, sizeof number);
		buffer_printf(out, "%d", (int)number);
		return;
	case GGUF_F32:
		take(reader, &real, sizeof real);
		buffer_printf(out, "%g", (double)real);
		return;
	case 7:
		take(reader, &number, 1);
		buffer_printf(out, "%s", number ? "true" : "false");
		return;
	case GGUF_TEXT:
		print_text(reader, out);
		return;
	default:
		fail_msg("type %u", type);
	}
}

/* "key=value key=[value,value]", of keys without what is common to them; the caller frees it. */
static char *print_pairs(const struct gguf *gguf)
{
	static const char common[] = "tokenizer.";
	struct reader reader = {gguf->pairs.data, gguf->pairs.data + gguf->pairs.size};
	struct buffer out = {0};
	for (uint64_t i = 0; i < gguf->n_pairs; i++) {
		struct buffer key = {0};
		uint32_t type;
		uint64_t count;
		print_text(&reader, &key);
		buffer_append(&key, "", 1);
		bool is_common = strncmp(key.data, common, sizeof common - 1) == 0;
		buffer_printf(&out, "%s%s=", i ? " " : "", key.data + (is_common ? sizeof common - 1 : 0));
		buffer_free(&key);
		take(&reader, &type, sizeof type);
		if (type != 9) {
			print_value(&reader, type, &out);
			continue;
		}
		take(&reader, &type, sizeof type);
		take(&reader, &count, sizeof count);
		buffer_append(&out, "[", 1);
		for (uint64_t k = 0; k < count; k++) {
			if (k) buffer_append(&out, ",", 1);
			print_value(&reader, type, &out);
		}
		buffer_append(&out, "]", 1);
	}
	assert_ptr_equal(reader.at, reader.end);
	buffer_append(&out, "", 1);
	assert_false(out.failed);
	return out.data;
}

static cJSON *parse(struct scratch *s, const char *text)
{
	cJSON *json = NULL;
	if (text) SUCCEEDS(json_parse(text, strlen(text), "text", &json, &s->err));
	return json;
}

/* ---- special tokens
 * ------------------------------------------------------------------------------------------------------------- */

static struct tokenizer_files make_files(struct scratch *s, const char *json, const char *config, const char *model_config)
{
	return (struct tokenizer_files){.json = parse(s, json), .config = parse(s, config), .model_config = parse(s, model_config)};
}

static void test_special_tokens(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *json, *config, *model_config;
		enum placed bos;
		const char *pairs;
	} cases[] = {
		{NULL, NULL, NULL, PLACED_UNKNOWN, ""},
		/* ids: of tokenizer.json by the text, else what config.json says; none beyond the rows of the embeddings */
		{"{\"added_tokens\":[{\"id\":\"1\",\"content\":\"<s>\"},{\"content\":\"<s>\"},{\"id\":1,\"content\":\"<s>\"},"
		 "{\"id\":12,\"content\":\"<pad>\"}]}",
		 "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"},\"pad_token\":\"<pad>\",\"unk_token\":null}",
		 "{\"bos_token_id\":9,\"eos_token_id\":2,\"pad_token_id\":4,\"unk_token_id\":\"3\",\"sep_token_id\":10,"
		 "\"mask_token_id\":-1}",
		 PLACED_UNKNOWN, "ggml.bos_token_id=1 ggml.eos_token_id=2 ggml.padding_token_id=4"},
		{NULL, NULL, "{\"sep_token_id\":3,\"mask_token_id\":0,\"unk_token_id\":5}", PLACED_UNKNOWN,
		 "ggml.unknown_token_id=5 ggml.seperator_token_id=3 ggml.mask_token_id=0"},
		/* whether they stand around a text */
		{NULL, NULL, NULL, PLACED, "ggml.add_bos_token=true"},
		{NULL, NULL, NULL, PLACED_NOT, "ggml.add_bos_token=false"},
		{NULL, "{\"add_bos_token\":false,\"add_eos_token\":true}", NULL, PLACED,
		 "ggml.add_bos_token=false ggml.add_eos_token=true"},
		{NULL, "{\"add_bos_token\":\"yes\",\"add_eos_token\":null}", NULL, PLACED_UNKNOWN, ""},
		{"{\"post_processor\":{\"type\":\"ByteLevel\"}}", "{\"add_bos_token\":true}", NULL, PLACED_UNKNOWN,
		 "ggml.add_bos_token=false ggml.add_eos_token=false"},
		{"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
		 "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"</s>\"}}]}}",
		 "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}", NULL, PLACED_UNKNOWN,
		 "ggml.add_bos_token=true ggml.add_eos_token=true"},
		{"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"[CLS]\"}},"
		 "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"[SEP]\"}}]}}",
		 "{\"cls_token\":\"[CLS]\",\"eos_token\":\"</s>\"}", NULL, PLACED_UNKNOWN,
		 "ggml.add_bos_token=true ggml.add_eos_token=false"},
		{"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<x>\"}},"
		 "{\"Sequence\":{\"id\":\"A\"}}]}}",
		 "{\"bos_token\":\"<s>\"}", NULL, PLACED_UNKNOWN, "ggml.add_bos_token=false"},
		{"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}]}}",
		 "{\"bos_token\":\"<s>\"}", NULL, PLACED_UNKNOWN, ""},
		{"{\"post_processor\":{\"type\":\"RobertaProcessing\"}}", NULL, NULL, PLACED_UNKNOWN, ""},
		{"{\"post_processor\":{}}", NULL, NULL, PLACED_UNKNOWN, ""},
		{"{\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"TemplateProcessing\",\"single\":["
		 "{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}]},{\"type\":\"ByteLevel\"}]}}",
		 "{\"bos_token\":\"<s>\"}", NULL, PLACED_UNKNOWN, "ggml.add_bos_token=true ggml.add_eos_token=false"},
		{"{\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"TemplateProcessing\",\"single\":["
		 "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"</s>\"}}]},{\"type\":\"ByteLevel\"}]}}",
		 "{\"eos_token\":\"</s>\"}", NULL, PLACED_UNKNOWN, "ggml.add_bos_token=false ggml.add_eos_token=true"},
		/* chat templates */
		{NULL, "{\"chat_template\":\"{{ 1 }}\"}", NULL, PLACED_UNKNOWN, "chat_template={{ 1 }}"},
		{NULL, "{\"chat_template\":5}", NULL, PLACED_UNKNOWN, ""},
		{NULL, "{\"chat_template\":[{\"name\":\"default\",\"template\":\"d\"}]}", NULL, PLACED_UNKNOWN, "chat_template=d"},
		{NULL,
		 "{\"chat_template\":[{\"name\":\"\",\"template\":\"a\"},{\"template\":\"b\"},{\"name\":\"n\",\"template\":1},"
		 "{\"name\":\"tool use\",\"template\":\"t\"},{\"name\":\"default\",\"template\":\"d\"},{\"name\":\"x\","
		 "\"template\":\"y\"}]}",
		 NULL, PLACED_UNKNOWN, "chat_template.tool_use=t chat_template=d chat_template.x=y chat_templates=[tool_use,x]"},
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct tokenizer_files files = make_files(s, cases[i].json, cases[i].config, cases[i].model_config);
		struct gguf gguf = {0};
		special_tokens_add(&gguf, &files, 10, cases[i].bos);
		char *pairs = print_pairs(&gguf);
		assert_string_equal(pairs, cases[i].pairs);
		free(pairs);
		gguf_free(&gguf);
		tokenizer_files_free(&files);
	}
}

/* ---- vocabularies
 * --------------------------------------------------------------------------------------------------------------- */

/* "id:text/type" of each, by spaces. */
static void print_tokens(struct vocabulary *vocabulary, char text[1000])
{
	size_t used = 0;
	*text = 0;
	for (int64_t id = 0; id < vocabulary->size; id++) {
		const struct token *token = &vocabulary->tokens[id];
		if (token->text)
			used += (size_t)snprintf(text + used, 1000 - used, "%s%d:%s/%d", used ? " " : "", (int)id, token->text,
						 (int)token->type);
		assert_true(used < 1000);
	}
}

static void free_tokens(struct vocabulary *vocabulary)
{
	for (int64_t id = 0; id < vocabulary->size; id++)
		free(vocabulary->tokens[id].text);
	memset(vocabulary->tokens, 0, (size_t)vocabulary->size * sizeof *vocabulary->tokens);
	vocabulary->beyond = 0;
}

#define BYTES "\"pre_tokenizer\":{\"type\":\"ByteLevel\"}"
#define BPE(vocab, rest) "{" BYTES ",\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{" vocab "}}" rest "}"

static void test_vocabulary_of_json(void **state)
{
	struct scratch *s = *state;
	struct token tokens[8] = {0};
	struct vocabulary vocabulary = {tokens, COUNT_OF(tokens), 0};
	char text[1000];
	static const struct {
		const char *json, *config, *tokens;
		int beyond;
	} cases[] = {
		{BPE("\"a\":0,\"b\":1,\"far\":8", ""), NULL, "0:a/1 1:b/1", 1},
		{BPE("\"a\":0", ",\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true},{\"id\":2,\"content\":\"▁▁x\"},"
				"{\"id\":3,\"content\":\"<|y|>\"},{\"id\":4,\"content\":\"<mask>\"},{\"id\":5,\"content\":\"\"},"
				"{\"id\":6,\"content\":\"<|z\"},{\"id\":0,\"content\":\"<unused7>\"}]"),
		 NULL, "0:<unused7>/3 1:<s>/3 2:  x/4 3:<|y|>/3 4:<mask>/3 5:/4 6:<|z/4", 0},
		{BPE("\"a\":0", ""),
		 "{\"added_tokens_decoder\":{\"0\":{\"content\":\"b\"},\"1\":{\"content\":\"c\",\"special\":true},\"2\":{},\"-1\":{"
		 "\"content\":\"d\"},\"9\":{\"content\":\"e\"}}}",
		 "0:a/1 1:c/3", 1},
		{"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"},{\"pretokenizers\":[{\"type\":"
		 "\"ByteLevel\"}]}]},\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"a\":7}}}",
		 NULL, "7:a/1", 0},
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct tokenizer_files files = make_files(s, cases[i].json, cases[i].config, NULL);
		SUCCEEDS(vocabulary_from_json(&vocabulary, &files, &PLACE("m"), &s->err));
		print_tokens(&vocabulary, text);
		assert_string_equal(text, cases[i].tokens);
		assert_int_equal(vocabulary.beyond, cases[i].beyond);
		free_tokens(&vocabulary);
		tokenizer_files_free(&files);
	}
}

#define NESTED(inner) "{\"pretokenizers\":[" inner "]}"
#define NESTED_THRICE(inner) NESTED(NESTED(NESTED(inner)))

static void test_refused_vocabularies(void **state)
{
	struct scratch *s = *state;
	struct token tokens[8] = {0};
	struct vocabulary vocabulary = {tokens, COUNT_OF(tokens), 0};
	static const struct {
		const char *json, *config;
		enum status status;
		const char *part;
	} cases[] = {
		{NULL, NULL, STATUS_NOT_FOUND, "m: has neither a tokenizer.json nor a tokenizer.model"},
		{"{}", NULL, STATUS_UNSUPPORTED, "its model is not BPE"},
		{"{\"model\":{\"type\":\"Unigram\"}}", NULL, STATUS_UNSUPPORTED, "its model is not BPE"},
		{"{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", NULL, STATUS_UNSUPPORTED, "its model is not BPE"},
		{"{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", NULL, STATUS_UNSUPPORTED, "its model is not BPE"},
		{"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", NULL, STATUS_UNSUPPORTED, "one of characters"},
		{"{\"pre_tokenizer\":" NESTED_THRICE(NESTED_THRICE(NESTED_THRICE("{\"type\":\"ByteLevel\"}"))) //
		 ",\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}",
		 NULL, STATUS_UNSUPPORTED, "one of characters"},
		{BPE("\"a\":\"0\"", ""), NULL, STATUS_INVALID, "the id of 'a' is not a number"},
		{BPE("\"a\":0.5", ""), NULL, STATUS_INVALID, "the id of 'a' is not a number"},
		{BPE("\"a\":-1", ""), NULL, STATUS_INVALID, "the token 'a' has the id -1"},
		{BPE("", ",\"added_tokens\":[{\"id\":1}]"), NULL, STATUS_INVALID, "a token is not a text"},
		{BPE("", ",\"added_tokens\":[{\"content\":\"b\"}]"), NULL, STATUS_INVALID, "the id of 'b' is not a number"},
		{BPE("", ",\"added_tokens\":[{\"content\":\"b\",\"id\":-2}]"), NULL, STATUS_INVALID, "the token 'b' has the id -2"},
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct tokenizer_files files = make_files(s, cases[i].json, cases[i].config, NULL);
		FAILS(cases[i].status, cases[i].part, vocabulary_from_json(&vocabulary, &files, &PLACE("m"), &s->err));
		free_tokens(&vocabulary);
		tokenizer_files_free(&files);
	}
}

static void read_pieces(struct scratch *s, const char *directory, struct tokenizer_files *files)
{
	char path[256];
	snprintf(path, sizeof path, "tests/data/tokenizers/directories/%s/tokenizer.model", directory);
	SUCCEEDS(file_slurp(path, 1 << 20, &files->model, &files->model_bytes, &s->err));
}

static void test_vocabulary_of_pieces(void **state)
{
	struct scratch *s = *state;
	enum { SIZE = 1024 };
	struct token *tokens = calloc(SIZE, sizeof *tokens);
	struct vocabulary vocabulary = {tokens, SIZE, 0};
	struct tokenizer_files files = make_files(s, NULL,
						  "{\"added_tokens_decoder\":{\"4\":{\"content\":\"<|four|>\"},\"5\":{},\"6\":{"
						  "\"content\":\"six\",\"special\":true}}}",
						  NULL);
	assert_non_null(tokens);
	files.added = parse(s, "{\"new\":7,\"not\":\"8\"}");
	read_pieces(s, "user-defined", &files);
	SUCCEEDS(vocabulary_from_model(&vocabulary, &files, &s->err));
	assert_string_equal(tokens[0].text, "<unk>");
	assert_int_equal(tokens[0].type, TOKEN_UNKNOWN);
	assert_int_equal(tokens[1].type, TOKEN_CONTROL);
	assert_string_equal(tokens[4].text, "<|four|>");
	assert_int_equal(tokens[4].type, TOKEN_CONTROL);
	assert_int_equal(tokens[6].type, TOKEN_CONTROL);
	assert_string_equal(tokens[7].text, "new");
	assert_int_equal(tokens[7].type, TOKEN_USER_DEFINED);
	assert_true(tokens[7].score == -1000);
	free_tokens(&vocabulary);
	cJSON_Delete(files.added);
	files.added = parse(s, "{\"new\":-7}");
	FAILS(STATUS_INVALID, "the token 'new' has the id -7", vocabulary_from_model(&vocabulary, &files, &s->err));
	free_tokens(&vocabulary);
	cJSON_Delete(files.config);
	cJSON_Delete(files.added);
	files.added = NULL;
	files.config = parse(s, "{\"added_tokens_decoder\":{\"-3\":{\"content\":\"x\"}}}");
	FAILS(STATUS_INVALID, "the token 'x' has the id -3", vocabulary_from_model(&vocabulary, &files, &s->err));
	free_tokens(&vocabulary);
	free(files.model);
	read_pieces(s, "unigram-model", &files);
	FAILS(STATUS_UNSUPPORTED, "tokenizer.model: a unigram model", vocabulary_from_model(&vocabulary, &files, &s->err));
	files.model_bytes = 5;
	FAILS(STATUS_INVALID, "tokenizer.model: not a SentencePiece model", vocabulary_from_model(&vocabulary, &files, &s->err));
	free_tokens(&vocabulary);
	tokenizer_files_free(&files);
	free(tokens);
}

/* ---- the files around a model
 * --------------------------------------------------------------------------------------------------- */

static void test_files(void **state)
{
	struct scratch *s = *state;
	static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:"
				      "0000000000000000000000000000000000000000000000000000000000000000\nsize 499723\n";
	static const struct {
		const char *name, *text, *part;
	} cases[] = {
		{"tokenizer.json", "[]", "tokenizer.json: not a JSON object"},
		{"tokenizer_config.json", "{", "tokenizer_config.json"},
		{"added_tokens.json", "5", "added_tokens.json: not a JSON object"},
		{"config.json", pointer, "config.json: a git-lfs pointer"},
		{"tokenizer.model", pointer, "tokenizer.model: a git-lfs pointer"},
		{"chat_template.jinja", "\xff", "chat_template.jinja: not text in UTF-8"},
	};
	struct tokenizer_files files;
	SUCCEEDS(tokenizer_files_read(&PLACE(s->directory), &files, &s->err)); /* none is there */
	assert_null(files.json);
	assert_null(files.template);
	tokenizer_files_free(&files);
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		scratch_text(s, cases[i].name, cases[i].text);
		FAILS(STATUS_INVALID, cases[i].part, tokenizer_files_read(&PLACE(s->directory), &files, &s->err));
		tokenizer_files_free(&files);
		assert_int_equal(remove(scratch_path(s, cases[i].name)), 0);
	}
	scratch_write(s, "chat_template.jinja", "a\0b", 3);
	FAILS(STATUS_INVALID, "not text in UTF-8", tokenizer_files_read(&PLACE(s->directory), &files, &s->err));
	tokenizer_files_free(&files);
}

/* Merges as texts, as pairs, and with a space in a part. */
static void test_byte_level(void **state)
{
	struct scratch *s = *state;
	static const char json[] =
		"{" BYTES ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\" \":3,\"a \":4},\"merges\":["
		"\"a b\",[\"a\",\" \"]]},\"added_tokens\":[{\"id\":9,\"content\":\"<s>\",\"special\":true}]}";
	struct tokenizer_files files;
	struct warnings warnings = {0};
	struct gguf gguf = {0};
	scratch_text(s, "tokenizer.json", json);
	SUCCEEDS(tokenizer_files_read(&PLACE(s->directory), &files, &s->err));
	SUCCEEDS(vocabulary_add(&gguf, &PLACE(s->directory), &files, 6, &warnings, &s->err));
	char *pairs = print_pairs(&gguf);
	assert_string_equal(pairs,
			    "ggml.model=gpt2 ggml.pre=default ggml.tokens=[a,b,ab, ,a ,[PAD5]] ggml.token_type=[1,1,1,1,1,5] "
			    "ggml.merges=[a b,a \xc4\xa0] ggml.add_bos_token=false");
	free(pairs);
	gguf_free(&gguf);
	assert_int_equal(warnings.count, 2);
	assert_non_null(strstr(warnings.messages[0], "none that its converter knows"));
	assert_non_null(strstr(warnings.messages[1], "1 tokens have ids beyond the 6 rows"));
	warnings_free(&warnings);
	static const char *const wrong[] = {"[5]", "[[\"a\"]]", "[[\"a\",5]]", "[[\"a\",\"b\",\"c\"]]"};
	for (size_t i = 0; i < COUNT_OF(wrong); i++) {
		cJSON *model = cJSON_GetObjectItem(files.json, "model");
		cJSON_ReplaceItemInObject(model, "merges", parse(s, wrong[i]));
		FAILS(STATUS_INVALID, "a merge is neither a text nor two",
		      vocabulary_add(&gguf, &PLACE(s->directory), &files, 6, NULL, &s->err));
		gguf_free(&gguf);
	}
	tokenizer_files_free(&files);
}

/* ---- architectures
 * -------------------------------------------------------------------------------------------------------------- */

static struct model_config read_config(struct scratch *s, const char *family)
{
	char path[128];
	struct model_config config;
	snprintf(path, sizeof path, "tests/data/saved/%s", family);
	SUCCEEDS(model_config_read(&PLACE(path), NULL, &config, &s->err));
	return config;
}

static void gelu(struct model_config *c)
{
	c->activation.kind = ACTIVATION_GELU;
}
static void biases(struct model_config *c)
{
	c->o_bias = true;
}
static void mlp_biases(struct model_config *c)
{
	c->mlp_bias = true;
}
static void scale(struct model_config *c)
{
	c->attention_scale *= 2;
}
static void softcap(struct model_config *c)
{
	c->attention_softcap = 5;
}
static void logit_softcap(struct model_config *c)
{
	c->logit_softcap = 5;
}
static void still(struct model_config *c)
{
	c->still_layers[0] = 2;
}
static void full(struct model_config *c)
{
	memset(c->full_layers, 0xff, sizeof c->full_layers);
}
static void untied(struct model_config *c)
{
	memset(c->full_layers, 0xaa, sizeof c->full_layers);
	c->attention_scale = (float)(1 / sqrt((double)c->head_dim));
	c->tied_embeddings = false;
}
static void longrope(struct model_config *c)
{
	c->rope.kind = ROPE_LONG;
}
static void linear(struct model_config *c)
{
	c->rope.kind = ROPE_LINEAR;
}
static void untruncated(struct model_config *c)
{
	c->rope.kind = ROPE_YARN;
	c->rope.truncate = false;
}
static void own_yarn(struct model_config *c)
{
	c->rope.kind = ROPE_YARN;
	c->rope.truncate = true;
	c->rope.factor = 4;
	c->rope.attention = 3;
}
static void partial(struct model_config *c)
{
	c->rope.rotary /= 2;
}
static void multimodal(struct model_config *c)
{
	c->multimodal = true;
}

static void test_objections(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *family;
		void (*change)(struct model_config *);
		const char *part;
	} cases[] = {
		{"llama", gelu, "another activation ('hidden_act')"},
		{"qwen3", biases, "biases ('attention_bias', 'mlp_bias')"},
		{"mistral", mlp_biases, "biases ('attention_bias', 'mlp_bias')"},
		{"llama", scale, "another scale of attention"},
		{"llama", softcap, "'attn_logit_softcapping'"},
		{"gemma3_text", softcap, "another scale of attention"},
		{"qwen2", logit_softcap, "'final_logit_softcapping'"},
		{"llama", still, "layers without rotary embeddings"},
		{"gemma2", full, "another scale of attention"},
		{"gemma2", untied, "a head of its own ('tie_word_embeddings')"},
		{"llama", longrope, "the rope 'longrope'"},
		{"phi3", linear, "a rope other than 'longrope'"},
		{"llama", untruncated, "a yarn of its own"},
		{"llama", own_yarn, "a yarn of its own"},
		{"qwen2", partial, "heads that turn in part"},
		{"gemma3_text", multimodal, "'gemma3_text', inside one of texts and images, cannot be written"},
		{"opt", NULL, "the family 'opt' cannot be written as a GGUF; those that can are llama, mistral, qwen2"},
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct model_config config = read_config(s, cases[i].family);
		const struct architecture *row;
		if (cases[i].change) cases[i].change(&config);
		FAILS(STATUS_UNSUPPORTED, cases[i].part, architecture_find(&config, NULL, &row, &s->err));
	}
}

/* The maths that llama.cpp is told of, and warned of where it has none. */
static void test_told_ropes(void **state)
{
	struct scratch *s = *state;
	static const struct {
		enum rope_kind kind;
		const char *told, *warned;
	} cases[] = {
		{ROPE_DEFAULT, "attention.head_count_kv=2 llama.rope.freq_base=500000 ", NULL},
		{ROPE_LINEAR, "llama.rope.scaling.type=linear llama.rope.scaling.factor=4 llama.rope.freq_base", NULL},
		{ROPE_YARN,
		 "llama.rope.scaling.type=yarn llama.rope.scaling.factor=4 llama.rope.scaling.original_context_length=64 "
		 "llama.rope.scaling.yarn_beta_fast=32 llama.rope.scaling.yarn_beta_slow=1 ",
		 NULL},
		{ROPE_DYNAMIC, "attention.head_count_kv=2 llama.rope.freq_base=500000 ", "llama.cpp has no 'dynamic' rope"},
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct model_config config = read_config(s, "llama");
		struct warnings warnings = {0};
		const struct architecture *row;
		struct gguf gguf = {0};
		config.rope.kind = cases[i].kind;
		config.rope.factor = 4;
		config.rope.truncate = true;
		config.rope.attention = 0.1 * log(4) + 1;
		config.rope.original_max_positions = 64;
		config.rope.beta_fast = 32;
		config.rope.beta_slow = 1;
		SUCCEEDS(architecture_find(&config, &warnings, &row, &s->err));
		architecture_add(&gguf, row, &config);
		char *pairs = print_pairs(&gguf);
		if (!strstr(pairs, cases[i].told)) fail_msg("%s lacks %s", pairs, cases[i].told);
		assert_int_equal(warnings.count, cases[i].warned != NULL);
		if (cases[i].warned) assert_non_null(strstr(warnings.messages[0], cases[i].warned));
		free(pairs);
		gguf_free(&gguf);
		warnings_free(&warnings);
	}
	struct model_config config = read_config(s, "phi3");
	struct warnings warnings = {0};
	const struct architecture *row;
	struct gguf gguf = {0};
	config.rope.kind = ROPE_LONG;
	config.rope.attention = 1.5;
	config.rope.original_max_positions = 64;
	SUCCEEDS(architecture_find(&config, &warnings, &row, &s->err));
	architecture_add(&gguf, row, &config);
	char *pairs = print_pairs(&gguf);
	assert_non_null(strstr(pairs, "phi3.rope.scaling.original_context_length=64 phi3.rope.scaling.attn_factor=1.5 "));
	assert_int_equal(warnings.count, 1); /* of a window of 40 */
	assert_non_null(strstr(warnings.messages[0], "'phi3' has no sliding window: beyond 40 tokens"));
	free(pairs);
	gguf_free(&gguf);
	warnings_free(&warnings);
}

/* ---- tensors
 * -------------------------------------------------------------------------------------------------------------------- */

static void copy(struct scratch *s, const char *from, const char *name)
{
	char *bytes;
	size_t size;
	SUCCEEDS(file_slurp(from, 1 << 20, &bytes, &size, &s->err));
	scratch_write(s, name, bytes, size);
	free(bytes);
}

static void make_model(struct scratch *s, const char *family)
{
	char from[128];
	snprintf(from, sizeof from, "tests/data/saved/%s/config.json", family);
	copy(s, from, "config.json");
	snprintf(from, sizeof from, "tests/data/saved/%s/model.safetensors", family);
	copy(s, from, "model.safetensors");
	copy(s, "tests/data/saved/tokenizer.json", "tokenizer.json");
	copy(s, "tests/data/saved/tokenizer_config.json", "tokenizer_config.json");
}

static enum status list_parts(struct scratch *s, const char *family)
{
	struct model model;
	struct parts parts;
	struct architecture row = {.family = family, .name = family, .fused = strcmp(family, "phi3") == 0};
	TRY(model_open(&PLACE(s->directory), NULL, &model, &s->err));
	enum status status = parts_list(&row, &model, &parts, &s->err);
	if (status == STATUS_OK) parts_free(&parts);
	model_close(&model);
	return status;
}

/* Each tensor in turn is called otherwise in the file: it is named as missing. */
static void lack_each(struct scratch *s, const char *family)
{
	struct model model;
	make_model(s, family);
	SUCCEEDS(model_open(&PLACE(s->directory), NULL, &model, &s->err));
	size_t count = model.checkpoint.n_tensors;
	char(*names)[128] = calloc(count, sizeof *names), *bytes;
	size_t size;
	assert_non_null(names);
	for (size_t i = 0; i < count; i++)
		snprintf(names[i], sizeof names[i], "%s", model.checkpoint.tensors[i].name);
	model_close(&model);
	SUCCEEDS(list_parts(s, family));
	SUCCEEDS(file_slurp(scratch_path(s, "model.safetensors"), 1 << 20, &bytes, &size, &s->err));
	for (size_t i = 0; i < count; i++) {
		char key[140], part[160];
		snprintf(key, sizeof key, "\"%s\"", names[i]);
		snprintf(part, sizeof part, "'%s'", names[i]);
		char *at = memmem(bytes, size, key, strlen(key));
		assert_non_null(at);
		at[1] ^= 1;
		scratch_write(s, "model.safetensors", bytes, size);
		FAILS(STATUS_INVALID, part, list_parts(s, family));
		at[1] ^= 1;
	}
	free(names);
	free(bytes);
}

static void test_missing_tensors(void **state)
{
	struct scratch *s = *state;
	static const char *const families[] = {"llama", "qwen2", "qwen3", "phi3", "gemma2"};
	for (size_t i = 0; i < COUNT_OF(families); i++)
		lack_each(s, families[i]);
}

static enum status export(struct scratch *s, enum export_type type, const atomic_bool *stop, struct warnings *warnings) {
	struct model model; struct export * export; TRY(model_open(&PLACE(s->directory), NULL, &model, &s->err));
	enum status status = export_open(&model, &PLACE(s->directory), "m", type, warnings, &export, &s->err);
	if (status == STATUS_OK){status = export_write(export, &PLACE(s->directory), "m.gguf", stop, NULL, &s->err);
				 export_free(export);}
model_close(&model);
return status;
}

static bool is_there(struct scratch *s, const char *name)
{
	FILE *file = fopen(scratch_path(s, name), "rb");
	if (file) fclose(file);
	return file;
}

/* A file is whole or not there. */
static void test_broken_off(void **state)
{
	struct scratch *s = *state;
	static const atomic_bool stop = true;
	struct warnings warnings = {0};
	char *bytes;
	size_t size;
	make_model(s, "gemma2");
	FAILS(STATUS_UNSUPPORTED, "llama.cpp's 'gemma2' has no counterpart", export(s, EXPORT_F16, NULL, NULL));
	make_model(s, "llama");
	FAILS(STATUS_CANCELLED, "stopped while a GGUF was written", export(s, EXPORT_Q8_0, &stop, NULL));
	assert_false(is_there(s, "m.gguf"));
	assert_false(is_there(s, ".m.gguf.part"));
	SUCCEEDS(export(s, EXPORT_Q4_0, NULL, &warnings));
	assert_true(is_there(s, "m.gguf"));
	assert_non_null(strstr(warnings.messages[warnings.count - 1], "matrices of the GGUF are F16, not q4_0: their rows"));
	warnings_free(&warnings);
	assert_int_equal(remove(scratch_path(s, "m.gguf")), 0);
	SUCCEEDS(file_slurp(scratch_path(s, "model.safetensors"), 1 << 20, &bytes, &size, &s->err));
	memset(bytes + size - 64, 0xff, 64); /* not numbers */
	scratch_write(s, "model.safetensors", bytes, size);
	free(bytes);
	FAILS(STATUS_NUMERIC, "has weights that are not finite", export(s, EXPORT_F16, NULL, NULL));
	assert_false(is_there(s, "m.gguf"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_special_tokens),
		SCRATCH_TEST(test_vocabulary_of_json),
		SCRATCH_TEST(test_refused_vocabularies),
		SCRATCH_TEST(test_vocabulary_of_pieces),
		SCRATCH_TEST(test_files),
		SCRATCH_TEST(test_byte_level),
		SCRATCH_TEST(test_objections),
		SCRATCH_TEST(test_told_ropes),
		SCRATCH_TEST(test_missing_tensors),
		SCRATCH_TEST(test_broken_off),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
