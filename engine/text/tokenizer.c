#include "engine/text/tokenizer.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/json.h"
#include "engine/text/bpe.h"
#include "engine/text/sentencepiece.h"
#include "engine/text/unicode.h"

static const char model_name[] = "tokenizer.model", json_name[] = "tokenizer.json", config_name[] = "tokenizer_config.json";

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

static enum status read_bos(const struct piece_model *sentencepiece, const struct place *model, int32_t *ret, struct error *err)
{
	cJSON *config = NULL;
	char *path = place_text(model, config_name);
	if (!path) return error_set(err, STATUS_NO_MEMORY, "no memory for the tokenizer");
	enum status status = STATUS_OK;
	if (place_has(model, config_name)) status = json_read_place(model, config_name, MAX_CONFIG_BYTES, &config, err);
	if (status == STATUS_OK) status = choose_bos(sentencepiece, config, path, ret, err);
	cJSON_Delete(config);
	free(path);
	return status;
}

static enum status check_count(int64_t count, int64_t vocab, const char *path, struct error *err)
{
	if (count <= vocab) return STATUS_OK;
	return error_set(err, STATUS_INVALID,
			 "%s: the tokenizer has %" PRId64 " ids, but the model's embedding only %" PRId64 " rows", path, count,
			 vocab);
}

/* The content of a file, and its path for messages; both freed by the caller. */
static enum status read_file(const struct place *model, const char *name, char **ret_bytes, size_t *ret_size, char **ret_path,
			     struct error *err)
{
	char *path = place_text(model, name);
	if (!path) return error_set(err, STATUS_NO_MEMORY, "no memory for the tokenizer");
	enum status status = place_slurp(model, name, MAX_MODEL_BYTES, ret_bytes, ret_size, err);
	if (status == STATUS_OK)
		*ret_path = path;
	else
		free(path);
	return status;
}

static enum status load_sentencepiece(struct tokenizer *tokenizer, const struct place *model, int64_t vocab, struct error *err)
{
	char *bytes, *path;
	size_t size;
	TRY(read_file(model, model_name, &bytes, &size, &path, err));
	enum status status = sentencepiece_load(bytes, size, path, &tokenizer->sentencepiece, err);
	if (status == STATUS_OK) status = check_count(sentencepiece_count(tokenizer->sentencepiece), vocab, path, err);
	free(bytes);
	free(path);
	TRY(status);
	return read_bos(tokenizer->sentencepiece, model, &tokenizer->bos, err);
}

static enum status load_bpe(struct tokenizer *tokenizer, const struct place *model, int64_t vocab, struct error *err)
{
	char *bytes, *path;
	size_t size;
	TRY(read_file(model, json_name, &bytes, &size, &path, err));
	enum status status = bpe_load(bytes, size, path, &tokenizer->bpe, err);
	if (status == STATUS_OK) {
		tokenizer->bos = bpe_bos(tokenizer->bpe);
		status = check_count(bpe_vocab_size(tokenizer->bpe), vocab, path, err);
	}
	free(bytes);
	free(path);
	return status;
}

enum status tokenizer_load(const struct place *model, int64_t vocab, struct warnings *warnings, struct tokenizer **ret,
			   struct error *err)
{
	(void)warnings;
	struct tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
	if (!tokenizer) return error_set(err, STATUS_NO_MEMORY, "no memory for the tokenizer");
	enum status status;
	if (place_has(model, model_name))
		status = load_sentencepiece(tokenizer, model, vocab, err);
	else if (place_has(model, json_name))
		status = load_bpe(tokenizer, model, vocab, err);
	else
		status = error_set(err, STATUS_NOT_FOUND, "%s: holds neither tokenizer.model nor tokenizer.json", model->path);
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
