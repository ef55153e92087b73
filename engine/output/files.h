/* The files of an output, and how they come to be in the work directory: each has its name there only when it is whole. It is
 * first written as `.NAME.part`, synced and renamed; so what an earlier attempt has made, and since then written blocks into, is
 * told from what it left unfinished, and is kept as it is. */
#ifndef BESAD_ENGINE_OUTPUT_FILES_H
#define BESAD_ENGINE_OUTPUT_FILES_H

#include <stdbool.h>

#include "engine/model/checkpoint.h"

struct output_file;

/* Writes what a file begins with into `part`, which has its size and reads as zeros. */
typedef enum status (*output_fill)(const struct output_file *, const struct file *part, struct error *err);

struct output_file {
	char *name, *part; /* below the work directory, the same below the model's for a copy */
	int64_t size;
	output_fill fill;
	const void *context; /* of `fill`; borrowed */
};

struct output_files {
	struct output_file *items;
	size_t count;
};

/* Adds one; `directory` is NULL for the work directory itself. */
enum status output_files_add(struct output_files *, const char *directory, const char *name, int64_t size, output_fill fill,
			     const void *context, struct error *err);

/* Adds copies of every file that makes the model load and is not in the list yet (config, tokenizer and generation files, chat
 * templates, custom code, licence and README; not other weights formats, no hidden files), and with `weights` of the shards and
 * their index. A file that a link leads out of the root to is STATUS_INVALID. `model` is borrowed until the files are made. */
enum status output_files_copy(struct output_files *, const struct place *model, const struct checkpoint *, bool weights,
			      struct error *err);

/* Makes the directory `work` and the files in it that are not there yet, all durably. All room is taken before the first byte is
 * written, so that a full disk shows at once: STATUS_NO_SPACE names the bytes needed, and the model. */
enum status output_files_make(const struct output_files *, const struct place *model, const struct place *work, struct error *err);
void output_files_free(struct output_files *);

/* Of all of them. */
int64_t output_files_bytes(const struct output_files *);

/* Whether the copies can be made. */
enum status output_check_inputs(const struct place *model, const struct checkpoint *, struct error *err);

#endif
