/* The smallest of many scores: the last that goes is found digit by digit, from the highest. */
#include <string.h>

#include "engine/compute/cpu/cpu.h"

/* Digits of a score's 31 bits, the first with the exponent and a sixteenth of an octave: few scores share it, whatever they are. */
enum { DIGITS = 1 << 12 };
static const struct {
	int shift, bits;
} digits[] = {{19, 12}, {9, 10}, {0, 9}};

void select_smallest(struct cpu_backend *cpu, uint8_t *gone, const uint32_t *score, int64_t n, int64_t count)
{
	uint32_t limit = 0;
	int64_t left = count; /* of those that begin as `limit` does */
	for (size_t d = 0; d < sizeof digits / sizeof *digits; d++) {
		int shift = digits[d].shift, above = shift + digits[d].bits;
		uint32_t mask = (1u << digits[d].bits) - 1, digit = 0;
		int64_t of_digit[DIGITS] = {0};
#pragma omp parallel for num_threads(cpu_threads(cpu, n)) reduction(+ : of_digit[:DIGITS])
		for (int64_t i = 0; i < n; i++)
			if ((score[i] ^ limit) >> above == 0) of_digit[score[i] >> shift & mask]++;
		while (digit < mask && left > of_digit[digit])
			left -= of_digit[digit++];
		limit |= digit << shift;
	}
#pragma omp parallel for num_threads(cpu_threads(cpu, n))
	for (int64_t i = 0; i < n; i++)
		gone[i] = score[i] < limit;
	for (int64_t i = 0; i < n && left > 0; i++) {
		if (score[i] != limit) continue;
		gone[i] = 1;
		left--;
	}
}
