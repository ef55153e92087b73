/* What a job would take. */
#include "api/http.h"

void estimate_make(const struct request *request, struct response *response)
{
	const struct api_config *config = request->config;
	char id[JOB_ID_BYTES];
	struct error err;
	cJSON *spec, *answer = NULL, *errors = NULL;
	if (!body_parse(request, &spec, response)) return;
	cJSON_DeleteItemFromObjectCaseSensitive(spec, "depends_on"); /* what it waits for takes nothing of its own */
	db_new_id(config->db, id);
	enum status status = config->hooks.estimate(config->hooks.context, spec, id, &answer, &errors, &err);
	cJSON_Delete(spec);
	if (status == STATUS_OK)
		response_json(response, 200, answer);
	else
		problem_spec(response, &err, errors);
}
