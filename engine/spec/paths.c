#include "engine/spec/paths.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/export/architecture.h"
#include "engine/model/layout.h"
#include "engine/model/vet.h"
#include "engine/spec/restore.h"
#include "engine/text/kind.h"

enum { MAX_COMPONENT_BYTES = 200 }; /* of 255, so that {id} and {date} may expand */

/* What cannot be looked at or read is a problem of the field; but where the machine is what fails, trying again may do. */
static void tell(struct spec_parser *parser, const struct fields *fields, const char *key, const struct error *err)
{
	bool passes = err->number == EIO || err->number == EMFILE || err->number == ENFILE;
	if (err->status == STATUS_NO_MEMORY)
		parser->no_memory = true;
	else if (!passes)
		fields_problem(fields, key, "%s", err->message);
	else if (!parser->trouble.status)
		parser->trouble = *err;
}

/* Looks a string field up below the roots for models or for data; false where it is missing or, with a problem, wrong. */
static bool find(struct spec_parser *parser, const struct fields *fields, const char *key, bool model, char **ret_text,
		 struct place *ret)
{
	const struct roots *roots = parser->roots;
	struct error err;
	const char *text = fields_string(fields, key, PATH_CHARACTERS, false, NULL);
	if (!text) return false;
	*ret_text = spec_copy(parser, text);
	if (!*ret_text) return false;
	bool kept;
	enum status status = spec_find_kept(roots, model, text, &kept, ret, &err);
	if (status == STATUS_OK && !kept) status = place_find(model ? roots->model : roots->data, roots->here, text, ret, &err);
	if (status == STATUS_NOT_FOUND && !roots->here) {
		fields_problem(fields, key, "%s, below none of the %s roots; GET /v1/%s lists what is", err.message,
			       model ? "model" : "data", model ? "models" : "data");
	} else if (status != STATUS_OK) {
		/* What a client wrote itself is no secret of the operator's. */
		if (status != STATUS_INVALID && !roots->here) place_hide_roots(model ? roots->model : roots->data, &err);
		tell(parser, fields, key, &err);
	}
	return status == STATUS_OK;
}

static bool has_mode(const struct place *place, mode_t mode)
{
	struct stat st;
	struct error ignored;
	return place_stat(place, NULL, &st, &ignored) == STATUS_OK && (st.st_mode & S_IFMT) == mode;
}

bool path_is_file(const struct place *place)
{
	return has_mode(place, S_IFREG);
}

/* Whether it is what is wanted, with a problem where it is not, or cannot be looked at. */
static bool check_mode(struct spec_parser *parser, const struct fields *fields, const char *key, const char *text,
		       const struct place *place, mode_t mode)
{
	struct stat st;
	struct error err;
	enum status status = place_stat(place, NULL, &st, &err);
	if (status == STATUS_OK && (st.st_mode & S_IFMT) == mode) return true;
	if (status != STATUS_OK) {
		place_hide(place, &err);
		tell(parser, fields, key, &err);
	} else {
		fields_problem(fields, key, "'%s' is not a %s", text, mode == S_IFDIR ? "directory" : "regular file");
	}
	return false;
}

void path_parse_file(struct spec_parser *parser, const struct fields *fields, const char *key, char **ret_text, struct place *ret)
{
	struct error err;
	struct file file;
	enum data_kind kind;
	if (!find(parser, fields, key, false, ret_text, ret)) return;
	if (!check_mode(parser, fields, key, *ret_text, ret, S_IFREG)) return;
	if (parser->roots->places) return;
	/* Its head tells whether it can be read, so that is told now and not when the job runs. */
	enum status status = place_open(ret, NULL, &file, &err);
	if (status == STATUS_OK) {
		status = data_kind_find(&file, *ret_text, &kind, NULL, &err);
		file_close(&file);
	}
	if (status == STATUS_OK) return;
	place_hide(ret, &err);
	tell(parser, fields, key, &err);
}

static void find_columns(struct spec_parser *parser, const struct model_config *config)
{
	struct block_layout layout;
	struct error err;
	if (block_layout_create(config, &layout, &err) != STATUS_OK) {
		parser->no_memory = true;
		return;
	}
	for (int f = 0; f < layout.n_fused; f++)
		for (int64_t a = layout.fused_cols[f]; a;) {
			int64_t rest = parser->columns % a;
			parser->columns = a;
			a = rest;
		}
	for (int i = 0; i < layout.n_linears; i++) {
		const struct linear *linear = &layout.linears[i];
		if (linear->kind != parser->n_linears) continue;
		struct spec_linear *to = &parser->linears[parser->n_linears++];
		*to = (struct spec_linear){.rows = linear->rows, .cols = linear->cols};
		snprintf(to->path, sizeof to->path, "%s", linear->path);
	}
	block_layout_release(&layout);
}

void path_parse_model(struct spec_parser *parser, const struct fields *fields, const char *key, char **ret_text, struct place *ret)
{
	struct error err;
	struct model_config config;
	const struct architecture *architecture;
	int64_t bytes;
	if (!find(parser, fields, key, true, ret_text, ret)) return;
	if (!check_mode(parser, fields, key, *ret_text, ret, S_IFDIR)) return;
	if (parser->roots->places) return; /* what depends on it is stored */
	if (model_vet(ret, NULL, &config, &bytes, &err) != STATUS_OK) {
		tell(parser, fields, key, &err);
	} else {
		parser->max_positions = config.max_positions;
		if (config.stacked_experts) parser->unpackable = "the model's experts are stacked in one tensor";
		if (config.transposed) parser->unpackable = "the model's linears lie transposed in its file";
		if (config.multimodal) parser->unpackable = "the model is a part of one of texts and images";
		find_columns(parser, &config);
		if (architecture_find(&config, NULL, &architecture, &err) != STATUS_OK)
			snprintf(parser->no_gguf, sizeof parser->no_gguf, "%.250s", err.message);
	}
}

const char *path_output_objection(const char *text)
{
	const char *brace = text;
	if (*text == '/') return "must be a relative path";
	while ((brace = strpbrk(brace, "{}"))) {
		size_t length = strncmp(brace, "{id}", 4) == 0 ? 4 : strncmp(brace, "{date}", 6) == 0 ? 6 : 0;
		if (length == 0) return "may use {date} and {id}, and no other braces";
		brace += length;
	}
	for (;;) {
		size_t length = strcspn(text, "/");
		if (length == 0) return "must not have empty components";
		if (*text == '.') return "must not have components that begin with a dot";
		if (length > MAX_COMPONENT_BYTES) return "has a component that is too long";
		if (!text[length]) return NULL;
		text += length + 1;
	}
}
