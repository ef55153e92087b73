#include "ctl/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

static bool is_control(const char *s)
{
	unsigned char first = (unsigned char)s[0];
	return first < 0x20 || first == 0x7f || (first == 0xc2 && (unsigned char)s[1] < 0xa0); /* C0, DEL, and C1 in UTF-8 */
}

void text_append(struct buffer *buffer, const char *text)
{
	for (; *text; text++) {
		if (!is_control(text)) {
			buffer_append(buffer, text, 1);
			continue;
		}
		buffer_append(buffer, "?", 1);
		if ((unsigned char)*text == 0xc2 && text[1]) text++;
	}
}

void text_put(FILE *file, const char *text)
{
	struct buffer clean = {0};
	text_append(&clean, text);
	if (clean.data) fputs(clean.data, file);
	buffer_free(&clean);
}

size_t text_width(const char *text)
{
	mbstate_t state = {0};
	size_t width = 0, left = strlen(text);
	while (left) {
		wchar_t wide;
		size_t used = mbrtowc(&wide, text, left, &state);
		if (used == 0 || used > left) return width + left; /* not text of this locale: a column a byte */
		int columns = wcwidth(wide);
		width += columns > 0 ? (size_t)columns : 0;
		text += used;
		left -= used;
	}
	return width;
}

const char *text_member(const cJSON *object, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

const char *text_member_or(const cJSON *object, const char *key, const char *fallback)
{
	const char *text = text_member(object, key);
	return text ? text : fallback;
}

double number_member(const cJSON *object, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
	return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

static const char *dash(char ret[TEXT_ROOM])
{
	return strcpy(ret, "-");
}

const char *format_seconds(double seconds, char ret[TEXT_ROOM])
{
	if (!(seconds >= 0 && seconds < 1e9)) return dash(ret);
	long whole = lround(seconds);
	if (seconds < 9.95)
		snprintf(ret, TEXT_ROOM, "%.1f s", seconds);
	else if (whole < 60)
		snprintf(ret, TEXT_ROOM, "%ld s", whole);
	else if (whole < 3600)
		snprintf(ret, TEXT_ROOM, "%ld min %02ld s", whole / 60, whole % 60);
	else
		snprintf(ret, TEXT_ROOM, "%ld h %02ld min", whole / 3600, whole % 3600 / 60);
	return ret;
}

const char *format_percent(double fraction, char ret[TEXT_ROOM])
{
	if (!isfinite(fraction) || fabs(fraction) > 1e6) return dash(ret);
	snprintf(ret, TEXT_ROOM, "%.1f %%", fraction * 100);
	return ret;
}

const char *format_score(const cJSON *scores, const char *score, char ret[SCORE_ROOM])
{
	char key[TEXT_ROOM], share[TEXT_ROOM], error[TEXT_ROOM];
	snprintf(key, sizeof key, "%s_stderr", score);
	format_percent(number_member(scores, score), share);
	if (strcmp(share, "-") == 0)
		snprintf(ret, SCORE_ROOM, "-");
	else
		snprintf(ret, SCORE_ROOM, "%s ± %s", share, format_percent(number_member(scores, key), error));
	return ret;
}

const char *format_bytes(double bytes, char ret[TEXT_ROOM])
{
	static const char *const units[] = {" B", " kB", " MB", " GB", " TB"};
	size_t unit = 0;
	if (!(bytes >= 0 && bytes < 1e15)) return dash(ret);
	/* 999.5 would be shown as 1000: it belongs to the next unit. */
	for (; bytes >= 999.5 && unit < sizeof units / sizeof *units - 1; unit++)
		bytes /= 1000;
	snprintf(ret, TEXT_ROOM, unit && bytes < 100 ? "%.3g%s" : "%.0f%s", bytes, units[unit]);
	return ret;
}

const char *format_number(double number, char ret[TEXT_ROOM])
{
	if (!isfinite(number)) return dash(ret);
	double size = fabs(number);
	if (size >= 1000 && size < 1e9)
		snprintf(ret, TEXT_ROOM, "%.0f", number);
	else
		snprintf(ret, TEXT_ROOM, "%#.4g", number);
	return ret;
}

const char *format_time(const char *rfc3339, char ret[TEXT_ROOM])
{
	if (!rfc3339 || strlen(rfc3339) < 19 || strspn(rfc3339, "0123456789-T:.Z") < 19) return dash(ret);
	snprintf(ret, TEXT_ROOM, "%.10s %.8s", rfc3339, rfc3339 + 11);
	return ret;
}
