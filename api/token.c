#include "api/token.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct token {
	pthread_mutex_t lock;
	char *text;
};

struct token *token_create(const char *text)
{
	struct token *token = calloc(1, sizeof *token);
	char *copy = strdup(text);
	if (!token || !copy) {
		free(token);
		free(copy);
		return NULL;
	}
	pthread_mutex_init(&token->lock, NULL);
	token->text = copy;
	return token;
}

bool token_replace(struct token *token, const char *text)
{
	char *copy = strdup(text), *old;
	if (!copy) return false;
	pthread_mutex_lock(&token->lock);
	old = token->text;
	token->text = copy;
	pthread_mutex_unlock(&token->lock);
	free(old);
	return true;
}

void token_free(struct token *token)
{
	if (!token) return;
	pthread_mutex_destroy(&token->lock);
	free(token->text);
	free(token);
}

bool token_fits(struct token *token, const char *given)
{
	pthread_mutex_lock(&token->lock);
	size_t n = strlen(given), length = strlen(token->text);
	unsigned difference = n != length;
	for (size_t i = 0; i < length; i++)
		difference |= (unsigned char)token->text[i] ^ (unsigned char)(i < n ? given[i] : 0);
	pthread_mutex_unlock(&token->lock);
	return difference == 0;
}
