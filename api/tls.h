/* TLS: the certificate that besad shows, and its key. There is one for the process, since the server library's callback has no
 * context. */
#ifndef BESAD_API_TLS_H
#define BESAD_API_TLS_H

#include <microhttpd.h>

#include "base/error.h"

/* Reads both files, in PEM, the certificate with those that it was signed by behind it. From then on it is what new connections
 * get; where this fails, it changes nothing. */
enum status tls_load(const char *certificate_file, const char *key_file, struct error *err);
void tls_free(void); /* once no server runs that was started with tls_options */

/* What MHD_OPTION_ARRAY takes, for a server with MHD_USE_TLS. */
const struct MHD_OptionItem *tls_options(void);

#endif
