// What CUDA source needs to be plain C++: no qualifiers, blocks one after another, each a team of threads that wait for each
// other where the kernel says so, and tensors that pass for ones on a device. It stands in for each of CUDA's headers, and for
// PyTorch's about CUDA.
#pragma once

#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <functional>
#include <iterator>
#include <optional>
#include <thread>
#include <vector>

#include <torch/library.h>
#include <torch/types.h>

#define __CUDACC__
#define __device__
#define __global__
#define __host__
#define __shared__ static  // blocks come one after another

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
    explicit dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
};

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

inline thread_local uint3 threadIdx{0, 0, 0}, blockIdx{0, 0, 0};
inline thread_local dim3 blockDim, gridDim;
inline thread_local std::barrier<>* others = nullptr;  // of the block

inline void __syncthreads() { others->arrive_and_wait(); }
inline int cudaGetLastError() { return 0; }

// A kernel as it is launched: called with its arguments, it runs every thread of every block.
template <class Kernel>
auto launched(Kernel kernel, dim3 blocks, dim3 threads) {
    return [=](auto... arguments) {
        for (unsigned int block = 0; block < blocks.x; ++block) {
            std::barrier<> barrier(threads.x * threads.y);
            std::vector<std::thread> team;
            for (unsigned int number = 0; number < threads.x * threads.y; ++number) {
                team.emplace_back([=, &barrier] {
                    threadIdx = {number % threads.x, number / threads.x, 0};
                    blockIdx = {block, 0, 0};
                    blockDim = threads;
                    gridDim = blocks;
                    others = &barrier;
                    kernel(arguments...);
                    barrier.arrive_and_drop();  // whoever is done is waited for no more
                });
            }
            for (auto& thread : team) thread.join();
        }
    };
}

namespace thrust {
using std::make_reverse_iterator;
}

namespace at::cuda {
struct CUDAStream {};
inline CUDAStream getCurrentCUDAStream() { return {}; }
struct OptionalCUDAGuard {
    explicit OptionalCUDAGuard(std::optional<c10::Device>) {}
};
}  // namespace at::cuda
