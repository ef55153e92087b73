#include "engine/text/tokenizer.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/file.h"
#include "engine/json.h"
#include "engine/text/bpe.h"
#include "engine/text/sentencepiece.h"
#include "engine/text/unicode.h"

enum { MAX_MODEL_BYTES = 128 << 20, MAX_CONFIG_BYTES = 16 << 20 };

/* One of the two kinds. */
struct tokenizer {
	struct piece_model *sentencepiece;
	struct bpe *bpe;
	int32_t bos;
};

/* The text of a token that tokenizer_config.json gives as a string or as an object with `content`. */
static const char *token_text(const cJSON *config, const char *key)
{
	const cJSON *token = cJSON_GetObjectItemCaseSensitive(config, key);
	if (cJSON_IsObject(token)) token = cJSON_GetObjectItemCaseSensitive(token, "content");
	return cJSON_GetStringValue(token);
}

/* LlamaTokenizer's rule: BOS unless add_bos_token is false; which one, bos_token says, else the model. */
static enum status choose_bos(const struct piece_model *sentencepiece, const cJSON *config, const char *path, int32_t *ret,
			      struct error *err)
{
	bool add = true;
	TRY(json_get_bool(config, path, "add_bos_token", &add, err));
	const char *text = token_text(config, "bos_token");
	int32_t bos = text ? sentencepiece_id(sentencepiece, text) : sentencepiece_bos(sentencepiece);
	if (add && text && bos < 0)
		return error_set(err, STATUS_UNSUPPORTED, "%s: 'bos_token' '%.64s' is not in tokenizer.model", path, text);
	*ret = add ? bos : -1;
	return STATUS_OK;
}

static enum status read_bos(const struct piece_model *sentencepiece, const char *path, int32_t *ret, struct error *err)
{
	cJSON *config = NULL;
	if (path_exists(path)) TRY(json_read_file(path, MAX_CONFIG_BYTES, &config, err));
	enum status status = choose_bos(sentencepiece, config, path, ret, err);
	cJSON_Delete(config);
	return status;
}

static enum status check_count(int64_t count, int64_t vocab, const char *path, struct error *err)
{
	if (count <= vocab) return STATUS_OK;
	return error_set(err, STATUS_INVALID,
			 "%s: the tokenizer has %" PRId64 " ids, but the model's embedding only %" PRId64 " rows", path, count,
			 vocab);
}

static enum status load_sentencepiece(struct tokenizer *tokenizer, const char *path, const char *config_path, int64_t vocab,
				      struct error *err)
{
	char *bytes;
	size_t size;
	TRY(file_slurp(path, MAX_MODEL_BYTES, &bytes, &size, err));
	enum status status = sentencepiece_load(bytes, size, path, &tokenizer->sentencepiece, err);
	free(bytes);
	TRY(status);
	TRY(check_count(sentencepiece_count(tokenizer->sentencepiece), vocab, path, err));
	return read_bos(tokenizer->sentencepiece, config_path, &tokenizer->bos, err);
}

static enum status load_bpe(struct tokenizer *tokenizer, const char *path, int64_t vocab, struct error *err)
{
	char *bytes;
	size_t size;
	TRY(file_slurp(path, MAX_MODEL_BYTES, &bytes, &size, err));
	enum status status = bpe_load(bytes, size, path, &tokenizer->bpe, err);
	free(bytes);
	TRY(status);
	tokenizer->bos = bpe_bos(tokenizer->bpe);
	return check_count(bpe_vocab_size(tokenizer->bpe), vocab, path, err);
}

enum status tokenizer_load(const char *model_dir, int64_t vocab, struct tokenizer **ret, struct error *err)
{
	char *model = NULL, *json = NULL, *config = NULL;
	struct tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
	enum status status;
	if (asprintf(&model, "%s/tokenizer.model", model_dir) < 0) model = NULL;
	if (asprintf(&json, "%s/tokenizer.json", model_dir) < 0) json = NULL;
	if (asprintf(&config, "%s/tokenizer_config.json", model_dir) < 0) config = NULL;
	if (!tokenizer || !model || !json || !config) {
		status = error_set(err, STATUS_NO_MEMORY, "no memory for the tokenizer of %s", model_dir);
	} else if (path_exists(model)) {
		status = load_sentencepiece(tokenizer, model, config, vocab, err);
	} else if (path_exists(json)) {
		status = load_bpe(tokenizer, json, vocab, err);
	} else {
		status = error_set(err, STATUS_NOT_FOUND, "%s: holds neither tokenizer.model nor tokenizer.json", model_dir);
	}
	free(model);
	free(json);
	free(config);
	if (status != STATUS_OK) {
		tokenizer_free(tokenizer);
		return status;
	}
	*ret = tokenizer;
	return STATUS_OK;
}

void tokenizer_free(struct tokenizer *tokenizer)
{
	if (!tokenizer) return;
	sentencepiece_free(tokenizer->sentencepiece);
	bpe_free(tokenizer->bpe);
	free(tokenizer);
}

enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t bytes, int32_t **ret_ids,
			     size_t *ret_count, struct error *err)
{
	if (tokenizer->bpe) return bpe_encode(tokenizer->bpe, text, bytes, ret_ids, ret_count, err);
	if (utf8_valid(text, bytes)) return sentencepiece_encode(tokenizer->sentencepiece, text, bytes, ret_ids, ret_count, err);
	/* The library would read each wrong byte as one U+FFFD; both kinds of tokenizer shall read text alike. */
	char *repaired;
	TRY(utf8_repair(text, bytes, &repaired, &bytes, err));
	enum status status = sentencepiece_encode(tokenizer->sentencepiece, repaired, bytes, ret_ids, ret_count, err);
	free(repaired);
	return status;
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
	return tokenizer->bos;
}
