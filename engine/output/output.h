/* The output directory while it is made: a copy of the input directory in a work directory, in which the weights of each finished block
 * replace the dense ones, in the input's dtype and shard layout. publish.h brings it to its final name when it is whole. */
#ifndef BESAD_ENGINE_OUTPUT_H
#define BESAD_ENGINE_OUTPUT_H

#include <stdbool.h>

#include "engine/model/checkpoint.h"

struct output {
	struct place work;
	struct file *shards; /* one per shard of the input checkpoint, open for writing */
	int n_shards;
};

/* Makes the directory `work` with a copy of every shard and of every file that makes the model load (config, tokenizer and generation
 * files, chat templates, custom code, licence and README; not other weights formats, no hidden files). Continues one that an earlier
 * attempt left, copying again only what is not whole. All is fsynced. STATUS_NO_SPACE names the bytes needed. */
enum status output_open(const struct place *model, const struct checkpoint *, const struct place *work, struct output *ret,
			struct error *err);

/* Can every file be opened that output_open would copy? One that a link leads out of the root to is STATUS_INVALID. */
enum status output_check_inputs(const struct place *model, const struct checkpoint *, struct error *err);

/* Replaces one tensor; `data` is in the file's dtype. Not yet durable. */
enum status output_write(struct output *, const struct tensor_info *, const void *data, struct error *err);
enum status output_sync(struct output *, struct error *err);
void output_close(struct output *);

#endif
