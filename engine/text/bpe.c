#include "engine/text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "engine/text/bpe_added.h"
#include "engine/text/bpe_json.h"
#include "engine/text/bpe_model.h"
#include "engine/text/bpe_normalize.h"
#include "engine/text/pretokenize.h"
#include "engine/text/unicode.h"

struct bpe {
	struct normalizer *normalizer;
	struct pretokenizer *pretokenizer;
	struct bpe_model *model;
	struct added_tokens *added;
	int32_t bos;
};

/* ---- loading -------------------------------------------------------------------------------------------------------------- */
/* The one id of a TemplateProcessing's special token `name`. */
static enum status template_id(const cJSON *json, const char *what, const char *name, int32_t *ret, struct error *err)
{
	const cJSON *tokens = cJSON_GetObjectItemCaseSensitive(json, "special_tokens");
	const cJSON *token = cJSON_GetObjectItemCaseSensitive(tokens, name);
	const cJSON *ids = cJSON_GetObjectItemCaseSensitive(token, "ids");
	const cJSON *id = cJSON_IsArray(ids) ? ids->child : NULL;
	if (!cJSON_IsNumber(id) || !(id->valuedouble >= 0 && id->valuedouble < INT32_MAX))
		return error_set(err, STATUS_INVALID, "%s: special_tokens has no id for '%.100s'", what, name);
	if (id->next) return error_set(err, STATUS_UNSUPPORTED, "%s: '%.100s' stands for several ids", what, name);
	*ret = (int32_t)id->valuedouble;
	return STATUS_OK;
}

/* What stands in `single` before the text, at most one token. */
static enum status parse_template(const cJSON *json, const char *what, int32_t *bos, struct error *err)
{
	static const char *const keys[] = {"single", "pair", "special_tokens", NULL};
	const cJSON *single, *piece;
	TRY(bpe_json_only(json, what, keys, err));
	TRY(bpe_json_array(json, what, "single", &single, err));
	cJSON_ArrayForEach(piece, single)
	{
		const cJSON *special = cJSON_GetObjectItemCaseSensitive(piece, "SpecialToken");
		if (cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(piece, "Sequence"))) return STATUS_OK;
		if (!cJSON_IsObject(special)) break;
		if (*bos >= 0) return error_set(err, STATUS_UNSUPPORTED, "%s: several tokens in front of the text", what);
		const char *name;
		TRY(bpe_json_string(special, what, "id", &name, err));
		TRY(template_id(json, what, name, bos, err));
	}
	return error_set(err, STATUS_INVALID, "%s: 'single' must hold special tokens and the Sequence", what);
}

static enum status parse_roberta(const cJSON *json, const char *what, int32_t *bos, struct error *err)
{
	const cJSON *pair = cJSON_GetObjectItemCaseSensitive(json, "cls");
	const cJSON *id = cJSON_IsArray(pair) && pair->child ? pair->child->next : NULL;
	if (!cJSON_IsNumber(id) || !(id->valuedouble >= 0 && id->valuedouble < INT32_MAX))
		return error_set(err, STATUS_INVALID, "%s: 'cls' must be a token and its id", what);
	if (*bos >= 0) return error_set(err, STATUS_UNSUPPORTED, "%s: several tokens in front of the text", what);
	*bos = (int32_t)id->valuedouble;
	return STATUS_OK;
}

static enum status parse_post_processor(const cJSON *json, const char *what, int32_t *bos, struct error *err)
{
	const char *type;
	TRY(bpe_json_type(json, what, &type, err));
	if (strcmp(type, "ByteLevel") == 0) return STATUS_OK; /* about offsets */
	if (strcmp(type, "TemplateProcessing") == 0) return parse_template(json, what, bos, err);
	if (strcmp(type, "RobertaProcessing") == 0) return parse_roberta(json, what, bos, err);
	if (strcmp(type, "Sequence") != 0)
		return error_set(err, STATUS_UNSUPPORTED, "%s: the type '%.100s' is not supported", what, type);
	const cJSON *array, *child;
	int i = 0;
	TRY(bpe_json_array(json, what, "processors", &array, err));
	cJSON_ArrayForEach(child, array)
	{
		struct bpe_place place = bpe_place("%s.processors[%d]", what, i++);
		TRY(parse_post_processor(child, place.text, bos, err));
	}
	return STATUS_OK;
}

static enum status load(struct bpe *bpe, const cJSON *json, const char *path, struct error *err)
{
	const char *version = "1.0";
	TRY(json_get_string(json, path, "version", &version, err));
	if (strcmp(version, "1.0") != 0)
		return error_set(err, STATUS_UNSUPPORTED, "%s: version '%.100s' is not supported", path, version);
	TRY(normalizer_parse(cJSON_GetObjectItemCaseSensitive(json, "normalizer"), path, &bpe->normalizer, err));
	TRY(pretokenizer_parse(cJSON_GetObjectItemCaseSensitive(json, "pre_tokenizer"), path, &bpe->pretokenizer, err));
	TRY(bpe_model_parse(cJSON_GetObjectItemCaseSensitive(json, "model"), path, pretokenizer_is_byte_level(bpe->pretokenizer),
			    &bpe->model, err));
	TRY(added_tokens_parse(cJSON_GetObjectItemCaseSensitive(json, "added_tokens"), path, bpe->model, bpe->normalizer,
			       &bpe->added, err));
	const cJSON *post_processor = cJSON_GetObjectItemCaseSensitive(json, "post_processor");
	bpe->bos = -1;
	if (!post_processor || cJSON_IsNull(post_processor)) return STATUS_OK;
	struct bpe_place place = bpe_place("%s: post_processor", path);
	TRY(parse_post_processor(post_processor, place.text, &bpe->bos, err));
	if (bpe->bos >= bpe_vocab_size(bpe))
		return error_set(err, STATUS_INVALID, "%s: the id %d is not in the vocabulary", place.text, bpe->bos);
	return STATUS_OK;
}

enum status bpe_load(const char *json, size_t bytes, const char *path, struct bpe **ret, struct error *err)
{
	cJSON *root;
	TRY(json_parse(json, bytes, path, &root, err));
	struct bpe *bpe = calloc(1, sizeof *bpe);
	enum status status;
	if (!bpe)
		status = error_set(err, STATUS_NO_MEMORY, "no memory to load %s", path);
	else if (!cJSON_IsObject(root))
		status = error_set(err, STATUS_INVALID, "%s: not a JSON object", path);
	else
		status = load(bpe, root, path, err);
	cJSON_Delete(root);
	if (status != STATUS_OK) {
		bpe_free(bpe);
		return status;
	}
	*ret = bpe;
	return STATUS_OK;
}

void bpe_free(struct bpe *bpe)
{
	if (!bpe) return;
	added_tokens_free(bpe->added);
	bpe_model_free(bpe->model);
	pretokenizer_free(bpe->pretokenizer);
	normalizer_free(bpe->normalizer);
	free(bpe);
}

int64_t bpe_vocab_size(const struct bpe *bpe)
{
	int32_t added = added_tokens_largest_id(bpe->added), model = bpe->model->largest_id;
	return 1 + (int64_t)(added > model ? added : model);
}

int32_t bpe_bos(const struct bpe *bpe)
{
	return bpe->bos;
}

/* ---- encoding ------------------------------------------------------------------------------------------------------------- */
/* The way of a text: tokens found in it as it is, the rest normalized, tokens found in that, the rest cut into pieces, BPE on
 * each. */
struct encoding {
	const struct bpe *bpe;
	struct normalize_run normalize;
	struct pretokenize_run *pretokenize;
	struct bpe_words *words;
	bool first; /* the normalized text at hand starts where the whole text does */
};

static enum status on_id(void *arg, int32_t id, struct error *err)
{
	struct encoding *encoding = arg;
	return bpe_words_id(encoding->words, id, err);
}

static enum status on_piece(void *arg, const char *text, size_t bytes, struct error *err)
{
	struct encoding *encoding = arg;
	return bpe_words_piece(encoding->words, text, bytes, err);
}

static enum status on_normalized(void *arg, const char *text, size_t bytes, bool first, struct error *err)
{
	struct encoding *encoding = arg;
	return pretokenize(encoding->pretokenize, text, bytes, encoding->first && first, err);
}

static enum status on_text(void *arg, const char *text, size_t bytes, bool first, struct error *err)
{
	struct encoding *encoding = arg;
	struct added_sink sink = {on_normalized, on_id, encoding};
	encoding->first = first;
	TRY(normalize(encoding->bpe->normalizer, &encoding->normalize, text, bytes, &text, &bytes, &encoding->first, err));
	if (bytes == 0) return STATUS_OK;
	return added_tokens_split(encoding->bpe->added, true, text, bytes, &sink, err);
}

enum status bpe_encode(const struct bpe *bpe, const char *text, size_t bytes, int32_t **ret_ids, size_t *ret_count,
		       struct error *err)
{
	char *repaired = NULL;
	if (bytes == 0) text = ""; /* may be NULL */
	if (!utf8_valid(text, bytes)) {
		TRY(utf8_repair(text, bytes, &repaired, &bytes, err));
		text = repaired;
	}
	struct encoding encoding = {.bpe = bpe};
	struct added_sink sink = {on_text, on_id, &encoding};
	enum status status = bpe_words_new(bpe->model, bytes, &encoding.words, err);
	if (status == STATUS_OK) status = pretokenize_run_new(bpe->pretokenizer, on_piece, &encoding, &encoding.pretokenize, err);
	if (status == STATUS_OK) status = added_tokens_split(bpe->added, false, text, bytes, &sink, err);
	if (status == STATUS_OK) bpe_words_take(encoding.words, ret_ids, ret_count);
	bpe_words_free(encoding.words);
	pretokenize_run_free(encoding.pretokenize);
	normalize_run_free(&encoding.normalize);
	free(repaired);
	return status;
}
