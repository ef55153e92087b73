#include "ctl/view.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ctl/text.h"

enum { BAR_LEAST = 12, BAR_MOST = 40 };

void view_init(struct view *view)
{
	*view = (struct view){.fraction = NAN, .eta_seconds = NAN, .loss = NAN, .sparsity = NAN};
}

static void take_text(char *to, size_t room, const char *text)
{
	struct buffer clean = {0};
	text_append(&clean, text);
	snprintf(to, room, "%s", clean.data ? clean.data : "");
	buffer_free(&clean);
}

/* A count that the contract gives from 0 on, or 0 where there is none. */
static int count_member(const cJSON *object, const char *key)
{
	double value = number_member(object, key);
	return value >= 0 && value < 1e9 ? (int)value : 0;
}

void view_take_job(struct view *view, const cJSON *job)
{
	const cJSON *progress = cJSON_GetObjectItemCaseSensitive(job, "progress");
	take_text(view->state, sizeof view->state, text_member_or(job, "state", ""));
	take_text(view->phase, sizeof view->phase, text_member_or(progress, "phase", ""));
	view->blocks = count_member(progress, "blocks");
	view->fraction = number_member(progress, "fraction");
	view->eta_seconds = number_member(progress, "eta_seconds");
}

/* "  NAME VALUE" where there is a value. */
static void append_value(struct buffer *line, const char *name, const char *value)
{
	if (strcmp(value, "-") != 0) buffer_printf(line, "  %s %s", name, value);
}

static void line_block(struct buffer *line, const cJSON *data)
{
	char text[TEXT_ROOM];
	buffer_printf(line, "block %d/%d", count_member(data, "block") + 1, count_member(data, "blocks"));
	append_value(line, "reconstruction", format_number(number_member(data, "reconstruction"), text));
	append_value(line, "sparsity", format_percent(number_member(data, "sparsity"), text));
	append_value(line, "perplexity", format_number(number_member(data, "perplexity"), text));
	if (isfinite(number_member(data, "perplexity")) && isfinite(number_member(data, "perplexity_dense")))
		buffer_printf(line, " (dense %s)", format_number(number_member(data, "perplexity_dense"), text));
	if (number_member(data, "seconds") >= 0) buffer_printf(line, "  %s", format_seconds(number_member(data, "seconds"), text));
}

static void line_perplexity(struct buffer *line, const cJSON *data)
{
	char text[TEXT_ROOM];
	text_append(line, text_member_or(data, "model", "?"));
	buffer_printf(line, " perplexity on ");
	text_append(line, text_member_or(data, "dataset", "?"));
	buffer_printf(line, ": %s", format_number(number_member(data, "perplexity"), text));
}

static void line_task(struct buffer *line, const cJSON *data)
{
	char acc[TEXT_ROOM], norm[TEXT_ROOM], bytes[TEXT_ROOM];
	text_append(line, text_member_or(data, "model", "?"));
	buffer_printf(line, " accuracy on ");
	text_append(line, text_member_or(data, "task", "?"));
	buffer_printf(line, ": %s, by characters %s, by bytes %s", format_percent(number_member(data, "acc"), acc),
		      format_percent(number_member(data, "acc_norm"), norm),
		      format_percent(number_member(data, "acc_bytes"), bytes));
}

/* A step of the global tune is no block's. */
static void take_step(struct view *view, const cJSON *data)
{
	view->block = cJSON_HasObjectItem(data, "block") ? count_member(data, "block") + 1 : 0;
	view->step = count_member(data, "step");
	view->steps = count_member(data, "steps");
	view->loss = number_member(data, "loss");
	view->sparsity = number_member(data, "sparsity");
}

static void take_block_start(struct view *view, const cJSON *data)
{
	view->block = count_member(data, "block") + 1;
	if (count_member(data, "blocks")) view->blocks = count_member(data, "blocks");
	view->step = view->steps = 0;
	view->loss = view->sparsity = NAN;
}

static bool take_job_event(struct view *view, const char *what, const cJSON *data, struct buffer *line)
{
	int attempt = count_member(data, "attempt");
	take_text(view->state, sizeof view->state, strcmp(what, "started") == 0 ? "running" : what);
	text_append(line, what);
	if (attempt > 1) buffer_printf(line, ", attempt %d", attempt);
	bool again = strcmp(text_member_or(data, "reason", ""), "failed") == 0;
	if (again) {
		buffer_printf(line, " again, for ");
		text_append(line, text_member_or(data, "retry_at", "?"));
	}
	if (again || strcmp(what, "failed") == 0) {
		buffer_printf(line, ": ");
		text_append(line, text_member_or(data, "code", "?"));
		buffer_printf(line, ": ");
		text_append(line, text_member_or(data, "message", "?"));
	}
	return true;
}

bool view_take_event(struct view *view, const char *type, const cJSON *data, struct buffer *line)
{
	if (strncmp(type, "job.", 4) == 0) return take_job_event(view, type + 4, data, line);
	if (strcmp(type, "block.started") == 0) {
		take_block_start(view, data);
		return false;
	}
	if (strcmp(type, "block.step") == 0 || strcmp(type, "tune.step") == 0) {
		take_step(view, data);
		return false;
	}
	if (strcmp(type, "block.finished") == 0) {
		line_block(line, data);
	} else if (strcmp(type, "eval.finished") == 0) {
		line_perplexity(line, data);
	} else if (strcmp(type, "task.finished") == 0) {
		line_task(line, data);
	} else if (strcmp(type, "warning") == 0) {
		buffer_printf(line, "warning: ");
		text_append(line, text_member_or(data, "message", "?"));
	} else {
		return false; /* of a newer besad */
	}
	return true;
}

/* ---- the bar ------------------------------------------------------------------------------------------------------------ */

static void append_bar(struct buffer *to, double fraction, int cells)
{
	int full = fraction > 0 ? (int)(fraction * cells) : 0;
	if (full > cells) full = cells;
	buffer_append(to, "[", 1);
	for (int i = 0; i < cells; i++)
		buffer_append(to, i < full ? "#" : "-", 1);
	buffer_append(to, "]", 1);
}

static void append_part(struct buffer *to, const char *part)
{
	if (*part) buffer_printf(to, "%s%s", to->size ? "  " : "", part);
}

static size_t part_width(const char *part)
{
	return *part ? text_width(part) + 2 : 0;
}

void view_bar(const struct view *view, size_t columns, struct buffer *ret)
{
	/* In their order on the line; `keep` is the order in which they give way, the last first. */
	enum { HEAD, BLOCK, BAR, PERCENT, LOSS, SPARSITY, ETA, PARTS };
	static const int keep[] = {HEAD, PERCENT, BLOCK, ETA, BAR, LOSS, SPARSITY};
	char parts[PARTS][64] = {{0}}, text[TEXT_ROOM];
	bool shown[PARTS] = {false};
	bool running = strcmp(view->state, "running") == 0;
	snprintf(parts[HEAD], sizeof parts[HEAD], "%s", running && view->phase[0] ? view->phase : view->state);
	if (running && view->block && view->blocks)
		snprintf(parts[BLOCK], sizeof parts[BLOCK], "block %d/%d", view->block, view->blocks);
	if (isfinite(view->fraction)) {
		snprintf(parts[BAR], sizeof parts[BAR], "%*s", BAR_LEAST, "");
		snprintf(parts[PERCENT], sizeof parts[PERCENT], "%s", format_percent(view->fraction, text));
	}
	if (running && isfinite(view->loss)) snprintf(parts[LOSS], sizeof parts[LOSS], "loss %s", format_number(view->loss, text));
	if (running && isfinite(view->sparsity))
		snprintf(parts[SPARSITY], sizeof parts[SPARSITY], "sparsity %s", format_percent(view->sparsity, text));
	if (running && isfinite(view->eta_seconds))
		snprintf(parts[ETA], sizeof parts[ETA], "%s left", format_seconds(view->eta_seconds, text));

	size_t used = 0;
	for (size_t i = 0; i < PARTS; i++) {
		size_t width = part_width(parts[keep[i]]);
		if (used + width > columns + 2) break;
		shown[keep[i]] = true;
		used += width;
	}
	size_t spare = columns + 2 - used;
	int cells = BAR_LEAST - 2 + (int)(spare < BAR_MOST - BAR_LEAST ? spare : BAR_MOST - BAR_LEAST);
	for (int i = 0; i < PARTS; i++) {
		if (!shown[i]) continue;
		if (i == BAR && parts[BAR][0]) {
			if (ret->size) buffer_append(ret, "  ", 2);
			append_bar(ret, view->fraction, cells);
		} else {
			append_part(ret, parts[i]);
		}
	}
}
