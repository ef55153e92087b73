/* tokenizer.json: the ids that the tokenizers package gives (tests/data/tokenizers, see make.py there), and files that are
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "engine/text/regex.h"
#include "engine/text/tokenizer_json.h"
#include "engine/text/unicode.h"

#define DATA "tests/data/tokenizers/"

struct content {
	char *data;
	size_t size;
};

static struct content slurp(const char *name)
{
	char path[256];
	struct content content;
	struct error err;
	snprintf(path, sizeof path, DATA "%s", name);
	if (file_slurp(path, 1 << 24, &content.data, &content.size, &err) != STATUS_OK) fail_msg("%s", err.message);
	return content;
}

/* The record at *at, which is moved behind it: a length and as many bytes. */
static const char *next_record(const struct content *content, size_t *at, uint32_t *bytes)
{
	assert_true(*at + 4 <= content->size);
	memcpy(bytes, content->data + *at, 4);
	const char *record = content->data + *at + 4;
	*at += 4 + *bytes;
	assert_true(*at <= content->size);
	return record;
}

static enum status load(const char *json, size_t bytes, const char *path, struct tokenizer_json **ret, struct error *err)
{
	cJSON *tree;
	TRY(json_parse(json, bytes, path, &tree, err));
	enum status status = tokenizer_json_load(tree, NULL, false, path, ret, err);
	cJSON_Delete(tree);
	return status;
}

static struct tokenizer_json *load_text(const char *json)
{
	struct tokenizer_json *tokenizer;
	struct error err;
	if (load(json, strlen(json), "tokenizer.json", &tokenizer, &err) != STATUS_OK) fail_msg("%s\n%s", err.message, json);
	return tokenizer;
}

static struct tokenizer_json *load_file(const char *family)
{
	char name[64];
	snprintf(name, sizeof name, "%s.json", family);
	struct content json = slurp(name);
	struct tokenizer_json *tokenizer = load_text(json.data);
	free(json.data);
	return tokenizer;
}

static void assert_same(const char *family, int text, const int32_t *ids, size_t count, const unsigned char *want,
			size_t want_count)
{
	for (size_t i = 0; i < count && i < want_count; i++) {
		int id = want[2 * i] | want[2 * i + 1] << 8;
		if (ids[i] != id) fail_msg("%s, text %d, id %zu: %d instead of %d", family, text, i, ids[i], id);
	}
	if (count != want_count) fail_msg("%s, text %d: %zu ids instead of %zu", family, text, count, want_count);
}

static void check_family(const struct tokenizer_json *tokenizer, const char *family)
{
	char name[64];
	snprintf(name, sizeof name, "%s.ids", family);
	struct content texts = slurp("texts.bin"), golden = slurp(name);
	struct error err;
	size_t at = 0, golden_at = 0;
	int texts_seen = 0;
	for (; at < texts.size; texts_seen++) {
		uint32_t bytes, want_bytes;
		const char *text = next_record(&texts, &at, &bytes);
		const char *want = next_record(&golden, &golden_at, &want_bytes);
		int32_t *ids;
		size_t count;
		if (tokenizer_json_encode(tokenizer, text, bytes, &ids, &count, &err) != STATUS_OK)
			fail_msg("%s: %s", family, err.message);
		assert_same(family, texts_seen, ids, count, (const unsigned char *)want, want_bytes / 2);
		free(ids);
	}
	assert_true(texts_seen > 100);
	assert_int_equal(golden_at, golden.size);
	free(texts.data);
	free(golden.data);
}

/* The token in front of a text, as make.py set it. */
static const struct {
	const char *name;
	int bos;
} families[] = {
	{"gpt2", -1},          {"llama3", 600},   {"qwen2.5", -1},     {"qwen3", -1},       {"llama2", 1},
	{"mistral", 1},        {"nemo", 1},       {"gemma2", 2},       {"gemma3", 2},       {"phi3", 1},
	{"phi4", -1},          {"deepseek", 600}, {"starcoder", -1},   {"odd-bytes", 1},    {"odd-spaces", 1},
	{"deepseek-llm", 600}, {"kimi", -1},      {"clip", 0},         {"openai-gpt", -1},  {"prefixed", -1},
	{"bert-uncased", 2},   {"bert-cased", 2}, {"wordlevel", -1},   {"t5", -1},          {"xlm-r", 0},
	{"unigram-bytes", 1},  {"albert", 2},     {"bytes-first", -1}, {"bytes-twice", -1}, {"bytes-normalized", -1},
	{"bytes-pieces", -1},  {"odd-regex", -1}, {"odd-scripts", -1}, {"odd-words", -1},
};

static void test_families(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
		struct tokenizer_json *tokenizer = load_file(families[i].name);
		check_family(tokenizer, families[i].name);
		assert_int_equal(tokenizer_json_bos(tokenizer), families[i].bos);
		tokenizer_json_free(tokenizer);
	}
}

static void *encode_golden(void *tokenizer)
{
	check_family(tokenizer, "gemma2");
	return NULL;
}

static void test_threads_share_a_tokenizer(void **state)
{
	(void)state;
	struct tokenizer_json *tokenizer = load_file("gemma2");
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, encode_golden, tokenizer), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	tokenizer_json_free(tokenizer);
}

/* A piece of any length: where no merge crosses, 50000 times the text gives 50000 times its ids. In "abcd", "b c" comes first;
 * then "bc d", although "a b" was waiting before it and "a bc" now stands in that place. */
static void test_long_pieces(void **state)
{
	(void)state;
	struct tokenizer_json *tokenizer =
		load_text("{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"d\":3,\"e\":4,\"ab\":5,\"bc\":6,\"bcd\":7,\"abc\":8},"
			  "\"merges\":[\"b c\",\"a b\",\"bc d\",\"a bc\"]}}");
	enum { REPEATS = 50000, BYTES = 10, IDS = 5 };
	static const int32_t want[IDS] = {0, 7, 4, 5, 8};
	char *text = malloc(BYTES * REPEATS);
	for (int i = 0; i < REPEATS; i++)
		memcpy(text + BYTES * i, "abcdeababc", BYTES);
	int32_t *ids;
	size_t count;
	struct error err;
	assert_int_equal(tokenizer_json_encode(tokenizer, text, BYTES * REPEATS, &ids, &count, &err), STATUS_OK);
	assert_int_equal(count, IDS * REPEATS);
	for (int i = 0; i < REPEATS; i++)
		assert_memory_equal(ids + IDS * i, want, sizeof want);
	free(ids);
	free(text);
	tokenizer_json_free(tokenizer);
}

/* Short words and long ones are merged by different means. Words joined by a character that merges with nothing give their own
 * ids. */
static void test_long_and_short_agree(void **state)
{
	(void)state;
	enum { WORDS = 200, BAR = 4 }; /* U+10FFFF is four bytes' tokens */
	struct tokenizer_json *tokenizer = load_file("gemma3");
	struct error err;
	char joined[WORDS * 50];
	int32_t *ids, *joined_ids, expected[WORDS * 50];
	size_t bytes = 0, count, expected_count = 0;
	unsigned random = 1;
	for (int i = 0; i < WORDS; i++) {
		size_t length = 1 + (size_t)i % 40;
		for (size_t k = 0; k < length; k++) {
			random = random * 1103515245 + 12345;
			joined[bytes + k] = "theinrasolthed"[(random >> 16) % 14];
		}
		assert_int_equal(tokenizer_json_encode(tokenizer, joined + bytes, length, &ids, &count, &err), STATUS_OK);
		memcpy(expected + expected_count, ids, count * sizeof *ids);
		expected_count += count + BAR;
		free(ids);
		memcpy(joined + bytes + length, "\xf4\x8f\xbf\xbf", BAR);
		bytes += length + BAR;
	}
	assert_int_equal(tokenizer_json_encode(tokenizer, joined, bytes, &joined_ids, &count, &err), STATUS_OK);
	assert_int_equal(count, expected_count);
	for (size_t i = 0; i < count; i++) /* the bars' ids are those of the last */
		if (joined_ids[i] != joined_ids[count - BAR] && joined_ids[i] != joined_ids[count - 3] &&
		    joined_ids[i] != joined_ids[count - 1])
			assert_int_equal(joined_ids[i], expected[i]);
	free(joined_ids);
	tokenizer_json_free(tokenizer);
}

static void test_invalid_utf8(void **state)
{
	(void)state;
	static const struct {
		const char *text, *repaired;
	} cases[] = {
		{"plain", "plain"},
		{"a\xff\xfe", "a\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xe2\x96", "\xef\xbf\xbd"},                             /* cut off: one sequence */
		{"\xe2\x96z", "\xef\xbf\xbdz"},                           /* broken off: one sequence */
		{"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                 /* never well-formed: each byte */
		{"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a surrogate */
		{"\xf0\x9f\x98\xf0\x9f\x98\x80", "\xef\xbf\xbd\xf0\x9f\x98\x80"},
		{"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* beyond U+10FFFF */
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *repaired;
		size_t bytes;
		struct error err;
		assert_int_equal(utf8_repair(cases[i].text, strlen(cases[i].text), &repaired, &bytes, &err), STATUS_OK);
		assert_int_equal(bytes, strlen(cases[i].repaired));
		assert_memory_equal(repaired, cases[i].repaired, bytes);
		free(repaired);
	}
}

/* A whole file around one part of it. */
#define MODEL "\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[[\"a\",\"b\"]]}"
#define PART(part) "{" part "," MODEL "}"
#define SPLIT(regex) PART("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\"}")

static void test_refusals(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		enum status status;
		const char *message; /* is in the error's, behind "tokenizer.json" */
	} cases[] = {
		{"", STATUS_INVALID, ""},
		{"[]", STATUS_INVALID, "not a JSON object"},
		{"{}", STATUS_INVALID, "model must be an object"},
		{PART("\"version\":\"2.0\""), STATUS_UNSUPPORTED, "version '2.0'"},
		{"{\"model\":{\"type\":\"Trigram\",\"vocab\":[]}}", STATUS_UNSUPPORTED, "model: the type 'Trigram'"},
		{"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", STATUS_INVALID,
		 "vocab[0] must be a token and its score"},
		{"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]],\"unk_id\":1}}", STATUS_INVALID,
		 "unk_id 1, but the vocabulary has 1 tokens"},
		{"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", STATUS_INVALID, "'unk_token' is missing"},
		{"{\"model\":{\"type\":\"WordLevel\",\"vocab\":[]}}", STATUS_INVALID, "'vocab' must be an object"},
		{"{\"model\":{\"vocab\":{},\"merges\":[],\"dropout\":0.1}}", STATUS_UNSUPPORTED, "model: dropout 0.1"},
		{"{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"],\"continuing_subword_prefix\":\"##\"}}",
		 STATUS_INVALID, "merges[0] lacks the prefix"},
		{"{\"model\":{\"vocab\":{},\"merges\":[],\"hop\":1}}", STATUS_UNSUPPORTED, "model: the field 'hop'"},
		{"{\"model\":{\"vocab\":{}}}", STATUS_INVALID, "'merges' must be an array"},
		{"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", STATUS_INVALID, "the id of 'a'"},
		{"{\"model\":{\"vocab\":{\"a\":2147483647},\"merges\":[]}}", STATUS_INVALID, "the id of 'a'"},
		{"{\"model\":{\"vocab\":{\"a\":0.5},\"merges\":[]}}", STATUS_INVALID, "the id of 'a'"},
		{"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", STATUS_INVALID, "merges[0] names a token"},
		{"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}", STATUS_INVALID, "merges[0] must be two tokens"},
		{"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", STATUS_INVALID, "merges[0] must be two tokens"},
		{PART("\"normalizer\":{\"type\":\"Nfx\"}"), STATUS_UNSUPPORTED, "normalizer: the type 'Nfx'"},
		{PART("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Upper\"}]}"),
		 STATUS_UNSUPPORTED, "normalizer.normalizers[1]: the type 'Upper'"},
		{PART("\"normalizer\":{\"type\":\"NFC\",\"extra\":1}"), STATUS_UNSUPPORTED, "normalizer: the field 'extra'"},
		{PART("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"*\"}"), STATUS_INVALID, "not base64"},
		{PART("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}"), STATUS_INVALID, "no trie"},
		{PART("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"x\"}"), STATUS_UNSUPPORTED,
		 "an empty 'pattern'"},
		{PART("\"normalizer\":{\"type\":\"Prepend\"}"), STATUS_INVALID, "'prepend' is missing"},
		{PART("\"pre_tokenizer\":{\"type\":\"Spaces\"}"), STATUS_UNSUPPORTED, "pre_tokenizer: the type 'Spaces'"},
		{PART("\"pre_tokenizer\":{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"ab\"}"), STATUS_INVALID, "one character"},
		{PART("\"pre_tokenizer\":{\"type\":\"FixedLength\",\"length\":0}"), STATUS_INVALID, "'length'"},
		{PART("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}"), STATUS_INVALID, "one character"},
		{PART("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}"),
		 STATUS_UNSUPPORTED, "prepend_scheme 'last'"},
		{PART("\"pre_tokenizer\":{\"type\":\"Punctuation\",\"behavior\":\"Dropped\"}"), STATUS_UNSUPPORTED,
		 "behavior 'Dropped'"},
		{SPLIT("a["), STATUS_UNSUPPORTED, "a class without an end"},
		{SPLIT("(a"), STATUS_UNSUPPORTED, "pre_tokenizer: missing closing parenthesis"},
		{SPLIT("a)"), STATUS_UNSUPPORTED, "a ) without a ("},
		{SPLIT("(?~a)"), STATUS_UNSUPPORTED, "this kind of group"},
		{SPLIT("a(?i)b"), STATUS_UNSUPPORTED, "an option that is not at the start"},
		{SPLIT("(*ACCEPT)"), STATUS_UNSUPPORTED, "(*"},
		{SPLIT("a{999999}"), STATUS_UNSUPPORTED, "so large a repetition"},
		{SPLIT("[a[^b]c]"), STATUS_UNSUPPORTED, "this kind of class in a class"},
		{SPLIT("\\\\G"), STATUS_UNSUPPORTED, "the escape \\G"},
		{SPLIT("\\\\p{Nonsense}"), STATUS_UNSUPPORTED, "unknown property"},
		{PART("\"normalizer\":{\"type\":\"Strip\",\"x\":1}"), STATUS_UNSUPPORTED, "the field 'x'"},
		{PART("\"normalizer\":{\"type\":\"Strip\",\"strip_left\":5}"), STATUS_INVALID, "'strip_left'"},
		{PART("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"}}"), STATUS_INVALID,
		 "'content' is missing"},
		{PART("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"b\",\"x\":1}"),
		 STATUS_UNSUPPORTED, "the field 'x'"},
		{PART("\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"a\",\"x\":1}"), STATUS_UNSUPPORTED, "the field 'x'"},
		{PART("\"normalizer\":{\"type\":\"BertNormalizer\",\"x\":1}"), STATUS_UNSUPPORTED, "the field 'x'"},
		{PART("\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":5}"), STATUS_INVALID, "'clean_text'"},
		{PART("\"normalizer\":{\"type\":\"BertNormalizer\",\"handle_chinese_chars\":5}"), STATUS_INVALID,
		 "'handle_chinese_chars'"},
		{PART("\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":5}"), STATUS_INVALID, "'lowercase'"},
		{PART("\"normalizer\":{\"type\":\"BertNormalizer\",\"strip_accents\":5}"), STATUS_INVALID, "'strip_accents'"},
		{PART("\"normalizer\":{\"type\":\"Precompiled\",\"x\":1}"), STATUS_UNSUPPORTED, "the field 'x'"},
		{PART("\"normalizer\":{\"type\":\"Precompiled\"}"), STATUS_INVALID, "'precompiled_charsmap' is missing"},
		{PART("\"normalizer\":{\"type\":\"Sequence\"}"), STATUS_INVALID, "'normalizers'"},
		{PART("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[],\"x\":1}"), STATUS_UNSUPPORTED, "the field 'x'"},
		{PART("\"normalizer\":{\"x\":1}"), STATUS_INVALID, "normalizer"},
		{PART("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":5}"), STATUS_INVALID,
		 "'behavior'"},
		{PART("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"invert\":5}"), STATUS_INVALID,
		 "'invert'"},
		{PART("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":5}"), STATUS_INVALID, "'pattern'"},
		{PART("\"pre_tokenizer\":{\"type\":\"Split\",\"x\":1}"), STATUS_UNSUPPORTED, "the field 'x'"},
		{PART("\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"x\":1}"), STATUS_UNSUPPORTED, "the field 'x'"},
		{PART("\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":5}"), STATUS_INVALID, "'add_prefix_space'"},
		{PART("\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"use_regex\":5}"), STATUS_INVALID, "'use_regex'"},
		{PART("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"x\":1}"), STATUS_UNSUPPORTED, "the field 'x'"},
		{PART("\"pre_tokenizer\":{\"type\":\"Metaspace\"}"), STATUS_INVALID, "'replacement' is missing"},
		{PART("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\"}"), STATUS_INVALID, "one character"},
		{PART("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":5}"), STATUS_INVALID,
		 "'add_prefix_space'"},
		{PART("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":5}"), STATUS_INVALID,
		 "'prepend_scheme'"},
		{PART("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"split\":5}"), STATUS_INVALID, "'split'"},
		{PART("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false,\"prepend_"
		      "scheme\":\"always\"}"),
		 STATUS_INVALID, "add_prefix_space"},
		{PART("\"pre_tokenizer\":{\"type\":\"Digits\",\"x\":1}"), STATUS_UNSUPPORTED, "the field 'x'"},
		{PART("\"pre_tokenizer\":{\"type\":\"Digits\",\"individual_digits\":5}"), STATUS_INVALID, "'individual_digits'"},
		{PART("\"pre_tokenizer\":{\"type\":\"Punctuation\",\"x\":1}"), STATUS_UNSUPPORTED, "the field 'x'"},
		{PART("\"pre_tokenizer\":{\"type\":\"CharDelimiterSplit\",\"x\":1}"), STATUS_UNSUPPORTED, "the field 'x'"},
		{PART("\"pre_tokenizer\":{\"type\":\"CharDelimiterSplit\"}"), STATUS_INVALID, "'delimiter' is missing"},
		{PART("\"pre_tokenizer\":{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"\"}"), STATUS_INVALID, "one character"},
		{PART("\"pre_tokenizer\":{\"type\":\"FixedLength\",\"x\":1}"), STATUS_UNSUPPORTED, "the field 'x'"},
		{PART("\"pre_tokenizer\":{\"type\":\"Sequence\",\"x\":1}"), STATUS_UNSUPPORTED, "the field 'x'"},
		{PART("\"pre_tokenizer\":{\"type\":\"Sequence\"}"), STATUS_INVALID, "'pretokenizers'"},
		{PART("\"pre_tokenizer\":{\"x\":1}"), STATUS_INVALID, "pre_tokenizer"},
		{"{\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}", STATUS_INVALID, "merges[0] names a token"},
		{"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]}}", STATUS_INVALID, "merges[0] must be two tokens"},
		{"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",5]]}}", STATUS_INVALID, "merges[0] must be two tokens"},
		{"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\",\"a\"]]}}", STATUS_INVALID,
		 "merges[0] must be two tokens"},
		{"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[5]}}", STATUS_INVALID, "merges[0] must be two tokens"},
		{"{\"model\":{\"vocab\":{},\"merges\":[],\"dropout\":\"x\"}}", STATUS_INVALID, "'dropout'"},
		{"{\"model\":{\"vocab\":{},\"merges\":[],\"byte_fallback\":5}}", STATUS_INVALID, "'byte_fallback'"},
		{"{\"model\":{\"vocab\":{},\"merges\":[],\"fuse_unk\":5}}", STATUS_INVALID, "'fuse_unk'"},
		{"{\"model\":{\"vocab\":{},\"merges\":[],\"ignore_merges\":5}}", STATUS_INVALID, "'ignore_merges'"},
		{"{\"model\":{\"vocab\":{},\"merges\":[],\"unk_token\":5}}", STATUS_INVALID, "'unk_token'"},
		{"{\"model\":{\"vocab\":{},\"merges\":[],\"continuing_subword_prefix\":5}}", STATUS_INVALID,
		 "'continuing_subword_prefix'"},
		{PART("\"added_tokens\":{}"), STATUS_INVALID, "added_tokens must be an array"},
		{PART("\"added_tokens\":[{\"id\":3}]"), STATUS_INVALID, "added_tokens[0]: 'content' is missing"},
		{PART("\"post_processor\":{\"type\":\"BertProcessing\"}"), STATUS_INVALID, "'cls' must be a token and its id"},
		{PART("\"post_processor\":{\"type\":\"GptProcessing\"}"), STATUS_UNSUPPORTED,
		 "post_processor: the type 'GptProcessing'"},
		{PART("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}},"
		      "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{}}"),
		 STATUS_INVALID, "special_tokens has no id for 'x'"},
	};
	int wrong = 0;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct tokenizer_json *tokenizer = NULL;
		struct error err = {0};
		enum status status = load(cases[i].json, strlen(cases[i].json), "dir/tokenizer.json", &tokenizer, &err);
		bool told = status == cases[i].status && !tokenizer && strstr(err.message, cases[i].message) &&
			    strncmp(err.message, "dir/tokenizer.json", 18) == 0;
		if (!told)
			print_error("%s: %s, '%s', not '%s'\n", cases[i].json, status_name(status), err.message, cases[i].message);
		wrong += !told;
		if (status == STATUS_OK) tokenizer_json_free(tokenizer);
	}
	assert_int_equal(wrong, 0);
}

/* What Oniguruma matches, by "|". */
static void test_expressions(void **state)
{
	(void)state;
	static const struct {
		const char *pattern, *text, *matches;
	} cases[] = {
		{"\\x41\\u00e9|\\x{1F600}", "A\xc3\xa9\xf0\x9f\x98\x80", "A\xc3\xa9|\xf0\x9f\x98\x80"},
		{"\\p{^Lu}+", "ABcd", "cd"},
		{"\\P{Letter}", "a1", "1"},
		{"\\p{Greek}+", "a\xce\xb1\xce\xb2", "\xce\xb1\xce\xb2"},
		{"\\p{N}|\\P{^Lu}", "a1B", "1|B"},
		{"[\\p{Alpha}\\h]+", "-ab9-", "ab9"},
		{"\\w+\\W\\w+", "ab cd", "ab cd"},
		{"\\h\\H", "fz", "fz"},
		{"[\\w\\s]+", "a b!", "a b"},
		{"a\\vb\\Sc",
		 "a\x0b"
		 "bxc",
		 "a\x0b"
		 "bxc"},
		{"(a)(b)\\2\\1", "abba", "abba"},
		{"(?<n_a>a)\\k<n_a>", "aa", "aa"},
		{"\\bab\\b", "ab abc", "ab"},
		{"a\\Bb", "ab", "ab"},
		{"\\Aa|b\\z", "aab", "a|b"},
		{"[^a&&[^b]]", "abc", "b|c"},
		{"[a-c&&b-d]+", "abcd", "bc"},
		{"[^a-c&&b-d]", "abd", "a|d"},
		{"[a[bc]]+", "abcd", "abc"},
		{"[[:alpha:]]+", "a1b", "a|b"},
		{"[^]a]", "]ab", NULL},
		{"[a^]+", "a^b", "a^"},
		{"[&&^a]", "a", NULL},
		{"(?i)AB", "ab", "ab"},
		{"(?m)a.b", "a\nb", "a\nb"},
		{"(?m-i:a.)", "a\n", "a\n"},
		{"a{2}+", "aaaa", "aaaa"},
		{"a{1,2}", "aaa", "aa|a"},
		{"a{,2}b", "aab", "aab"},
		{"a{x", "a{x", "a{x"},
		{"a{,}", "a{,}", "a{,}"},
		{"(ab){2}?c", "ababc", "ababc"},
		{"(?>a+)b", "aab", "aab"},
	};
	int wrong = 0;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct regex *regex;
		struct error err = {0};
		struct regex_position at = {0};
		char found[100] = "";
		const char *text = cases[i].text;
		size_t start, end;
		bool there = true;
		enum status status = regex_compile(cases[i].pattern, "it", &regex, &err);
		if (!cases[i].matches) {
			if (status != STATUS_UNSUPPORTED) fail_msg("%s: %s", cases[i].pattern, status_name(status));
			continue;
		}
		if (status != STATUS_OK) fail_msg("%s: %s", cases[i].pattern, err.message);
		struct regex_matcher *matcher = regex_matcher_new();
		assert_non_null(matcher);
		while (there) {
			assert_int_equal(regex_next(regex, matcher, text, strlen(text), &at, &there, &start, &end, &err),
					 STATUS_OK);
			if (there) sprintf(found + strlen(found), "%s%.*s", *found ? "|" : "", (int)(end - start), text + start);
		}
		if (strcmp(found, cases[i].matches) != 0) print_error("%s: %s\n", cases[i].pattern, found);
		wrong += strcmp(found, cases[i].matches) != 0;
		regex_matcher_free(matcher);
		regex_free(regex);
	}
	assert_int_equal(wrong, 0);
}

static void test_refused_expressions(void **state)
{
	(void)state;
	static const struct {
		const char *pattern, *part;
	} cases[] = {
		{"\\p", "\\p without a name in braces"},
		{"\\p{", "\\p without a name in braces"},
		{"\\p{}", "\\p without a name in braces"},
		{"\\p{^}", "\\p without a name in braces"},
		{"\\p{a b}", "this kind of \\p"},
		{"[\\P{Alnum}]", "the negation of this property in a class"},
		{"\\x{", "this kind of \\x{"},
		{"\\x{}", "this kind of \\x{"},
		{"\\x{000000041}", "this kind of \\x{"},
		{"\\u12", "\\u without four digits"},
		{"\\xg1", "\\x without two"},
		{"\\x80", "a byte of \\x80 or more"},
		{"[\\W]", "\\W in a class"},
		{"[\\H]", "\\H in a class"},
		{"[\\b]", "the escape \\b"},
		{"\\\x01", "the escape \\?"},
		{"\\0", "the escape \\0"},
		{"\\12", "the escape \\1"},
		{"\\k<1>", "the escape \\k"},
		{"\\k<>", "the escape \\k"},
		{"\\ka", "the escape \\k"},
		{"\\", "the escape \\?"},
		{"[[:nothing:]]", "this kind of [:"},
		{"[[:^alpha:]]", "this kind of [:"},
		{"[[:alpha", "this kind of [:"},
		{"[[a&&b]c]", "this kind of class in a class"},
		{"[[^a]b]", "this kind of class in a class"},
		{"[]a]", "a class that starts with ]"},
		{"[[[[[[[[[[[a]]]]]]]]]]]", "so deep a class"},
		{"[^[^a]]", "a class negated twice"},
		{"(?x)a", "this kind of group"},
		{"(?:a(?i))", "an option that is not at the start"},
		{"(?<a", "this kind of group"},
		{"a{100000}", "so large a repetition"},
		{"a{1,100000}", "so large a repetition"},
		{"((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((", "so deep a group"},
	};
	int wrong = 0;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct regex *regex;
		struct error err = {0};
		enum status status = regex_compile(cases[i].pattern, "it", &regex, &err);
		bool told = status == STATUS_UNSUPPORTED && strstr(err.message, cases[i].part);
		if (!told) print_error("%s: %s, %s\n", cases[i].pattern, status_name(status), err.message);
		wrong += !told;
	}
	assert_int_equal(wrong, 0);
}

/* A file cut short anywhere is refused, and nothing leaks or crashes. */
static void test_truncated_files(void **state)
{
	(void)state;
	struct content json = slurp("phi3.json");
	for (size_t bytes = 0; bytes < json.size; bytes += 97) {
		struct tokenizer_json *tokenizer = NULL;
		struct error err;
		assert_int_equal(load(json.data, bytes, "tokenizer.json", &tokenizer, &err), STATUS_INVALID);
	}
	free(json.data);
}

/* Added tokens that the vocabulary lacks get the ids behind it, as many as it has, and the largest id counts. */
static void test_ids(void **state)
{
	(void)state;
	struct tokenizer_json *tokenizer =
		load_text("{\"model\":{\"vocab\":{\"a\":0,\"b\":9},\"merges\":[]},\"added_tokens\":[{\"id\":2,\"content\":\"<x>\"},"
			  "{\"id\":0,\"content\":\"a\"},{\"id\":3,\"content\":\"<y>\"},{\"id\":2,\"content\":\"<x>\"}]}");
	static const int32_t want[] = {2, 0, 9, 3};
	int32_t *ids;
	size_t count;
	struct error err;
	assert_int_equal(tokenizer_json_size(tokenizer), 10);
	assert_int_equal(tokenizer_json_bos(tokenizer), -1);
	assert_int_equal(tokenizer_json_encode(tokenizer, "<x>ab<y>", 8, &ids, &count, &err), STATUS_OK);
	assert_int_equal(count, 4);
	assert_memory_equal(ids, want, sizeof want);
	free(ids);
	assert_int_equal(tokenizer_json_encode(tokenizer, NULL, 0, &ids, &count, &err), STATUS_OK);
	assert_int_equal(count, 0);
	free(ids);
	tokenizer_json_free(tokenizer);
}

static void test_missing_unk_token(void **state)
{
	(void)state;
	struct tokenizer_json *tokenizer = load_text("{\"model\":{\"unk_token\":\"?\",\"vocab\":{\"a\":0},\"merges\":[]}}");
	int32_t *ids = NULL;
	size_t count;
	struct error err;
	assert_int_equal(tokenizer_json_encode(tokenizer, "aa", 2, &ids, &count, &err), STATUS_OK);
	assert_int_equal(count, 2);
	free(ids);
	assert_int_equal(tokenizer_json_encode(tokenizer, "ab", 2, &ids, &count, &err), STATUS_INVALID);
	assert_non_null(strstr(err.message, "unk_token"));
	tokenizer_json_free(tokenizer);
}

/* Ways of equal score: the package (tokenizers 0.23) has the short token last, because it reads -7.5403361320495605 one bit off. */
static void test_equal_scores(void **state)
{
	(void)state;
	enum { DASHES = 5 * 16 + 2 };
	static const int32_t expected[] = {2, 2, 2, 2, 2, 1};
	struct tokenizer_json *tokenizer =
		load_text("{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"--\",-10.194890975952148],"
			  "[\"----------------\",-7.5403361320495605]]}}");
	char text[DASHES];
	int32_t *ids;
	size_t count;
	struct error err;
	memset(text, '-', sizeof text);
	assert_int_equal(tokenizer_json_encode(tokenizer, text, sizeof text, &ids, &count, &err), STATUS_OK);
	assert_int_equal(count, 6);
	assert_memory_equal(ids, expected, sizeof expected);
	free(ids);
	tokenizer_json_free(tokenizer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal_scores),
		cmocka_unit_test(test_families),
		cmocka_unit_test(test_threads_share_a_tokenizer),
		cmocka_unit_test(test_long_pieces),
		cmocka_unit_test(test_long_and_short_agree),
		cmocka_unit_test(test_invalid_utf8),
		cmocka_unit_test(test_expressions),
		cmocka_unit_test(test_refused_expressions),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_truncated_files),
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_missing_unk_token),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
