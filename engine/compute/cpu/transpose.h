/* Whoever includes this has AVX-512, and says by INLINE how functions get it. */
#ifndef BESAD_ENGINE_CPU_TRANSPOSE_H
#define BESAD_ENGINE_CPU_TRANSPOSE_H

#include <immintrin.h>

/* Rows and columns of 16 × 16 words change places. */
INLINE void transpose_words(__m512i r[16])
{
	__m512i t[16];
#pragma GCC unroll 8
	for (int i = 0; i < 16; i += 2) {
		t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
		t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
	}
#pragma GCC unroll 4
	for (int i = 0; i < 16; i += 4) {
		r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
		r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
		r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
		r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
	}
#pragma GCC unroll 2
	for (int i = 0; i < 16; i += 8) {
#pragma GCC unroll 4
		for (int j = 0; j < 4; j++) {
			t[i + j] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0x88);
			t[i + j + 4] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0xdd);
		}
	}
#pragma GCC unroll 8
	for (int j = 0; j < 8; j++) {
		r[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
		r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
	}
}

#endif
