# The CUDA backend; included by the Makefile where an nvcc was found (NVCC names it). The emulator's part, which needs no nvcc, is
# tests/cuda/emulator.mk.
#
# The CUDA runtime is linked statically and looks for the driver only when it is first used; cuBLASLt and NVML are loaded at run time
# (cuda/cublaslt.cc, cuda/nvml.c). So the program starts, and uses the CPU, where none of them is installed.

CUDA_ROOT      := $(abspath $(dir $(realpath $(NVCC)))/..)
CUDA_LIBRARIES := $(firstword $(wildcard $(CUDA_ROOT)/lib64 $(CUDA_ROOT)/targets/x86_64-linux/lib $(CUDA_ROOT)/lib))

# sm_80 (A100; it runs on sm_86 and sm_89 too), sm_90a (H100, H200), and PTX for what comes later. Packages and the kit have sm_86 (A10, RTX 30) and
# sm_89 (L4, L40, RTX 40) as well; ptxas takes longest of all here.
CUDA_ARCHS   ?= $(if $(filter cuda-kit,$(MAKECMDGOALS)),80 86 89 90a,80 90a)
CUDA_TARGETS := $(foreach arch,$(CUDA_ARCHS),-gencode arch=compute_$(arch),code=sm_$(arch)) -gencode arch=compute_80,code=compute_80
NVCCFLAGS    := -std=c++17 -O3 -lineinfo --threads 2 $(CUDA_TARGETS) $(if $(WERROR),-Werror all-warnings) -Xcompiler -Wall,-pthread
CUDA_CPP     := -I. -Icuda/platform
CUDA_CXX     := $(CXX) $(CPPFLAGS) -Icuda/platform -I$(CUDA_ROOT)/include -DBESAD_CUDA_LIBRARIES='"$(CUDA_LIBRARIES)"' $(CXXFLAGS)

CUDA_OBJECTS := $(patsubst %,$(BUILD)/%.o,$(basename $(CUDA_SOURCES) $(wildcard cuda/*.c)))
CUDA_LIBS    := -L$(CUDA_LIBRARIES) -lcudart_static -lrt -ldl

FLAGS_nvcc    = $(NVCC) $(CUDA_CPP) $(NVCCFLAGS) $(CUDA_LIBRARIES)

$(BUILD)/cuda/%.o: cuda/%.cu $(BUILD)/flags/nvcc
	@mkdir -p $(@D)
	$(call say,NVCC,$<)
	$(Q)$(NVCC) $(CUDA_CPP) $(NVCCFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/cuda/%.o: cuda/%.cc $(COMPILE) $(BUILD)/flags/nvcc
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(Q)$(CUDA_CXX) -MMD -MP -c -o $@ $<

# On a machine with a GPU.
check-cuda: all tests
	tests/cuda/check.sh $(BUILD)

bench-cuda: all $(BUILD)/bench/cuda_ops
	bench/cuda_block.py --besad $(BUILD)/besad --ops $(BUILD)/bench/cuda_ops

print-nvcc:
	@echo "$(NVCC), $$($(NVCC) --version | sed -n 's/^Cuda compilation tools, //p')"

.PHONY: check-cuda bench-cuda print-nvcc
