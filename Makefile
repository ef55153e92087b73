# besad: `make` builds, `make demo` shows it, `make check` tests it, `make bench` measures it. Everything built lies in $(BUILD).
#
#   make CUDA=0          leave the CUDA backend out even where a toolkit is there
#   make SECCOMP=0       leave the filter of system calls out even where libseccomp is there
#   make SANITIZE=address,undefined BUILD=build/asan
#   make coverage         which lines and branches the tests run (tests/coverage.py)
#   make WERROR=1        warnings are errors (CI)
#   make generate        writes what openapi.yaml, the form and besactl say of a spec's fields anew, after a change in engine/spec/
#   make sbom            an SPDX document of what is linked
#   make check-long      `make check` with what takes too long for it
#   make V=1             shows the commands; V=0 shows nothing but what goes wrong, and on a terminal a line that changes

BUILD    ?= build
comma    := ,
CC       ?= gcc
CXX      ?= g++
OPT      ?= -O2 -g
VERSION  := 0.1.0

# ---- how a build looks ----------------------------------------------------------------------------------------------------
ifneq ($(V),1)
Q := @
ifeq ($(V),0)
say = @[ ! -t 1 ] || printf '\r\033[K%s %s' '$(1)' '$(2)'
clear_line = [ ! -t 1 ] || printf '\r\033[K'; #
else
say = @$(if $(findstring s,$(firstword -$(MAKEFLAGS))),:,echo '$(1) $(2)')
endif
endif

# Every core, where whoever started make did not say how many.
JOBS = $(if $(filter -j% --jobserver-auth=%,$(MAKEFLAGS)),,-j$(shell nproc))

# What a kind of step is done with, FLAGS_kind, lies in a file that changes only when that does: what was built with other flags, or of
# other parts, is built again. Whether a warning is an error makes no other object.
COMPILE := $(BUILD)/flags/compile
LINK    := $(BUILD)/flags/link
$(BUILD)/flags/%: FORCE
	@$(shell mkdir -p $(@D))$(file >$@.new,$(strip $(filter-out -Werror all-warnings,$(FLAGS_$*)))):
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

FORCE:
.PRECIOUS: $(BUILD)/flags/% # else make takes it away as intermediate, and builds all of that kind again

.DEFAULT_GOAL := all

# ---- compiler and libraries -----------------------------------------------------------------------------------------------
PACKAGES := libmicrohttpd libcjson json-c sqlite3 zlib libzstd libpcre2-8 libutf8proc libcurl gnutls
PACKAGE_FLAGS := $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
PACKAGE_LIBS  := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null)
CPPFLAGS += -I. -D_GNU_SOURCE -DBESAD_VERSION='"$(VERSION)"' $(PACKAGE_FLAGS)
WARNINGS := -Wall -Wextra -Wshadow -Wpointer-arith -Wvla -Wundef $(if $(WERROR),-Werror)
CFLAGS   += -std=gnu11 $(OPT) $(WARNINGS) -Wstrict-prototypes -Wmissing-prototypes -fopenmp -fno-math-errno -pthread
CXXFLAGS += -std=c++17 $(OPT) $(WARNINGS) -pthread
LDFLAGS  += -fopenmp -pthread
LDLIBS   += $(PACKAGE_LIBS) $(SECCOMP_LIBS) -ldnnl -lstdc++ -lm -ldl

# besad's filter of system calls, where libseccomp is there.
SECCOMP_LIBS := $(if $(filter 0,$(SECCOMP)),,$(shell pkg-config --libs libseccomp 2>/dev/null))
SECCOMP_FLAG := $(if $(SECCOMP_LIBS),-DBESAD_SECCOMP)
SECCOMP_NOTE := $(if $(SECCOMP_LIBS),,$(comma) without seccomp ($(if $(filter 0,$(SECCOMP)),SECCOMP=0,no libseccomp-dev)))

ifdef SANITIZE
SANITIZER_FLAGS := -fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all
CFLAGS   += $(SANITIZER_FLAGS)
CXXFLAGS += $(SANITIZER_FLAGS)
LDFLAGS  += $(SANITIZER_FLAGS)
endif

ifdef COVERAGE
CFLAGS   += --coverage
CXXFLAGS += --coverage
LDFLAGS  += --coverage -Wl,-u,__gcov_dump -Wl,--export-dynamic-symbol=__gcov_dump # by which the fault laboratory has counts written
endif

# ---- CUDA: $CUDA_HOME, PATH, /usr/local/cuda ------------------------------------------------------------------------------
ifneq ($(CUDA),0)
NVCC := $(firstword $(and $(CUDA_HOME),$(wildcard $(CUDA_HOME)/bin/nvcc)) $(shell command -v nvcc 2>/dev/null) \
          $(wildcard /usr/local/cuda/bin/nvcc))
endif
CUDA_SOURCES := $(wildcard cuda/*.cu cuda/*.cc)
ifneq ($(and $(NVCC),$(CUDA_SOURCES)),)
include cuda/cuda.mk
else
NO_NVCC   := no nvcc in $(if $(CUDA_HOME),$(CUDA_HOME)/bin ($$CUDA_HOME) or )a directory of PATH or /usr/local/cuda/bin
NO_NVCC   := $(NO_NVCC)$(if $(CUDA_HOME),,; CUDA_HOME is not set)
CUDA_NOTE := without CUDA ($(if $(filter 0,$(CUDA)),CUDA=0,$(strip $(NO_NVCC))))
NO_CUDA   := -DBESAD_NO_CUDA
CUDA_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard cuda/*.c)) # what needs no CUDA
endif

# ---- what is built --------------------------------------------------------------------------------------------------------
# engine/compute/cpu/isa/*.c hold the CPU kernels; each is compiled once per instruction set and chosen at run time.
ISAS        := v2 v3 v4
ISA_v2      := -march=x86-64-v2
ISA_v3      := -march=x86-64-v3
ISA_v4      := -march=x86-64-v4 -mprefer-vector-width=512
ISA_SOURCES := $(wildcard engine/compute/cpu/isa/*.c)
ISA_OBJECTS := $(foreach isa,$(ISAS),$(ISA_SOURCES:%.c=$(BUILD)/%.$(isa).o))

ENGINE_SOURCES := $(wildcard base/*.c engine/*.c engine/*/*.c engine/compute/cpu/*.c engine/methods/*/*.c)
ENGINE_OBJECTS := $(ENGINE_SOURCES:%.c=$(BUILD)/%.o) $(ISA_OBJECTS) $(CUDA_OBJECTS)
SERVER_SOURCES := $(wildcard db/*.c api/*.c)
SERVER_OBJECTS := $(SERVER_SOURCES:%.c=$(BUILD)/%.o)
DAEMON_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard daemon/*.c))
CTL_OBJECTS    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard ctl/*.c)) \
                  $(patsubst %,$(BUILD)/base/%.o,buffer clock error file json json_path place watch)
CTL_LIBS       := $(shell pkg-config --libs libcurl libcjson 2>/dev/null) -lm
UNIT_TESTS     := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
BACKEND_TESTS  := $(patsubst tests/backend/%.c,$(BUILD)/tests/%,$(wildcard tests/backend/test_*.c))
TEXT_TOOLS     := $(patsubst tests/text/%.c,$(BUILD)/tests/%,$(wildcard tests/text/*.c))
TEST_HELPERS   := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(wildcard tests/backend/test_*.c),$(wildcard tests/backend/*.c)))
include tests/cuda/emulator.mk

all: $(BUILD)/besad $(BUILD)/besactl
	@$(clear_line)echo 'built $(BUILD)/besad $(or $(CUDA_NOTE),with CUDA by $(NVCC))$(SECCOMP_NOTE)'

FLAGS_compile   = $(CC) $(CXX) $(CPPFLAGS) $(CFLAGS) $(CXXFLAGS) $(foreach isa,$(ISAS),$(ISA_$(isa)))
FLAGS_link      = $(CC) $(LDFLAGS) $(LDLIBS) $(CTL_LIBS) $(CUDA_LIBS) $(ENGINE_OBJECTS) $(SERVER_OBJECTS) $(DAEMON_OBJECTS)
FLAGS_no_cuda   = $(NO_CUDA)
FLAGS_seccomp   = $(SECCOMP_FLAG)
$(BUILD)/besad: $(DAEMON_OBJECTS) $(SERVER_OBJECTS) $(BUILD)/libengine.a $(LINK)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(LDLIBS) $(CUDA_LIBS)

$(BUILD)/besactl: $(CTL_OBJECTS) $(LINK)
	$(call say,LD,$@)
	$(Q)$(CC) $(filter-out -fopenmp,$(LDFLAGS)) -o $@ $(filter %.o,$^) $(CTL_LIBS)

$(BUILD)/libengine.a: $(ENGINE_OBJECTS) $(LINK)
	$(call say,AR,$@)
	@rm -f $@
	$(Q)ar crs $@ $(filter %.o,$^)

$(BUILD)/%.o: %.c $(COMPILE)
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.cc $(COMPILE)
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(Q)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/engine/compute/backend_none.o: private CPPFLAGS += $(NO_CUDA)
$(BUILD)/engine/compute/backend_none.o: $(BUILD)/flags/no_cuda
$(BUILD)/base/confine.o: private CPPFLAGS += $(SECCOMP_FLAG)
$(BUILD)/base/confine.o: $(BUILD)/flags/seccomp

# Products are copies of one function, a variant each (engine/sparse/product_avx512.c): without optimization each copy has the branches of
# all variants, which nothing can take.
ifdef COVERAGE
$(BUILD)/engine/sparse/product_%.o: private CFLAGS += -O1
endif

# Kernels run on one thread, hold no lock and know nobody else: a thread sanitizer that followed each of their accesses would take most of
# the time of a job, and all of the time of a daemon's tests. What calls them is followed. The address sanitizer follows those of two
# instruction sets, which BESAD_CPU_ISA=v3 has run: the third's are the same code, with which the tests of the daemon take half the time.
UNWATCHED    := -fsanitize=thread
UNWATCHED_v4 := $(SANITIZER_FLAGS)
# Kernels that take more than x86-64-v4 ask for that themselves.
$(BUILD)/engine/compute/cpu/attention_bf16.o $(BUILD)/engine/compute/cpu/product_bf16.o: \
	private CFLAGS := $(filter-out $(UNWATCHED) $(UNWATCHED_v4),$(CFLAGS)) -O3

define isa_rule
$(BUILD)/engine/compute/cpu/isa/%.$(1).o: engine/compute/cpu/isa/%.c $(COMPILE)
	@mkdir -p $$(@D)
	$$(call say,CC,$$< for $(1))
	$$(Q)$(CC) $$(CPPFLAGS) -DISA=$(1) $$(filter-out $$(UNWATCHED) $$(UNWATCHED_$(1)),$$(CFLAGS)) -O3 -fno-trapping-math $(ISA_$(1)) -MMD -MP -c -o $$@ $$<
endef
$(foreach isa,$(ISAS),$(eval $(call isa_rule,$(isa))))

# The files that the daemon serves are compiled in.
$(BUILD)/api/assets.o $(BUILD)/fuzz/objects/api/assets.o: openapi.yaml $(wildcard api/dashboard/*)

# What is told of a spec's fields elsewhere is made of the rows that describe them, and committed.
generate: $(BUILD)/besad
	engine/spec/generate.py $(BUILD)/besad
	engine/model/families.py

# Of what is linked, as SPDX.
sbom: all
	debian/sbom.py $(BUILD)/besad.spdx.json $(BUILD)/besad $(BUILD)/besactl

# ---- tests ----------------------------------------------------------------------------------------------------------------
$(BUILD)/tests/%: tests/unit/%.c $(SERVER_OBJECTS) $(BUILD)/libengine.a $(COMPILE) $(LINK)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(filter $(BUILD)/daemon/%.o,$^) $(SERVER_OBJECTS) \
		$(BUILD)/libengine.a -lcmocka $(LDLIBS) $(CUDA_LIBS)

# Of the daemon, each test what it names.
$(BUILD)/tests/test_secret: $(BUILD)/daemon/secret.o

# Whose allocations fail one after the other (tests/unit/failing.h).
$(BUILD)/tests/test_failures: private LDFLAGS += $(patsubst %,-Wl$(comma)--wrap=%,malloc calloc realloc free strdup strndup asprintf \
                                                  aligned_alloc posix_memalign)

$(BUILD)/tests/test_ctl_%: tests/unit/test_ctl_%.c $(CTL_OBJECTS) $(COMPILE) $(LINK)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(filter-out %/main.o,$(CTL_OBJECTS)) -lcmocka $(CTL_LIBS)

$(BUILD)/tests/%: tests/backend/%.c $(TEST_HELPERS) $(BUILD)/libengine.a $(COMPILE) $(LINK)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(TEST_HELPERS) $(BUILD)/libengine.a -lcmocka $(LDLIBS) $(CUDA_LIBS)

$(BUILD)/tests/%: tests/text/%.c $(BUILD)/libengine.a $(COMPILE) $(LINK)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(BUILD)/libengine.a $(LDLIBS) $(CUDA_LIBS)

# ---- benchmarks' programs -------------------------------------------------------------------------------------------------
$(BUILD)/bench/%: bench/%.c $(BUILD)/libengine.a $(COMPILE) $(LINK)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(BUILD)/libengine.a $(LDLIBS) $(CUDA_LIBS)

benches: $(patsubst %,$(BUILD)/bench/%,matmul_rate products matvec cpu_ops solver estimate stream_save)

# What tests/api/test_crash_points.py and the fault laboratory have besad meet. A sanitizer wants to be loaded first itself.
ifndef SANITIZE
FAULTS := $(patsubst %,$(BUILD)/tests/%.so,fault powercut allocations)
endif
$(BUILD)/tests/%.so: tests/faults/%.c $(COMPILE)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CPPFLAGS) $(filter-out --coverage,$(CFLAGS)) -fPIC -shared -MMD -MP -o $@ $< -ldl

tests: $(FAULTS) $(UNIT_TESTS) $(BACKEND_TESTS) $(EMULATED_TESTS) $(TEXT_TOOLS)
	@$(clear_line):

.SECONDARY: $(TEST_HELPERS)

# libFuzzer targets, by clang: each is built with the sources that it names here.
FUZZ_TARGETS := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
DATA_SOURCES := $(patsubst %,engine/text/%.c,census documents field foreign kind reader rows unicode unicode_tables unpack)
FUZZ_fuzz_tokenizer_json := $(wildcard engine/text/bpe*.c engine/text/sentencepiece*.c engine/text/tokenizer*.c \
	engine/text/unicode*.c) $(patsubst %,engine/text/%.c,added_tokens byte_spelling component model normalize post_processor \
	precompiled pretokenize regex string_map unigram wordpiece words)
FUZZ_fuzz_safetensors := engine/model/safetensors.c base/json_stream.c
FUZZ_fuzz_shard_index := base/json_stream.c engine/model/shard_index.c
CHECKPOINT_SOURCES := $(FUZZ_fuzz_safetensors) $(patsubst %,engine/model/%.c,checkpoint packed shard_index other_formats)
FUZZ_fuzz_config := $(patsubst %,engine/model/%.c,config config_fields families packed_form rope)
FUZZ_fuzz_packed := $(CHECKPOINT_SOURCES)
FUZZ_fuzz_spec := $(CHECKPOINT_SOURCES) engine/compute/dry.c engine/compute/ops.c engine/stages/settings.c $(FUZZ_fuzz_config) \
	$(wildcard engine/spec/*.c engine/methods/*/settings.c) engine/output/files.c \
	$(patsubst %,engine/model/%.c,vet check model block stored norms qk_norm fixed layout experts) engine/eval/tasks.c $(DATA_SOURCES) \
	$(patsubst %,engine/export/%.c,architecture gguf blocks)
FUZZ_fuzz_archive := $(FUZZ_fuzz_safetensors) $(patsubst %,engine/archive/%.c,archive_file block huffman packing parallel restore_file)
FUZZ_fuzz_reader := engine/text/reader.c engine/text/unpack.c
FUZZ_fuzz_kind := $(DATA_SOURCES)
FUZZ_fuzz_tokenizer_model := $(FUZZ_fuzz_tokenizer_json)
FUZZ_fuzz_tasks := engine/eval/tasks.c $(DATA_SOURCES)
FUZZ_fuzz_chat_template := $(wildcard engine/chat/*.c) $(patsubst %,engine/text/%.c,string_map tokenizer_class tokenizer_config \
	unicode unicode_tables)
FUZZ_fuzz_corpus := engine/text/corpus.c $(DATA_SOURCES) $(CHECKPOINT_SOURCES)
FUZZ_fuzz_http := $(filter-out api/server.c,$(wildcard api/*.c)) $(wildcard db/*.c) base/clock.c base/json_path.c

# Each source once, for all of them.
FUZZ_FLAGS  := -std=gnu11 -O1 -gline-tables-only -fno-sanitize-recover=all
FUZZ_COMMON := $(patsubst %,base/%.c,buffer error file json place warnings watch)
fuzz_objects = $(patsubst %.c,$(BUILD)/fuzz/objects/%.o,$(sort tests/fuzz/$(1).c $(FUZZ_COMMON) $(FUZZ_$(1))))
$(BUILD)/fuzz/objects/%.o: %.c $(COMPILE)
	@mkdir -p $(@D)
	$(call say,CC,$< for fuzzing)
	$(Q)clang $(CPPFLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link,address,undefined -MMD -MP -c -o $@ $<

.SECONDEXPANSION:
$(FUZZ_TARGETS): $(BUILD)/fuzz/%: $$(call fuzz_objects,$$*) $(COMPILE)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)clang $(FUZZ_FLAGS) -fsanitize=fuzzer,address,undefined -o $@ $(filter %.o,$^) $(PACKAGE_LIBS) -lstdc++ -lm

fuzz: $(FUZZ_TARGETS)

check: deps
	@$(MAKE) --no-print-directory $(JOBS) check-built

check-built: all tests
	tests/run.py $(BUILD)

# Without optimization, so that what a line or branch came to is told of it. TESTS='unit api' limits what is run.
coverage: deps
	@demo/packages.sh $(BUILD) gcovr
	@$(MAKE) --no-print-directory $(JOBS) BUILD=$(BUILD)/coverage COVERAGE=1 CUDA=0 OPT='-O0 -g' coverage-built

coverage-built: all $(FAULTS) $(UNIT_TESTS) $(BACKEND_TESTS) $(EMULATED)/besad
	tests/coverage.py $(BUILD)

# The fault laboratory at its full length, which takes hours: parts and settings in LAB (tests/faults/run.py), all of it without.
lab: all tests
	tests/faults/run.py $(LAB)

# What smaller tests stand for in `make check`, whole: the references' jobs on all blocks, with their perplexity; every method's memory on
# the emulator in every form; more points at which a job is killed; and each parser fuzzed for a minute.
check-long: deps
	@demo/packages.sh $(BUILD) clang libclang-rt-14-dev
	@$(MAKE) --no-print-directory $(JOBS) all tests
	@$(MAKE) --no-print-directory $(JOBS) CUDA=0 fuzz
	LONG=1 CRASH_POINTS=20 PATIENCE=$(or $(PATIENCE),3600) tests/run.py $(BUILD)
	tests/fuzz/run.sh $(BUILD) 60

# ---- the demo, and what a fresh Debian 12 lacks ---------------------------------------------------------------------------
DEBIAN_PACKAGES := gcc g++ pkg-config libdnnl-dev libmicrohttpd-dev libcjson-dev libjson-c-dev libsqlite3-dev \
                   zlib1g-dev libzstd-dev libpcre2-dev libutf8proc-dev libcurl4-openssl-dev libgnutls28-dev libseccomp-dev libcmocka-dev sqlite3 \
                   curl jq python3

deps:
	@demo/packages.sh $(BUILD) $(DEBIAN_PACKAGES)

demo: deps
	@[ -t 1 ] || [ -e $(BUILD)/besad ] || echo "building besad: some minutes"
	@$(MAKE) --no-print-directory $(JOBS) V=$(or $(V),0) all
	@demo/run.sh $(BUILD)/besad

# A study of the bundled model, of demo/studies/: make study STUDY=candidates
study: deps
	@$(MAKE) --no-print-directory $(JOBS) V=$(or $(V),0) all
	@demo/study.sh "$(STUDY)" $(BUILD)/besad

# ---- benchmarks: NAMES of bench/run.sh in BENCH, all of them without ----------------------------------------------------------
bench: deps
	@$(MAKE) --no-print-directory $(JOBS) all benches
	@bench/run.sh $(BUILD) $(BENCH)

# ---- installation: DESTDIR, PREFIX ------------------------------------------------------------------------------------------
PREFIX  ?= /usr
INSTALL := install -D -m 644
UNITDIR := /lib/systemd/system

install: all
	@$(MAKE) --no-print-directory install-files

install-files:
	install -D -m 755 $(BUILD)/besad $(DESTDIR)$(PREFIX)/bin/besad
	install -D -m 755 $(BUILD)/besactl $(DESTDIR)$(PREFIX)/bin/besactl
	install -D -m 755 systemd/besad-nightly $(DESTDIR)$(PREFIX)/lib/besad/besad-nightly
	$(INSTALL) ctl/completion/besactl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/besactl
	$(INSTALL) ctl/completion/_besactl $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_besactl
	$(INSTALL) ctl/completion/besactl.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/besactl.fish
	$(INSTALL) openapi.yaml $(DESTDIR)$(PREFIX)/share/besad/openapi.yaml
	for page in man/*.1; do $(INSTALL) $$page $(DESTDIR)$(PREFIX)/share/man/man1/$$(basename $$page) || exit 1; done
	for page in man/*.8; do $(INSTALL) $$page $(DESTDIR)$(PREFIX)/share/man/man8/$$(basename $$page) || exit 1; done
	for unit in besad.service besad.socket besad-gpu.service besad-nightly@.service besad-nightly@.timer; do \
		sed 's|/usr/bin/besad|$(PREFIX)/bin/besad|; s|/usr/lib/besad|$(PREFIX)/lib/besad|' systemd/$$unit >$(BUILD)/unit && \
		$(INSTALL) $(BUILD)/unit $(DESTDIR)$(UNITDIR)/$$unit || exit 1; done
	rm -f $(BUILD)/unit
	$(INSTALL) systemd/besad.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/besad.conf
	[ -e $(DESTDIR)/etc/default/besad ] || $(INSTALL) systemd/besad.default $(DESTDIR)/etc/default/besad
	mkdir -p $(DESTDIR)/etc/besad/jobs

clean:
	rm -rf build

# What things were built of, as the compilers wrote it down. Where the source itself has moved or gone since, that is not read: make
# would ask for the old one.
source_in = $(word 2,$(subst :, ,$(subst \, ,$(file <$(1)))))
-include $(foreach d,$(shell find $(BUILD) -name '*.d' 2>/dev/null),$(if $(wildcard $(call source_in,$(d))),$(d)))

.PHONY: FORCE all generate sbom tests benches fuzz check check-long check-built coverage coverage-built lab deps demo study bench install install-files clean
.DELETE_ON_ERROR:
