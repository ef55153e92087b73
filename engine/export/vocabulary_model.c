/* The vocabulary of a tokenizer.model, with what added_tokens.json and tokenizer_config.json say. */
#include <stdlib.h>

#include "engine/export/vocabulary.h"
#include "engine/text/sentencepiece.h"

static const float added_score = -1000;

/* User-defined pieces are normal ones to the converter, whose SentencePiece does not tell it of them. */
static enum token_type type_of(enum piece_type type)
{
	switch (type) {
	case PIECE_UNKNOWN:
		return TOKEN_UNKNOWN;
	case PIECE_CONTROL:
		return TOKEN_CONTROL;
	case PIECE_UNUSED:
		return TOKEN_UNUSED;
	case PIECE_BYTE:
		return TOKEN_BYTE;
	case PIECE_NORMAL:
	case PIECE_USER_DEFINED:
		break;
	}
	return TOKEN_NORMAL;
}

static enum status add_pieces(struct vocabulary *vocabulary, const struct sentencepiece *model, struct error *err)
{
	if (model->unigram)
		return error_set(err, STATUS_UNSUPPORTED,
				 "tokenizer.model: a unigram model; as a GGUF besad writes SentencePiece's BPE, and BPE of bytes");
	for (size_t i = 0; i < model->count; i++) {
		const struct piece *piece = &model->pieces[i];
		TRY(vocabulary_set(vocabulary, (int64_t)i, piece->text, type_of(piece->type), (float)piece->score, err));
	}
	return STATUS_OK;
}

static enum status add_added(struct vocabulary *vocabulary, const struct tokenizer_files *files, struct error *err)
{
	const cJSON *entry;
	cJSON_ArrayForEach(entry, files->added) if (cJSON_IsNumber(entry))
		TRY(vocabulary_set(vocabulary, entry->valueint, entry->string, TOKEN_USER_DEFINED, added_score, err));
	cJSON_ArrayForEach(entry, cJSON_GetObjectItemCaseSensitive(files->config, "added_tokens_decoder"))
	{
		const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "content"));
		bool special = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(entry, "special"));
		if (text) TRY(vocabulary_set_added(vocabulary, strtoll(entry->string, NULL, 10), text, special, added_score, err));
	}
	return STATUS_OK;
}

enum status vocabulary_from_model(struct vocabulary *vocabulary, const struct tokenizer_files *files, struct error *err)
{
	struct sentencepiece pieces;
	enum status status = sentencepiece_read(files->model, files->model_bytes, "tokenizer.model", &pieces, err);
	if (status == STATUS_OK) status = add_pieces(vocabulary, &pieces, err);
	sentencepiece_free(&pieces);
	return status == STATUS_OK ? add_added(vocabulary, files, err) : status;
}
