#include "tests/backend/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

struct writer {
	char header[1 << 16];
	int used;
	FILE *data;
	long bytes;
};

static float uniform(float scale)
{
	return scale * (2 * (float)rand() / (float)RAND_MAX - 1);
}

static void add(struct writer *writer, const char *name, int rows, int cols, float scale, float offset)
{
	long bytes = (long)(rows ? rows : 1) * cols * 4;
	char shape[32];
	if (rows)
		snprintf(shape, sizeof shape, "%d,%d", rows, cols);
	else
		snprintf(shape, sizeof shape, "%d", cols);
	writer->used += snprintf(writer->header + writer->used, sizeof writer->header - (size_t)writer->used,
				 "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%ld,%ld]}",
				 writer->used > 1 ? "," : "", name, shape, writer->bytes, writer->bytes + bytes);
	writer->bytes += bytes;
	for (long i = 0; i < bytes / 4; i++) {
		float value = offset + uniform(scale);
		assert_int_equal(fwrite(&value, 4, 1, writer->data), 1);
	}
}

static void add_block(struct writer *writer, const struct tiny_shape *s, int index)
{
	int head = s->hidden / s->heads;
	const struct {
		const char *name;
		int rows, cols;
	} linears[] = {{"self_attn.q_proj", s->hidden, s->hidden},          {"self_attn.k_proj", s->kv_heads * head, s->hidden},
		       {"self_attn.v_proj", s->kv_heads * head, s->hidden}, {"self_attn.o_proj", s->hidden, s->hidden},
		       {"mlp.gate_proj", s->intermediate, s->hidden},       {"mlp.up_proj", s->intermediate, s->hidden},
		       {"mlp.down_proj", s->hidden, s->intermediate}};
	char name[128];
	for (size_t i = 0; i < sizeof linears / sizeof *linears; i++) {
		snprintf(name, sizeof name, "model.layers.%d.%s.weight", index, linears[i].name);
		add(writer, name, linears[i].rows, linears[i].cols, 0.3f, 0);
	}
	snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", index);
	add(writer, name, 0, s->hidden, 0.2f, 1);
	snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", index);
	add(writer, name, 0, s->hidden, 0.2f, 1);
}

static void write_config(const char *directory, const struct tiny_shape *s)
{
	char path[256];
	snprintf(path, sizeof path, "%s/config.json", directory);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file,
		"{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":\"silu\",\"hidden_size\":%d,"
		"\"intermediate_size\":%d,\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"num_hidden_layers\":%d,\"vocab_"
		"size\":%d,"
		"\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"tie_word_embeddings\":false,"
		"\"torch_dtype\":\"float32\"}",
		s->hidden, s->intermediate, s->heads, s->kv_heads, s->layers, s->vocab);
	assert_int_equal(fclose(file), 0);
}

char *tiny_model_write(const struct tiny_shape *shape, unsigned seed)
{
	char *directory = strdup("/tmp/besad-model-XXXXXX"), path[256];
	struct writer writer = {.header = "{", .used = 1, .data = tmpfile()};
	assert_non_null(mkdtemp(directory));
	assert_non_null(writer.data);
	srand(seed);
	write_config(directory, shape);
	add(&writer, "model.embed_tokens.weight", shape->vocab, shape->hidden, 1, 0);
	for (int i = 0; i < shape->layers; i++)
		add_block(&writer, shape, i);
	add(&writer, "model.norm.weight", 0, shape->hidden, 0.2f, 1);
	add(&writer, "lm_head.weight", shape->vocab, shape->hidden, 0.3f, 0);
	strcat(writer.header, "}");
	snprintf(path, sizeof path, "%s/model.safetensors", directory);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	uint64_t length = strlen(writer.header);
	fwrite(&length, 8, 1, file);
	fwrite(writer.header, 1, length, file);
	rewind(writer.data);
	for (int c = fgetc(writer.data); c != EOF; c = fgetc(writer.data))
		fputc(c, file);
	assert_int_equal(fclose(file), 0);
	fclose(writer.data);
	return directory;
}

void tiny_model_remove(char *directory)
{
	struct error err;
	assert_int_equal(directory_remove(directory, &err), STATUS_OK);
	free(directory);
}
