/* The smallest of many scores: the last that goes is found digit by digit, from the highest. */
#include <string.h>

#include "engine/compute/cpu/cpu.h"

/* The digit of the last that goes, by how many have each; *left of those before it are taken off. */
static uint32_t last_digit(const int64_t *of_digit, uint32_t digits, int64_t *left)
{
	uint32_t digit = 0;
	while (digit < digits - 1 && *left > of_digit[digit])
		*left -= of_digit[digit++];
	return digit;
}

/* Of those that are equal to the limit the first `left` go as well. */
static void mark_equal(uint8_t *gone, const uint32_t *score, int64_t n, uint32_t limit, int64_t left)
{
	for (int64_t i = 0; i < n && left > 0; i++) {
		if (score[i] != limit) continue;
		gone[i] = 1;
		left--;
	}
}

void select_smallest(struct cpu_backend *cpu, uint8_t *gone, const uint32_t *score, int64_t n, int64_t count)
{
	enum { BITS = 11, DIGITS = 1 << BITS };
	uint32_t limit = 0;
	int64_t left = count; /* of those that begin as `limit` does */
	for (int shift = 2 * BITS; shift >= 0; shift -= BITS) {
		int64_t of_digit[DIGITS] = {0};
#pragma omp parallel for num_threads(cpu_threads(cpu, n)) reduction(+ : of_digit[:DIGITS])
		for (int64_t i = 0; i < n; i++)
			if ((uint64_t)(score[i] ^ limit) >> (shift + BITS) == 0) of_digit[score[i] >> shift & (DIGITS - 1)]++;
		limit |= last_digit(of_digit, DIGITS, &left) << shift;
	}
#pragma omp parallel for num_threads(cpu_threads(cpu, n))
	for (int64_t i = 0; i < n; i++)
		gone[i] = score[i] < limit;
	mark_equal(gone, score, n, limit, left);
}

void select_of_row(uint8_t *gone, const uint32_t *score, int64_t n, int64_t count)
{
	enum { BITS = 8, DIGITS = 1 << BITS };
	uint32_t limit = 0;
	int64_t left = count;
	for (int shift = 3 * BITS; shift >= 0; shift -= BITS) {
		int64_t of_digit[DIGITS] = {0};
		for (int64_t i = 0; i < n; i++)
			if ((uint64_t)(score[i] ^ limit) >> (shift + BITS) == 0) of_digit[score[i] >> shift & (DIGITS - 1)]++;
		limit |= last_digit(of_digit, DIGITS, &left) << shift;
	}
	for (int64_t i = 0; i < n; i++)
		gone[i] = score[i] < limit;
	mark_equal(gone, score, n, limit, left);
}
