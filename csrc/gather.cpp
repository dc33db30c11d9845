// The host's side of the gathering: the GPU's parts and element function, in a loop.
#include "gather.h"

namespace fasttrain {

void gather_host(const std::vector<ScalarSource> &sources, double *row) {
    gather_in_parts(sources, row, [](const auto &part) {
        for (int i = 0; i < part.count; ++i)
            gather_element(part, i);
    });
}

} // namespace fasttrain
