/* Random numbers that a seed gives, the same everywhere: splitmix64 (Steele, Lea, Flood 2014). */
#ifndef BESAD_BASE_RANDOM_H
#define BESAD_BASE_RANDOM_H

#include <stdint.h>

#define RANDOM_GOLDEN 0x9e3779b97f4a7c15u

static inline uint64_t random_mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* Number `index` of the sequence that `seed` gives; no two are equal. */
static inline uint64_t random_at(uint64_t seed, uint64_t index)
{
	return random_mix(random_mix(seed) + (index + 1) * RANDOM_GOLDEN);
}

/* `random` scaled to 0 … bound - 1. */
static inline int64_t random_below(uint64_t random, int64_t bound)
{
	return (int64_t)(((unsigned __int128)random * (uint64_t)bound) >> 64);
}

#endif
