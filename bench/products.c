/* Times matrix products of given shapes when it is told to, so that bench/products.py can let builds take turns, some milliseconds
 * each:
 *
 *     products TYPE ROWSxCOLSxINNER[t]…
 *
 * TYPE is f32 or bf16, of all three matrices; t: the right operand is transposed, as a linear's weight is. Reads the numbers of
 * shapes, from 0, on standard input, and answers each with a line: the seconds of one product, of as many as fit in 12 ms. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "bench/cpu_bench.h"

struct shape {
	int64_t rows, cols, inner;
	bool transpose;
	struct tensor c, a, b;
};

static bool read_shape(const char *text, struct shape *shape)
{
	long long rows, cols, inner;
	int end = 0;
	if (sscanf(text, "%lldx%lldx%lld%n", &rows, &cols, &inner, &end) != 3 || rows < 1 || cols < 1 || inner < 1) return false;
	*shape = (struct shape){.rows = rows, .cols = cols, .inner = inner, .transpose = !strcmp(text + end, "t")};
	return shape->transpose || !text[end];
}

static double seconds_of(const struct shape *s)
{
	double start = monotonic_seconds(), took;
	int products = 0;
	do {
		check(backend->ops->matmul(backend, s->c, s->a, false, s->b, s->transpose, false));
		check(backend->ops->sync(backend));
		products++;
		took = monotonic_seconds() - start;
	} while (took < 0.012);
	return took / products;
}

int main(int argc, char **argv)
{
	struct error err;
	int count = argc - 2, i;
	bool bf16 = argc > 1 && !strcmp(argv[1], "bf16");
	enum dtype type = bf16 ? DTYPE_BF16 : DTYPE_F32;
	struct shape *shapes = calloc(count > 0 ? (size_t)count : 1, sizeof *shapes);
	if (count < 1 || !shapes || (!bf16 && strcmp(argv[1], "f32") != 0)) {
		fprintf(stderr, "usage: products f32|bf16 ROWSxCOLSxINNER[t]...\n");
		return 2;
	}
	if (backend_cpu_create(0, &backend, &err)) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	for (i = 0; i < count; i++) {
		struct shape *s = &shapes[i];
		if (!read_shape(argv[i + 2], s)) {
			fprintf(stderr, "%s is no shape: rows x columns x inner, as 256x512x192 or 256x512x192t\n", argv[i + 2]);
			return 2;
		}
		s->c = random_matrix(tensor_padded(NULL, s->rows, s->cols, type));
		s->a = random_matrix(tensor_padded(NULL, s->rows, s->inner, type));
		s->b = random_matrix(s->transpose ? tensor_padded(NULL, s->cols, s->inner, type)
						  : tensor_padded(NULL, s->inner, s->cols, type));
	}
	while (scanf("%d", &i) == 1 && i >= 0 && i < count) {
		printf("%.9f\n", seconds_of(&shapes[i]));
		fflush(stdout);
	}
	return 0;
}
