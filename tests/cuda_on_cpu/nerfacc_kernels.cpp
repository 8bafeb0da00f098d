// nerfacc's traversal of occupancy grids and its sums along packed rays, whose sources are made plain C++ beside this one, as
// operators on tensors of a CPU.
#include "grid.cpp"
#include "scan.cpp"

static std::vector<torch::Tensor> intersect(
    torch::Tensor origins, torch::Tensor directions, torch::Tensor boxes, double near, double far, double miss) {
    return ray_aabb_intersect(origins, directions, boxes, near, far, miss);
}

// Of the intervals: edges, which are a left and which a right one; of the samples: rays, the first and the number of each ray's.
static std::vector<torch::Tensor> traverse(
    torch::Tensor origins, torch::Tensor directions, torch::Tensor mask, torch::Tensor binaries, torch::Tensor boxes,
    torch::Tensor t_sorted, torch::Tensor t_indices, torch::Tensor hits, torch::Tensor near, torch::Tensor far, double step,
    double cone_angle, int64_t limit) {
    auto [intervals, samples, ends] = traverse_grids(
        origins, directions, mask, binaries, boxes, t_sorted, t_indices, hits, near, far, step, cone_angle, true, true, true,
        limit, false);
    return {intervals.vals, intervals.is_left, intervals.is_right, samples.ray_indices, samples.chunk_starts,
            samples.chunk_cnts, ends};
}

TORCH_LIBRARY(nerfacc_on_cpu, library) {
    library.def("intersect", &intersect);
    library.def("traverse", &traverse);
    library.def("exclusive_sum", &exclusive_sum);
}
