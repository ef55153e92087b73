/* The output directory while it is made: a copy of the input directory in `work_dir`, in which the weights of each finished block
 * replace the dense ones, in the input's dtype and shard layout. It appears under its final name only when it is whole. */
#ifndef BESAD_ENGINE_OUTPUT_H
#define BESAD_ENGINE_OUTPUT_H

#include <stdbool.h>

#include "engine/model/safetensors.h"

struct output {
	char *work_dir;
	struct file *shards; /* one per shard of the input checkpoint, open for writing */
	int n_shards;
};

/* Makes work_dir with a copy of every shard and of every file that makes the model load (config, tokenizer and generation files,
 * chat templates, custom code, licence and README; not other weights formats, no hidden files, no directories). Continues one
 * that an earlier attempt left, copying again only what is not whole. All is fsynced. STATUS_NO_SPACE names the bytes needed. */
enum status output_open(const char *model_dir, const struct checkpoint *, const char *work_dir, struct output *ret,
			struct error *err);

/* Replaces one tensor; `data` is in the file's dtype. Not yet durable. */
enum status output_write(struct output *, const struct tensor_info *, const void *data, struct error *err);
enum status output_sync(struct output *, struct error *err);

/* Renames work_dir to output_dir, durably. With `overwrite` an existing output_dir is replaced (exchanged, then removed);
 * without, it is STATUS_EXISTS. Directories above output_dir are made. Closes the output, on success. */
enum status output_publish(struct output *, const char *output_dir, bool overwrite, struct error *err);
void output_close(struct output *);

#endif
