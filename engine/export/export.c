#include "engine/export/export.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/compute/half.h"
#include "engine/export/architecture.h"
#include "engine/export/vocabulary.h"

enum { CHUNK_WEIGHTS = 1 << 18, QUANTIZATION_VERSION = 2 };

#define EXPORT_NAME(enumerator, name, ...) name,
const char *const export_type_names[] = {EXPORT_TYPES(EXPORT_NAME) NULL};

#define EXPORT_ROW(enumerator, name, block, number) {block, number},
static const struct {
	enum block_type block;
	uint32_t number; /* of llama.cpp's llama_ftype */
} types[] = {EXPORT_TYPES(EXPORT_ROW)};

struct export
{
	const struct model *model;
	struct parts parts; /* in the order of gguf.tensors */
	struct gguf gguf;
	struct buffer head;
	int64_t size;
};

/* ---- what the file begins with ----------------------------------------------------------------------------------------------- */

/* The number of weights as people say it: "135M". */
static void add_size_label(struct gguf *gguf, const struct parts *parts)
{
	static const struct {
		double above, unit;
		char letter;
	} units[] = {{1e12, 1e12, 'T'}, {1e9, 1e9, 'B'}, {1e6, 1e6, 'M'}, {-1, 1e3, 'K'}};
	double weights = 0;
	char text[32];
	int unit = 0;
	for (size_t i = 0; i < parts->count; i++)
		weights += (double)parts->items[i].tensor.rows * (double)parts->items[i].tensor.cols;
	while (weights <= units[unit].above)
		unit++;
	weights /= units[unit].unit;
	snprintf(text, sizeof text, "%.*f%c", weights < 0.5 ? 2 : weights < 9.5 ? 1 : 0, weights, units[unit].letter);
	gguf_text(gguf, "general.size_label", text);
}

static void add_general(struct export *export, const struct architecture *row, const char *name)
{
	struct gguf *gguf = &export->gguf;
	gguf_text(gguf, "general.architecture", row->name);
	gguf_text(gguf, "general.type", "model");
	gguf_text(gguf, "general.name", name);
	add_size_label(gguf, &export->parts);
}

/* Whether a text of SentencePiece's gets a space in front, where that is said. */
static void add_space_prefix(struct gguf *gguf, const struct architecture *row, const struct tokenizer_files *files)
{
	static const char key[] = "tokenizer.ggml.add_space_prefix";
	const cJSON *said = cJSON_GetObjectItemCaseSensitive(files->config, "add_prefix_space");
	if (row->no_space && files->model)
		gguf_bool(gguf, key, false);
	else if (row->sizes && cJSON_IsBool(said))
		gguf_bool(gguf, key, cJSON_IsTrue(said));
}

/* The types of the matrices. */
static void choose_types(struct export *export, enum export_type type, struct warnings *warnings)
{
	int odd = 0;
	for (size_t i = 0; i < export->parts.count; i++) {
		struct part *part = &export->parts.items[i];
		enum block_type block = types[type].block;
		if (part->tensor.rank > 1) {
			bool fits = block == BLOCK_F16 || part->tensor.cols % BLOCK_WEIGHTS == 0;
			bool narrow = block == BLOCK_Q4_0 || block == BLOCK_Q4_1;
			odd += !fits;
			part->tensor.type = !fits ? BLOCK_F16 : part->head && narrow ? BLOCK_Q8_0 : block;
		}
		gguf_tensor(&export->gguf, &part->tensor);
	}
	if (odd)
		warnings_add(warnings, "%d matrices of the GGUF are F16, not %s: their rows are no multiple of %d", odd,
			     export_type_names[type], BLOCK_WEIGHTS);
}

static enum status put_together(struct export *export, const struct place *place, const struct tokenizer_files *files,
				const char *name, enum export_type type, struct warnings *warnings, struct error *err)
{
	const struct architecture *row;
	const struct model_config *config = &export->model->config;
	struct gguf *gguf = &export->gguf;
	TRY(architecture_find(config, warnings, &row, err));
	TRY(parts_list(row, export->model, &export->parts, err));
	add_general(export, row, name);
	architecture_add(gguf, row, config);
	gguf_u32(gguf, "general.file_type", types[type].number);
	gguf_u32(gguf, "general.quantization_version", QUANTIZATION_VERSION);
	add_space_prefix(gguf, row, files);
	TRY(vocabulary_add(gguf, place, files, config->vocab, warnings, err));
	choose_types(export, type, warnings);
	return gguf_lay_out(gguf, &export->head, &export->size, err);
}

enum status export_open(const struct model *model, const struct place *place, const char *name, enum export_type type,
			struct warnings *warnings, struct export **ret, struct error *err)
{
	struct tokenizer_files files = {0};
	struct export *export = calloc(1, sizeof *export);
	if (!export) return error_set(err, STATUS_NO_MEMORY, "no memory for a GGUF");
	export->model = model;
	enum status status = tokenizer_files_read(place, &files, err);
	if (status == STATUS_OK) status = put_together(export, place, &files, name, type, warnings, err);
	tokenizer_files_free(&files);
	if (status == STATUS_OK)
		*ret = export;
	else
		export_free(export);
	return status;
}

int64_t export_bytes(const struct export *export)
{
	return export->size;
}

void export_free(struct export *export)
{
	if (!export) return;
	parts_free(&export->parts);
	gguf_free(&export->gguf);
	buffer_free(&export->head);
	free(export);
}

/* ---- the weights ------------------------------------------------------------------------------------------------------------- */

/* What a file is written with. */
struct writing {
	const struct export *export;
	const struct file *file;
	void *stored;   /* weights as the model has them … */
	float *weights; /* … as floats … */
	void *blocks;   /* … and as the file gets them */
	int64_t room;   /* weights in each */
};

/* The row, of `rows`, that comes as row `i` where the halves of each of `heads` heads alternate. */
static int64_t turned_row(int64_t i, int64_t rows, int heads)
{
	int64_t size = rows / heads, head = i / size, within = i % size;
	return head * size + within % 2 * (size / 2) + within / 2;
}

/* `count` rows of a tensor's, of `row_bytes`, from row `first` on. */
static enum status read_stored(const struct writing *writing, const struct part *part, int64_t first, int64_t count,
			       int64_t row_bytes, void *buffer, struct error *err)
{
	struct tensor_info piece = *part->info;
	piece.offset += first * row_bytes;
	piece.bytes = count * row_bytes;
	return checkpoint_read(&writing->export->model->checkpoint, &piece, buffer, err);
}

/* Reads `rows` rows of `cols` weights from row `first` on as floats; those of a vector are single weights. */
static enum status read_rows(const struct writing *writing, const struct part *part, int64_t first, int64_t rows, int64_t cols,
			     struct error *err)
{
	enum dtype dtype = part->info->dtype;
	int64_t all = part->tensor.rows * part->tensor.cols / cols, row_bytes = cols * (int64_t)dtype_size(dtype);
	if (!part->heads) TRY(read_stored(writing, part, first, rows, row_bytes, writing->stored, err));
	for (int64_t i = 0; i < rows && part->heads; i++)
		TRY(read_stored(writing, part, turned_row(first + i, all, part->heads), 1, row_bytes,
				(char *)writing->stored + i * row_bytes, err));
	for (int64_t i = 0; i < rows * cols; i++)
		writing->weights[i] = half_load(writing->stored, dtype, i) + part->added;
	return STATUS_OK;
}

static enum status write_part(const struct writing *writing, const struct part *part, const struct gguf_tensor *tensor,
			      const atomic_bool *stop, struct error *err)
{
	bool vector = tensor->rank == 1;
	int64_t cols = vector ? 1 : tensor->cols, rows = vector ? tensor->cols : tensor->rows, at = tensor->offset;
	int64_t most = writing->room / cols;
	if (part->values) return file_write(writing->file, part->values, (size_t)tensor->bytes, at, err);
	for (int64_t first = 0; first < rows; first += most) {
		int64_t n = rows - first < most ? rows - first : most;
		size_t bytes = blocks_bytes(tensor->type, n * cols);
		if (stop && atomic_load(stop)) return error_set(err, STATUS_CANCELLED, "stopped while a GGUF was written");
		TRY(read_rows(writing, part, first, n, cols, err));
		if (!blocks_store(tensor->type, writing->weights, n * cols, writing->blocks))
			return error_set(
				err, STATUS_NUMERIC,
				"tensor '%s' has weights that are not finite, or beyond the range of a half, in which a GGUF has "
				"them or their scales",
				part->info->name);
		TRY(file_write(writing->file, writing->blocks, bytes, at, err));
		at += (int64_t)bytes;
	}
	return STATUS_OK;
}

static enum status write_all(struct writing *writing, const atomic_bool *stop, struct error *err)
{
	const struct export *export = writing->export;
	writing->room = CHUNK_WEIGHTS;
	for (size_t i = 0; i < export->parts.count; i++)
		if (export->parts.items[i].tensor.cols > writing->room) writing->room = export->parts.items[i].tensor.cols;
	writing->stored = calloc((size_t)writing->room, sizeof(float));
	writing->weights = calloc((size_t)writing->room, sizeof(float));
	writing->blocks = calloc((size_t)writing->room, sizeof(float));
	if (!writing->stored || !writing->weights || !writing->blocks)
		return error_set(err, STATUS_NO_MEMORY, "no memory to write a GGUF");
	TRY(file_write(writing->file, export->head.data, export->head.size, 0, err));
	for (size_t i = 0; i < export->parts.count; i++)
		TRY(write_part(writing, &export->parts.items[i], &export->gguf.tensors[i], stop, err));
	return STATUS_OK;
}

static enum status fill(const struct export *export, const struct file *file, const atomic_bool *stop, char ret_sha256[SHA256_TEXT],
			struct error *err)
{
	struct writing writing = {.export = export, .file = file};
	enum status status = write_all(&writing, stop, err);
	free(writing.stored);
	free(writing.weights);
	free(writing.blocks);
	TRY(status);
	TRY(file_sync(file, err));
	return ret_sha256 ? sha256_file_stoppable(file, file->size, stop, ret_sha256, err) : STATUS_OK;
}

enum status export_write(const struct export *export, const struct place *directory, const char *name, const atomic_bool *stop,
			 char ret_sha256[SHA256_TEXT], struct error *err)
{
	struct file file;
	struct error ignored;
	char *part;
	if (asprintf(&part, ".%s.part", name) < 0) return error_set(err, STATUS_NO_MEMORY, "no memory to write a GGUF");
	enum status status = place_create(directory, part, export->size, &file, err);
	if (status == STATUS_OK) {
		status = fill(export, &file, stop, ret_sha256, err);
		file_close(&file);
		if (status == STATUS_OK) status = place_rename(directory, part, directory, name, PLACE_REPLACE, err);
		if (status != STATUS_OK) place_remove(directory, part, &ignored);
	}
	free(part);
	return status;
}
