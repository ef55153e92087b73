/* Jobs and results as people read them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "ctl/command.h"
#include "ctl/table.h"
#include "ctl/text.h"

void print_json(const cJSON *json)
{
	char *text = cJSON_Print(json);
	if (text)
		puts(text);
	else
		fprintf(stderr, "besactl: no memory\n");
	free(text);
}

static void row(struct table *table, const char *name, const char *value)
{
	if (!value || strcmp(value, "-") == 0) return;
	table_add(table, name);
	table_add(table, value);
	table_end_row(table);
}

/* ---- result ------------------------------------------------------------------------------------------------------------- */

static void perplexity_rows(struct table *table, const cJSON *result)
{
	const cJSON *entry;
	cJSON_ArrayForEach(entry, cJSON_GetObjectItemCaseSensitive(result, "perplexity"))
	{
		char dense[TEXT_ROOM], pruned[TEXT_ROOM];
		double length = number_member(entry, "sequence_length");
		table_add(table, "perplexity");
		table_add_format(table, "%s: dense %s, pruned %s", entry->string,
				 format_number(number_member(entry, "dense"), dense),
				 format_number(number_member(entry, "pruned"), pruned));
		if (isfinite(length)) {
			char *last = table->cells[--table->count];
			table_add_format(table, "%s (windows of %.0f tokens)", last, length);
			free(last);
		}
		table_end_row(table);
	}
}

/* A row for each score of a task: "piqa acc  dense 77.3 % ± 1.0 %, pruned 76.1 % ± 1.0 %". */
static void task_rows(struct table *table, const cJSON *result)
{
	static const char *const scores[] = {"acc", "acc_norm", "acc_bytes"};
	const cJSON *task;
	cJSON_ArrayForEach(task, cJSON_GetObjectItemCaseSensitive(result, "tasks"))
	{
		for (size_t i = 0; i < sizeof scores / sizeof *scores; i++) {
			char dense[SCORE_ROOM], pruned[SCORE_ROOM];
			table_add_format(table, "%s %s", task->string, scores[i]);
			table_add_format(table, "dense %s, pruned %s",
					 format_score(cJSON_GetObjectItemCaseSensitive(task, "dense"), scores[i], dense),
					 format_score(cJSON_GetObjectItemCaseSensitive(task, "pruned"), scores[i], pruned));
			table_end_row(table);
		}
	}
}

static void result_rows(struct table *table, const cJSON *job)
{
	const cJSON *result = cJSON_GetObjectItemCaseSensitive(job, "result"),
		    *error = cJSON_GetObjectItemCaseSensitive(job, "error");
	char text[TEXT_ROOM];
	if (cJSON_IsObject(error)) {
		table_add(table, "error");
		table_add_format(table, "%s: %s", text_member_or(error, "code", "?"), text_member_or(error, "message", "?"));
		table_end_row(table);
	}
	if (!cJSON_IsObject(result)) return;
	row(table, "output", text_member(result, "output"));
	if (isfinite(number_member(result, "sparsity"))) {
		table_add(table, "sparsity");
		table_add_format(table, "%.6f", number_member(result, "sparsity"));
		table_end_row(table);
	}
	perplexity_rows(table, result);
	task_rows(table, result);
	row(table, "pruning time", format_seconds(number_member(result, "pruning_seconds"), text));
	row(table, "total time", format_seconds(number_member(result, "seconds"), text));
}

void print_result(const cJSON *job)
{
	struct table table = {.align = "l"};
	row(&table, "job", text_member(job, "id"));
	row(&table, "state", text_member(job, "state"));
	result_rows(&table, job);
	table_print(&table, stdout);
	table_free(&table);
}

/* ---- job ---------------------------------------------------------------------------------------------------------------- */

static void progress_row(struct table *table, const cJSON *job)
{
	const cJSON *progress = cJSON_GetObjectItemCaseSensitive(job, "progress");
	const char *phase = text_member(progress, "phase");
	char percent[TEXT_ROOM], left[TEXT_ROOM];
	double eta = number_member(progress, "eta_seconds");
	if (!phase || strcmp(text_member_or(job, "state", ""), "succeeded") == 0) return;
	table_add(table, "progress");
	table_add_format(table, "%s, %s%s%s", phase, format_percent(number_member(progress, "fraction"), percent),
			 isfinite(eta) ? ", time left " : "", isfinite(eta) ? format_seconds(eta, left) : "");
	table_end_row(table);
}

/* A row of ids, where there are any. */
static void ids_row(struct table *table, const char *name, const cJSON *ids)
{
	const cJSON *id;
	struct buffer text = {0};
	cJSON_ArrayForEach(id, ids) buffer_printf(&text, "%s%s", text.size ? " " : "", cJSON_IsString(id) ? id->valuestring : "?");
	if (text.size) row(table, name, text.data);
	buffer_free(&text);
}

/* The settings, each under its path: "besa.epochs  1". */
static void spec_rows(struct table *table, const cJSON *spec, const char *prefix)
{
	const cJSON *item;
	int index = 0;
	cJSON_ArrayForEach(item, spec)
	{
		char path[160];
		if (item->string)
			snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", item->string);
		else
			snprintf(path, sizeof path, "%s.%d", prefix, index++);
		if (cJSON_IsObject(item) || cJSON_IsArray(item)) {
			spec_rows(table, item, path);
			continue;
		}
		/* Text as it is, but as JSON where it would not show, as line breaks. */
		bool plain = cJSON_IsString(item) && item->valuestring[strcspn(item->valuestring, "\t\r\n")] == 0;
		char *text = plain ? NULL : cJSON_PrintUnformatted(item);
		row(table, path, plain ? item->valuestring : text);
		free(text);
	}
}

void print_job(const cJSON *job)
{
	struct table table = {.align = "l"};
	char time[TEXT_ROOM];
	row(&table, "job", text_member(job, "id"));
	row(&table, "state", text_member(job, "state"));
	progress_row(&table, job);
	result_rows(&table, job);
	row(&table, "created", format_time(text_member(job, "created_at"), time));
	row(&table, "started", format_time(text_member(job, "started_at"), time));
	row(&table, "finished", format_time(text_member(job, "finished_at"), time));
	row(&table, "next try", format_time(text_member(job, "retry_at"), time));
	ids_row(&table, "depends on", cJSON_GetObjectItemCaseSensitive(job, "depends_on"));
	ids_row(&table, "waits for", cJSON_GetObjectItemCaseSensitive(job, "waits_for"));
	if (number_member(job, "attempt") > 1) {
		table_add(&table, "attempt");
		table_add_format(&table, "%.0f", number_member(job, "attempt"));
		table_end_row(&table);
	}
	table_print(&table, stdout);
	table_free(&table);

	struct table spec = {.align = "l"};
	puts("");
	spec_rows(&spec, cJSON_GetObjectItemCaseSensitive(job, "spec"), "");
	table_print(&spec, stdout);
	table_free(&spec);
}

/* ---- estimate ------------------------------------------------------------------------------------------------------------ */

/* "81.6 MB of 23.4 GB"; what does not fit is said. */
static void need_row(struct table *table, const char *name, const cJSON *part, const char *bytes, const char *room)
{
	char need[TEXT_ROOM], there[TEXT_ROOM];
	bool short_of = cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(part, "fits"));
	table_add(table, name);
	table_add_format(table, "%s of %s%s", format_bytes(number_member(part, bytes), need),
			 format_bytes(number_member(part, room), there), short_of ? ": too little" : "");
	table_end_row(table);
}

static const char *plural(double n)
{
	return n == 1 ? "" : "s";
}

static void seconds_rows(struct table *table, const cJSON *seconds)
{
	char text[TEXT_ROOM];
	const cJSON *pruning = cJSON_GetObjectItemCaseSensitive(seconds, "pruning"),
		    *rest = cJSON_GetObjectItemCaseSensitive(seconds, "rest");
	double blocks = number_member(pruning, "measured_blocks"), jobs = number_member(pruning, "measured_jobs");
	table_add(table, "total time");
	table_add(table, isfinite(number_member(seconds, "total")) ? format_seconds(number_member(seconds, "total"), text)
								   : "not known: nothing like it has run on this device");
	table_end_row(table);
	if (isfinite(blocks)) {
		table_add(table, "pruning time");
		table_add_format(table, "%s, by %.0f block%s of %.0f %s job%s",
				 format_seconds(number_member(pruning, "seconds"), text), blocks, plural(blocks), jobs,
				 cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(pruning, "scaled")) ? "other" : "such",
				 plural(jobs));
		table_end_row(table);
	}
	jobs = number_member(rest, "measured_jobs");
	if (!isfinite(jobs)) return;
	table_add(table, "all else");
	table_add_format(table, "%s, by %.0f such job%s", format_seconds(number_member(rest, "seconds"), text), jobs, plural(jobs));
	table_end_row(table);
}

void print_estimate(const cJSON *estimate)
{
	struct table table = {.align = "l"};
	const cJSON *memory = cJSON_GetObjectItemCaseSensitive(estimate, "memory"),
		    *disk = cJSON_GetObjectItemCaseSensitive(estimate, "disk");
	row(&table, "device", text_member(estimate, "device"));
	row(&table, "precision", text_member(estimate, "precision"));
	need_row(&table, "device memory", cJSON_GetObjectItemCaseSensitive(memory, "device"), "peak_bytes", "available_bytes");
	need_row(&table, "process memory", cJSON_GetObjectItemCaseSensitive(memory, "process"), "peak_bytes", "available_bytes");
	need_row(&table, "output", cJSON_GetObjectItemCaseSensitive(disk, "output"), "bytes", "free_bytes");
	need_row(&table, "checkpoint", cJSON_GetObjectItemCaseSensitive(disk, "checkpoint"), "bytes", "free_bytes");
	if (cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(disk, "fits"))) row(&table, "disk", "too little is free");
	seconds_rows(&table, cJSON_GetObjectItemCaseSensitive(estimate, "seconds"));
	table_print(&table, stdout);
	table_free(&table);
}
