/* Packed linears of a checkpoint (packed_form.h). In place of P.weight [O,I], with N groups in a row and codes of b bits, there are
 *
 *   P.weight_packed      I32 [O, ⌈I·b/32⌉]   the codes of each row one behind the other, the first in the lowest bits of the first
 * word P.weight_scale       float [O, N]        steps, in the type that weights are computed in P.weight_zero_point  I32 [⌈O·b/32⌉,
 * N]   where it is not symmetric: the codes that stand for 0, packed down the columns P.weight_shape       I64 [2]             O
 * and I
 *
 * and a weight is (code − zero)·step, rounded to the type of the step; symmetric, zero is 2^(b−1). So what code = zero stands
 * for is 0. */
#ifndef BESAD_ENGINE_MODEL_PACKED_H
#define BESAD_ENGINE_MODEL_PACKED_H

#include "engine/model/checkpoint.h"
#include "engine/model/packed_form.h"

#define PACKED_WEIGHT ".weight"
#define PACKED_CODES ".weight_packed"
#define PACKED_STEPS ".weight_scale"
#define PACKED_ZEROS ".weight_zero_point"
#define PACKED_SHAPE ".weight_shape"

/* What a tensor is that a checkpoint has packed: struct tensor_info's `packed`. */
struct packed {
	struct packed_form packing;
	int64_t rows, cols, groups;
	struct tensor_info codes, steps, zeros; /* `zeros` is unused where it is symmetric */
	char *shape;                            /* the name of the fourth */
};

/* Puts, in the list of the checkpoint's tensors, one P.weight with its shape and the type of its steps in the place of the parts
 * of each packed linear; checkpoint_read then gives its weights. Where nothing is packed (0 bits) nothing happens.
 * STATUS_INVALID, or STATUS_UNSUPPORTED, names a tensor that is missing, too much, or of another type or shape than the others
 * and `packing` say. */
enum status packed_find(struct checkpoint *, const struct packed_form *, struct error *err);

/* For checkpoint.c: `info->bytes` of a packed tensor from info->offset on, both whole rows, into `buffer`; and the end of the
 * list. */
enum status packed_read(const struct checkpoint *, const struct tensor_info *, void *buffer, struct error *err);
void packed_free(struct packed *, size_t count);

/* ---- words --------------------------------------------------------------------------------------------------------------- */

/* Those that `count` codes take. */
static inline int64_t packed_words(int64_t count, int bits)
{
	int64_t in_word = 32 / bits;
	return count / in_word + (count % in_word != 0);
}

/* The i-th code; words lie `stride` apart. */
static inline int packed_code(const uint32_t *words, int64_t stride, int64_t i, int bits)
{
	int64_t in_word = 32 / bits;
	return (int)(words[i / in_word * stride] >> (int)(i % in_word) * bits & ((1u << bits) - 1));
}

/* codes [count], `stride` apart, to words [packed_words(count)], as far apart; what is left of the last word is 0. */
void packed_pack(const uint8_t *codes, int64_t count, int64_t stride, int bits, uint32_t *words);

/* Weight `code` of a grid, as element `i` of an array of a float type. */
void packed_dequantize(int code, int zero, float step, void *out, enum dtype dtype, int64_t i);

#endif
