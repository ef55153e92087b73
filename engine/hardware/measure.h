/* How long the linears of a model take for one token on this processor, dense and with their zeros left out (engine/sparse/): in
 * bf16, to which other types are rounded. Some of them lie in memory at once, twice: so many that they are larger than the caches
 * and are read from memory, as in decoding, where a model is; one that is smaller than the caches is not. */
#ifndef BESAD_ENGINE_HARDWARE_MEASURE_H
#define BESAD_ENGINE_HARDWARE_MEASURE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/error.h"
#include "engine/compute/tensor.h"
#include "engine/job/progress.h"

struct measure;

/* Room for `linears` linears, none of them with more than `most_cols` columns or `most_rows` rows; of those that are timed
 * together for `at_once` of them, of `weights` weights in all, in `rows` rows. *ret is freed with measure_free. */
struct measure_size {
	int64_t linears, at_once, weights, rows, most_rows, most_cols, words; /* words: of the bitmaps, 64 columns of a row each */
};
enum status measure_create(const struct measure_size *, struct measure **ret, struct error *err);

/* The most bytes that it will have in use. */
int64_t measure_bytes(const struct measure_size *);

void measure_free(struct measure *); /* takes NULL */

/* Adds a linear of a kind: `data`, of type F32, BF16 or F16, is packed and may go. */
void measure_add(struct measure *, const void *data, enum dtype dtype, int64_t rows, int64_t cols, int kind);

/* Times those that were added since it last did, by `threads` threads, and makes room for more: dense and sparse take turns, and
 * of each linear the best of several rounds counts. `progress` hears of each linear, unless it is NULL. STATUS_CANCELLED when
 * `stop`, which may be NULL, was raised. */
enum status measure_run(struct measure *, int threads, const atomic_bool *stop, struct progress *, struct error *err);

/* Of the linears of a kind, or of all where `kind` is -1: bytes that are read, and seconds. */
struct measured {
	int64_t linears, dense_bytes, sparse_bytes, weights;
	double dense, sparse;
};
struct measured measure_sum(const struct measure *, int kind);

/* Bytes a second of copying memory in the same run, those that are read and those that are written. */
double measure_copy_rate(const struct measure *);

#endif
