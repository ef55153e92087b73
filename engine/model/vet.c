#include "engine/model/vet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/model/check.h"
#include "engine/model/packed.h"
#include "engine/output/files.h"
#include "engine/text/foreign.h"

enum { MAX_SHOWN = 3, MAX_FILE_NAME = 80, HEAD_BYTES = 4096 };

static bool ends_in(const char *name, const char *suffix)
{
	size_t length = strlen(name), tail = strlen(suffix);
	return length > tail && strcasecmp(name + length - tail, suffix) == 0;
}

/* Is that a file of weights, whether or not besad reads it? */
static bool is_weights(const char *name)
{
	static const char *const suffixes[] = {".safetensors", ".bin", ".gguf", ".pth", ".pt", ".h5", ".msgpack", ".onnx"};
	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
		if (*name != '.' && strlen(name) <= MAX_FILE_NAME && ends_in(name, suffixes[i])) return true;
	return false;
}

/* The first names, in their order, of the weights in the directory; how many there are in all. */
static int find_weights(const struct place *model, char names[MAX_SHOWN][MAX_FILE_NAME + 1])
{
	struct error ignored;
	DIR *directory;
	int count = 0, shown = 0;
	if (place_list(model, NULL, &directory, &ignored) != STATUS_OK) return 0;
	for (struct dirent *entry; (entry = readdir(directory));) {
		if (!is_weights(entry->d_name)) continue;
		count++;
		int at = shown;
		while (at > 0 && strcmp(entry->d_name, names[at - 1]) < 0)
			at--;
		if (at == MAX_SHOWN) continue;
		if (shown < MAX_SHOWN) shown++;
		memmove(names + at + 1, names + at, (size_t)(shown - at - 1) * sizeof *names);
		strcpy(names[at], entry->d_name);
	}
	closedir(directory);
	return count;
}

/* Adds to a message about a file that is not there what is, and what to do. */
static void tell_what_is_there(const struct place *model, bool has_config, struct error *err)
{
	char names[MAX_SHOWN][MAX_FILE_NAME + 1], list[MAX_SHOWN * (MAX_FILE_NAME + 2) + 1] = "", *end = list;
	struct error before = *err;
	if (!has_config && place_has(model, "snapshots")) {
		error_set(err, before.status,
			  "%s; this is a repository of a Hugging Face cache: name one of the directories in its snapshots/ as the "
			  "model",
			  before.message);
		return;
	}
	int count = find_weights(model, names), shown = count < MAX_SHOWN ? count : MAX_SHOWN;
	for (int i = 0; i < shown; i++)
		end = stpcpy(stpcpy(end, i ? ", " : ""), names[i]);
	if (count == 0)
		error_set(err, before.status, "%s; there are no weights in the directory: was all of it downloaded?",
			  before.message);
	else
		error_set(err, before.status,
			  "%s; there is %s%s: besad reads Hugging Face directories with safetensors, as save_pretrained of "
			  "transformers "
			  "writes them",
			  before.message, list, count > shown ? " and more" : "");
}

/* Where a file that cannot be read holds text of another kind, a web page or what was a link, that is told instead. */
static void tell_what_it_is(const struct place *model, const char *name, struct error *err)
{
	struct file file;
	struct error other;
	char head[HEAD_BYTES];
	if (place_open(model, name, &file, &other) != STATUS_OK) return;
	size_t bytes = file.size < (int64_t)sizeof head ? (size_t)file.size : sizeof head;
	if (file_read(&file, head, bytes, 0, &other) == STATUS_OK && !memchr(head, 0, bytes) &&
	    foreign_refuse(&file, head, bytes, COMPRESSION_NONE, &other) == STATUS_UNSUPPORTED)
		*err = other;
	file_close(&file);
}

static enum status check(const struct place *model, struct warnings *warnings, struct model_config *ret_config, int64_t *ret_bytes,
			 struct error *err)
{
	struct model opened = {0};
	bool has_config = place_has(model, "config.json");
	const char *file = "config.json";
	enum status status = model_config_read(model, warnings, ret_config, err);
	if (status == STATUS_OK) {
		file = place_has(model, "model.safetensors") ? "model.safetensors" : "model.safetensors.index.json";
		status = checkpoint_open(model, warnings, &opened.checkpoint, err);
		if (status == STATUS_OK) status = packed_find(&opened.checkpoint, &ret_config->packing, err);
	}
	if (status == STATUS_NOT_FOUND) tell_what_is_there(model, has_config, err);
	if (status == STATUS_INVALID) tell_what_it_is(model, file, err);
	if (status != STATUS_OK) {
		model_close(&opened);
		return err->status;
	}
	int64_t bytes = 0;
	for (int i = 0; i < opened.checkpoint.n_shards; i++)
		bytes += opened.checkpoint.shards[i].size;
	status = output_check_inputs(model, &opened.checkpoint, err);
	opened.config = *ret_config;
	model_name_ends(&opened); /* a head beside tied embeddings is compared when the job reads it */
	ret_config->stacked_experts = opened.config.stacked_experts;
	if (status == STATUS_OK) status = model_check_all(&opened, warnings, err);
	model_close(&opened);
	if (status == STATUS_OK) *ret_bytes = bytes;
	return status;
}

enum status model_vet(const struct place *model, struct warnings *warnings, struct model_config *ret_config, int64_t *ret_bytes,
		      struct error *err)
{
	enum status status = check(model, warnings, ret_config, ret_bytes, err);
	if (status != STATUS_OK) place_hide(model, err);
	return status;
}
