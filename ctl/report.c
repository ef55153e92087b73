/* What pruning came to: one job block by block, and jobs side by side. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ctl/command.h"
#include "ctl/table.h"
#include "ctl/text.h"

static enum exit_code get_report(struct client *client, const char *id, cJSON **ret)
{
	char path[128];
	snprintf(path, sizeof path, "/v1/jobs/%s/report", id);
	return client_get(client, path, ret);
}

static const cJSON *blocks_of(const cJSON *report)
{
	return cJSON_GetObjectItemCaseSensitive(report, "blocks");
}

static double layer_sparsity(const cJSON *layer)
{
	return number_member(layer, "zeros") / number_member(layer, "params");
}

/* ---- report ------------------------------------------------------------------------------------------------------------- */

static bool has_perplexity(const cJSON *blocks)
{
	const cJSON *block;
	cJSON_ArrayForEach(block, blocks) if (isfinite(number_member(block, "perplexity"))) return true;
	return false;
}

static void report_row(struct table *table, const cJSON *block, const cJSON *layers, bool perplexity)
{
	const cJSON *layer, *own = cJSON_GetObjectItemCaseSensitive(block, "layers");
	char text[TEXT_ROOM];
	double zeros = 0, params = 0;
	table_add_format(table, "%.0f", number_member(block, "block") + 1);
	table_add(table, format_number(number_member(block, "reconstruction"), text));
	if (perplexity) table_add(table, format_number(number_member(block, "perplexity"), text));
	table_add(table, format_seconds(number_member(block, "seconds"), text));
	cJSON_ArrayForEach(layer, own)
	{
		zeros += number_member(layer, "zeros");
		params += number_member(layer, "params");
	}
	table_add(table, format_percent(zeros / params, text));
	cJSON_ArrayForEach(layer, layers)
		table_add(table, format_percent(layer_sparsity(cJSON_GetObjectItemCaseSensitive(own, layer->string)), text));
	table_end_row(table);
}

static void print_blocks(const cJSON *report)
{
	const cJSON *block, *layer, *blocks = blocks_of(report);
	const cJSON *layers = cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(blocks, 0), "layers");
	bool perplexity = has_perplexity(blocks);
	struct table table = {.align = "r"};
	if (!cJSON_GetArraySize(blocks)) {
		puts("No block is finished yet.");
		return;
	}
	table_add(&table, "BLOCK");
	table_add(&table, "LOSS");
	if (perplexity) table_add(&table, "PERPLEXITY");
	table_add(&table, "TIME");
	table_add(&table, "SPARSITY");
	cJSON_ArrayForEach(layer, layers) table_add(&table, layer->string);
	table_end_row(&table);
	cJSON_ArrayForEach(block, blocks) report_row(&table, block, layers, perplexity);
	table_print(&table, stdout);
	table_free(&table);
}

static void add_speedup(struct table *table, const cJSON *simulated, const char *variant)
{
	const cJSON *cycles = cJSON_GetObjectItemCaseSensitive(simulated, variant);
	double speedup = number_member(cycles, "speedup");
	table_add_format(table, "%.0f", number_member(cycles, "cycles"));
	if (isfinite(speedup))
		table_add_format(table, "%.2f", speedup);
	else
		table_add(table, "-");
}

static void hardware_row(struct table *table, const char *name, const cJSON *entry)
{
	const cJSON *simulated = cJSON_GetObjectItemCaseSensitive(entry, "simulated");
	table_add(table, name);
	add_speedup(table, simulated, "published");
	add_speedup(table, simulated, "corrected");
	add_speedup(table, simulated, "memory");
	table_end_row(table);
}

static void print_simulated(const cJSON *hardware)
{
	static const char *const head[] = {"LAYER", "PUBLISHED", "TIMES", "CORRECTED", "TIMES", "MEMORY", "TIMES", NULL};
	const cJSON *layer;
	struct table table = {.align = "lr"};
	puts("\nCycles on a simulated accelerator, and how many times fewer than dense:");
	table_head(&table, head);
	cJSON_ArrayForEach(layer, cJSON_GetObjectItemCaseSensitive(hardware, "layers"))
		hardware_row(&table, text_member_or(layer, "layer", "?"), layer);
	hardware_row(&table, "all", hardware);
	table_print(&table, stdout);
	table_free(&table);
}

/* times: of a kind of layers, or of a token; `bytes` a weight, NaN where they are not told. */
static void times_row(struct table *table, const char *name, const cJSON *times)
{
	double bytes = number_member(times, "bytes_per_weight");
	table_add(table, name);
	table_add_format(table, "%.1f", number_member(times, "dense_us"));
	table_add_format(table, "%.1f", number_member(times, "sparse_us"));
	table_add_format(table, "%.2f", number_member(times, "speedup"));
	if (isfinite(bytes))
		table_add_format(table, "%.3f", bytes);
	else
		table_add(table, "");
	table_end_row(table);
}

static void print_measured(const cJSON *hardware, const cJSON *decode)
{
	static const char *const head[] = {"LAYER", "DENSE US", "SPARSE US", "TIMES", "BYTES/WEIGHT", NULL};
	const cJSON *layer;
	struct table table = {.align = "lr"};
	double threads = number_member(decode, "threads");
	printf("\nProducts of one token on the processor, %.0f thread%s, dense and without the zeros:\n", threads,
	       threads == 1 ? "" : "s");
	table_head(&table, head);
	cJSON_ArrayForEach(layer, cJSON_GetObjectItemCaseSensitive(hardware, "layers"))
		times_row(&table, text_member_or(layer, "layer", "?"), cJSON_GetObjectItemCaseSensitive(layer, "measured"));
	times_row(&table, "one token", decode);
	table_print(&table, stdout);
	table_free(&table);
}

static void print_report(const cJSON *report)
{
	const cJSON *hardware = cJSON_GetObjectItemCaseSensitive(report, "hardware");
	print_blocks(report);
	const cJSON *decode = cJSON_GetObjectItemCaseSensitive(hardware, "decode");
	if (cJSON_GetObjectItemCaseSensitive(hardware, "simulated")) print_simulated(hardware);
	if (decode) print_measured(hardware, decode);
}

enum exit_code command_report(struct client *client, const struct options *options)
{
	char id[JOB_ID_ROOM];
	cJSON *report;
	enum exit_code code = resolve_job(client, options->n_args ? options->args[0] : NULL, id);
	if (code == EXIT_OK) code = get_report(client, id, &report);
	if (code != EXIT_OK) return code;
	if (options->json)
		print_json(report);
	else
		print_report(report);
	cJSON_Delete(report);
	return EXIT_OK;
}

/* ---- compare ------------------------------------------------------------------------------------------------------------ */

/* {"jobs": [{"job": …, "report": …}]} */
static enum exit_code gather(struct client *client, const struct options *options, cJSON *jobs)
{
	for (int i = 0; i < options->n_args; i++) {
		cJSON *job, *report, *entry = cJSON_CreateObject();
		cJSON_AddItemToArray(jobs, entry);
		enum exit_code code = get_job(client, options->args[i], &job);
		if (code != EXIT_OK) return code;
		cJSON_AddItemToObject(entry, "job", job);
		code = get_report(client, text_member_or(job, "id", ""), &report);
		if (code != EXIT_OK) return code;
		cJSON_AddItemToObject(entry, "report", report);
	}
	return EXIT_OK;
}

static const cJSON *member(const cJSON *entry, const char *first, const char *second)
{
	return cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(entry, first), second);
}

static const cJSON *result_of(const cJSON *entry)
{
	return member(entry, "job", "result");
}

/* A row of what `get` makes of each job. */
static void compare_row(struct table *table, const char *name, const cJSON *jobs, const char *(*get)(const cJSON *, char *))
{
	const cJSON *entry;
	char text[TEXT_ROOM];
	table_add(table, name);
	cJSON_ArrayForEach(entry, jobs) table_add(table, get(entry, text));
	table_end_row(table);
}

static const char *get_state(const cJSON *entry, char *text)
{
	(void)text;
	return text_member_or(cJSON_GetObjectItemCaseSensitive(entry, "job"), "state", "?");
}

static const char *get_name(const cJSON *entry, char *text)
{
	(void)text;
	return text_member_or(cJSON_GetObjectItemCaseSensitive(entry, "job"), "name", "");
}

static const char *get_model(const cJSON *entry, char *text)
{
	(void)text;
	return text_member_or(member(entry, "job", "spec"), "model", "?");
}

static const char *get_method(const cJSON *entry, char *text)
{
	(void)text;
	return text_member_or(member(entry, "job", "spec"), "method", "?");
}

static const char *get_target(const cJSON *entry, char *text)
{
	return format_percent(number_member(member(entry, "job", "spec"), "sparsity"), text);
}

static const char *get_sparsity(const cJSON *entry, char *text)
{
	return format_percent(number_member(result_of(entry), "sparsity"), text);
}

static const char *get_pruning_time(const cJSON *entry, char *text)
{
	return format_seconds(number_member(result_of(entry), "pruning_seconds"), text);
}

static const char *get_time(const cJSON *entry, char *text)
{
	return format_seconds(number_member(result_of(entry), "seconds"), text);
}

/* A row of perplexities on one data set. */
static void perplexity_row(struct table *table, const char *dataset, const char *which, const cJSON *jobs)
{
	const cJSON *entry;
	char text[TEXT_ROOM];
	table_add_format(table, "%s %s", dataset, which);
	cJSON_ArrayForEach(entry, jobs)
	{
		const cJSON *own =
			cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(result_of(entry), "perplexity"), dataset);
		table_add(table, format_number(number_member(own, which), text));
	}
	table_end_row(table);
}

/* A row of a score ("acc") of one model ("dense") on one task. */
static void score_row(struct table *table, const char *task, const char *score, const char *model, const cJSON *jobs)
{
	const cJSON *entry;
	char text[SCORE_ROOM];
	table_add_format(table, "%s %s %s", task, score, model);
	cJSON_ArrayForEach(entry, jobs)
	{
		const cJSON *own =
			cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(result_of(entry), "tasks"), task);
		table_add(table, format_score(cJSON_GetObjectItemCaseSensitive(own, model), score, text));
	}
	table_end_row(table);
}

static void score_rows(struct table *table, const char *task, const cJSON *jobs)
{
	static const char *const scores[] = {"acc", "acc_norm", "acc_bytes"};
	for (size_t i = 0; i < sizeof scores / sizeof *scores; i++) {
		score_row(table, task, scores[i], "dense", jobs);
		score_row(table, task, scores[i], "pruned", jobs);
	}
}

static void block_rows(struct table *table, const cJSON *jobs)
{
	const cJSON *entry;
	char text[TEXT_ROOM];
	int most = 0;
	cJSON_ArrayForEach(entry, jobs)
	{
		int blocks = cJSON_GetArraySize(member(entry, "report", "blocks"));
		if (blocks > most) most = blocks;
	}
	for (int i = 0; i < most; i++) {
		table_add_format(table, "loss of block %d", i + 1);
		cJSON_ArrayForEach(entry, jobs) table_add(
			table,
			format_number(number_member(cJSON_GetArrayItem(member(entry, "report", "blocks"), i), "reconstruction"),
				      text));
		table_end_row(table);
	}
}

static void perplexity_rows(struct table *table, const char *dataset, const cJSON *jobs)
{
	perplexity_row(table, dataset, "dense", jobs);
	perplexity_row(table, dataset, "pruned", jobs);
}

/* The rows of everything that some job's result has under `key`, each once. */
static void rows_of_each(struct table *table, const char *key, const cJSON *jobs,
			 void (*rows)(struct table *table, const char *name, const cJSON *jobs))
{
	const cJSON *entry, *item;
	cJSON *seen = cJSON_CreateObject();
	cJSON_ArrayForEach(entry, jobs) cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(result_of(entry), key))
	{
		if (cJSON_HasObjectItem(seen, item->string)) continue;
		cJSON_AddNullToObject(seen, item->string);
		rows(table, item->string, jobs);
	}
	cJSON_Delete(seen);
}

static void print_comparison(const cJSON *jobs)
{
	const cJSON *entry;
	struct table table = {.align = "lr"};
	table_add(&table, "job");
	cJSON_ArrayForEach(entry, jobs)
		table_add(&table, text_member_or(cJSON_GetObjectItemCaseSensitive(entry, "job"), "id", "?"));
	table_end_row(&table);
	compare_row(&table, "name", jobs, get_name);
	compare_row(&table, "state", jobs, get_state);
	compare_row(&table, "model", jobs, get_model);
	compare_row(&table, "method", jobs, get_method);
	compare_row(&table, "sparsity asked", jobs, get_target);
	compare_row(&table, "sparsity reached", jobs, get_sparsity);
	rows_of_each(&table, "perplexity", jobs, perplexity_rows);
	rows_of_each(&table, "tasks", jobs, score_rows);
	compare_row(&table, "pruning time", jobs, get_pruning_time);
	compare_row(&table, "total time", jobs, get_time);
	block_rows(&table, jobs);
	table_print(&table, stdout);
	table_free(&table);
}

enum exit_code command_compare(struct client *client, const struct options *options)
{
	cJSON *json = cJSON_CreateObject(), *jobs = cJSON_AddArrayToObject(json, "jobs");
	enum exit_code code = gather(client, options, jobs);
	if (code == EXIT_OK && options->json)
		print_json(json);
	else if (code == EXIT_OK)
		print_comparison(jobs);
	cJSON_Delete(json);
	return code;
}
