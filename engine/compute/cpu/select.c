/* The smallest of many scores: the last that goes is found digit by digit, from the highest. */
#include <stdatomic.h>

#include "engine/compute/cpu/cpu.h"

/* Digits of a score's 31 bits, the first with the exponent and a sixteenth of an octave: few scores share it, whatever they are. */
enum { DIGITS = 1 << 12 };
static const struct {
	int shift, bits;
} digits[] = {{19, 12}, {9, 10}, {0, 9}};

enum { CHUNK = 1 << 18 }; /* scores that are counted at once: many more than there are digits */

struct count_work {
	const uint32_t *score;
	uint32_t limit, mask;
	int shift, above;
	_Atomic int64_t *of_digit;
};

/* How many scores that begin as `limit` does have each digit. */
static void count_part(const void *context, struct share share)
{
	const struct count_work *w = context;
	int32_t of_digit[DIGITS] = {0};
	for (int64_t i = share.first; i < share.last; i++)
		if ((w->score[i] ^ w->limit) >> w->above == 0) of_digit[w->score[i] >> w->shift & w->mask]++;
	for (uint32_t digit = 0; digit <= w->mask; digit++)
		if (of_digit[digit]) atomic_fetch_add_explicit(&w->of_digit[digit], of_digit[digit], memory_order_relaxed);
}

struct mark_work {
	uint8_t *gone;
	const uint32_t *score;
	uint32_t limit;
};

static void mark_part(const void *context, struct share share)
{
	const struct mark_work *w = context;
	for (int64_t i = share.first; i < share.last; i++)
		w->gone[i] = w->score[i] < w->limit;
}

void select_smallest(struct cpu_backend *cpu, uint8_t *gone, const uint32_t *score, int64_t n, int64_t count)
{
	uint32_t limit = 0;
	int64_t left = count; /* of those that begin as `limit` does */
	for (size_t d = 0; d < sizeof digits / sizeof *digits; d++) {
		int shift = digits[d].shift;
		uint32_t mask = (1u << digits[d].bits) - 1, digit = 0;
		_Atomic int64_t of_digit[DIGITS] = {0};
		const struct count_work counting = {score, limit, mask, shift, shift + digits[d].bits, of_digit};
		cpu_run(cpu, n, CHUNK, count_part, &counting);
		while (digit < mask && left > of_digit[digit])
			left -= of_digit[digit++];
		limit |= digit << shift;
	}
	const struct mark_work marking = {gone, score, limit};
	cpu_run(cpu, n, CHUNK, mark_part, &marking);
	for (int64_t i = 0; i < n && left > 0; i++) {
		if (score[i] != limit) continue;
		gone[i] = 1;
		left--;
	}
}
