#include "engine/export/gguf.h"

#include <stdlib.h>
#include <string.h>

/* Numbers are written as they lie in memory. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF files are written on little-endian machines alone");

enum { VERSION = 3 };
enum value_type { VALUE_U32 = 4, VALUE_F32 = 6, VALUE_BOOL = 7, VALUE_TEXT = 8, VALUE_ARRAY = 9 };

static void add_u32(struct buffer *buffer, uint32_t value)
{
	buffer_append(buffer, &value, sizeof value);
}

static void add_u64(struct buffer *buffer, uint64_t value)
{
	buffer_append(buffer, &value, sizeof value);
}

static void add_text(struct buffer *buffer, const char *text, size_t bytes)
{
	add_u64(buffer, bytes);
	buffer_append(buffer, text, bytes);
}

static void begin(struct gguf *gguf, const char *key, enum value_type type)
{
	gguf->n_pairs++;
	add_text(&gguf->pairs, key, strlen(key));
	add_u32(&gguf->pairs, type);
}

void gguf_u32(struct gguf *gguf, const char *key, uint32_t value)
{
	begin(gguf, key, VALUE_U32);
	add_u32(&gguf->pairs, value);
}

void gguf_f32(struct gguf *gguf, const char *key, double value)
{
	begin(gguf, key, VALUE_F32);
	gguf_add_f32(gguf, (float)value);
}

void gguf_bool(struct gguf *gguf, const char *key, bool value)
{
	begin(gguf, key, VALUE_BOOL);
	buffer_append(&gguf->pairs, &(uint8_t){value}, 1);
}

void gguf_text(struct gguf *gguf, const char *key, const char *text)
{
	begin(gguf, key, VALUE_TEXT);
	add_text(&gguf->pairs, text, strlen(text));
}

void gguf_array(struct gguf *gguf, const char *key, enum gguf_element element, uint64_t count)
{
	begin(gguf, key, VALUE_ARRAY);
	add_u32(&gguf->pairs, element);
	add_u64(&gguf->pairs, count);
}

void gguf_add_i32(struct gguf *gguf, int32_t value)
{
	buffer_append(&gguf->pairs, &value, sizeof value);
}

void gguf_add_f32(struct gguf *gguf, float value)
{
	buffer_append(&gguf->pairs, &value, sizeof value);
}

void gguf_add_text(struct gguf *gguf, const char *text, size_t bytes)
{
	add_text(&gguf->pairs, text, bytes);
}

void gguf_tensor(struct gguf *gguf, const struct gguf_tensor *tensor)
{
	if (gguf->count == gguf->room) {
		size_t room = gguf->room ? 2 * gguf->room : 64;
		struct gguf_tensor *grown = realloc(gguf->tensors, room * sizeof *grown);
		if (!grown) {
			gguf->no_memory = true;
			return;
		}
		gguf->tensors = grown;
		gguf->room = room;
	}
	gguf->tensors[gguf->count++] = *tensor;
}

/* While offsets are from the start of the data. */
static void add_tensor_head(struct buffer *head, const struct gguf_tensor *tensor)
{
	add_text(head, tensor->name, strlen(tensor->name));
	add_u32(head, (uint32_t)tensor->rank);
	add_u64(head, (uint64_t)tensor->cols);
	if (tensor->rank > 1) add_u64(head, (uint64_t)tensor->rows);
	add_u32(head, tensor->type);
	add_u64(head, (uint64_t)tensor->offset);
}

enum status gguf_lay_out(struct gguf *gguf, struct buffer *ret_head, int64_t *ret_file_size, struct error *err)
{
	static const char padding[GGUF_ALIGNMENT];
	struct buffer head = {0};
	int64_t at = 0;
	for (size_t i = 0; i < gguf->count; i++) {
		struct gguf_tensor *tensor = &gguf->tensors[i];
		tensor->offset = at;
		tensor->bytes = (int64_t)blocks_bytes(tensor->type, tensor->rows * tensor->cols);
		at += gguf_pad(tensor->bytes);
	}
	buffer_append(&head, "GGUF", 4);
	add_u32(&head, VERSION);
	add_u64(&head, gguf->count);
	add_u64(&head, gguf->n_pairs);
	buffer_append(&head, gguf->pairs.data, gguf->pairs.size);
	for (size_t i = 0; i < gguf->count; i++)
		add_tensor_head(&head, &gguf->tensors[i]);
	buffer_append(&head, padding, (size_t)(gguf_pad((int64_t)head.size) - (int64_t)head.size));
	if (head.failed || gguf->pairs.failed || gguf->no_memory) {
		buffer_free(&head);
		return error_set(err, STATUS_NO_MEMORY, "no memory for the head of a GGUF file");
	}
	for (size_t i = 0; i < gguf->count; i++)
		gguf->tensors[i].offset += (int64_t)head.size;
	*ret_file_size = at + (int64_t)head.size;
	*ret_head = head;
	return STATUS_OK;
}

void gguf_free(struct gguf *gguf)
{
	buffer_free(&gguf->pairs);
	free(gguf->tensors);
	*gguf = (struct gguf){0};
}
