/* What the rules by which ended jobs are forgotten would remove, and having them do it at once. */
#include "api/http.h"

static void answer(const struct request *request, bool dry, struct response *response)
{
	const struct api_hooks *hooks = &request->config->hooks;
	cJSON *json = NULL;
	struct error err;
	if (hooks->gc(hooks->context, dry, &json, &err))
		problem_failure(response, &err);
	else
		response_json(response, 200, json);
}

void gc_show(const struct request *request, struct response *response)
{
	answer(request, true, response);
}

void gc_run(const struct request *request, struct response *response)
{
	answer(request, false, response);
}
