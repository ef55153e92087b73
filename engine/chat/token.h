/* A template's text as tokens, as Jinja's lexer makes them with trim_blocks and lstrip_blocks. */
#ifndef BESAD_ENGINE_CHAT_TOKEN_H
#define BESAD_ENGINE_CHAT_TOKEN_H

#include "engine/chat/value.h"

enum token_kind {
	TOKEN_END,
	TOKEN_DATA, /* `value`: text between tags */
	TOKEN_BLOCK_BEGIN,
	TOKEN_BLOCK_END,
	TOKEN_PRINT_BEGIN,
	TOKEN_PRINT_END,
	TOKEN_NAME,   /* `value`: a string */
	TOKEN_STRING, /* `value` */
	TOKEN_NUMBER, /* `value`: an int or float */
	TOKEN_POWER,
	TOKEN_FLOOR,
	TOKEN_EQUAL,
	TOKEN_UNEQUAL,
	TOKEN_AT_LEAST,
	TOKEN_AT_MOST,
	TOKEN_GREATER,
	TOKEN_LESS,
	TOKEN_ASSIGN,
	TOKEN_ADD,
	TOKEN_SUBTRACT,
	TOKEN_MULTIPLY,
	TOKEN_DIVIDE,
	TOKEN_MODULO,
	TOKEN_TILDE,
	TOKEN_PIPE,
	TOKEN_COMMA,
	TOKEN_DOT,
	TOKEN_COLON,
	TOKEN_SEMICOLON,
	TOKEN_LEFT_BRACKET,
	TOKEN_RIGHT_BRACKET,
	TOKEN_LEFT_PARENTHESIS,
	TOKEN_RIGHT_PARENTHESIS,
	TOKEN_LEFT_BRACE,
	TOKEN_RIGHT_BRACE,
};

struct token {
	enum token_kind kind;
	int line;
	struct value value;
};

/* The tokens of a text of valid UTF-8, the last of them TOKEN_END. */
enum status template_lex(struct run *, const char *source, size_t bytes, const struct token **ret);

/* What the token is called in a message. */
const char *token_name(enum token_kind);

#endif
