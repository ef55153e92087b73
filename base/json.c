#include "base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/lfs.h"

static _Thread_local bool ran_out;

static void *take_memory(size_t bytes)
{
	void *memory = malloc(bytes);
	if (!memory) ran_out = true;
	return memory;
}

void json_heed_memory(void)
{
	cJSON_InitHooks(&(cJSON_Hooks){take_memory, free});
}

void json_begin(void)
{
	ran_out = false;
}

bool json_ran_out(void)
{
	return ran_out;
}

bool json_add(cJSON *to, const char *key, cJSON *item)
{
	if (item && (key ? cJSON_AddItemToObject(to, key, item) : cJSON_AddItemToArray(to, item))) return true;
	cJSON_Delete(item);
	return false;
}

bool json_add_reference(cJSON *to, const char *key, const cJSON *item)
{
	if (!item) return false;
	return json_add(to, key,
			cJSON_IsArray(item) ? cJSON_CreateArrayReference(item->child) : cJSON_CreateObjectReference(item->child));
}

bool json_add_exact(cJSON *to, const char *key, double number)
{
	char text[32];
	snprintf(text, sizeof text, "%.17g", number);
	return json_add(to, key, isfinite(number) ? cJSON_CreateRaw(text) : cJSON_CreateNull());
}

/* The bytes of the character at `s`, 0 where there is none. */
static int utf8_length(const unsigned char *s, const unsigned char *end)
{
	unsigned char lead = *s++;
	if (lead < 0x80) return 1;
	int more = lead >= 0xc2 && lead < 0xe0 ? 1 : (lead & 0xf0) == 0xe0 ? 2 : lead >= 0xf0 && lead < 0xf5 ? 3 : 0;
	if (more == 0 || end - s < more) return 0;
	/* The second byte tells overlong forms, surrogates and what lies beyond U+10FFFF. */
	unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
	unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
	if (*s < low || *s > high) return 0;
	for (int i = 1; i < more; i++)
		if ((s[i] & 0xc0) != 0x80) return 0;
	return 1 + more;
}

bool utf8_valid(const char *text, size_t bytes)
{
	const unsigned char *s = (const unsigned char *)text, *end = s + bytes;
	while (s < end) {
		int length = utf8_length(s, end);
		if (length == 0) return false;
		s += length;
	}
	return true;
}

int utf8_characters(const char *text)
{
	int count = 0;
	for (; *text; text++)
		count += ((unsigned char)*text & 0xc0) != 0x80;
	return count;
}

bool utf8_has_control(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	for (; *s; s++)
		if (*s < 0x20 || *s == 0x7f || (*s == 0xc2 && s[1] < 0xa0)) return true;
	return false;
}

void utf8_mask(char *text)
{
	unsigned char *s = (unsigned char *)text, *end = s + strlen(text);
	while (s < end) {
		int length = utf8_length(s, end);
		if (length == 0) *s = '?';
		s += length ? length : 1;
	}
}

/* "not valid JSON", with the line of `at` where the text has several. */
static enum status invalid(const char *text, size_t bytes, const char *at, const char *what, const char *problem, struct error *err)
{
	int line = 1;
	if (!memchr(text, '\n', bytes)) return error_set(err, STATUS_INVALID, "%s: not valid JSON%s", what, problem);
	for (; text < at; text++)
		line += *text == '\n';
	return error_set(err, STATUS_INVALID, "%s: line %d: not valid JSON%s", what, line, problem);
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* The byte after the closing quote of the string that starts at `s`, or NULL with *ret_problem. */
static const char *skip_string(const char *s, const char *end, const char **ret_problem)
{
	for (s++; s < end; s++) {
		if (*s == '"') return s + 1;
		if ((unsigned char)*s < 0x20) {
			*ret_problem = ": a control character in a string";
			return NULL;
		}
		if (*s != '\\') continue;
		if (++s == end) break;
		if (*s != 'u') continue;
		if (end - s < 5 || !is_hex(s[1]) || !is_hex(s[2]) || !is_hex(s[3]) || !is_hex(s[4])) {
			*ret_problem = ": a \\u that four hexadecimal digits do not follow";
			return NULL;
		}
		if (strncmp(s, "u0000", 5) == 0) {
			*ret_problem = ": a NUL character in a string";
			return NULL;
		}
	}
	*ret_problem = ": a string without an end";
	return NULL;
}

/* What cJSON lets pass or does without a limit: depth, control characters, bad \u escapes and NUL in strings. */
static enum status scan(const char *text, size_t bytes, const char *what, struct error *err)
{
	const char *end = text + bytes, *problem = NULL, *s = text;
	int depth = 0;
	while (s < end && !problem) {
		if (*s == '"') {
			const char *next = skip_string(s, end, &problem);
			if (next) s = next;
			continue;
		}
		if (*s == '[' || *s == '{') depth++;
		if (*s == ']' || *s == '}') depth--;
		if (depth > JSON_MAX_DEPTH)
			problem = ": nested too deeply";
		else if ((unsigned char)*s < 0x20 && *s != '\t' && *s != '\n' && *s != '\r')
			problem = ": a control character";
		else
			s++;
	}
	if (!problem) return STATUS_OK;
	return invalid(text, bytes, s, what, problem, err);
}

static int compare_keys(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum status refuse_duplicates(const cJSON *value, const char *what, struct error *err)
{
	size_t count = 0;
	const cJSON *child;
	cJSON_ArrayForEach(child, value)
	{
		if (cJSON_IsObject(child) || cJSON_IsArray(child)) TRY(refuse_duplicates(child, what, err));
		count++;
	}
	if (!cJSON_IsObject(value) || count < 2) return STATUS_OK;
	const char **keys = malloc(count * sizeof *keys);
	if (!keys) return error_set(err, STATUS_NO_MEMORY, "no memory to parse %s", what);
	size_t n = 0;
	cJSON_ArrayForEach(child, value) keys[n++] = child->string;
	qsort(keys, n, sizeof *keys, compare_keys);
	enum status status = STATUS_OK;
	for (size_t i = 1; i < n && status == STATUS_OK; i++)
		if (strcmp(keys[i - 1], keys[i]) == 0)
			status = error_set(err, STATUS_INVALID, "%s: the key '%.200s' is there twice", what, keys[i]);
	free(keys);
	return status;
}

static enum status parse(const char *text, size_t bytes, const char *what, cJSON **ret, struct error *err)
{
	if (!utf8_valid(text, bytes)) return error_set(err, STATUS_INVALID, "%s: not valid UTF-8", what);
	TRY(scan(text, bytes, what, err));
	/* cJSON 1.7.15 may look one byte beyond an unterminated buffer, so it gets a copy with its 0. */
	char *copy = malloc(bytes + 1);
	if (!copy) return error_set(err, STATUS_NO_MEMORY, "no memory to parse %s", what);
	memcpy(copy, text, bytes);
	copy[bytes] = 0;
	const char *end = copy;
	bool before = ran_out;
	ran_out = false;
	cJSON *value = cJSON_ParseWithLengthOpts(copy, bytes + 1, &end, true);
	enum status status = value     ? STATUS_OK
			     : ran_out ? error_set(err, STATUS_NO_MEMORY, "no memory to parse %s", what)
				       : invalid(copy, bytes, end, what, "", err);
	ran_out |= before;
	free(copy);
	if (value) *ret = value;
	return status;
}

enum status json_parse(const char *text, size_t bytes, const char *what, cJSON **ret, struct error *err)
{
	cJSON *value = NULL;
	TRY(parse(text, bytes, what, &value, err));
	enum status status = refuse_duplicates(value, what, err);
	if (status != STATUS_OK) {
		cJSON_Delete(value);
		return status;
	}
	*ret = value;
	return STATUS_OK;
}

/* The length of the word for a number that JSON lacks at `s`, 0 where there is none; the sign is not part of it. */
static size_t special_number(const char *s, const char *end)
{
	static const char *const words[] = {"NaN", "Infinity"};
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		size_t length = strlen(words[i]);
		if ((size_t)(end - s) >= length && memcmp(s, words[i], length) == 0) return length;
	}
	return 0;
}

/* Copies the text to `to`, which has room for twice as much, with a number beyond the range of a double for NaN and Infinity;
 * its length. */
static size_t replace_special_numbers(const char *s, const char *end, char *to)
{
	static const char infinite[] = "1e999";
	char *start = to;
	bool string = false;
	while (s < end) {
		size_t length = string ? 0 : special_number(s, end);
		if (length) {
			memcpy(to, infinite, sizeof infinite - 1);
			to += sizeof infinite - 1;
			s += length;
			continue;
		}
		if (*s == '"') string = !string;
		if (string && *s == '\\' && s + 1 < end) *to++ = *s++;
		*to++ = *s++;
	}
	return (size_t)(to - start);
}

struct entry {
	cJSON *item;
	size_t place;
};

static int compare_entries(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int order = strcmp(x->item->string, y->item->string);
	return order ? order : x->place < y->place ? -1 : 1;
}

/* Removes every member whose key comes again. */
static enum status drop_duplicates(cJSON *value, const char *what, struct error *err)
{
	size_t count = 0;
	cJSON *child;
	cJSON_ArrayForEach(child, value)
	{
		if (cJSON_IsObject(child) || cJSON_IsArray(child)) TRY(drop_duplicates(child, what, err));
		count++;
	}
	if (!cJSON_IsObject(value) || count < 2) return STATUS_OK;
	struct entry *entries = malloc(count * sizeof *entries);
	if (!entries) return error_set(err, STATUS_NO_MEMORY, "no memory to parse %s", what);
	size_t n = 0;
	cJSON_ArrayForEach(child, value)
	{
		entries[n] = (struct entry){child, n};
		n++;
	}
	qsort(entries, n, sizeof *entries, compare_entries);
	for (size_t i = 1; i < n; i++)
		if (strcmp(entries[i - 1].item->string, entries[i].item->string) == 0)
			cJSON_Delete(cJSON_DetachItemViaPointer(value, entries[i - 1].item));
	free(entries);
	return STATUS_OK;
}

enum status json_parse_python(const char *text, size_t bytes, const char *what, cJSON **ret, struct error *err)
{
	cJSON *value = NULL;
	char *plain = malloc(2 * bytes + 1);
	if (!plain) return error_set(err, STATUS_NO_MEMORY, "no memory to parse %s", what);
	size_t length = replace_special_numbers(text, text + bytes, plain);
	enum status status = parse(plain, length, what, &value, err);
	free(plain);
	TRY(status);
	status = drop_duplicates(value, what, err);
	if (status != STATUS_OK) {
		cJSON_Delete(value);
		return status;
	}
	*ret = value;
	return STATUS_OK;
}

enum status json_read_place(const struct place *place, const char *name, size_t limit, cJSON **ret, struct error *err)
{
	struct file file;
	char *text;
	size_t bytes;
	TRY(place_open(place, name, &file, err));
	enum status status = file_slurp_open(&file, limit, &text, &bytes, err);
	if (status == STATUS_OK) {
		status = is_lfs_pointer(text, bytes) ? lfs_pointer_error(file.path, err)
						     : json_parse(text, bytes, file.path, ret, err);
		free(text);
	}
	file_close(&file);
	return status;
}

/* The member, or NULL when it is missing or null. */
static const cJSON *member(const cJSON *object, const char *key)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
	return cJSON_IsNull(value) ? NULL : value;
}

/* Appends "/key" to the pointer, with ~ and / in the key escaped. */
static void extend_pointer(char *pointer, size_t room, const char *key)
{
	size_t used = strlen(pointer);
	if (used + 1 < room) pointer[used++] = '/';
	for (; *key && used + 2 < room; key++) {
		bool escaped = *key == '~' || *key == '/';
		if (escaped) pointer[used++] = '~';
		pointer[used++] = !escaped ? *key : *key == '~' ? '0' : '1';
	}
	pointer[used] = 0;
}

static bool differ_at(const cJSON *a, const cJSON *b, bool shared, const char *key, struct json_difference *ret);

static bool objects_differ(const cJSON *a, const cJSON *b, bool shared, struct json_difference *ret)
{
	const cJSON *member;
	cJSON_ArrayForEach(member, a)
	{
		const cJSON *other = cJSON_GetObjectItemCaseSensitive(b, member->string);
		if (!other && shared) continue;
		if (differ_at(member, other, shared, member->string, ret)) return true;
	}
	cJSON_ArrayForEach(member, b)
	{
		if (shared || cJSON_HasObjectItem(a, member->string)) continue;
		return differ_at(NULL, member, shared, member->string, ret);
	}
	return false;
}

static bool arrays_differ(const cJSON *a, const cJSON *b, bool shared, struct json_difference *ret)
{
	char index[16];
	const cJSON *x = a->child, *y = b->child;
	for (int i = 0; x || y; i++) {
		snprintf(index, sizeof index, "%d", i);
		if (differ_at(x, y, shared, index, ret)) return true;
		x = x->next;
		y = y->next;
	}
	return false;
}

/* `a` and `b` as json_differ has them, under `key` of what ret->pointer points to; that is put back where they do not differ. */
static bool differ_at(const cJSON *a, const cJSON *b, bool shared, const char *key, struct json_difference *ret)
{
	size_t used = strlen(ret->pointer);
	bool differ;
	if (key) extend_pointer(ret->pointer, sizeof ret->pointer, key);
	if (a && b && cJSON_IsObject(a) && cJSON_IsObject(b)) {
		differ = objects_differ(a, b, shared, ret);
	} else if (a && b && cJSON_IsArray(a) && cJSON_IsArray(b)) {
		differ = arrays_differ(a, b, shared, ret);
	} else {
		differ = !a || !b || !cJSON_Compare(a, b, true);
		ret->a = a;
		ret->b = b;
	}
	if (!differ) ret->pointer[used] = 0;
	return differ;
}

bool json_differ(const cJSON *a, const cJSON *b, bool shared, struct json_difference *ret)
{
	*ret = (struct json_difference){0};
	return differ_at(a, b, shared, NULL, ret);
}

enum status json_get_int(const cJSON *object, const char *what, const char *key, int64_t low, int64_t high, int64_t *ret,
			 struct error *err)
{
	const cJSON *value = member(object, key);
	if (!value) return STATUS_OK;
	double number = cJSON_IsNumber(value) ? value->valuedouble : NAN;
	/* Beyond 2^53 a double no longer tells neighbouring integers apart. */
	if (!(fabs(number) <= 0x1p53) || number != floor(number) || (int64_t)number < low || (int64_t)number > high)
		return error_set(err, STATUS_INVALID, "%s: '%s' must be an integer from %" PRId64 " to %" PRId64, what, key, low,
				 high);
	*ret = (int64_t)number;
	return STATUS_OK;
}

enum status json_get_double(const cJSON *object, const char *what, const char *key, double *ret, struct error *err)
{
	const cJSON *value = member(object, key);
	if (!value) return STATUS_OK;
	if (!cJSON_IsNumber(value) || !isfinite(value->valuedouble))
		return error_set(err, STATUS_INVALID, "%s: '%s' must be a number", what, key);
	*ret = value->valuedouble;
	return STATUS_OK;
}

enum status json_get_bool(const cJSON *object, const char *what, const char *key, bool *ret, struct error *err)
{
	const cJSON *value = member(object, key);
	if (!value) return STATUS_OK;
	if (!cJSON_IsBool(value)) return error_set(err, STATUS_INVALID, "%s: '%s' must be true or false", what, key);
	*ret = cJSON_IsTrue(value);
	return STATUS_OK;
}

enum status json_get_string(const cJSON *object, const char *what, const char *key, const char **ret, struct error *err)
{
	const cJSON *value = member(object, key);
	if (!value) return STATUS_OK;
	if (!cJSON_IsString(value)) return error_set(err, STATUS_INVALID, "%s: '%s' must be a string", what, key);
	*ret = value->valuestring;
	return STATUS_OK;
}

static int compare_members(const void *a, const void *b)
{
	return strcmp((*(cJSON *const *)a)->string, (*(cJSON *const *)b)->string);
}

/* The children of an object, in order of their keys. cJSON keeps the last one as the first one's `prev`. */
static bool sort_children(cJSON *object, size_t count)
{
	cJSON **items = malloc(count * sizeof(cJSON *));
	if (!items) return false;
	size_t n = 0;
	for (cJSON *item = object->child; item; item = item->next)
		items[n++] = item;
	qsort(items, n, sizeof *items, compare_members);
	for (size_t i = 0; i < n; i++) {
		items[i]->prev = items[i ? i - 1 : n - 1];
		items[i]->next = i + 1 < n ? items[i + 1] : NULL;
	}
	object->child = items[0];
	free(items);
	return true;
}

/* The keys of every object in it. */
static bool sort(cJSON *json)
{
	size_t count = 0;
	for (cJSON *item = json->child; item; item = item->next, count++)
		if (!sort(item)) return false;
	return !cJSON_IsObject(json) || count < 2 || sort_children(json, count);
}

char *json_canonical(const cJSON *json)
{
	cJSON *sorted = cJSON_Duplicate(json, true);
	char *text = sorted && sort(sorted) ? cJSON_PrintUnformatted(sorted) : NULL;
	cJSON_Delete(sorted);
	return text;
}

cJSON *json_keys_below(const cJSON *list, const char *key)
{
	const cJSON *entry, *member;
	cJSON *keys = cJSON_CreateObject();
	cJSON_ArrayForEach(entry, list)
	{
		cJSON_ArrayForEach(member, cJSON_GetObjectItemCaseSensitive(entry, key))
		{
			if (!cJSON_HasObjectItem(keys, member->string)) cJSON_AddNullToObject(keys, member->string);
		}
	}
	return keys;
}
