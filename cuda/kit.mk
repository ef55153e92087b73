# What goes along to a bare machine with a GPU. Included by tests/cuda/emulator.mk.
#
#   make cuda-kit                   cuda-kit/: programs, what they need of libraries, scripts and data; start cuda-kit/first-hour.sh there
#   make cuda-kit KIT_EMULATED=1    the same on the emulated backend, to try first-hour.sh where there is no GPU
#   make cuda-only                  on that machine itself, by gcc and nvcc alone: the backend, cuda_ops and the conformance programs

KIT       := $(BUILD)/kit$(if $(KIT_EMULATED),-emulated)
# Programs find their libraries, and these each other, in their own directory.
KIT_LINK  := -s -Wl,--disable-new-dtags -Wl,-rpath,'$$ORIGIN'
KIT_TESTS := $(notdir $(filter $(BUILD)/tests/test_conformance%,$(BACKEND_TESTS))) test_gradients test_refusals test_recorded_learning \
             test_device_sizes
KIT_BENCHES  := cuda_ops cuda_choices cuda_fault cuda_matvec
KIT_PROGRAMS := $(addprefix $(KIT)/,besad $(KIT_TESTS) $(KIT_BENCHES))
KIT_OBJECTS  := $(if $(KIT_EMULATED),$(EMULATED_OBJECTS))

$(KIT)/besad: $(DAEMON_OBJECTS) $(SERVER_OBJECTS) $(KIT_OBJECTS) $(BUILD)/libengine.a $(LINK)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) $(KIT_LINK) -o $@ $(filter %.o %.a,$^) $(LDLIBS) $(CUDA_LIBS)

$(KIT)/test_%: tests/backend/test_%.c $(TEST_HELPERS) $(KIT_OBJECTS) $(BUILD)/libengine.a $(COMPILE) $(LINK)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) $(KIT_LINK) -o $@ $(filter %.c %.o %.a,$^) -lcmocka $(LDLIBS) $(CUDA_LIBS)

$(KIT)/%: bench/%.c $(KIT_OBJECTS) $(BUILD)/libengine.a $(COMPILE) $(LINK)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) $(KIT_LINK) -o $@ $(filter %.c %.o %.a,$^) $(LDLIBS) $(CUDA_LIBS)

cuda-kit: $(if $(or $(NVCC),$(KIT_EMULATED)),$(KIT_PROGRAMS),no-nvcc)
	bench/cuda_kit.sh $(KIT) $(if $(KIT_EMULATED),emulated,device)

no-nvcc:
	@echo "make cuda-kit: $(CUDA_NOTE); KIT_EMULATED=1 makes one on the emulator" >&2; exit 1

# ---- without other libraries -----------------------------------------------------------------------------------------------------------
ONLY         := $(BUILD)/only$(if $(KIT_EMULATED),-emulated)
ONLY_TESTS   := $(addprefix $(ONLY)/,$(filter-out test_recorded_learning,$(KIT_TESTS)))
ONLY_CPP     := -I. -Itests/cuda/only -D_GNU_SOURCE
ONLY_FLAGS   := -O2 -g -Wall -pthread -fno-math-errno
ONLY_PARTS   := base/error.c engine/compute/ops.c engine/compute/dry.c engine/sparse/pack.c \
                cuda/sparse_matrix.c tests/cuda/only/only.c
ONLY_BACKEND := $(if $(KIT_EMULATED),$(EMULATED_SOURCES),$(CUDA_SOURCES))
ONLY_OBJECTS := $(patsubst %,$(ONLY)/%.o,$(ONLY_PARTS) $(ONLY_BACKEND))
ONLY_HELPERS := $(ONLY)/tests/backend/harness.c.o $(ONLY)/tests/backend/reference.c.o
ONLY_LIBS    := $(if $(KIT_EMULATED),,-L$(CUDA_LIBRARIES) -lcudart_static -lrt) -lstdc++ -lm -ldl

$(ONLY)/%.c.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ONLY_CPP) -std=gnu11 $(ONLY_FLAGS) -Werror=implicit-function-declaration -MMD -MP -c -o $@ $<

ifdef KIT_EMULATED
$(ONLY)/%.o: %
	@mkdir -p $(@D)
	$(call say,CXX,$< for the emulator)
	$(Q)$(CXX) -x c++ -Itests/cuda/emulator $(ONLY_CPP) -std=c++17 $(ONLY_FLAGS) -ffp-contract=off -Wno-unknown-pragmas \
		-Wno-maybe-uninitialized -MMD -MP -c -o $@ $<
else
$(ONLY)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call say,NVCC,$<)
	$(Q)$(NVCC) $(CUDA_CPP) -std=c++17 -O3 -lineinfo --threads 4 $(CUDA_TARGETS) -MMD -MP -c -o $@ $<

$(ONLY)/%.cc.o: %.cc
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(Q)$(CXX) $(ONLY_CPP) -Icuda/platform -I$(CUDA_ROOT)/include -DBESAD_CUDA_LIBRARIES='"$(CUDA_LIBRARIES)"' -std=c++17 \
		$(ONLY_FLAGS) -MMD -MP -c -o $@ $<
endif

$(ONLY)/test_%: $(ONLY)/tests/backend/test_%.c.o $(ONLY_HELPERS) $(ONLY_OBJECTS)
	$(call say,LD,$@)
	$(Q)$(CC) -pthread -o $@ $^ $(ONLY_LIBS)

$(ONLY)/cuda_%: $(ONLY)/bench/cuda_%.c.o $(ONLY_OBJECTS)
	$(call say,LD,$@)
	$(Q)$(CC) -pthread -o $@ $^ $(ONLY_LIBS)

cuda-only: $(if $(or $(NVCC),$(KIT_EMULATED)),$(ONLY_TESTS) $(addprefix $(ONLY)/,$(KIT_BENCHES)),no-nvcc)
	@echo "built $(ONLY): $(notdir $(ONLY_TESTS)) $(KIT_BENCHES)"

.PHONY: cuda-kit cuda-only no-nvcc
.SECONDARY: $(ONLY_OBJECTS) $(ONLY_HELPERS) $(ONLY_TESTS:$(ONLY)/%=$(ONLY)/tests/backend/%.c.o) $(KIT_BENCHES:%=$(ONLY)/bench/%.c.o)
