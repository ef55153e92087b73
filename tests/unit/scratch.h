/* What the engine's unit tests share: cmocka, a scratch directory for each test, and checks of a status and its message. */
#ifndef BESAD_TESTS_SCRATCH_H
#define BESAD_TESTS_SCRATCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"

struct scratch {
	char directory[64];
	char path[512]; /* of scratch_path, which uses it again at each call */
	struct error err;
};

/* A call that must succeed; `s` is the test's scratch. */
#define SUCCEEDS(call)                                                                                                             \
	do {                                                                                                                       \
		if ((call) != STATUS_OK) fail_msg("%s: %s", #call, s->err.message);                                                \
	} while (0)

/* A call that must fail with `status` and a message that has `part`. */
#define FAILS(expected, part, call)                                                                                                \
	do {                                                                                                                       \
		enum status fails_status_ = (call);                                                                                \
		if (fails_status_ != (expected) || s->err.status != (expected) || !strstr(s->err.message, part))                   \
			fail_msg("%s: %s, \"%s\"; expected %s with \"%s\"", #call, status_name(fails_status_), s->err.message,     \
				 status_name(expected), part);                                                                     \
	} while (0)

static inline int scratch_setup(void **state)
{
	struct scratch *s = calloc(1, sizeof *s);
	assert_non_null(s);
	strcpy(s->directory, "/tmp/besad-test-XXXXXX");
	assert_non_null(mkdtemp(s->directory));
	*state = s;
	return 0;
}

static inline int scratch_teardown(void **state)
{
	struct scratch *s = *state;
	SUCCEEDS(directory_remove(s->directory, &s->err));
	free(s);
	return 0;
}

static inline char *scratch_path(struct scratch *s, const char *name)
{
	snprintf(s->path, sizeof s->path, "%s/%s", s->directory, name);
	return s->path;
}

static inline void scratch_write(struct scratch *s, const char *name, const void *bytes, size_t size)
{
	FILE *file = fopen(scratch_path(s, name), "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
}

static inline void scratch_text(struct scratch *s, const char *name, const char *text)
{
	scratch_write(s, name, text, strlen(text));
}

/* A file of `size` bytes with this safetensors header: the length, the header, and data that count up from 0. */
static inline void scratch_safetensors(struct scratch *s, const char *name, const char *header, size_t data)
{
	uint64_t length = strlen(header);
	unsigned char *bytes = calloc(1, 8 + length + data);
	assert_non_null(bytes);
	for (int i = 0; i < 8; i++)
		bytes[i] = (unsigned char)(length >> (8 * i));
	memcpy(bytes + 8, header, length);
	for (size_t i = 0; i < data; i++)
		bytes[8 + length + i] = (unsigned char)i;
	scratch_write(s, name, bytes, 8 + length + data);
	free(bytes);
}

/* model.safetensors of a LLaMA with tied embeddings and 4 heads, in BF16. */
static inline void scratch_llama(struct scratch *s, const char *name, int hidden, int intermediate, int blocks, int vocab)
{
	static const struct {
		const char *name;
		int rows, cols; /* 1: hidden, 2: intermediate, 0: a vector */
	} tensors[] = {{"input_layernorm", 1, 0},  {"post_attention_layernorm", 1, 0},
		       {"self_attn.q_proj", 1, 1}, {"self_attn.k_proj", 1, 1},
		       {"self_attn.v_proj", 1, 1}, {"self_attn.o_proj", 1, 1},
		       {"mlp.gate_proj", 2, 1},    {"mlp.up_proj", 2, 1},
		       {"mlp.down_proj", 1, 2}};
	const int sizes[] = {1, hidden, intermediate};
	char header[8192];
	size_t used = 0, at = 0;
	used += (size_t)snprintf(
		header, sizeof header,
		"{\"model.embed_tokens.weight\":{\"dtype\":\"BF16\",\"shape\":[%d,%d],"
		"\"data_offsets\":[0,%d]},\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[%d],\"data_offsets\":[%d,%d]}",
		vocab, hidden, 2 * vocab * hidden, hidden, 2 * vocab * hidden, 2 * vocab * hidden + 2 * hidden);
	at = (size_t)(2 * vocab * hidden + 2 * hidden);
	for (int block = 0; block < blocks; block++)
		for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
			int rows = sizes[tensors[i].rows], cols = sizes[tensors[i].cols];
			size_t bytes = (size_t)(2 * rows * cols);
			char shape[32];
			snprintf(shape, sizeof shape, tensors[i].cols ? "%d,%d" : "%d", rows, cols);
			used += (size_t)snprintf(
				header + used, sizeof header - used,
				",\"model.layers.%d.%s.weight\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
				block, tensors[i].name, shape, at, at + bytes);
			at += bytes;
			assert_true(used < sizeof header - 2);
		}
	strcat(header, "}");
	scratch_safetensors(s, name, header, at);
}

#define SCRATCH_TEST(function) cmocka_unit_test_setup_teardown(function, scratch_setup, scratch_teardown)

#endif
