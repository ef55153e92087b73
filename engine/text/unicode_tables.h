/* Classes of characters as the tokenizers package has them, of old versions of Unicode: see tests/text/make_unicode_tables.py. */
#ifndef BESAD_ENGINE_UNICODE_TABLES_H
#define BESAD_ENGINE_UNICODE_TABLES_H

#include <stddef.h>
#include <stdint.h>

struct unicode_range {
	uint32_t first, last, value;
};

/* In order, apart from each other. */
extern const struct unicode_range unicode_nonspacing[], unicode_combining[], unicode_unprintable[], unicode_punctuation[],
	unicode_scripts[];
extern const size_t unicode_nonspacing_count, unicode_combining_count, unicode_unprintable_count, unicode_punctuation_count,
	unicode_scripts_count;

/* The range that holds the character, or NULL. */
const struct unicode_range *unicode_find_range(const struct unicode_range *ranges, size_t count, uint32_t c);

#endif
