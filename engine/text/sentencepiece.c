#include "engine/text/sentencepiece.h"

#include <stdlib.h>
#include <string.h>

/* ---- protocol buffers ----------------------------------------------------------------------------------------------------- */
/* What is left of a message. */
struct message {
	const unsigned char *at, *end;
};

/* One field: a number (also the bits of a float), or bytes. */
struct field {
	uint32_t number, type;
	uint64_t value;
	const unsigned char *bytes;
	size_t size;
};

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static bool read_varint(struct message *message, uint64_t *ret)
{
	uint64_t value = 0;
	for (int shift = 0; shift < 70 && message->at < message->end; shift += 7) {
		unsigned char byte = *message->at++;
		if (shift < 64) value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*ret = value;
			return true;
		}
	}
	return false;
}

/* False for what is not a field. */
static bool read_field(struct message *message, struct field *field)
{
	uint64_t key, size = 0;
	*field = (struct field){0};
	if (!read_varint(message, &key) || key >> 3 == 0 || key >> 3 > 0x1fffffff) return false;
	field->number = (uint32_t)(key >> 3);
	field->type = (uint32_t)key & 7;
	if (field->type == VARINT) return read_varint(message, &field->value);
	if (field->type == FIXED64)
		size = 8;
	else if (field->type == FIXED32)
		size = 4;
	else if (field->type != BYTES || !read_varint(message, &size))
		return false;
	if (size > (uint64_t)(message->end - message->at)) return false;
	field->bytes = message->at;
	field->size = (size_t)size;
	message->at += size;
	if (field->type == FIXED32)
		field->value = (uint64_t)field->bytes[0] | (uint64_t)field->bytes[1] << 8 | (uint64_t)field->bytes[2] << 16 |
			       (uint64_t)field->bytes[3] << 24;
	return true;
}

/* ---- the model ------------------------------------------------------------------------------------------------------------ */
struct reader {
	struct sentencepiece *model;
	const char *path;
	struct error *err;
};

static enum status no_memory(const struct reader *reader)
{
	return error_set(reader->err, STATUS_NO_MEMORY, "no memory to load %s", reader->path);
}

static enum status not_a_model(const struct reader *reader)
{
	return error_set(reader->err, STATUS_INVALID, "%s: not a SentencePiece model", reader->path);
}

/* Replaces *ret by the field's text. */
static enum status read_text(const struct reader *reader, const struct field *field, char **ret)
{
	if (field->type != BYTES) return not_a_model(reader);
	if (!utf8_valid((const char *)field->bytes, field->size) || memchr(field->bytes, 0, field->size))
		return error_set(reader->err, STATUS_INVALID, "%s: piece %zu is not UTF-8 text", reader->path,
				 reader->model->count);
	char *text = strndup((const char *)field->bytes, field->size);
	if (!text) return no_memory(reader);
	free(*ret);
	*ret = text;
	return STATUS_OK;
}

static enum status read_piece(const struct reader *reader, struct message message)
{
	struct sentencepiece *model = reader->model;
	if (model->count == model->capacity) {
		size_t capacity = model->capacity ? 2 * model->capacity : 4096;
		struct piece *grown = realloc(model->pieces, capacity * sizeof *grown);
		if (!grown) return no_memory(reader);
		model->pieces = grown;
		model->capacity = capacity;
	}
	struct piece *piece = &model->pieces[model->count++];
	*piece = (struct piece){.type = PIECE_NORMAL};
	struct field field;
	while (message.at < message.end) {
		if (!read_field(&message, &field)) return not_a_model(reader);
		if (field.number == 1) {
			TRY(read_text(reader, &field, &piece->text));
		} else if (field.number == 2 && field.type == FIXED32) {
			uint32_t bits = (uint32_t)field.value;
			float score;
			memcpy(&score, &bits, sizeof score);
			piece->score = (double)score;
		} else if (field.number == 3 && field.type == VARINT && field.value >= PIECE_NORMAL && field.value <= PIECE_BYTE) {
			piece->type = (enum piece_type)field.value;
		}
	}
	return piece->text ? STATUS_OK : not_a_model(reader);
}

static enum status read_trainer(const struct reader *reader, struct message message)
{
	enum { UNIGRAM = 1, BPE = 2 };
	struct sentencepiece *model = reader->model;
	struct field field;
	while (message.at < message.end) {
		if (!read_field(&message, &field)) return not_a_model(reader);
		switch (field.number) {
		case 3:
			if (field.value != UNIGRAM && field.value != BPE)
				return error_set(reader->err, STATUS_UNSUPPORTED,
						 "%s: a SentencePiece model of type %d is not supported; unigram and BPE are",
						 reader->path, (int)field.value);
			model->unigram = field.value == UNIGRAM;
			break;
		case 35:
			model->byte_fallback = field.value != 0;
			break;
		case 40:
			model->unk_id = (int32_t)field.value;
			break;
		case 41:
			model->bos_id = (int32_t)field.value;
			break;
		case 42:
			model->eos_id = (int32_t)field.value;
			break;
		case 45:
			TRY(read_text(reader, &field, &model->unk_piece));
			break;
		case 46:
			TRY(read_text(reader, &field, &model->bos_piece));
			break;
		case 47:
			TRY(read_text(reader, &field, &model->eos_piece));
			break;
		}
	}
	return STATUS_OK;
}

static enum status read_normalizer(const struct reader *reader, struct message message)
{
	struct sentencepiece *model = reader->model;
	struct field field;
	while (message.at < message.end) {
		if (!read_field(&message, &field)) return not_a_model(reader);
		switch (field.number) {
		case 2:
			if (field.type != BYTES) return not_a_model(reader);
			if (field.size == 0) break;
			free(model->charsmap);
			model->charsmap = malloc(field.size);
			if (!model->charsmap) return no_memory(reader);
			memcpy(model->charsmap, field.bytes, field.size);
			model->charsmap_bytes = field.size;
			break;
		case 3:
			model->dummy_prefix = field.value != 0;
			break;
		case 4:
			model->remove_extra_spaces = field.value != 0;
			break;
		case 5:
			model->escape_spaces = field.value != 0;
			break;
		}
	}
	return STATUS_OK;
}

enum status sentencepiece_read(const char *bytes, size_t size, const char *path, struct sentencepiece *ret, struct error *err)
{
	*ret = (struct sentencepiece){
		.unigram = true,
		.bos_id = 1,
		.eos_id = 2,
		.unk_piece = strdup("<unk>"),
		.bos_piece = strdup("<s>"),
		.eos_piece = strdup("</s>"),
		.dummy_prefix = true,
		.remove_extra_spaces = true,
		.escape_spaces = true,
	};
	struct reader reader = {ret, path, err};
	if (!ret->unk_piece || !ret->bos_piece || !ret->eos_piece) return no_memory(&reader);
	struct message message = {(const unsigned char *)bytes, (const unsigned char *)bytes + size};
	struct field field;
	while (message.at < message.end) {
		if (!read_field(&message, &field)) return not_a_model(&reader);
		if (field.number > 3) continue;
		if (field.type != BYTES) return not_a_model(&reader);
		struct message part = {field.bytes, field.bytes + field.size};
		TRY(field.number == 1   ? read_piece(&reader, part)
		    : field.number == 2 ? read_trainer(&reader, part)
					: read_normalizer(&reader, part));
	}
	return ret->count ? STATUS_OK : not_a_model(&reader);
}

void sentencepiece_free(struct sentencepiece *model)
{
	for (size_t i = 0; i < model->count; i++)
		free(model->pieces[i].text);
	free(model->pieces);
	free(model->unk_piece);
	free(model->bos_piece);
	free(model->eos_piece);
	free(model->charsmap);
	*model = (struct sentencepiece){0};
}
