/* A job's spec: what a client asked for, checked and with every default filled in. */
#ifndef BESAD_ENGINE_SPEC_H
#define BESAD_ENGINE_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/error.h"
#include "base/place.h"
#include "engine/compute/backend.h"
#include "engine/eval/tasks.h"
#include "engine/export/type.h"
#include "engine/methods/list.h"

#define METHOD_ENUMERATOR(enumerator, ...) METHOD_##enumerator,
enum method_id { METHODS(METHOD_ENUMERATOR) METHOD_NONE };
extern const char *const spec_method_names[]; /* by enum method_id; ends with NULL */
enum { PRESET_NONE = -1 };
enum granularity { GRANULARITY_ROW, GRANULARITY_LAYER };
enum reconstruct { RECONSTRUCT_BLOCK, RECONSTRUCT_HALF_BLOCK, RECONSTRUCT_LAYER, RECONSTRUCT_TWO_BLOCKS }; /* at once */
enum target { TARGET_BLOCK, TARGET_DENSE_STREAM };
enum optimizer { OPTIMIZER_PRODIGY, OPTIMIZER_ADAMW };
/* `probe_every` of a spec: as often as fits into its share of the time, or never; n ≥ 1 is after each n-th block and the last. */
enum { PROBE_AUTO = -1, PROBE_NEVER = 0 };
enum precision { PRECISION_AUTO, PRECISION_F32, PRECISION_BF16 };

enum { SPEC_MAX_DATASETS = 16, SPEC_MAX_SOURCES = 16, SPEC_MAX_TASKS = 16, SPEC_MAX_SETTINGS = 16, SPEC_MAX_PROBLEMS = 32 };

struct dataset {
	char *name;
	char *path;          /* as the client wrote it */
	struct place place;  /* inside a data root */
	int sequence_length; /* T; 0 until the model is known, then resolved */
	char *join;          /* between the texts of rows */
	char *field;         /* where the text of a row is */
};

/* A file of the calibration. */
struct source {
	char *path, *field; /* as in struct dataset */
	struct place place;
	double weight;
	int64_t samples; /* its part of all */
};

struct calibration {
	struct source sources[SPEC_MAX_SOURCES];
	int n_sources; /* 0 where there is no data */
	bool mixed;    /* the client gave `sources`, not `path` */
	char *field;   /* of sources that name none */
	int samples, sequence_length;
	int64_t seed;
};

/* A multiple-choice task of the evaluation. */
struct task {
	char *name, *path; /* as in struct dataset */
	struct place place;
	enum task_format format;
	int64_t limit; /* questions; 0 for all */
};

struct besa_settings {
	enum granularity granularity;
	int rows_per_group; /* rows of a linear that share a rate, by row; 1 by layer */
	enum reconstruct reconstruct;
	enum importance importance;
	int candidates;
	double lambda;
	int epochs, batch_size;
	enum optimizer optimizer;
	double d_coef;        /* Prodigy */
	double learning_rate; /* AdamW */
	enum target target;
	enum parameterization parameterization; /* auto is resolved */
	bool safeguards;
};

/* What becomes of the weights that a method keeps (engine/stages/). */
enum refit_method { REFIT_NONE, REFIT_LEAST_SQUARES, REFIT_BLOCK, REFIT_GLOBAL };

struct refit_settings {
	enum refit_method method;
	int epochs, batch_size; /* of REFIT_BLOCK, as the next two */
	double learning_rate;
	bool norms;
	int cg_steps; /* of REFIT_LEAST_SQUARES, as the next */
	double cg_damping;
	int global_epochs; /* of REFIT_GLOBAL, which has REFIT_BLOCK before it, as the next */
	double global_learning_rate;
};

/* Weight-only quantization (engine/quantize/). */
enum quantization_order { QUANTIZE_JOINTLY, QUANTIZE_AFTER, QUANTIZE_BEFORE };
enum quantization_format { QUANTIZATION_PACKED, QUANTIZATION_DEQUANTIZED };
enum quantization_rounding { ROUND_TO_NEAREST, ROUND_WITH_FEEDBACK };
enum { GROUP_IS_CHANNEL = -1 };

struct quantization_settings {
	int bits;       /* 0: none, and the rest means nothing */
	int group_size; /* weights of a row that have a grid of their own; GROUP_IS_CHANNEL: all */
	bool symmetric;
	enum quantization_order order;   /* auto is resolved … */
	enum quantization_format format; /* … here too */
	enum quantization_rounding rounding;
};

/* How the zeros of a model are divided among its blocks (engine/prune/allotment.h). */
enum allocation_method { ALLOCATION_UNIFORM, ALLOCATION_OUTLIER, ALLOCATION_LOSS };

struct allocation {
	enum allocation_method method;
	double deviation, threshold;
};

/* What is found out of the zeros' worth on hardware (engine/hardware/). */
struct hardware_settings {
	bool simulate, measure;
};

struct spec_section; /* descriptor.h */

/* What a client asks for. A field is a row of engine/spec/, which says where in here its value lies. */
struct spec {
	char *name, *model, *output; /* as the client wrote them */
	cJSON *metadata;             /* texts by which clients find the job; NULL for none */
	struct place model_place;
	bool overwrite;
	bool archive, archive_coded;
	unsigned exports; /* a bit for each enum export_type */
	int preset; /* that the rest came from, of preset_names (preset.h); PRESET_NONE for none, and in a spec that was stored */
	enum method_id method;
	double sparsity;
	char *pattern_name; /* as the client wrote it */
	struct pattern pattern;
	struct allocation allocation;
	struct besa_settings besa;
	struct refit_settings refit;
	struct quantization_settings quantization;
	struct calibration calibration;
	struct dataset perplexity[SPEC_MAX_DATASETS];
	int n_perplexity;
	struct task tasks[SPEC_MAX_TASKS];
	int n_tasks;
	struct hardware_settings hardware;
	int probe_every; /* progress.perplexity_every: PROBE_AUTO, PROBE_NEVER or n ≥ 1 */
	enum precision precision;
	char *notify_url; /* NULL: nobody is told of the end */
	int priority;
	double timeout_seconds; /* 0 for none */
	struct {
		const struct spec_section *section;
		void *values;
	} settings[SPEC_MAX_SETTINGS]; /* sections with a struct of their own: spec_settings */
	int n_settings;
};

/* What is wrong with a spec, field by field. Zeroed to begin with; freed with spec_problems_free. */
struct spec_problems {
	int count, more; /* how many are listed, and how many are not */
	bool no_memory;  /* for one of them */
	struct {
		char *pointer; /* JSON pointer of the field: "/besa/candidates" */
		char *detail;  /* valid UTF-8 */
	} items[SPEC_MAX_PROBLEMS];
};
void spec_problems_free(struct spec_problems *);

/* Directories that relative paths are looked up in, each a NULL-terminated list of absolute paths. */
struct roots {
	char **model, **data;
	char *output;
	char *calibration;   /* --calibration, or NULL */
	char *here;          /* where clients' relative paths begin; NULL: at each root */
	const cJSON *places; /* of a stored spec: where its names led (restore.h). NULL for a spec that comes from a client */
};

/* Checks `json` against the contract, looks its paths up under `roots`, reads the model's config for what depends on it, and fills
 * every default. STATUS_INVALID with `problems`, which are added to, when a field is wrong (each names a JSON pointer); other
 * statuses for failures that are not the client's. *ret is freed with spec_free. */
enum status spec_parse(const cJSON *json, const struct roots *roots, struct spec **ret, struct spec_problems *problems,
		       struct error *err);

/* The spec with every default, as the API shows it. `output` is a template where the client gave one. The caller frees it. */
cJSON *spec_to_json(const struct spec *spec);

/* The settings of a method whose section is a row of the kind SPEC_SETTINGS (descriptor.h): the method's own struct, checked and
 * filled; NULL where the spec has another method and the client gave none. */
const void *spec_settings(const struct spec *spec, const struct spec_section *section);

/* Does a job of it write a model? One that prunes nothing does so only to quantize it. */
static inline bool spec_makes_output(const struct spec *spec)
{
	return spec->method != METHOD_NONE || spec->quantization.bits != 0;
}

void spec_free(struct spec *spec);

#endif
