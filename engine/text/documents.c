#include "engine/text/documents.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/text/field.h"
#include "engine/text/rows.h"

struct documents {
	const struct file *file;
	const char *field;
	struct warnings *warnings;
	struct rows *rows;
	struct text_buffer text;
	int64_t count, without; /* rows, and those without text */
	char first_without[700];
};

enum status documents_open(const struct file *file, enum data_kind kind, const char *field, struct warnings *warnings,
			   struct documents **ret, struct error *err)
{
	struct documents *documents = calloc(1, sizeof *documents);
	if (!documents) return error_set(err, STATUS_NO_MEMORY, "no memory to read %s", file->path);
	*documents = (struct documents){.file = file, .field = field, .warnings = warnings};
	enum status status = rows_open(file, kind, &documents->rows, err);
	if (status != STATUS_OK) {
		documents_close(documents);
		return status;
	}
	*ret = documents;
	return STATUS_OK;
}

void documents_close(struct documents *documents)
{
	if (!documents) return;
	rows_close(documents->rows);
	text_buffer_free(&documents->text);
	free(documents);
}

static void note_without(struct documents *documents, const struct json_object *row)
{
	char description[600];
	if (documents->without++) return;
	field_describe(row, documents->field, description, sizeof description);
	snprintf(documents->first_without, sizeof documents->first_without, "%s: %s", rows_where(documents->rows), description);
}

static enum status judge(const struct documents *documents, struct error *err)
{
	const char *path = documents->file->path;
	if (documents->count == 0) return error_set(err, STATUS_INVALID, "%s: has no text: there are no rows", path);
	if (documents->without == documents->count)
		return error_set(
			err, STATUS_INVALID,
			"%s: no row has text in '%s' (%s); set 'field' to where the text of a row is, and write one row for each "
			"text",
			path, documents->field, documents->first_without);
	if (documents->without)
		warnings_add(documents->warnings, "%s: %" PRId64 " of %" PRId64 " rows have no text in '%s' and are left out (%s)",
			     path, documents->without, documents->count, documents->field, documents->first_without);
	return STATUS_OK;
}

enum status documents_next(struct documents *documents, const char **ret, size_t *ret_bytes, struct error *err)
{
	for (;;) {
		struct json_object *row;
		bool found;
		TRY(rows_next(documents->rows, &row, err));
		if (!row) {
			TRY(judge(documents, err));
			*ret = NULL;
			return STATUS_OK;
		}
		documents->text.size = 0;
		documents->count++;
		/* So that an empty text is no NULL. */
		TRY(text_append(&documents->text, "", 1, err));
		documents->text.size = 0;
		TRY(field_text(row, documents->field, &documents->text, &found, err));
		if (found) break;
		note_without(documents, row);
	}
	*ret = documents->text.data;
	*ret_bytes = documents->text.size;
	return STATUS_OK;
}
