/* Operands of backend tests: random or poisoned tensors on the device of the backend under test, with their values in double on the
 * host. Every tensor is a view into a larger allocation whose every other byte is 0xFF, a NaN or an absurd integer: a read of a
 * gap shows in the result, and a write to one is found when the operand is checked. */
#ifndef BESAD_TESTS_HARNESS_H
#define BESAD_TESTS_HARNESS_H

#include "engine/compute/backend.h"

/* The backend under test, BESAD_TEST_BACKEND=cpu|cuda, created on first use. BESAD_TEST_THREADS sets the CPU's threads. */
struct backend *test_backend(void);
void test_backend_end(void);
int test_backend_teardown(void **state); /* the same, as a group's teardown */

/* Uniform in [low, high), standard normal, an integer in [0, n): the same sequence in every run, or by BESAD_TEST_SEED. */
double random_uniform(double low, double high);
double random_normal(void);
int random_below(int n);

struct operand {
	struct tensor tensor;
	double *value; /* [rows · cols]; of an output, once operand_fetch has read it */
	void *memory;  /* the whole allocation on the device, and what the host wrote to it */
	unsigned char *bytes;
	size_t size;
	bool input;
};

/* How many elements a row of the allocation has beyond the tensor's columns. */
enum { NO_GAP = 0, GAP = 7 };

/* An input with these values, rounded to the type; `value` is updated to what the type holds. Takes ownership of `value`. */
struct operand operand_input(double *value, int64_t rows, int64_t cols, enum dtype type, int gap);
/* An input of normal random values. */
struct operand operand_random(int64_t rows, int64_t cols, enum dtype type, int gap);
/* An output, poisoned. */
struct operand operand_output(int64_t rows, int64_t cols, enum dtype type, int gap);
/* An operand that is read and written: random values. */
struct operand operand_inout(int64_t rows, int64_t cols, enum dtype type, int gap);
struct operand operand_none(void); /* a tensor without data */

/* Reads an output's values; fails the test if one was not written, or if anything around them was. */
void operand_fetch(struct operand *);
/* Frees; of an input, fails the test if its memory changed. Takes any number of operands, ended by NULL. */
void operand_free(struct operand *, ...) __attribute__((sentinel));

/* Rounds to nearest even to what the type holds. */
double round_to_type(double value, enum dtype type);

/* The bound for a result that is stored in that type. fp32: 1e-9. Rounding the result to bf16's 8 bits alone costs about 3e-6, to
 * half's 11 bits 4e-8. */
double bound_of(enum dtype type);

/* Fails the test unless Σ(out − expected)² ≤ bound · Σ expected²; the rest describes the case. Prints it under
 * BESAD_TEST_VERBOSE. */
void expect_close(const double *out, const double *expected, int64_t n, double bound, const char *format, ...)
	__attribute__((format(printf, 5, 6)));
void expect_equal(const double *out, const double *expected, int64_t n, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* Fails the test unless the operation succeeded. */
#define RUN(call)                                                                                                                  \
	do {                                                                                                                       \
		if ((call) != STATUS_OK) fail_msg("%s: %s", #call, test_backend()->error.message);                                 \
	} while (0)

/* Arrays that the caller, or the operand they go into, frees. */
double *doubles(int64_t n); /* zeros */
double *uniform(int64_t n, double low, double high);
double *integers(int64_t n, int below);
double *copy_of(const double *from, int64_t n);

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define OPS (test_backend()->ops)
#define BACKEND test_backend()

/* The float types and their names, and shapes that are multiples of little. */
extern const enum dtype float_types[3];
extern const char *const float_names[3];
enum { ROW_SHAPES = 9 };
extern const int64_t row_shapes[ROW_SHAPES][2];

#endif
