/* Text in columns as wide as their widest cell. */
#ifndef BESAD_CTL_TABLE_H
#define BESAD_CTL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct table {
	char **cells; /* row by row */
	size_t count, room, columns;
	bool failed;       /* memory ran out: nothing is printed */
	const char *align; /* per column 'l' or 'r'; the last one goes for the rest */
};

/* Cells are copied, without control characters. The first ones are the head. */
void table_add(struct table *, const char *cell);
void table_add_format(struct table *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Ends a row: the first one decides how many columns there are, later ones are filled up. */
void table_end_row(struct table *);

/* The first row; NULL-terminated. */
void table_head(struct table *, const char *const *names);

void table_print(const struct table *, FILE *);
void table_free(struct table *);

#endif
