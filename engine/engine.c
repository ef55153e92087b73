#include "engine/engine.h"

#include <inttypes.h>
#include <malloc.h>
#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/warnings.h"
#include "base/watch.h"
#include "engine/archive/archive.h"
#include "engine/eval/choices.h"
#include "engine/eval/dense_scores.h"
#include "engine/eval/perplexity.h"
#include "engine/eval/probe.h"
#include "engine/export/exports.h"
#include "engine/hardware/hardware.h"
#include "engine/job/inputs.h"
#include "engine/job/progress.h"
#include "engine/job/report.h"
#include "engine/job/self_check.h"
#include "engine/methods/method.h"
#include "engine/model/block.h"
#include "engine/model/check.h"
#include "engine/model/model.h"
#include "engine/output/artifacts.h"
#include "engine/output/format.h"
#include "engine/output/publish.h"
#include "engine/prune/allocate.h"
#include "engine/prune/end_loss.h"
#include "engine/prune/pipeline.h"
#include "engine/prune/prune.h"
#include "engine/prune/rehearsal.h"
#include "engine/prune/savepoint.h"
#include "engine/spec/restore.h"
#include "engine/text/divergence.h"
#include "engine/text/mixture.h"
#include "engine/tune/tune.h"

/* What the self-check takes a loss of (engine/prune/end_loss.h). */
struct checked {
	struct sequences windows; /* of the calibration; count 0 for none */
	double loss;              /* that the output's files give; NaN before it is known */
};

struct run {
	const struct engine_job *job;
	const struct spec *spec;
	const struct engine_sink *sink;
	const struct engine_sink *caller; /* what `sink` passes all on to */
	struct backend *backend;
	struct backend *own_backend; /* made here, for a resumed job that ran with another number of threads */
	cJSON *spec_json;
	struct model model;
	struct savepoint savepoint;
	struct sequences calibration;
	struct sequences datasets[SPEC_MAX_DATASETS];
	struct sequences probe; /* tokens of the progress perplexity */
	const char *probe_source;
	struct probe_plan plan;
	struct writer *writer;
	struct progress progress;
	struct warnings warnings; /* of what was loaded, until they are told */
	enum dtype compute_type, evaluation_type;
	struct questions questions[SPEC_MAX_TASKS];
	struct requests requests[SPEC_MAX_TASKS];
	cJSON *pruned;       /* {dataset: perplexity} */
	cJSON *pruned_tasks; /* {task: score} */
	cJSON *hardware;     /* what hardware_report says; NULL where the spec does not ask for it */
	struct checked checked;
	double started;
};

static bool prunes(const struct run *run)
{
	return spec_makes_output(run->spec);
}

static enum status __attribute__((format(printf, 3, 4))) warn(const struct run *run, struct error *err, const char *format, ...)
{
	char *message;
	va_list args;
	va_start(args, format);
	int made = vasprintf(&message, format, args);
	va_end(args);
	if (made < 0) return error_set(err, STATUS_NO_MEMORY, "no memory for a warning");
	struct event event = event_warning(message);
	free(message);
	return event_tell(run->sink, &event, err);
}

/* Notes what the method says of the job. */
static void heed_method(struct run *run)
{
	const struct method *method = method_find(run->spec->method);
	const char *caution = method->caution ? method->caution(run->spec) : NULL;
	if (caution) warnings_add(&run->warnings, "%s", caution);
}

/* Tells what the loaders and the method have noticed. */
static enum status tell_warnings(struct run *run, struct error *err)
{
	enum status status = STATUS_OK;
	for (size_t i = 0; i < run->warnings.count && !status; i++)
		status = warn(run, err, "%s", run->warnings.messages[i]);
	warnings_free(&run->warnings);
	return status;
}

/* Backend, threads and precision: the caller's for a new job, those of its first attempt for a resumed one, because they change the
 * last bits of the result. */
static enum status resolve_settings(struct run *run, struct error *err)
{
	struct savepoint *savepoint = &run->savepoint;
	enum precision precision = run->spec->precision;
	if (savepoint->found) {
		if (strcmp(savepoint->backend, run->backend->name) != 0) {
			TRY(warn(run, err, "the job began on the %s backend and goes on on %s: results may differ in the last bits",
				 savepoint->backend, run->backend->name));
		} else if (run->backend->unified && savepoint->threads != run->backend->threads) {
			TRY(backend_cpu_create(savepoint->threads, &run->own_backend, err));
			run->backend = run->own_backend;
		}
		precision = strcmp(savepoint->precision, "bf16") == 0 ? PRECISION_BF16 : PRECISION_F32;
	}
	if (precision == PRECISION_AUTO) precision = run->backend->native_bf16 ? PRECISION_BF16 : PRECISION_F32;
	run->compute_type = precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32;
	run->evaluation_type = run->backend->unified ? DTYPE_F32 : run->compute_type;
	snprintf(savepoint->backend, sizeof savepoint->backend, "%s", run->backend->name);
	snprintf(savepoint->precision, sizeof savepoint->precision, "%s", precision == PRECISION_BF16 ? "bf16" : "f32");
	savepoint->threads = run->backend->threads;
	return STATUS_OK;
}

double engine_block_work(const struct spec *spec)
{
	if (!spec->calibration.n_sources) return prune_block_work(spec);
	return (double)spec->calibration.samples * spec->calibration.sequence_length * prune_block_work(spec);
}

/* Whether the first data set is long enough to be probed. */
static bool probes_evaluation(const struct run *run)
{
	return run->spec->n_perplexity > 0 &&
	       run->datasets[0].count * run->datasets[0].length >= run->spec->calibration.sequence_length;
}

/* The first tokens of the first data set, or of the calibration where there is none of that length, cut as the calibration is. */
static enum status choose_probe(struct run *run, struct error *err)
{
	const struct spec *spec = run->spec;
	int64_t length = spec->calibration.sequence_length;
	const struct sequences *from = &run->calibration;
	run->probe_source = "calibration";
	if (probes_evaluation(run)) {
		from = &run->datasets[0];
		run->probe_source = spec->perplexity[0].name;
	}
	TRY(probe_plan(&run->model.config, spec->probe_every, engine_block_work(spec), from->count * from->length / length, length,
		       run->backend->unified, &run->plan, err));
	if (!run->plan.sequences) return STATUS_OK;
	run->probe = (struct sequences){.count = run->plan.sequences, .length = length};
	size_t bytes = (size_t)(run->probe.count * length) * sizeof *run->probe.ids;
	run->probe.ids = malloc(bytes);
	if (!run->probe.ids) return error_set(err, STATUS_NO_MEMORY, "no memory for the probe's tokens");
	memcpy(run->probe.ids, from->ids, bytes);
	return STATUS_OK;
}

static enum status load_tasks(struct run *run, struct error *err)
{
	const struct spec *spec = run->spec;
	struct tokenizer *tokenizer;
	if (!spec->n_tasks) return STATUS_OK;
	TRY(tokenizer_load(&spec->model_place, run->model.config.vocab, &run->warnings, &tokenizer, err));
	enum status status = STATUS_OK;
	for (int i = 0; i < spec->n_tasks && !status; i++) {
		const struct task *task = &spec->tasks[i];
		status = questions_load(&task->place, task->path, task->format, task->limit, &run->questions[i], err);
		if (!status)
			status = requests_encode(&run->questions[i], tokenizer, run->model.config.max_positions, &run->requests[i],
						 err);
		if (status) error_prefix(err, "task '%s'", task->name);
	}
	tokenizer_free(tokenizer);
	return status;
}

static enum status load_calibration(struct run *run, struct error *err)
{
	const struct calibration *calibration = &run->spec->calibration;
	struct mixture_source sources[SPEC_MAX_SOURCES];
	for (int i = 0; i < calibration->n_sources; i++)
		sources[i] = (struct mixture_source){
			{&calibration->sources[i].place, calibration->sources[i].path, calibration->sources[i].field},
			calibration->sources[i].samples};
	return mixture_calibration(sources, calibration->n_sources, &run->spec->model_place, run->model.config.vocab,
				   calibration->sequence_length, calibration->seed, run->job->stop, &run->warnings,
				   &run->calibration, err);
}

static enum status load_evaluation(struct run *run, struct error *err)
{
	const struct spec *spec = run->spec;
	int64_t vocab = run->model.config.vocab;
	for (int i = 0; i < spec->n_perplexity; i++) {
		const struct dataset *dataset = &spec->perplexity[i];
		const struct data_source source = {&dataset->place, dataset->path, dataset->field};
		TRY(corpus_evaluation(&source, &spec->model_place, vocab, dataset->sequence_length, dataset->join, run->job->stop,
				      &run->warnings, &run->datasets[i], err));
	}
	return load_tasks(run, err);
}

static void choose_checked(struct run *run)
{
	int64_t count = run->calibration.count ? end_loss_sequences(run->spec) : 0;
	run->checked = (struct checked){{.ids = run->calibration.ids, .count = count, .length = run->calibration.length}, NAN};
}

static enum status load_data(struct run *run, struct error *err)
{
	const struct spec *spec = run->spec;
	TRY(load_evaluation(run, err));
	if (!prunes(run)) return STATUS_OK;
	/* Later blocks go on from the hidden states; behind the last one the tokens may be needed again. */
	bool needed = savepoint_blocks(&run->savepoint) < run->model.config.layers || !isnan(run->savepoint.end_loss) ||
		      (!probes_evaluation(run) && spec->probe_every != PROBE_NEVER) || (tune_wanted(spec) && !run->savepoint.tuned);
	if (spec->calibration.n_sources && needed) {
		TRY(load_calibration(run, err));
		snprintf(run->savepoint.calibration_hash, sizeof run->savepoint.calibration_hash, "%016" PRIx64,
			 run->calibration.hash);
	}
	choose_checked(run);
	return choose_probe(run, err);
}

/* Tells of a calibration whose text is of another kind than what is evaluated on. */
static enum status compare_texts(const struct run *run, struct error *err)
{
	const struct diagnosis_rule *rule = &diagnosis_rules[DIAGNOSIS_OTHER_TEXT];
	for (int i = 0; i < run->spec->n_perplexity && run->calibration.count; i++) {
		double far;
		char message[400];
		TRY(token_divergence(&run->calibration, &run->datasets[i], run->model.config.vocab, &far, err));
		if (!(far > rule->threshold)) continue;
		snprintf(
			message, sizeof message,
			"the calibration is of another kind of text than '%s': %.2f bits further from it than its halves from each "
			"other",
			run->spec->perplexity[i].name, far);
		struct event event = event_finding(&(struct finding){DIAGNOSIS_OTHER_TEXT, far, message});
		TRY(event_tell(run->sink, &event, err));
	}
	return STATUS_OK;
}

static void start_progress(struct run *run)
{
	const struct spec *spec = run->spec;
	double layers = (double)run->model.config.layers, evaluation = 0, pruning = 0, done = 0;
	for (int i = 0; i < spec->n_perplexity; i++) {
		double work = (double)(run->datasets[i].count * run->datasets[i].length) * layers;
		evaluation += work;
		if (cJSON_GetObjectItemCaseSensitive(run->savepoint.dense, spec->perplexity[i].name)) done += work;
	}
	for (int i = 0; i < spec->n_tasks; i++) {
		double work = (double)requests_work(&run->requests[i]) * layers;
		evaluation += work;
		if (cJSON_GetObjectItemCaseSensitive(run->savepoint.dense_tasks, spec->tasks[i].name)) done += work;
	}
	if (prunes(run)) {
		double block = engine_block_work(spec);
		double tune = tune_work(spec, &run->model.config);
		double allocation = allocate_work(spec, run->model.config.layers);
		pruning = allocation + block * layers + tune;
		done += (run->savepoint.allocation ? allocation : 0) + block * savepoint_blocks(&run->savepoint) +
			(run->savepoint.tuned ? tune : 0);
		evaluation *= 2;
		evaluation += (double)(run->checked.windows.count * run->checked.windows.length) * layers;
	}
	progress_start(&run->progress, run->sink, (int)run->model.config.layers, evaluation + pruning, done);
}

/* Of one data set; beside it the loss of the self-check, where that is given, and not known yet, and can be taken in the same
 * way. */
static enum status measure(struct run *run, const struct model *model, struct backend *backend, const struct sequences *windows,
			   struct checked *beside, double *ret, struct error *err)
{
	enum dtype type = run->evaluation_type;
	bool both = beside && beside->windows.count && isnan(beside->loss) && beside->windows.length == windows->length &&
		    type == run->compute_type;
	if (!both) return perplexity(model, backend, type, windows, run->job->stop, &run->progress, ret, err);
	return perplexity_beside(model, backend, type, windows, &beside->windows, run->job->stop, &run->progress, ret,
				 &beside->loss, err);
}

/* The dense model's, which an earlier job may have found. Where it cannot be kept the next job finds it anew. */
static enum status measure_dense(struct run *run, const struct sequences *windows, double *ret, struct error *err)
{
	const char *directory = run->job->scores_dir;
	const cJSON *files = cJSON_GetObjectItemCaseSensitive(run->savepoint.inputs, "model");
	char key[SHA256_TEXT];
	struct error ignored;
	bool kept = directory &&
		    dense_scores_key(files, windows, run->evaluation_type, run->backend->device, key, &ignored) == STATUS_OK;
	if (kept && dense_scores_find(directory, key, ret)) {
		progress_add(&run->progress, (double)(windows->count * windows->length) * (double)run->model.config.layers);
		return STATUS_OK;
	}
	TRY(measure(run, &run->model, run->backend, windows, NULL, ret, err));
	if (kept) dense_scores_keep(directory, key, *ret, &ignored);
	return STATUS_OK;
}

/* Tells of a pruned model that is far worse than the dense one. */
static enum status judge(const struct run *run, const char *dataset, double pruned, struct error *err)
{
	double dense = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(run->savepoint.dense, dataset));
	char message[400];
	if (!(pruned / dense > diagnosis_rules[DIAGNOSIS_PERPLEXITY].threshold)) return STATUS_OK;
	snprintf(message, sizeof message, "the pruned model's perplexity on '%s' is %.2f, %.1f times the dense model's %.2f",
		 dataset, pruned, pruned / dense, dense);
	struct event event = event_finding(&(struct finding){DIAGNOSIS_PERPLEXITY, pruned / dense, message});
	return event_tell(run->sink, &event, err);
}

/* Perplexity of `model` on every dataset that `results` does not have yet; each is added to it and told as eval.finished.
 * `beside`: of the pruned model. */
static enum status evaluate(struct run *run, const struct model *model, const char *which, struct checked *beside, cJSON *results,
			    struct error *err)
{
	for (int i = 0; i < run->spec->n_perplexity; i++) {
		const char *name = run->spec->perplexity[i].name;
		double value;
		if (cJSON_GetObjectItemCaseSensitive(results, name)) continue;
		const struct sequences *windows = &run->datasets[i];
		enum status status = beside ? measure(run, model, run->backend, windows, beside, &value, err)
					    : measure_dense(run, windows, &value, err);
		if (status != STATUS_OK)
			return status == STATUS_CANCELLED ? status : error_prefix(err, "perplexity on '%s', %s model", name, which);
		struct event event = event_evaluation(name, which, value);
		TRY(event_tell(run->sink, &event, err));
		cJSON_AddNumberToObject(results, name, value);
		if (beside) TRY(judge(run, name, value, err));
		TRY(savepoint_save(&run->savepoint, run->spec_json, err));
	}
	return STATUS_OK;
}

static cJSON *score_json(const struct score *score)
{
	cJSON *json = cJSON_CreateObject();
	cJSON_AddNumberToObject(json, "acc", score->acc);
	cJSON_AddNumberToObject(json, "acc_stderr", score->acc_stderr);
	cJSON_AddNumberToObject(json, "acc_norm", score->acc_norm);
	cJSON_AddNumberToObject(json, "acc_norm_stderr", score->acc_norm_stderr);
	cJSON_AddNumberToObject(json, "acc_bytes", score->acc_bytes);
	cJSON_AddNumberToObject(json, "acc_bytes_stderr", score->acc_bytes_stderr);
	cJSON_AddNumberToObject(json, "questions", (double)score->questions);
	return json;
}

/* Scores of `model` on every task that `results` does not have yet; each is added to it and told as task.finished. */
static enum status evaluate_tasks(struct run *run, const struct model *model, const char *which, cJSON *results, struct error *err)
{
	for (int i = 0; i < run->spec->n_tasks; i++) {
		const char *name = run->spec->tasks[i].name;
		struct score score;
		if (cJSON_GetObjectItemCaseSensitive(results, name)) continue;
		enum status status = choices_score(model, run->backend, run->evaluation_type, &run->questions[i], &run->requests[i],
						   run->job->stop, &run->progress, &score, NULL, err);
		if (status != STATUS_OK)
			return status == STATUS_CANCELLED ? status : error_prefix(err, "task '%s', %s model", name, which);
		cJSON *json = score_json(&score);
		if (!json_add(results, name, json))
			return error_set(err, STATUS_NO_MEMORY, "no memory for the scores of task '%s'", name);
		struct event event = event_task(name, which, json);
		TRY(event_tell(run->sink, &event, err));
		TRY(savepoint_save(&run->savepoint, run->spec_json, err));
	}
	return STATUS_OK;
}

static struct hardware_wishes wishes_of(const struct run *run)
{
	const struct hardware_settings *settings = &run->spec->hardware;
	return (struct hardware_wishes){.simulate = settings->simulate,
					.measure = settings->measure,
					.threads = run->backend->unified ? run->backend->threads : omp_get_max_threads()};
}

static enum status look_at_hardware(struct run *run, const struct model *model, struct error *err)
{
	const struct hardware_wishes wishes = wishes_of(run);
	if (!wishes.simulate && !wishes.measure) return STATUS_OK;
	return hardware_report(model, &wishes, run->job->stop, &run->progress, &run->hardware, err);
}

/* The loss of the self-check, where no evaluation took it. */
static enum status take_loss(struct run *run, const struct model *model, struct backend *backend, struct error *err)
{
	struct checked *checked = &run->checked;
	if (!checked->windows.count || !isnan(checked->loss)) return STATUS_OK;
	return mean_loss(model, backend, run->compute_type, &checked->windows, run->job->stop, &run->progress, &checked->loss, err);
}

/* What the output's files give. */
static enum status evaluate_pruned(struct run *run, const struct self_check *check, struct error *err)
{
	struct model pruned;
	TRY(model_open(writer_place(run->writer), NULL, &pruned, err));
	enum status status = evaluate(run, &pruned, "pruned", &run->checked, run->pruned, err);
	if (!status) status = take_loss(run, &pruned, run->backend, err);
	if (!status && run->checked.windows.count) status = self_check_loss(check, run->checked.loss, err);
	if (!status) status = evaluate_tasks(run, &pruned, "pruned", run->pruned_tasks, err);
	if (!status) status = look_at_hardware(run, &pruned, err);
	model_close(&pruned);
	return status;
}

/* The output, as it lies on disk. */
static enum status check_output(struct run *run, struct error *err)
{
	const struct self_check check = {run->spec, &run->model, run->writer, &run->savepoint, run->job->stop};
	progress_phase(&run->progress, "checking");
	TRY(self_check_files(&check, err));
	progress_phase(&run->progress, "evaluating");
	return evaluate_pruned(run, &check, err);
}

/* Is it made of the inputs that are there now? */
static enum status compare_inputs(const struct run *run, const cJSON *report, struct error *err)
{
	cJSON *now;
	TRY(inputs_describe(run->spec, &run->model, &now, err));
	enum status status = inputs_compare(cJSON_GetObjectItemCaseSensitive(report, "inputs"), now, err);
	cJSON_Delete(now);
	return status;
}

/* Takes the result of an output that this job made: of the same spec and of the blocks it has pruned, or, where it is not known
 * to have pruned any, of the same inputs. *ret_result stays NULL where it is another's. */
static enum status take_published(struct run *run, const cJSON *report, bool pruned, cJSON **ret_result, struct error *err)
{
	const struct engine_job *job = run->job;
	const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(report, "job"));
	const cJSON *result = cJSON_GetObjectItemCaseSensitive(report, "result");
	struct json_difference difference;
	if (!id || strcmp(id, job->job_id) != 0 || !cJSON_IsObject(result)) return STATUS_OK;
	cJSON *work = spec_work(run->spec_json);
	if (!work) return error_set(err, STATUS_NO_MEMORY, "no memory for the spec");
	bool other = json_differ(cJSON_GetObjectItemCaseSensitive(report, "spec"), work, true, &difference);
	cJSON_Delete(work);
	if (other) return STATUS_OK;
	/* Ids of `besad run` come again; blocks, with the seconds they took, do not. */
	if (pruned && !cJSON_Compare(cJSON_GetObjectItemCaseSensitive(report, "blocks"), run->savepoint.blocks, true))
		return STATUS_OK;
	if (!pruned) TRY(compare_inputs(run, report, err));
	char *replaced = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(result, "replaced"));
	struct place aside = {job->aside.root, replaced ? replaced : job->aside.path};
	TRY(publish_rest(&job->work, &aside, err));
	*ret_result = cJSON_Duplicate(result, true);
	return *ret_result ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory for the result");
}

/* A crash between publication and the caller's note of it, or after both, when the caller had begun to forget the job: the
 * output is there under its name and says that it is this job's. Takes its result, and finishes what publication may have left.
 * A job that has blocks to prune and may not replace the output that is there ends here too: STATUS_EXISTS. */
static enum status find_published(struct run *run, cJSON **ret_result, struct error *err)
{
	const struct engine_job *job = run->job;
	bool pruned = job->blocks_done >= run->model.config.layers;
	bool there;
	cJSON *report;
	if (!prunes(run) || (!pruned && run->spec->overwrite)) return STATUS_OK;
	TRY(place_look(&job->output, REPORT_NAME, &there, err));
	if (!there) return STATUS_OK;
	TRY(publish_report(&job->output, &report, err));
	enum status status = take_published(run, report, pruned, ret_result, err);
	cJSON_Delete(report);
	if (!status && !*ret_result && !pruned)
		status = error_set(err, STATUS_EXISTS, "the output '%s' exists; \"overwrite\": true would replace it",
				   job->output.path);
	return status == STATUS_INVALID ? error_prefix(err, "the output '%s' exists", job->output.path) : status;
}

/* Notes what the inputs are, or, in a resumed job, refuses others than it began with. */
static enum status check_inputs(struct run *run, struct error *err)
{
	cJSON *now;
	struct savepoint *savepoint = &run->savepoint;
	TRY(inputs_describe(run->spec, &run->model, &now, err));
	if (!savepoint->inputs) {
		savepoint->inputs = now;
		if (savepoint->found)
			warnings_add(&run->warnings,
				     "the job began with an earlier besad, which did not note its inputs: whether they are "
				     "still the same is not known");
		return STATUS_OK;
	}
	enum status status = inputs_compare(savepoint->inputs, now, err);
	cJSON_Delete(now);
	return status;
}

/* Before anything is computed: what will not fit on the device fails now, with the numbers, and not hours later. Says how many
 * streams of hidden states shall live there. */
static enum status check_memory(const struct run *run, struct pruning *pruning, struct error *err)
{
	const struct calibration *calibration = &run->spec->calibration;
	struct rehearsal need;
	if (run->backend->unified) return STATUS_OK;
	size_t available;
	TRY(rehearsal_available(run->backend, &available, err));
	TRY(rehearse_largest(pruning, available, &need, err));
	if (!need.fits && need.tune > need.walk)
		return error_set(err, STATUS_NO_MEMORY,
				 "the global tune needs %zu MiB of device memory, and %zu MiB are free; a 'refit.method' of "
				 "\"block\" needs %zu "
				 "MiB, and a shorter 'calibration.sequence_length' or a smaller 'refit.batch_size' less than now",
				 (need.tune >> 20) + 1, available >> 20, (need.walk >> 20) + 1);
	if (!need.fits)
		return error_set(err, STATUS_NO_MEMORY,
				 "the job needs %zu MiB of device memory, and %zu MiB are free; a shorter "
				 "'calibration.sequence_length' or a "
				 "smaller 'besa.batch_size' needs less",
				 (need.peak >> 20) + 1, available >> 20);
	pruning->device_streams = need.device_streams;
	pruning->orders = need.orders;
	if (need.device_streams == 2) return STATUS_OK;
	double stream =
		(double)calibration->samples * calibration->sequence_length * (double)run->model.config.hidden * sizeof(float);
	return warn(run, err, "%s of hidden states live in host memory, %.0f MiB each: the device has %zu MiB free",
		    need.device_streams ? "one of two streams" : "both streams", stream / (1 << 20), available >> 20);
}

static void still_writing(void *context)
{
	progress_phase(context, "writing");
}

/* An attempt that was killed while it wrote the report has left a part of it, which would be packed, and listed. */
static enum status forget_report(const struct run *run, struct error *err)
{
	static const char name[] = REPORT_NAME PLACE_UNFINISHED;
	return place_remove(&run->job->work, name, err);
}

/* Packs the output, which is whole but for besad.json, into a directory of its own in it. An attempt that was cut short here is
 * done again from the start, with the same bytes. */
static enum status make_archive(struct run *run, struct error *err)
{
	static const char directory[] = "archive";
	static const char *const except[] = {REPORT_NAME, EXPORT_TYPES(EXPORT_FILE_OF) NULL};
	const struct place *work = &run->job->work;
	struct place archive;
	struct archive_options options = {.coded = run->spec->archive_coded,
					  .except = except,
					  .stop = run->job->stop,
					  .progress = still_writing,
					  .context = &run->progress};
	TRY(writer_sync(run->writer, err));
	TRY(place_below(work, directory, &archive, err));
	enum status status = archive_pack(work, &archive, &options, err);
	place_free(&archive);
	return status;
}

/* What cannot be exported fails before anything is computed. */
static enum status check_exports(struct run *run, int64_t *ret_bytes, struct error *err)
{
	const struct spec *spec = run->spec;
	*ret_bytes = 0;
	if (!spec->exports) return STATUS_OK;
	return exports_check(&run->model, &spec->model_place, spec->exports, &run->warnings, ret_bytes, err);
}

static struct pruning pruning_of(struct run *run)
{
	return (struct pruning){.job = run->job,
				.model = &run->model,
				.backend = run->backend,
				.sink = run->sink,
				.progress = &run->progress,
				.savepoint = &run->savepoint,
				.spec_json = run->spec_json,
				.compute_type = run->compute_type,
				.probe = &run->probe,
				.plan = &run->plan,
				.device_streams = 2,
				.orders = !run->backend->unified};
}

static enum status run_all(struct run *run, cJSON **ret_result, struct error *err)
{
	const struct engine_job *job = run->job;
	TRY(model_open(&run->spec->model_place, &run->warnings, &run->model, err));
	TRY(model_check_all(&run->model, &run->warnings, err));
	TRY(savepoint_load(job->checkpoint_dir, run->spec_json, job->blocks_done, &run->savepoint, err));
	TRY(find_published(run, ret_result, err));
	if (*ret_result) return STATUS_OK;
	TRY(check_inputs(run, err));
	int saved = savepoint_blocks(&run->savepoint);
	bool kept;
	TRY(place_look(&job->work, NULL, &kept, err));
	if (saved && !kept)
		return error_set(err, STATUS_NOT_FOUND, "%s is gone, and %d finished blocks with it; submit the job again",
				 job->work.path, saved);
	TRY(resolve_settings(run, err));
	struct pruning pruning = pruning_of(run);
	if (prunes(run)) TRY(check_memory(run, &pruning, err));
	TRY(load_data(run, err));
	heed_method(run);
	int64_t ignored;
	TRY(check_exports(run, &ignored, err));
	TRY(tell_warnings(run, err));
	TRY(compare_texts(run, err));
	if (prunes(run)) TRY(format_open(run->spec, &run->model, &job->work, &run->writer, err));
	pruning.writer = run->writer;
	TRY(savepoint_save(&run->savepoint, run->spec_json, err));
	start_progress(run);

	progress_phase(&run->progress, "evaluating dense");
	TRY(evaluate(run, &run->model, "dense", NULL, run->savepoint.dense, err));
	TRY(evaluate_tasks(run, &run->model, "dense", run->savepoint.dense_tasks, err));
	struct report report = {.job = job,
				.savepoint = &run->savepoint,
				.spec = run->spec_json,
				.pruned = run->pruned,
				.pruned_tasks = run->pruned_tasks,
				.checked_loss = NAN,
				.probe = &run->probe,
				.probe_source = run->probe_source,
				.device = run->backend->device};
	if (prunes(run)) {
		/* What the C library keeps of one phase's memory would stand beside the next one's. */
		malloc_trim(0);
		TRY(prune_blocks(&pruning, &run->calibration, err));
		if (tune_wanted(run->spec)) TRY(tune_model(&pruning, &run->calibration, err));
		malloc_trim(0);
		TRY(check_inputs(run, err));
		TRY(check_output(run, err));
		report.checked_loss = run->checked.loss;
		progress_phase(&run->progress, "writing");
		report.output = run->spec->output;
		/* The last look at what the weights were read from; what was only opened by name may have been replaced
		 * meanwhile. */
		TRY(check_inputs(run, err));
		TRY(forget_report(run, err));
		if (run->spec->archive) TRY(make_archive(run, err));
		TRY(exports_write(&job->work, &job->output, run->spec->exports, job->stop, err));
	} else {
		TRY(look_at_hardware(run, &run->model, err));
	}
	report.hardware = run->hardware;
	bool replaces = false;
	if (prunes(run) && run->spec->overwrite) TRY(place_look(&job->output, NULL, &replaces, err));
	if (replaces) report.replaced = job->aside.path;
	report.seconds = monotonic_seconds() - run->started;
	cJSON *result = report_result(&report);
	enum status status = STATUS_OK;
	if (prunes(run)) {
		bool replaced;
		cJSON *artifacts = NULL;
		status = writer_finish(run->writer, err);
		if (status == STATUS_OK) status = artifacts_describe(&job->work, job->stop, &artifacts, err);
		if (status == STATUS_OK) status = report_write(&report, result, artifacts, &job->work, err);
		cJSON_Delete(artifacts);
		if (status == STATUS_OK)
			status = publish(&job->work, &job->output, &job->aside, run->spec->overwrite, &replaced, err);
	}
	if (status != STATUS_OK) {
		cJSON_Delete(result);
		return status;
	}
	*ret_result = result;
	return STATUS_OK;
}

static void release(struct run *run)
{
	writer_close(run->writer);
	sequences_free(&run->calibration);
	sequences_free(&run->probe);
	free(run->plan.due);
	for (int i = 0; i < SPEC_MAX_DATASETS; i++)
		sequences_free(&run->datasets[i]);
	for (int i = 0; i < SPEC_MAX_TASKS; i++) {
		questions_free(&run->questions[i]);
		requests_free(&run->requests[i]);
	}
	warnings_free(&run->warnings);
	savepoint_free(&run->savepoint);
	model_close(&run->model);
	backend_destroy(run->own_backend);
	cJSON_Delete(run->spec_json);
	cJSON_Delete(run->pruned);
	cJSON_Delete(run->pruned_tasks);
	cJSON_Delete(run->hardware);
}

/* A copy gets on: before progress is reckoned, and in between. */
static void beat(void *context)
{
	struct run *run = context;
	if (run->progress.sink)
		progress_add(&run->progress, 0);
	else
		run->sink->progress(run->sink->context, "loading", 0, 0, 0, -1);
}

/* ---- findings: on their way to the caller, they are kept for the report ------------------------------------------------------ */

static enum status keep_event(void *context, const struct event *event, struct error *err)
{
	struct run *run = context;
	cJSON *findings = run->savepoint.findings, *copy;
	if (findings && cJSON_HasObjectItem(event->data, "rule")) {
		bool known = false;
		const cJSON *finding;
		cJSON_ArrayForEach(finding, findings) known = known || cJSON_Compare(finding, event->data, true);
		copy = known ? NULL : cJSON_Duplicate(event->data, true);
		if (!known && !(copy && cJSON_AddItemToArray(findings, copy)))
			return error_set(err, STATUS_NO_MEMORY, "no memory for what was found");
	}
	return run->caller->event(run->caller->context, event, err);
}

static enum status pass_block(void *context, int block, const struct event *event, struct error *err)
{
	const struct run *run = context;
	return run->caller->commit_block(run->caller->context, block, event, err);
}

static void pass_progress(void *context, const char *phase, int block, int blocks, double fraction, double eta_seconds)
{
	const struct run *run = context;
	run->caller->progress(run->caller->context, phase, block, blocks, fraction, eta_seconds);
}

enum status engine_run(const struct engine_job *job, struct backend *backend, const struct engine_sink *sink, cJSON **ret_result,
		       struct error *err)
{
	struct run run = {.job = job, .spec = job->spec, .caller = sink, .backend = backend, .started = monotonic_seconds()};
	struct engine_sink through = *sink;
	through.context = &run;
	through.event = keep_event;
	through.commit_block = pass_block;
	through.progress = pass_progress;
	run.sink = &through;
	cJSON *result = NULL;
	json_begin();
	const struct watch watch = {.stop = job->stop, .beat = beat, .context = &run};
	run.spec_json = spec_to_json(job->spec);
	run.pruned = cJSON_CreateObject();
	run.pruned_tasks = cJSON_CreateObject();
	watch_set(&watch);
	enum status status = run.spec_json && run.pruned && run.pruned_tasks
				     ? run_all(&run, &result, err)
				     : error_set(err, STATUS_NO_MEMORY, "no memory for the job");
	watch_set(NULL);
	release(&run);
	if (status == STATUS_OK) *ret_result = result;
	return status;
}

/* ---- estimates --------------------------------------------------------------------------------------------------------------- */

static enum status output_bytes(struct run *run, int64_t *ret, struct error *err)
{
	int64_t exports;
	TRY(check_exports(run, &exports, err));
	TRY(format_bytes(run->spec, &run->model, ret, err));
	if (run->spec->archive) *ret *= 2; /* an archive takes at most what the files in it take */
	*ret += exports;
	return STATUS_OK;
}

/* Data whose length is what matters: the calibration's is known, that of the evaluation is not. */
static enum status measure_data(struct run *run, struct error *err)
{
	const struct calibration *calibration = &run->spec->calibration;
	TRY(load_evaluation(run, err));
	if (!prunes(run)) return STATUS_OK;
	if (calibration->n_sources) {
		struct sequences tokens = {.count = calibration->samples, .length = calibration->sequence_length};
		tokens.ids = calloc((size_t)(tokens.count * tokens.length), sizeof *tokens.ids);
		if (!tokens.ids) return error_set(err, STATUS_NO_MEMORY, "no memory for the calibration's tokens");
		run->calibration = tokens;
	}
	choose_checked(run);
	return choose_probe(run, err);
}

/* Bytes of what is loaded and stays until the end. */
static size_t data_bytes(const struct run *run)
{
	int64_t ids = run->calibration.count * run->calibration.length + run->probe.count * run->probe.length;
	for (int i = 0; i < run->spec->n_perplexity; i++)
		ids += run->datasets[i].count * run->datasets[i].length;
	for (int i = 0; i < run->spec->n_tasks; i++)
		for (int64_t j = 0; j < run->requests[i].count; j++)
			ids += run->requests[i].items[j].length;
	return (size_t)ids * sizeof(int32_t);
}

static enum status rehearse_evaluation(void *context, struct backend *dry, struct error *err)
{
	struct run *run = context;
	double ignored;
	for (int i = 0; i < run->spec->n_perplexity; i++)
		TRY(measure(run, &run->model, dry, &run->datasets[i], &run->checked, &ignored, err));
	TRY(take_loss(run, &run->model, dry, err));
	for (int i = 0; i < run->spec->n_tasks; i++) {
		struct score score;
		TRY(choices_score(&run->model, dry, run->evaluation_type, &run->questions[i], &run->requests[i], run->job->stop,
				  &run->progress, &score, NULL, err));
	}
	return STATUS_OK;
}

/* As check_memory and then the job would find it. */
static enum status rehearse(struct run *run, size_t available, struct rehearsal *ret, struct error *err)
{
	struct pruning pruning = pruning_of(run);
	if (prunes(run) && !run->backend->unified) {
		TRY(rehearse_largest(&pruning, available, ret, err));
		if (!ret->fits) return STATUS_OK;
		pruning.device_streams = ret->device_streams;
		pruning.orders = ret->orders;
	}
	return rehearse_job(&pruning, available, rehearse_evaluation, run, ret, err);
}

static enum status estimate(struct run *run, size_t available, struct engine_need *ret, struct error *err)
{
	struct rehearsal rehearsal;
	struct block_layout layout;
	const struct hardware_wishes wishes = wishes_of(run);
	int64_t timing;
	TRY(model_open(&run->spec->model_place, &run->warnings, &run->model, err));
	TRY(model_check_all(&run->model, &run->warnings, err));
	TRY(resolve_settings(run, err));
	TRY(measure_data(run, err));
	progress_start(&run->progress, run->sink, (int)run->model.config.layers, 1, 0);
	TRY(rehearse(run, available, &rehearsal, err));
	TRY(hardware_memory(&run->model, &wishes, &timing, err));
	if (rehearsal.process < (size_t)timing) rehearsal.process = (size_t)timing; /* it comes when all else is done */
	TRY(block_layout_create(&run->model.config, &layout, err));
	*ret = (struct engine_need){.precision = run->compute_type == DTYPE_BF16 ? "bf16" : "f32",
				    .device = rehearsal.peak,
				    .device_fits = rehearsal.fits,
				    .process = rehearsal.process + data_bytes(run),
				    .blocks = run->model.config.layers,
				    .params = layout.params,
				    .params_per_token = layout_params_per_token(&run->model.config)};
	block_layout_release(&layout);
	if (!prunes(run)) return STATUS_OK;
	ret->savepoint = tune_disk_bytes(run->spec, &run->model.config, ret->params,
					 pipeline_disk_bytes(&run->model, run->spec, run->plan.sequences));
	return output_bytes(run, &ret->output, err);
}

enum status engine_estimate(const struct engine_job *job, struct backend *backend, size_t available, struct engine_need *ret,
			    struct error *err)
{
	struct run run = {.job = job, .spec = job->spec, .sink = &rehearsal_sink, .backend = backend};
	enum status status = estimate(&run, available, ret, err);
	release(&run);
	return status;
}

enum status engine_discard(const struct engine_job *job, struct error *err)
{
	TRY(place_remove(&job->work, NULL, err));
	return directory_remove(job->checkpoint_dir, err);
}
