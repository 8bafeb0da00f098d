// What CUDA source needs to be plain C++: no qualifiers, a single thread that takes every turn of a grid-stride loop, and tensors
// that pass for ones on a device. It stands in for each of CUDA's headers, and for PyTorch's about CUDA.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include <torch/library.h>
#include <torch/types.h>

#define __CUDACC__
#define __device__
#define __global__
#define __host__

using std::max;
using std::min;

#define VECTORS(scalar, name)                                                                                                 \
    struct name##2 { scalar x, y; };                                                                                          \
    struct name##3 { scalar x, y, z; };                                                                                       \
    struct name##4 { scalar x, y, z, w; };                                                                                    \
    inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                                                      \
    inline name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; }                                         \
    inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }

VECTORS(float, float)
VECTORS(int, int)
VECTORS(unsigned int, uint)

struct dim3 {
    unsigned int x, y, z;
    explicit dim3(unsigned int x) : x(x), y(1), z(1) {}
};

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

static const uint3 threadIdx{0, 0, 0}, blockIdx{0, 0, 0};
static const dim3 blockDim(1), gridDim(1);

namespace at::cuda {
struct CUDAStream {};
inline CUDAStream getCurrentCUDAStream() { return {}; }
struct OptionalCUDAGuard {
    explicit OptionalCUDAGuard(std::optional<c10::Device>) {}
};
}  // namespace at::cuda
