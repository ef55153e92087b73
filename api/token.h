/* The bearer token that requests must bring; it may be replaced while requests are answered. */
#ifndef BESAD_API_TOKEN_H
#define BESAD_API_TOKEN_H

#include <stdbool.h>

struct token;

/* NULL when memory runs out; then, for token_replace, false, and the old one stays. */
struct token *token_create(const char *text);
bool token_replace(struct token *, const char *text);
void token_free(struct token *); /* takes NULL */

/* Compares without giving away by its time where the two differ. */
bool token_fits(struct token *, const char *given);

#endif
