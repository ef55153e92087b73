#include "ctl/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/text.h"

void table_add(struct table *table, const char *cell)
{
	struct buffer text = {0};
	if (table->failed) return;
	if (table->count == table->room) {
		size_t room = table->room ? 2 * table->room : 64;
		char **cells = realloc(table->cells, room * sizeof *cells);
		if (!cells) {
			table->failed = true;
			return;
		}
		table->cells = cells;
		table->room = room;
	}
	buffer_append(&text, "", 0);
	text_append(&text, cell);
	if (text.failed) {
		buffer_free(&text);
		table->failed = true;
		return;
	}
	table->cells[table->count++] = text.data;
}

void table_add_format(struct table *table, const char *format, ...)
{
	char *text;
	va_list args;
	va_start(args, format);
	int length = vasprintf(&text, format, args);
	va_end(args);
	if (length < 0) {
		table->failed = true;
		return;
	}
	table_add(table, text);
	free(text);
}

void table_end_row(struct table *table)
{
	if (!table->columns) table->columns = table->count;
	while (!table->failed && table->count % table->columns)
		table_add(table, "");
}

void table_head(struct table *table, const char *const *names)
{
	for (; *names; names++)
		table_add(table, *names);
	table_end_row(table);
}

static bool is_right(const struct table *table, size_t column)
{
	size_t given = table->align ? strlen(table->align) : 0;
	return given && table->align[column < given ? column : given - 1] == 'r';
}

static void print_cell(const char *cell, size_t width, bool right, bool last, FILE *file)
{
	size_t own = text_width(cell);
	int spaces = own < width ? (int)(width - own) : 0;
	if (right) fprintf(file, "%*s", spaces, "");
	fputs(cell, file);
	if (!right && !last) fprintf(file, "%*s", spaces, "");
	fputs(last ? "\n" : "  ", file);
}

void table_print(const struct table *table, FILE *file)
{
	size_t *widths = calloc(table->columns ? table->columns : 1, sizeof *widths);
	if (!widths || table->failed) {
		fprintf(stderr, "besactl: no memory for the table\n");
		free(widths);
		return;
	}
	for (size_t i = 0; i < table->count; i++) {
		size_t width = text_width(table->cells[i]), *widest = &widths[i % table->columns];
		if (width > *widest) *widest = width;
	}
	for (size_t i = 0; i < table->count; i++) {
		size_t column = i % table->columns;
		print_cell(table->cells[i], widths[column], is_right(table, column), column + 1 == table->columns, file);
	}
	free(widths);
}

void table_free(struct table *table)
{
	for (size_t i = 0; i < table->count; i++)
		free(table->cells[i]);
	free(table->cells);
	*table = (struct table){0};
}
