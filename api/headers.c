/* What request headers mean. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/http.h"

static const char *skip_spaces(const char *s)
{
	return s + strspn(s, " \t");
}

/* The quality value of a media range's parameters, from the first ';' or "" on; 1000 without one, 0 for one that is not a
 * number. */
static int quality(const char *parameters, const char *end)
{
	for (const char *s = memchr(parameters, ';', (size_t)(end - parameters)); s; s = memchr(s, ';', (size_t)(end - s))) {
		s = skip_spaces(s + 1);
		if (end - s < 3 || (*s != 'q' && *s != 'Q') || s[1] != '=') continue;
		s += 2;
		if (*s != '0' && *s != '1') return 0;
		int value = (*s++ - '0') * 1000;
		if (s < end && *s == '.') {
			s++;
			for (int scale = 100; s < end && *s >= '0' && *s <= '9' && scale; s++, scale /= 10)
				value += (*s - '0') * scale;
		}
		return value > 1000 ? 1000 : value;
	}
	return 1000;
}

int accept_quality(const char *accept, const char *type)
{
	if (!accept || !*skip_spaces(accept)) return 1000;
	size_t major = strcspn(type, "/") + 1, length = strlen(type);
	int best = 0,
	    precision = 0; /* of the range that fits most closely: 1 for all types, 2 for the major one's, 3 for this one */
	for (const char *range = accept;;) {
		range = skip_spaces(range);
		const char *end = range + strcspn(range, ",");
		size_t name = strcspn(range, "; \t,");
		int fits = 0;
		if (name == 3 && strncmp(range, "*/*", 3) == 0)
			fits = 1;
		else if (name == major + 1 && strncasecmp(range, type, major) == 0 && range[major] == '*')
			fits = 2;
		else if (name == length && strncasecmp(range, type, length) == 0)
			fits = 3;
		if (fits > precision) {
			precision = fits;
			best = quality(range, end);
		}
		if (!*end) return best;
		range = end + 1;
	}
}

bool media_type_is(const char *header, const char *type)
{
	header = skip_spaces(header);
	size_t length = strlen(type);
	if (strncasecmp(header, type, length) != 0) return false;
	const char *rest = skip_spaces(header + length);
	return *rest == 0 || *rest == ';';
}

/* The length of the host in an authority host[:port]; 0 when it is not of that form. */
static size_t host_length(const char *authority)
{
	size_t length;
	if (*authority == '[') {
		length = strcspn(authority, "]");
		if (!authority[length]) return 0;
		length++;
	} else {
		length = strcspn(authority, ":");
	}
	if (!authority[length]) return length;
	const char *port = authority + length + 1;
	if (authority[length] != ':' || strspn(port, "0123456789") != strlen(port)) return 0;
	return length;
}

bool host_is_loopback(const char *host)
{
	size_t length = host_length(host);
	if (length == 9 && strncasecmp(host, "localhost", 9) == 0) return true;
	if (length == 5 && strncmp(host, "[::1]", 5) == 0) return true;
	/* 127.a.b.c, and nothing that only begins so: 127.0.0.1.example.com is a name. */
	if (length < 9 || length > 15 || strncmp(host, "127.", 4) != 0) return false;
	int dots = 0;
	for (size_t i = 0; i < length; i++) {
		dots += host[i] == '.';
		if (host[i] != '.' && (host[i] < '0' || host[i] > '9')) return false;
	}
	return dots == 3;
}

static bool digits(const char *text, size_t length, int64_t *ret)
{
	char number[20] = "";
	if (length >= sizeof number) return false;
	memcpy(number, text, length);
	return number_parse(number, INT64_MAX, ret);
}

enum range range_find(const char *range, int64_t size, int64_t *ret_first, int64_t *ret_bytes)
{
	static const char unit[] = "bytes=";
	int64_t first, last = size - 1, given;
	if (!range || strncasecmp(range, unit, strlen(unit)) != 0) return RANGE_WHOLE;
	const char *from = range + strlen(unit), *dash = strchr(from, '-');
	if (!dash) return RANGE_WHOLE;
	if (dash == from) { /* the last so many */
		if (!digits(dash + 1, strlen(dash + 1), &given)) return RANGE_WHOLE;
		if (given == 0 || size == 0) return RANGE_OUTSIDE;
		first = given < size ? size - given : 0;
	} else {
		if (!digits(from, (size_t)(dash - from), &first)) return RANGE_WHOLE;
		if (dash[1] && (!digits(dash + 1, strlen(dash + 1), &given) || given < first)) return RANGE_WHOLE;
		if (first >= size) return RANGE_OUTSIDE;
		if (dash[1] && given < last) last = given;
	}
	*ret_first = first;
	*ret_bytes = last - first + 1;
	return RANGE_PART;
}

bool origin_is_host(const char *origin, const char *host)
{
	const char *authority = NULL;
	if (strncasecmp(origin, "http://", 7) == 0)
		authority = origin + 7;
	else if (strncasecmp(origin, "https://", 8) == 0)
		authority = origin + 8;
	return authority && host && strcasecmp(authority, host) == 0;
}
