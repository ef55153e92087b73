/* Stands in for cJSON's header where there is none, for `make cuda-only`: engine/model/config.h names the type. */
#ifndef BESAD_ONLY_CJSON_H
#define BESAD_ONLY_CJSON_H

typedef struct cJSON cJSON;

#endif
