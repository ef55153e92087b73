#include "engine/text/unicode_form.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "engine/text/unicode.h"
#include "engine/text/unicode_tables.h"

static int compare_keys(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static int combining_class(utf8proc_int32_t code_point)
{
	return utf8proc_get_property(code_point)->combining_class;
}

/* Sorts a run of marks by their combining class, stably. The library's own sort is quadratic. */
static enum status sort_marks(utf8proc_int32_t *marks, size_t count, struct error *err)
{
	uint64_t few[32], *keys = count > 32 ? malloc(count * sizeof *keys) : few;
	if (!keys) return error_set(err, STATUS_NO_MEMORY, "no memory for %zu marks", count);
	for (size_t i = 0; i < count; i++)
		keys[i] = (uint64_t)combining_class(marks[i]) << 56 | (uint64_t)i << 21 | (uint32_t)marks[i];
	qsort(keys, count, sizeof *keys, compare_keys);
	for (size_t i = 0; i < count; i++)
		marks[i] = (utf8proc_int32_t)(keys[i] & 0x1fffff);
	if (keys != few) free(keys);
	return STATUS_OK;
}

static enum status order_marks(utf8proc_int32_t *code_points, size_t count, struct error *err)
{
	for (size_t i = 0; i < count;) {
		size_t start = i;
		bool sorted = true;
		for (int last = 0, class; i < count && (class = combining_class(code_points[i])) != 0; i++) {
			sorted = sorted && class >= last;
			last = class;
		}
		if (!sorted) TRY(sort_marks(code_points + start, i - start, err));
		if (i == start) i++;
	}
	return STATUS_OK;
}

static enum status convert(struct text_buffer *out, struct text_buffer *scratch, utf8proc_option_t options, const char *text,
			   size_t bytes, struct error *err)
{
	enum { LONGEST = 32 }; /* code points that one may become, with room to spare: Unicode has 18 */
	utf8proc_int32_t some[LONGEST];
	scratch->size = 0;
	for (const char *end = text + bytes; text < end;) {
		int boundary = 0;
		utf8proc_ssize_t count =
			utf8proc_decompose_char((utf8proc_int32_t)utf8_next(&text), some, LONGEST, options, &boundary);
		if (count < 0 || count > LONGEST)
			return error_set(err, STATUS_INTERNAL, "Unicode normalization failed: %s", utf8proc_errmsg(count));
		TRY(text_append(scratch, (const char *)some, (size_t)count * sizeof *some, err));
	}
	size_t count = scratch->size / sizeof *some;
	TRY(text_append(scratch, "", 1, err)); /* the library writes a 0 behind */
	utf8proc_int32_t *code_points = (utf8proc_int32_t *)scratch->data;
	TRY(order_marks(code_points, count, err));
	utf8proc_ssize_t size = utf8proc_reencode(code_points, (utf8proc_ssize_t)count, options);
	if (size < 0) return error_set(err, STATUS_INTERNAL, "Unicode normalization failed: %s", utf8proc_errmsg(size));
	return text_append(out, scratch->data, (size_t)size, err);
}

/* The marks, decompositions and their parts that Unicode has got since version 9. The package's tables are of that version and
 * leave these characters alone; so must we, to give the ids that models were trained on. */
static bool is_newer(uint32_t code_point)
{
	static const struct unicode_range ranges[] = {
		{0x7fd, 0x7fd, 0},     {0x898, 0x89f, 0},     {0x8ca, 0x8d3, 0},     {0x9fe, 0x9fe, 0},     {0xc3c, 0xc3c, 0},
		{0xd3b, 0xd3c, 0},     {0xeba, 0xeba, 0},     {0x1715, 0x1715, 0},   {0x1abf, 0x1ace, 0},   {0x1df6, 0x1dfa, 0},
		{0x32ff, 0x32ff, 0},   {0xa7f2, 0xa7f4, 0},   {0xa82c, 0xa82c, 0},   {0xab69, 0xab69, 0},   {0x10781, 0x10785, 0},
		{0x10787, 0x107b0, 0}, {0x107b2, 0x107ba, 0}, {0x10d24, 0x10d27, 0}, {0x10eab, 0x10eac, 0}, {0x10efd, 0x10eff, 0},
		{0x10f46, 0x10f50, 0}, {0x10f82, 0x10f85, 0}, {0x11070, 0x11070, 0}, {0x1133b, 0x1133b, 0}, {0x1145e, 0x1145e, 0},
		{0x11839, 0x1183a, 0}, {0x11930, 0x11930, 0}, {0x11935, 0x11935, 0}, {0x11938, 0x11938, 0}, {0x1193d, 0x1193e, 0},
		{0x11943, 0x11943, 0}, {0x119e0, 0x119e0, 0}, {0x11a34, 0x11a34, 0}, {0x11a47, 0x11a47, 0}, {0x11a99, 0x11a99, 0},
		{0x11d42, 0x11d42, 0}, {0x11d44, 0x11d45, 0}, {0x11d97, 0x11d97, 0}, {0x11f41, 0x11f42, 0}, {0x16ff0, 0x16ff1, 0},
		{0x1e030, 0x1e06d, 0}, {0x1e08f, 0x1e08f, 0}, {0x1e130, 0x1e136, 0}, {0x1e2ae, 0x1e2ae, 0}, {0x1e2ec, 0x1e2ef, 0},
		{0x1e4ec, 0x1e4ef, 0}, {0x1f16c, 0x1f16c, 0}, {0x1fbf0, 0x1fbf9, 0},
	};
	return unicode_find_range(ranges, sizeof ranges / sizeof *ranges, code_point) != NULL;
}

/* Whether a form may change the character or move it: not where it is below `limit`. */
static bool may_change(uint32_t code_point, uint32_t limit)
{
	return code_point >= limit && !is_newer(code_point);
}

enum status unicode_normalize(struct text_buffer *out, struct text_buffer *scratch, enum unicode_form form, const char *text,
			      size_t bytes, struct error *err)
{
	static const utf8proc_option_t options[] = {
		[UNICODE_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
		[UNICODE_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
		[UNICODE_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
		[UNICODE_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
	};
	/* All below is as it should be in NFC; ASCII is in the other forms, too. */
	uint32_t limit = form == UNICODE_NFC ? 0x300 : 0x80;
	const char *end = text + bytes;
	const char *plain = text;    /* what has yet to be copied as it is starts here */
	const char *previous = NULL; /* the character before `text`, if a mark may combine with it */
	while (text < end) {
		const char *start = text;
		uint32_t c = utf8_next(&text);
		if (!may_change(c, limit)) {
			previous = c < limit ? start : NULL;
			continue;
		}
		if (previous) start = previous;
		const char *stop = text;
		while (text < end && may_change(utf8_next(&text), limit))
			stop = text;
		text = stop;
		TRY(text_append(out, plain, (size_t)(start - plain), err));
		TRY(convert(out, scratch, options[form], start, (size_t)(stop - start), err));
		plain = stop;
		previous = NULL;
	}
	return text_append(out, plain, (size_t)(end - plain), err);
}
