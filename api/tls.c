#include "api/tls.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { MAX_FILE = 256 << 10, MAX_CHAIN = 8 };

static const char priorities[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2";

/* A certificate that was replaced stays: a handshake may be using it. */
struct pair {
	gnutls_pcert_st chain[MAX_CHAIN];
	unsigned n;
	gnutls_privkey_t key;
	struct pair *before;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct pair *newest;

static void pair_free(struct pair *pair)
{
	for (unsigned i = 0; i < pair->n; i++)
		gnutls_pcert_deinit(&pair->chain[i]);
	if (pair->key) gnutls_privkey_deinit(pair->key);
	free(pair);
}

static enum status tls_error(const char *path, int code, struct error *err)
{
	return error_set(err, code == GNUTLS_E_MEMORY_ERROR ? STATUS_NO_MEMORY : STATUS_INVALID, "%s: %s", path,
			 gnutls_strerror(code));
}

static enum status read_chain(const char *path, struct pair *pair, struct error *err)
{
	char *text;
	size_t bytes;
	TRY(file_slurp(path, MAX_FILE, &text, &bytes, err));
	const gnutls_datum_t data = {(unsigned char *)text, (unsigned)bytes};
	unsigned n = MAX_CHAIN;
	int code = gnutls_pcert_list_import_x509_raw(pair->chain, &n, &data, GNUTLS_X509_FMT_PEM, GNUTLS_X509_CRT_LIST_SORT);
	free(text);
	if (code < 0) return tls_error(path, code, err);
	pair->n = n;
	return STATUS_OK;
}

static enum status read_key(const char *path, struct pair *pair, struct error *err)
{
	char *text;
	size_t bytes;
	TRY(file_slurp(path, MAX_FILE, &text, &bytes, err));
	const gnutls_datum_t data = {(unsigned char *)text, (unsigned)bytes};
	int code = gnutls_privkey_init(&pair->key);
	if (code >= 0) code = gnutls_privkey_import_x509_raw(pair->key, &data, GNUTLS_X509_FMT_PEM, NULL, 0);
	explicit_bzero(text, bytes);
	free(text);
	return code < 0 ? tls_error(path, code, err) : STATUS_OK;
}

/* Is it the certificate's key? */
static enum status check_pair(const struct pair *pair, const char *key_file, struct error *err)
{
	unsigned char ids[2][64];
	size_t sizes[2] = {sizeof ids[0], sizeof ids[1]};
	gnutls_pubkey_t public;
	int code = gnutls_pubkey_init(&public);
	if (code < 0) return tls_error(key_file, code, err);
	code = gnutls_pubkey_import_privkey(public, pair->key, 0, 0);
	if (code >= 0) code = gnutls_pubkey_get_key_id(public, GNUTLS_KEYID_USE_SHA256, ids[0], &sizes[0]);
	if (code >= 0) code = gnutls_pubkey_get_key_id(pair->chain[0].pubkey, GNUTLS_KEYID_USE_SHA256, ids[1], &sizes[1]);
	gnutls_pubkey_deinit(public);
	if (code < 0) return tls_error(key_file, code, err);
	if (sizes[0] == sizes[1] && memcmp(ids[0], ids[1], sizes[0]) == 0) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "%s: is not the key of the certificate", key_file);
}

enum status tls_load(const char *certificate_file, const char *key_file, struct error *err)
{
	if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
		return error_set(err, STATUS_UNSUPPORTED, "this libmicrohttpd was built without TLS");
	struct pair *pair = calloc(1, sizeof *pair);
	if (!pair) return error_set(err, STATUS_NO_MEMORY, "no memory for a certificate");
	enum status status = read_chain(certificate_file, pair, err);
	if (!status) status = read_key(key_file, pair, err);
	if (!status) status = check_pair(pair, key_file, err);
	if (status) {
		pair_free(pair);
		return status;
	}
	pthread_mutex_lock(&lock);
	pair->before = newest;
	newest = pair;
	pthread_mutex_unlock(&lock);
	return STATUS_OK;
}

void tls_free(void)
{
	while (newest) {
		struct pair *pair = newest;
		newest = pair->before;
		pair_free(pair);
	}
}

static int give(gnutls_session_t session, const gnutls_datum_t *authorities, int n_authorities,
		const gnutls_pk_algorithm_t *algorithms, int n_algorithms, gnutls_pcert_st **ret_chain, unsigned *ret_n,
		gnutls_privkey_t *ret_key)
{
	(void)session;
	(void)authorities;
	(void)n_authorities;
	(void)algorithms;
	(void)n_algorithms;
	pthread_mutex_lock(&lock);
	struct pair *pair = newest;
	pthread_mutex_unlock(&lock);
	if (!pair) return -1;
	*ret_chain = pair->chain;
	*ret_n = pair->n;
	*ret_key = pair->key;
	return 0;
}

const struct MHD_OptionItem *tls_options(void)
{
	static struct MHD_OptionItem options[3];
	options[0] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)give};
	options[1] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)priorities};
	options[2] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
	return options;
}
