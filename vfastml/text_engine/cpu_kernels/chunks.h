// How the work of a phase is cut into chunks for the threads of a team.
#pragma once
#include <algorithm>

#include "gemm.h"
#include "team.h"

namespace vfastml {

/// Rows of inputs that stay in a core's second cache while panels of weights go by.
constexpr int ROWS_AT_ONCE = 192;

template <class Body>
void each_row(int num_rows, Team::Member& member, Body&& body) {
  const int rows_at_once = std::max(1, num_rows / (member.team_size() * 4));
  member.phase((num_rows + rows_at_once - 1) / rows_at_once, [&](int chunk) {
    for (int row = chunk * rows_at_once; row < std::min((chunk + 1) * rows_at_once, num_rows); row++) body(row);
  });
}

/// Each chunk takes some panels of outputs for some rows; the panels' weights are read once for all of these. Few and
/// long chunks: memory is slow at each new beginning. `use(row, panel, results)` gets 32 of a row's outputs.
template <class Use>
void product(const Matrix& matrix, const Inputs& x, int num_rows, Team::Member& member, Use&& use) {
  const int panels = matrix.panels();
  const int panels_at_once = std::max(1, panels / (member.team_size() * 4));
  const int parts = (panels + panels_at_once - 1) / panels_at_once;
  const int heights = (num_rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
  member.phase(parts * heights, [&](int chunk) {
    const int first_panel = chunk % parts * panels_at_once;
    const int first_row = chunk / parts * ROWS_AT_ONCE;
    const int end_row = std::min(first_row + ROWS_AT_ONCE, num_rows);
    for (int panel = first_panel; panel < std::min(first_panel + panels_at_once, panels); panel++)
      multiply(matrix, x, first_row, end_row, panel, [&](int row, const float* results) { use(row, panel, results); });
  });
}

}  // namespace vfastml
