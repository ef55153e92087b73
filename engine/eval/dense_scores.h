/* Perplexities of dense models, kept for the jobs that come later, as those of a study do, which all compare with the same.
 *
 * A score is known by all that it depends on: the model's files as engine/job/inputs.h has them, the tokens, the precision, the
 * device, and besad's version. Each is a file of its own, named by the SHA-256 of that, which holds the number and a checksum;
 * one that is damaged is not known. */
#ifndef BESAD_ENGINE_DENSE_SCORES_H
#define BESAD_ENGINE_DENSE_SCORES_H

#include <cjson/cJSON.h>

#include "base/sha256.h"
#include "engine/compute/tensor.h"
#include "engine/text/corpus.h"

enum {
	DENSE_SCORES_MOST = 4096, /* where there would be more all are forgotten; other files of the directory stay */
	DENSE_SCORES_OF = 1 /* to be raised where a dense model comes to give other numbers: those before are not known then */
};

/* model_files: "model" of what inputs_describe makes. */
enum status dense_scores_key(const cJSON *model_files, const struct sequences *windows, enum dtype precision, const char *device,
			     char ret[SHA256_TEXT], struct error *err);

bool dense_scores_find(const char *directory, const char *key, double *ret);

/* Makes the directory if need be. */
enum status dense_scores_keep(const char *directory, const char *key, double score, struct error *err);

#endif
