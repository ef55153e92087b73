/* Which models llama.cpp can run, and what it wants to know of them: the families besad writes as GGUF, a row each. */
#ifndef BESAD_ENGINE_EXPORT_ARCHITECTURE_H
#define BESAD_ENGINE_EXPORT_ARCHITECTURE_H

#include "base/warnings.h"
#include "engine/export/gguf.h"
#include "engine/model/model.h"

struct architecture {
	const char *family; /* model_type of config.json */
	const char *name;   /* llama.cpp's */
	enum activation_kind activation;
	bool turns_neighbours; /* in q and k of each head columns 2i and 2i + 1 turn together: its rows are put in that order */
	bool o_and_mlp_biases; /* may be there */
	bool tied;             /* has no head of its own */
	bool sizes;            /* is told its vocabulary and how much of a head turns, beside what all are told */
	bool no_space;         /* a text gets no space in front */
	bool softcaps, logit_softcap;
	int windows;           /* all layers but every so-manyth have a sliding window; 0: none can */
	int64_t scaled_layers; /* a model of so many layers scales its queries by hidden / heads, not by the size of a head */
	bool fused;            /* q, k and v in one, gate and up in one */
};

/* STATUS_UNSUPPORTED names the family, or the field that llama.cpp has no counterpart of. Warnings tell what holds only within a
 * length. */
enum status architecture_find(const struct model_config *, struct warnings *, const struct architecture **ret, struct error *err);

/* Adds the pairs of the model's sizes and maths. */
void architecture_add(struct gguf *, const struct architecture *, const struct model_config *);

/* A tensor of a GGUF and where it comes from. */
struct part {
	struct gguf_tensor tensor;      /* but for its place; the type of matrices is the caller's to choose */
	const struct tensor_info *info; /* NULL: `values` */
	int heads;                      /* whose rows turn in neighbours; 0: they are as in the file */
	float added;                    /* to each element */
	float *values;
	bool head; /* what the logits are a product with */
};

struct parts {
	struct part *items;
	size_t count;
};

/* All tensors, in the order of the file. Borrows from the model; freed with parts_free. */
enum status parts_list(const struct architecture *, const struct model *, struct parts *ret, struct error *err);
void parts_free(struct parts *);

#endif
