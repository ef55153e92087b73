#ifndef BESAD_DAEMON_TEXT_H
#define BESAD_DAEMON_TEXT_H

/* A copy in which every byte that is no part of valid UTF-8 is a '?': file names may be anything, JSON may not. NULL when memory
 * runs out. */
char *text_valid_utf8(const char *text);

#endif
