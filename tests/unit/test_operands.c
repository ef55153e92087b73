/* The checks before every operation (engine/compute/ops.c), one operand after the other: of operands that fit, each is in turn
 * given another type, size or stride, and no data; each pointer is left out; and each number that has bounds goes beyond them.
 * What does not fit is refused, names the operation and the operand with its sizes, and never gets to the backend. */
#include "tests/unit/scratch.h"

#include "engine/compute/backend.h"

/* What may be otherwise of an operand: another float type, more rows, more columns, no data, more columns than fit the others. */
enum { FLOAT = 1, ROWS = 2, COLS = 4, NONE = 8, GAPLESS = 16 };

struct operand_row {
	const char *name;
	enum dtype type;
	int64_t rows, cols;
	unsigned free;
};

/* A number that is refused: which one, and what the message says of it. */
struct beyond {
	int at;
	int64_t value;
	const char *says;
};

struct operation {
	const char *name;
	enum status (*call)(const struct tensor *t, void *const *p, const int64_t *n);
	struct operand_row operands[10];
	const char *pointers[6];
	int64_t numbers[8];
	struct beyond beyond[24];
};

static struct backend backend;
static int calls; /* that got to the backend */

static enum status compute(void)
{
	calls++;
	return STATUS_OK;
}

#define CALL(operation, ...)                                                                                                       \
	static enum status call_##operation(const struct tensor *t, void *const *p, const int64_t *n)                              \
	{                                                                                                                          \
		(void)t;                                                                                                           \
		(void)p;                                                                                                           \
		(void)n;                                                                                                           \
		return backend.ops->operation(&backend, __VA_ARGS__);                                                              \
	}

#define ATTENTION (&(struct attention){(int)n[0], (int)n[1], (int)n[2], (int)n[3], (int)n[4], 1, 0, n[5]})
#define NORM (&(struct norm){NORM_LAYER, 1e-5f, 0, (int)n[0]})
#define ACTIVATION ((struct activation){(enum activation_kind)n[0], (float)n[1], (float)n[2]})
#define ROUTING (&(struct routing){(int)n[0], (int)n[1], false, n[2] != 0})
#define GRID (&(struct grid){(int)n[0], n[1] != 0, n[2], (enum dtype)n[3]})
#define PATTERN (&(struct pattern){(int)n[1], (int)n[2]})
#define CUT (&(struct cut){{(int)n[1], (int)n[2]}, n[0], NULL})
#define RATES(cols, share) (&(struct rates){PARAM_SOFTMAX, (int)n[0], n[1], cols, share, (int)n[2], (int)n[3]})

CALL(convert, t[0], t[1])
CALL(matmul, t[0], t[1], n[0] != 0, t[2], n[1] != 0, false)
CALL(matmul_onto, t[0], t[1], n[0] != 0, t[2], n[1] != 0, t[3])
CALL(add_bias, t[0], t[1])
CALL(add, t[0], t[1])
CALL(embed, t[0], t[1], p[0], 1)
CALL(norm_forward, NORM, t[0], t[1], t[2], t[3], t[4])
CALL(norm_backward, NORM, t[0], t[1], t[2], t[3], t[4], false)
CALL(norm_gradient, NORM, t[0], t[1], t[2], t[3], t[4])
CALL(column_sums, t[0], t[1])
CALL(rope, (&(struct rotation){(int)n[0], (int)n[1], false, false}), t[0], t[1])
CALL(attention_forward, ATTENTION, t[0], t[1], t[2], t[3], t[4])
CALL(attention_sinks, ATTENTION, t[0], t[1], t[2])
CALL(attention_backward, ATTENTION, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8])
CALL(activation_forward, ACTIVATION, t[0], t[1], t[2])
CALL(activation_backward, ACTIVATION, t[0], t[1], t[2], t[3], t[4])
CALL(route, ROUTING, t[0], p[0], p[1], p[2], p[3], t[1])
CALL(dispatch, t[0], t[1], p[0], (int)n[0], t[2])
CALL(combine, t[0], t[1], p[0], (int)n[0], t[2], false)
CALL(route_backward, ROUTING, t[0], t[1], t[2], p[0], p[1], t[3], t[4])
CALL(column_norms, p[0], t[0])
CALL(add_saliency, t[0], t[1], t[2])
CALL(rank_rows, (enum importance)n[0], t[0], t[1], p[0], (double)n[1])
CALL(rank_groups, (enum importance)n[0], t[0], t[1], p[0], (double)n[1], (int)n[2])
CALL(invert_factor, t[0], t[1], t[2], p[0])
CALL(prune_columns, t[0], t[1], t[2], n[0], PATTERN)
CALL(scale, t[0], t[1], NULL, NULL, 1, false)
CALL(project, t[0], t[1], t[2], t[3], 1, CUT)
CALL(keep_where, t[0], t[1], t[2])
CALL(conjugate_start, t[0], t[1], p[0], t[2], t[3], t[4], t[5], 1)
CALL(conjugate_step, t[0], t[1], t[2], p[0], t[3], t[4], t[5], 1)
CALL(quantize, GRID, t[0], t[1], t[2], t[3], t[4])
CALL(quantize_columns, GRID, t[0], t[1], t[2], t[3], t[4], t[5])
CALL(quantize_backward, GRID, t[0], t[1], t[2], t[3], t[4], t[5])
CALL(bin_ranks, t[0], t[1], (int)n[0], (int)n[1], (int)n[2])
CALL(mask_weights, t[0], t[1], t[2], p[0], false)
CALL(order_ranks, t[0], t[1])
CALL(move_mask, t[0], t[1], t[2], t[3], p[0], p[1], false)
CALL(binned_gradient, t[0], t[1], t[2], t[3], t[4], n[0] != 0)
CALL(rates_forward, RATES(p[0], p[1]), t[0], p[2], p[3], p[4], t[1], (double)n[4], 1)
CALL(rates_backward, RATES(NULL, p[0]), t[0], t[1], t[2], t[3], p[1])
CALL(reconstruction, p[0], t[0], t[1], t[2], false)
CALL(weighted_error, p[0], t[0], t[1], t[2], t[3], 1, false)
CALL(divergence, p[0], t[0], t[1], t[2], 0, 1, false)
CALL(prodigy_step, NULL, n[0], NULL, NULL, NULL, NULL, NULL, NULL, p[0])
CALL(adamw_step, (&(struct adamw){1e-2f, 0.9f, 0.99f, 1e-8f, 0, (int)n[0], false}), t[0], t[1], t[2], t[3], t[4])
CALL(token_logprobs, p[0], t[0], p[1], 0)

#define F32 DTYPE_F32
#define U16 DTYPE_U16
#define OPERATION(operation) .name = #operation, .call = call_##operation

/* Attention of 2 sequences of 3 tokens, 4 heads of 8 and 2 of keys: 6 × 32, 6 × 16. */
#define ATTENTION_NUMBERS                                                                                                          \
	{                                                                                                                          \
		2, 3, 4, 2, 8, 0                                                                                                   \
	}
#define ATTENTION_BEYOND                                                                                                           \
	{                                                                                                                          \
		{0, 0, "(batch, tokens) = [0, 3]"}, {1, 0, "(batch, tokens) = [2, 0]"}, {2, 0, "(heads, kv_heads) = [0, 2]"},      \
			{2, 5, "(heads, kv_heads) = [5, 2]"}, {3, 0, "(heads, kv_heads) = [4, 0]"},                                \
			{3, 3, "(heads, kv_heads) = [4, 3]"}, {4, 0, "(head_dim, window) = [0, 0]"},                               \
			{5, -1, "(head_dim, window) = [8, -1]"},                                                                   \
	}

static const struct operation operations[] = {
	{OPERATION(convert), {{"to", F32, 4, 6, FLOAT}, {"from", F32, 4, 6, FLOAT}}},
	{OPERATION(matmul), {{"c", F32, 4, 5, FLOAT}, {"a", F32, 4, 6, 0}, {"b", F32, 6, 5, 0}}},
	{OPERATION(matmul), {{"c", F32, 4, 5, FLOAT}, {"aᵀ of", F32, 6, 4, 0}, {"bᵀ of", F32, 5, 6, 0}}, .numbers = {1, 1}},
	{OPERATION(matmul_onto), {{"c", F32, 4, 5, 0}, {"a", F32, 4, 6, 0}, {"b", F32, 6, 5, 0}, {"addend", F32, 4, 5, 0}}},
	{OPERATION(matmul_onto),
	 {{"c", DTYPE_BF16, 4, 5, 0},
	  {"aᵀ of", DTYPE_BF16, 6, 4, 0},
	  {"bᵀ of", DTYPE_BF16, 5, 6, 0},
	  {"addend", DTYPE_BF16, 4, 5, 0}},
	 .numbers = {1, 1}},
	{OPERATION(add_bias), {{"y", F32, 4, 6, FLOAT | ROWS}, {"bias", F32, 1, 6, FLOAT}}},
	{OPERATION(add), {{"y", F32, 4, 6, FLOAT}, {"x", F32, 4, 6, FLOAT}}},
	{OPERATION(embed), {{"out", F32, 4, 6, FLOAT | ROWS}, {"table", F32, 9, 6, FLOAT | ROWS}}, {"ids"}},
	{OPERATION(norm_forward),
	 {{"y", F32, 4, 6, FLOAT},
	  {"stats", F32, 4, 4, 0},
	  {"x", F32, 4, 6, FLOAT},
	  {"weight", F32, 1, 3, 0},
	  {"bias", F32, 1, 3, NONE}},
	 .numbers = {2},
	 .beyond = {{0, 0, "x [4, 6]"}, {0, 4, "x [4, 6]"}, {0, 3, "stats [4, 4]"}}},
	{OPERATION(norm_backward),
	 {{"dx", F32, 4, 6, 0},
	  {"dy", F32, 4, 6, FLOAT},
	  {"x", F32, 4, 6, FLOAT},
	  {"stats", F32, 4, 4, 0},
	  {"weight", F32, 1, 3, 0}},
	 .numbers = {2},
	 .beyond = {{0, 0, "x [4, 6]"}, {0, 4, "x [4, 6]"}}},
	{OPERATION(norm_gradient),
	 {{"dweight", F32, 1, 3, 0},
	  {"dbias", F32, 1, 3, NONE},
	  {"dy", F32, 4, 6, FLOAT},
	  {"x", F32, 4, 6, FLOAT},
	  {"stats", F32, 4, 4, 0}},
	 .numbers = {2},
	 .beyond = {{0, 0, "x [4, 6]"}}},
	{OPERATION(column_sums), {{"sums", F32, 1, 6, 0}, {"x", F32, 4, 6, FLOAT | ROWS}}},
	{OPERATION(rope),
	 {{"x", F32, 6, 16, FLOAT | ROWS}, {"table", F32, 3, 4, ROWS}},
	 .numbers = {8, 4},
	 .beyond = {{0, 0, "(head_dim, rotary) = [0, 4]"},
		    {0, 5, "(head_dim, rotary) = [5, 4]"},
		    {0, 2, "(head_dim, rotary) = [2, 4]"},
		    {1, -2, "(head_dim, rotary) = [8, -2]"},
		    {1, 3, "(head_dim, rotary) = [8, 3]"},
		    {1, 10, "(head_dim, rotary) = [8, 10]"},
		    {1, 6, "(head_dim, rotary) = [8, 6]"}}},
	{OPERATION(attention_forward),
	 {{"out", F32, 6, 32, 0}, {"lse", F32, 8, 3, 0}, {"q", F32, 6, 32, 0}, {"k", F32, 6, 16, 0}, {"v", F32, 6, 16, 0}},
	 .numbers = ATTENTION_NUMBERS,
	 .beyond = ATTENTION_BEYOND},
	{OPERATION(attention_sinks),
	 {{"out", F32, 6, 32, FLOAT}, {"lse", F32, 8, 3, 0}, {"sinks", F32, 1, 4, 0}},
	 .numbers = ATTENTION_NUMBERS,
	 .beyond = {{0, 0, "lse [8, 3]"}, {1, 0, "lse [8, 3]"}, {2, 0, "sinks [1, 4]"}, {4, 4, "out [6, 32]"}}},
	{OPERATION(attention_backward),
	 {{"dq", F32, 6, 32, 0},
	  {"dk", F32, 6, 16, 0},
	  {"dv", F32, 6, 16, 0},
	  {"q", F32, 6, 32, 0},
	  {"k", F32, 6, 16, 0},
	  {"v", F32, 6, 16, 0},
	  {"out", F32, 6, 32, 0},
	  {"lse", F32, 8, 3, 0},
	  {"dout", F32, 6, 32, 0}},
	 .numbers = ATTENTION_NUMBERS,
	 .beyond = ATTENTION_BEYOND},
	{OPERATION(activation_forward), {{"y", F32, 4, 6, FLOAT}, {"gate", F32, 4, 6, FLOAT}, {"up", F32, 4, 6, FLOAT | NONE}}},
	{OPERATION(activation_forward),
	 {{"y", F32, 4, 6, FLOAT}, {"gate", F32, 4, 6, FLOAT}, {"up", F32, 4, 6, FLOAT}},
	 .numbers = {ACTIVATION_CLAMPED_SWIGLU, 1, 7},
	 .beyond = {{1, 0, "gate [4, 6]"}, {2, 0, "gate [4, 6]"}}},
	{OPERATION(activation_backward),
	 {{"dgate", F32, 4, 6, FLOAT},
	  {"dup", F32, 4, 6, FLOAT},
	  {"dy", F32, 4, 6, FLOAT},
	  {"gate", F32, 4, 6, FLOAT},
	  {"up", F32, 4, 6, FLOAT | NONE}}},
	{OPERATION(route),
	 {{"weights", F32, 5, 2, 0}, {"logits", F32, 5, 8, FLOAT}},
	 {"experts", "counts", "places", "sources"},
	 {8, 2, 0},
	 {{0, 0, "logits [5, 8]"},
	  {0, ROUTE_MAX_EXPERTS + 1, "logits [5, 8]"},
	  {0, 1, "logits [5, 8]"},
	  {0, 7, "logits [5, 8]"},
	  {1, 0, "weights [5, 2]"},
	  {1, 1, "weights [5, 2]"},
	  {1, 9, "weights [5, 2]"}}},
	{OPERATION(dispatch),
	 {{"to", F32, 20, 6, FLOAT | ROWS}, {"from", F32, 5, 6, FLOAT}, {"scale", F32, 5, 2, NONE | GAPLESS}},
	 {"sources"},
	 {2},
	 {{0, 0, "scale [5, 2]"}, {0, 3, "scale [5, 2]"}}},
	{OPERATION(combine),
	 {{"to", F32, 5, 6, FLOAT}, {"from", F32, 20, 6, FLOAT | ROWS}, {"scale", F32, 5, 2, NONE | GAPLESS}},
	 {"places"},
	 {2},
	 {{0, 0, "scale [5, 2]"}, {0, 3, "scale [5, 2]"}}},
	{OPERATION(route_backward),
	 {{"dlogits", F32, 5, 8, FLOAT},
	  {"logits", F32, 5, 8, FLOAT},
	  {"weights", F32, 5, 2, 0},
	  {"dy", F32, 5, 6, FLOAT},
	  {"outputs", F32, 20, 6, FLOAT | ROWS}},
	 {"experts", "places"},
	 {8, 2, 0},
	 {{2, 1, NULL}, {1, 9, "weights [5, 2]"}}},
	{OPERATION(column_norms), {{"x", F32, 4, 6, FLOAT | ROWS | COLS}}, {"sums"}},
	{OPERATION(add_saliency), {{"scores", F32, 4, 6, 0}, {"gradient", F32, 4, 6, 0}, {"weight", F32, 4, 6, FLOAT}}},
	{OPERATION(rank_rows),
	 {{"rank", U16, 4, 6, 0}, {"weight", F32, 4, 6, FLOAT}},
	 {"sums"},
	 {IMPORTANCE_WANDA, 3},
	 {{0, IMPORTANCE_SPARSEGPT, "by importance 2, which no backend knows"}, {1, 0, "norms of 0 sequences"}}},
	{OPERATION(rank_groups),
	 {{"rank", U16, 4, 6, 0}, {"weight", F32, 4, 6, FLOAT}},
	 {NULL},
	 {IMPORTANCE_MAGNITUDE, 0, 2},
	 {{0, IMPORTANCE_GRADIENT, "by importance 4, which no backend knows"},
	  {2, 1, "groups of 1 in rows of 6"},
	  {2, PATTERN_MOST + 1, "groups of 33 in rows of 6"},
	  {2, 4, "groups of 4 in rows of 6"}}},
	{OPERATION(invert_factor), {{"inverse", F32, 5, 5, 0}, {"negated", F32, 5, 5, 0}, {"a", F32, 5, 5, 0}}, {"bad"}},
	{OPERATION(prune_columns),
	 {{"weight", F32, 4, 6, 0}, {"negated_error", F32, 4, 6, 0}, {"factor", F32, 6, 6, 0}},
	 .numbers = {3, 0, 0},
	 .beyond = {{0, -1, "-1 zeros, or 0 of each 0, of [4, 6]"},
		    {0, 25, "25 zeros, or 0 of each 0, of [4, 6]"},
		    {2, 1, "0 of each 1"}}},
	{OPERATION(prune_columns),
	 {{"weight", F32, 4, 6, 0}, {"negated_error", F32, 4, 6, 0}, {"factor", F32, 6, 6, 0}},
	 .numbers = {0, 1, 2},
	 .beyond = {{2, PATTERN_MOST + 1, "1 of each 33"}, {2, 4, "1 of each 4"}, {1, -1, "-1 of each 2"}, {1, 3, "3 of each 2"}}},
	{OPERATION(scale), {{"y", F32, 4, 6, 0}, {"x", F32, 4, 6, 0}}},
	{OPERATION(project),
	 {{"w", F32, 4, 6, 0}, {"u", F32, 4, 6, 0}, {"rhs", F32, 4, 6, 0}, {"b", F32, 4, 6, 0}},
	 .numbers = {3, 1, 2},
	 .beyond = {{0, -1, "-1 zeros, or 1 of each 2 kept"},
		    {0, 4, "4 zeros, or 1 of each 2 kept"},
		    {1, -1, "-1 of each 2"},
		    {1, 3, "3 of each 2"},
		    {2, 1, "1 of each 1"},
		    {2, 4, "1 of each 4"},
		    {2, PATTERN_MOST + 1, "1 of each 33"}}},
	{OPERATION(keep_where), {{"out", F32, 4, 6, 0}, {"weight", F32, 4, 6, 0}, {"support", F32, 4, 6, 0}}},
	{OPERATION(conjugate_start),
	 {{"r", F32, 4, 6, 0},
	  {"p", F32, 4, 6, 0},
	  {"target", F32, 4, 6, 0},
	  {"product", F32, 4, 6, 0},
	  {"support", F32, 4, 6, 0},
	  {"diagonal", F32, 1, 6, 0}},
	 {"energy"}},
	{OPERATION(conjugate_step),
	 {{"x", F32, 4, 6, 0},
	  {"r", F32, 4, 6, 0},
	  {"p", F32, 4, 6, 0},
	  {"product", F32, 4, 6, 0},
	  {"support", F32, 4, 6, 0},
	  {"diagonal", F32, 1, 6, 0}},
	 {"energy"}},
	{OPERATION(quantize),
	 {{"out", F32, 4, 6, FLOAT},
	  {"steps", F32, 4, 2, 0},
	  {"zeros", F32, 4, 2, 0},
	  {"weight", F32, 4, 6, FLOAT},
	  {"strength", F32, 4, 4, NONE}},
	 .numbers = {4, 0, 3, F32},
	 .beyond = {{0, 1, "weight [4, 6]"},
		    {0, 9, "weight [4, 6]"},
		    {1, 1, "strength [4, 4]"},
		    {2, 0, "weight [4, 6]"},
		    {2, 4, "weight [4, 6]"},
		    {3, DTYPE_F64, "weight [4, 6]"}}},
	{OPERATION(quantize_columns),
	 {{"weight", F32, 4, 6, 0},
	  {"negated_error", F32, 4, 6, 0},
	  {"support", F32, 4, 6, 0},
	  {"factor", F32, 6, 6, 0},
	  {"steps", F32, 4, 2, 0},
	  {"zeros", F32, 4, 2, 0}},
	 .numbers = {4, 1},
	 .beyond = {{0, 1, "weight [4, 6]"}, {0, 9, "weight [4, 6]"}}},
	{OPERATION(quantize_backward),
	 {{"dstrength", F32, 4, 2, 0},
	  {"g", F32, 4, 6, 0},
	  {"weight", F32, 4, 6, FLOAT},
	  {"steps", F32, 4, 2, 0},
	  {"zeros", F32, 4, 2, 0},
	  {"strength", F32, 4, 2, 0}},
	 .numbers = {4, 1, 3, F32},
	 .beyond = {{0, 1, "weight [4, 6]"}, {1, 0, "strength [4, 2]"}}},
	{OPERATION(bin_ranks),
	 {{"bin", DTYPE_U8, 4, 6, 0}, {"rank", U16, 4, 6, 0}},
	 .numbers = {10, 0, 0},
	 .beyond = {{0, 1, "1 candidate rates, not 2 to 256"},
		    {0, 257, "257 candidate rates, not 2 to 256"},
		    {1, -1, "candidates between -1 and 1000000"},
		    {2, -1, "candidates between 0 and 1000001"},
		    {1, CANDIDATES_WHOLE, "candidates between 1000000 and 1000000"}}},
	{OPERATION(mask_weights), {{"out", F32, 4, 6, FLOAT}, {"weight", F32, 4, 6, FLOAT}, {"rank", U16, 4, 6, 0}}, {"threshold"}},
	{OPERATION(order_ranks), {{"order", U16, 4, 6, 0}, {"rank", U16, 4, 6, 0}}},
	{OPERATION(move_mask),
	 {{"out", F32, 4, 6, FLOAT}, {"weight", F32, 4, 6, FLOAT}, {"rank", U16, 4, 6, 0}, {"order", U16, 4, 6, 0}},
	 {"held", "threshold"}},
	{OPERATION(binned_gradient),
	 {{"sums", F32, 4, 9, COLS},
	  {"dy", F32, 7, 4, 0},
	  {"x", F32, 7, 6, 0},
	  {"weight", F32, 4, 6, FLOAT},
	  {"bin", DTYPE_U8, 4, 6, 0}},
	 .beyond = {{0, 1, "sums [4, 9]"}}},
	{OPERATION(binned_gradient),
	 {{"sums", F32, 1, 9, COLS},
	  {"dy", F32, 7, 4, 0},
	  {"x", F32, 7, 6, 0},
	  {"weight", F32, 4, 6, FLOAT},
	  {"bin", DTYPE_U8, 4, 6, 0}},
	 .numbers = {1}},
	{OPERATION(rates_forward),
	 {{"beta", F32, 3, 10, 0}, {"theta", F32, 3, 10, 0}},
	 {"cols", "share", "s", "threshold", "stats"},
	 {10, 3, 0, 0, 1},
	 {{0, 1, "1 candidate rates"},
	  {1, 4, "expected [4, 10]"},
	  {2, -1, "candidates between -1 and 1000000"},
	  {3, CANDIDATES_WHOLE, "candidates between 0 and 0"},
	  {4, 0, "a target of 0"}}},
	{OPERATION(rates_backward),
	 {{"dtheta", F32, 3, 10, 0}, {"theta", F32, 3, 10, 0}, {"beta", F32, 3, 10, 0}, {"sums", F32, 3, 9, 0}},
	 {"share", "stats"},
	 {10, 3, 0, 0},
	 {{0, 257, "257 candidate rates"}, {1, 4, "expected [4, 10]"}, {3, -1, "candidates between 0 and 1000001"}}},
	{OPERATION(reconstruction),
	 {{"dy", F32, 4, 6, FLOAT | NONE}, {"y", F32, 4, 6, FLOAT}, {"ref", F32, 4, 6, FLOAT}},
	 {"stats"}},
	{OPERATION(weighted_error),
	 {{"dy", F32, 4, 6, FLOAT | NONE}, {"y", F32, 4, 6, FLOAT}, {"ref", F32, 4, 6, FLOAT}, {"weight", F32, 1, 6, 0}},
	 {"stats"}},
	{OPERATION(divergence),
	 {{"dlogits", F32, 4, 6, FLOAT | NONE}, {"logits", F32, 4, 6, FLOAT}, {"wanted", F32, 4, 6, FLOAT}},
	 {"stats"}},
	{OPERATION(prodigy_step), .pointers = {"state"}, .numbers = {5}, .beyond = {{0, -1, "-1 parameters"}}},
	{OPERATION(adamw_step),
	 {{"theta", F32, 4, 6, 0},
	  {"m", F32, 4, 6, 0},
	  {"v", F32, 4, 6, 0},
	  {"gradient", F32, 4, 6, 0},
	  {"copy", F32, 4, 6, FLOAT | NONE}},
	 .numbers = {1},
	 .beyond = {{0, 0, "step 0 of [4, 6] parameters"}}},
	{OPERATION(token_logprobs), {{"logits", F32, 4, 6, FLOAT | ROWS | COLS}}, {"out", "targets"}},
};
enum { OPERATIONS = sizeof operations / sizeof *operations };

/* ---- what each is tried with ------------------------------------------------------------------------------------------------ */

static int setup(void **state)
{
	(void)state;
	enum status (*own)(void) = compute;
	for (size_t at = offsetof(struct backend_ops, convert); at < sizeof backend.unchecked; at += sizeof own)
		memcpy((char *)&backend.unchecked + at, &own, sizeof own); /* whatever its operands: it looks at none */
	backend.ops = &backend.checked;
	backend_check_operations(&backend);
	return 0;
}

/* Operands and pointers that fit; none of them is looked at. */
static void fit(const struct operation *operation, struct tensor *t, void **p)
{
	static char memory[1];
	for (int i = 0; i < 10; i++)
		t[i] = tensor_make(memory, operation->operands[i].rows, operation->operands[i].cols, operation->operands[i].type);
	for (int i = 0; i < 6; i++)
		p[i] = memory;
}

static void expect_taken(const struct operation *operation, const struct tensor *t, void *const *p, const int64_t *n,
			 const char *what)
{
	calls = 0;
	enum status status = operation->call(t, p, n);
	if (status != STATUS_OK || calls != 1) fail_msg("%s, %s: %s", operation->name, what, backend.error.message);
}

static void expect_refused(const struct operation *operation, const struct tensor *t, void *const *p, const int64_t *n,
			   const char *says)
{
	char start[64];
	snprintf(start, sizeof start, "%s: ", operation->name);
	calls = 0;
	backend.error = (struct error){0};
	enum status status = operation->call(t, p, n);
	const char *message = backend.error.message;
	if (status != STATUS_INTERNAL || backend.error.status != status || calls)
		fail_msg("%s is taken where it should say %s", operation->name, says);
	if (strncmp(message, start, strlen(start)) || !strstr(message, says))
		fail_msg("%s: \"%s\" does not say \"%s\"", operation->name, message, says);
}

enum change { TYPE, OTHER_FLOAT, NO_ROWS, NO_COLS, NARROW, NO_DATA, MORE_ROWS, MORE_COLS, WIDER, CHANGES };

static void change(struct tensor *t, enum change what)
{
	switch (what) {
	case TYPE:
		t->dtype = DTYPE_I64;
		break;
	case OTHER_FLOAT:
		t->dtype = DTYPE_F16;
		break;
	case NO_ROWS:
		t->rows = -1;
		break;
	case NO_COLS:
		t->cols = -1;
		break;
	case NARROW:
		t->stride = t->cols - 1;
		break;
	case NO_DATA:
		t->data = NULL;
		break;
	case MORE_ROWS:
		t->rows++;
		break;
	case MORE_COLS:
		t->cols++;
		t->stride++;
		break;
	default: /* WIDER: the same elements, with gaps between its rows */
		t->stride++;
	}
}

static bool fits_still(const struct operand_row *row, enum change what)
{
	switch (what) {
	case OTHER_FLOAT:
		return row->free & FLOAT;
	case NO_DATA:
		return row->free & NONE;
	case MORE_ROWS:
		return row->free & ROWS;
	case MORE_COLS:
		return row->free & COLS;
	case WIDER:
		return !(row->free & GAPLESS);
	default:
		return false;
	}
}

static void test_operands(void **state)
{
	(void)state;
	for (int o = 0; o < OPERATIONS; o++) {
		const struct operation *operation = &operations[o];
		struct tensor t[10];
		void *p[6];
		fit(operation, t, p);
		expect_taken(operation, t, p, operation->numbers, "as it is");
		for (int i = 0; i < 10 && operation->operands[i].name; i++)
			for (int c = 0; c < CHANGES; c++) {
				fit(operation, t, p);
				change(&t[i], (enum change)c);
				char says[96], sizes[64];
				snprintf(sizes, sizeof sizes, "[%lld, %lld]", (long long)t[i].rows, (long long)t[i].cols);
				snprintf(says, sizeof says, "%s %s", operation->operands[i].name, sizes);
				if (fits_still(&operation->operands[i], (enum change)c))
					expect_taken(operation, t, p, operation->numbers, says);
				else
					expect_refused(operation, t, p, operation->numbers, says);
			}
	}
}

static void test_pointers(void **state)
{
	(void)state;
	for (int o = 0; o < OPERATIONS; o++)
		for (int i = 0; i < 6 && operations[o].pointers[i]; i++) {
			struct tensor t[10];
			void *p[6];
			char says[64];
			fit(&operations[o], t, p);
			p[i] = NULL;
			snprintf(says, sizeof says, ": %s is NULL", operations[o].pointers[i]);
			expect_refused(&operations[o], t, p, operations[o].numbers, says);
		}
}

static void test_numbers(void **state)
{
	(void)state;
	for (int o = 0; o < OPERATIONS; o++)
		for (const struct beyond *beyond = operations[o].beyond; beyond->says || beyond->value; beyond++) {
			struct tensor t[10];
			void *p[6];
			int64_t n[8];
			fit(&operations[o], t, p);
			memcpy(n, operations[o].numbers, sizeof n);
			n[beyond->at] = beyond->value;
			if (beyond->says)
				expect_refused(&operations[o], t, p, n, beyond->says);
			else
				expect_taken(&operations[o], t, p, n, "with another number");
		}
}

/* Wider than the operation takes, whatever else fits. */
static void test_widths(void **state)
{
	(void)state;
	static const struct {
		const char *operation;
		int64_t rows, cols; /* of all its operands */
		enum status status;
		const char *says;
	} wide[] = {
		{"rank_rows", 1, 65537, STATUS_INVALID, "rank_rows: a weight with 65537 columns, at most 65536 can be ranked"},
		{"bin_ranks", 1, 65537, STATUS_INVALID, "bin_ranks: a weight with 65537 columns, at most 65536 can be ranked"},
		{"order_ranks", 1, 65537, STATUS_INVALID, "order_ranks: a weight with 65537 columns, at most 65536 can be ranked"},
		{"invert_factor", FACTOR_TILE + 1, FACTOR_TILE + 1, STATUS_INTERNAL, "a [65, 65] F32"},
		{"prune_columns", PRUNE_COLUMNS + 1, PRUNE_COLUMNS + 1, STATUS_INTERNAL, "weight [129, 129] F32"},
		{"quantize_columns", PRUNE_COLUMNS + 1, PRUNE_COLUMNS + 1, STATUS_INTERNAL, "weight [129, 129] F32"},
		{"project", 65536, 65536, STATUS_INTERNAL, "w [65536, 65536] F32"},
		{"binned_gradient", 300, 300, STATUS_INTERNAL, "301 candidate rates, not 2 to 256"},
		{"norm_forward", 4, 0, STATUS_INTERNAL, "x [4, 0] F32"},
		{"divergence", 4, 0, STATUS_INTERNAL, "logits [4, 0] F32"},
		{"token_logprobs", 4, 0, STATUS_INTERNAL, "logits [4, 0] F32"},
	};
	for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
		const struct operation *operation = operations;
		while (strcmp(operation->name, wide[i].operation))
			operation++;
		struct tensor t[10];
		void *p[6];
		fit(operation, t, p);
		for (int j = 0; j < 10; j++)
			t[j].rows = wide[i].rows, t[j].cols = t[j].stride = wide[i].cols;
		calls = 0;
		enum status status = operation->call(t, p, operation->numbers);
		if (status != wide[i].status || calls || !strstr(backend.error.message, wide[i].says))
			fail_msg("%s: %s, \"%s\"", wide[i].operation, status_name(status), backend.error.message);
	}
}

/* However long its numbers are, a refusal has room for all operands. */
static void test_long_refusal(void **state)
{
	(void)state;
	const struct operation *operation = operations;
	while (strcmp(operation->name, "attention_backward"))
		operation++;
	for (int64_t size = -1; size > INT64_MIN / 10; size *= 10) {
		struct tensor t[10];
		void *p[6];
		char says[128];
		fit(operation, t, p);
		for (int i = 0; i < 10; i++)
			t[i] = (struct tensor){NULL, size, size, size + 1, (enum dtype)99};
		snprintf(says, sizeof says, "dq [%lld, %lld] an unknown type stride %lld without data", (long long)size,
			 (long long)size, (long long)size + 1);
		expect_refused(operation, t, p, operation->numbers, says);
		assert_non_null(strstr(backend.error.message, "(head_dim, window) = [8, 0]"));
	}
}

/* A matrix without elements needs no memory. */
static void test_empty(void **state)
{
	(void)state;
	const struct tensor none = {NULL, 0, 6, 6, DTYPE_F32}, narrow = {NULL, 4, 0, 0, DTYPE_F32};
	calls = 0;
	assert_int_equal(backend.ops->add(&backend, none, none), STATUS_OK);
	assert_int_equal(backend.ops->add(&backend, narrow, narrow), STATUS_OK);
	assert_int_equal(calls, 2);
	const struct rotation rotation = {8, 6, false, false};
	assert_int_equal(backend.ops->rope(&backend, &rotation, (struct tensor){NULL, 0, 8, 8, DTYPE_F32}, none), STATUS_INTERNAL);
	assert_string_equal(backend.error.message,
			    "rope: these do not fit: x [0, 8] F32 without data, table [0, 6] F32 without data, "
			    "(head_dim, rotary) = [8, 6] F32 without data");
	assert_int_equal(calls, 2);
}

/* Any weight of a matrix may go where there is no pattern. */
static void test_cut_of_a_whole(void **state)
{
	(void)state;
	char memory[1];
	struct tensor w = tensor_make(memory, 4, 6, DTYPE_F32);
	struct cut cut = {.zeros = 24};
	calls = 0;
	assert_int_equal(backend.ops->project(&backend, w, w, w, w, 1, &cut), STATUS_OK);
	assert_int_equal(calls, 1);
	cut.zeros = 25;
	assert_int_equal(backend.ops->project(&backend, w, w, w, w, 1, &cut), STATUS_INTERNAL);
	assert_string_equal(backend.error.message, "project: 25 zeros, or 0 of each 0 kept, of [4, 6]");
	assert_int_equal(calls, 1);
}

/* A gate with nothing to multiply it by has no other gradient either. */
static void test_activation_alone(void **state)
{
	(void)state;
	char memory[1];
	struct tensor y = tensor_make(memory, 4, 6, DTYPE_F32), none = {0};
	calls = 0;
	assert_int_equal(
		backend.ops->activation_backward(&backend, (struct activation){.kind = ACTIVATION_RELU}, y, none, y, y, none),
		STATUS_OK);
	assert_int_equal(calls, 1);
	const struct activation clamped = {ACTIVATION_CLAMPED_SWIGLU, 1, 7};
	assert_int_equal(backend.ops->activation_backward(&backend, clamped, y, none, y, y, none), STATUS_INTERNAL);
	assert_int_equal(calls, 1);
}

/* What a backend has not is not there behind the checks: callers ask for it. */
static void test_lacks(void **state)
{
	(void)state;
	struct backend bare = {0};
	void (*operation)(void);
	backend_check_operations(&bare);
	for (size_t at = 0; at < sizeof bare.checked; at += sizeof operation) {
		memcpy(&operation, (const char *)&bare.checked + at, sizeof operation);
		if (operation) fail_msg("there is an operation at byte %zu of struct backend_ops", at);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_operands),       cmocka_unit_test(test_pointers),         cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_widths),         cmocka_unit_test(test_long_refusal),     cmocka_unit_test(test_empty),
		cmocka_unit_test(test_cut_of_a_whole), cmocka_unit_test(test_activation_alone), cmocka_unit_test(test_lacks),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
