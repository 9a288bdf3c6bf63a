// The loops over rows of assignment_cpu.cpp; compiled once per instruction set (common/isa.h).
namespace boxops::BOXOPS_ISA {

// Vectors as long as the registers: the compiler takes longer ones apart.
constexpr int kLanes = BOXOPS_VECTOR_BYTES / sizeof(double);
typedef double Doubles __attribute__((vector_size(8 * kLanes), may_alias));
typedef int64_t Longs __attribute__((vector_size(8 * kLanes), may_alias));

template <class V, class T>
V& at(T* place) {
  return *reinterpret_cast<V*>(place);
}
template <class V, class T>
const V& at(const T* place) {
  return *reinterpret_cast<const V*>(place);
}

// Written out, it becomes one instruction.
template <class V, class S>
void load_costs(const S* c, V& costs) {
  if constexpr (sizeof(V) == 64) costs = V{c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]};
  else if constexpr (sizeof(V) == 32) costs = V{c[0], c[1], c[2], c[3]};
  else costs = V{c[0], c[1]};
}

// body(j, costs of the columns from j on, lane set 0 or 1), +inf beyond the last column. Two sets, since a chain of
// minima waits for itself.
template <class S, class Body>
void each_block(const S* row, int64_t columns, double scale, Body body) {
  const auto block = [&](const S* place, int64_t j, int set) {
    Doubles costs;
    load_costs(place, costs);
    body(j, scale * costs, set);
  };
  int64_t j = 0;
  for (; j + 2 * kLanes <= columns; j += 2 * kLanes) block(row + j, j, 0), block(row + j + kLanes, j + kLanes, 1);
  if (j + kLanes <= columns) block(row + j, j, 0), j += kLanes;
  if (j < columns) {
    S rest[kLanes];
    for (int i = 0; i < kLanes; ++i) rest[i] = j + i < columns ? row[j + i] : static_cast<S>(scale * kInfinity);
    block(rest, j, 1);
  }
}

inline double least_of(const Doubles (&values)[2]) {
  double least = kInfinity;
  for (const Doubles& set : values)
    for (int i = 0; i < kLanes; ++i) least = set[i] < least ? set[i] : least;
  return least;
}

// Copies costs as rows of columns that lie side by side. Where the rows of the copy are columns of the array, a few of
// the array's rows are read at a time, so that both sides stay in the first cache.
template <class S, class From>
void copy_costs(From from, int64_t start, int64_t row_stride, int64_t column_stride, int64_t rows, int64_t columns,
                S* to) {
  const int64_t whole = columns / 8 * 8, s = column_stride;
  for (int64_t j = 0; j < whole; j += 8)
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t first = start + i * row_stride + j * s;
      // Written out: the compiler would use gather instructions, which are slower on many machines.
      const S some[8] = {from(first),         from(first + s),     from(first + 2 * s), from(first + 3 * s),
                         from(first + 4 * s), from(first + 5 * s), from(first + 6 * s), from(first + 7 * s)};
      std::memcpy(to + i * columns + j, some, sizeof(some));
    }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = whole; j < columns; ++j) to[i * columns + j] = from(start + i * row_stride + j * s);
}

// Looks at all costs once: what is special about them, and the least of each column.
template <class S>
Found look_at(const AssignmentProblem<S>& p, double* least) {
  Longs wrong = {}, huge = {};
  for (int64_t j = 0; j < p.width; j += kLanes) at<Doubles>(least + j) = Doubles{} + kInfinity;
  for (int64_t i = 0; i < p.rows; ++i)
    each_block(p.row(i), p.columns, p.scale, [&](int64_t j, const Doubles& cost, int) {
      const Doubles before = at<Doubles>(least + j);
      at<Doubles>(least + j) = cost < before ? cost : before;
      wrong |= ~(cost > -kInfinity);
      if (sizeof(S) == 8) huge |= ((cost > kHuge) & (cost < kInfinity)) | (cost < -kHuge);
    });
  Found found;
  for (int i = 0; i < kLanes; ++i) found.wrong |= wrong[i] != 0, found.huge |= huge[i] != 0;
  return found;
}

// Writes the reduced costs of a row as distances. Returns the two least of them.
template <class S>
std::pair<double, double> two_least(const AssignmentProblem<S>& p, int64_t row) {
  Doubles first[2] = {Doubles{} + kInfinity, Doubles{} + kInfinity}, second[2] = {first[0], first[0]};
  each_block(p.row(row), p.columns, p.scale, [&](int64_t j, const Doubles& cost, int set) {
    const Doubles reduced = cost - at<Doubles>(p.v + j), more = reduced < first[set] ? first[set] : reduced;
    at<Doubles>(p.distance + j) = reduced;
    second[set] = more < second[set] ? more : second[set];
    first[set] = reduced < first[set] ? reduced : first[set];
  });
  std::pair<double, double> least{kInfinity, kInfinity};
  for (int set = 0; set < 2; ++set)
    for (int i = 0; i < kLanes; ++i) {
      const double a = first[set][i], b = second[set][i];
      least = {std::min(a, least.first), std::min(std::max(a, least.first), std::min(b, least.second))};
    }
  return least;
}

// Reaches every column from a row: through costs of cost - v + base. Scanned columns have distance NaN, so that nothing
// is nearer and they are nowhere the least. Returns the least distance.
template <class S>
double scan(const AssignmentProblem<S>& p, int64_t row, double base) {
  Doubles least[2] = {Doubles{} + kInfinity, Doubles{} + kInfinity};
  each_block(p.row(row), p.columns, p.scale, [&](int64_t j, const Doubles& cost, int set) {
    const Doubles through = (cost - at<Doubles>(p.v + j)) + base, before = at<Doubles>(p.distance + j);
    const auto closer = through < before;
    const Doubles now = closer ? through : before;
    at<Doubles>(p.distance + j) = now;
    at<Longs>(p.via + j) = closer ? Longs{} + row : at<Longs>(p.via + j);
    least[set] = now < least[set] ? now : least[set];
  });
  return least_of(least);
}

// The least rank among the columns at that distance: the first free column, or else the first one.
template <class S>
int64_t nearest(const AssignmentProblem<S>& p, double least) {
  Longs best[2] = {Longs{} + kNoRank, Longs{} + kNoRank};
  for (int64_t j = 0; j < p.width; j += 2 * kLanes)
    for (int set = 0; set < 2; ++set) {
      const int64_t k = j + set * kLanes;
      const Longs some = at<Doubles>(p.distance + k) == least ? at<Longs>(p.rank + k) : Longs{} + kNoRank;
      best[set] = some < best[set] ? some : best[set];
    }
  int64_t first = kNoRank;
  for (const Longs& set : best)
    for (int i = 0; i < kLanes; ++i) first = set[i] < first ? set[i] : first;
  return first;
}

// Augmenting row reduction. False if a row has no finite cost.
template <class S>
bool reduce_rows(const AssignmentProblem<S>& p) {
  int64_t steps = 2 * p.rows;
  for (int64_t i = 0; i < p.rows; ++i) {
    int64_t row = i, lost = -1;
    int moves = 0;
    while (row >= 0 && steps-- > 0) {
      const auto [least, second] = two_least(p, row);
      if (!(least < kInfinity)) return false;
      const int64_t rank = nearest(p, least);
      int64_t column = rank & ~kTaken;
      const double lowered = p.v[column] - (second - least);
      if (second < kInfinity && lowered < p.v[column]) {
        p.v[column] = lowered, moves = 0;
      } else if (rank >= kTaken) {
        if (moves++ == kTiedMoves) break;
        column = lost;
        do column = column + 1 < p.columns ? column + 1 : 0;
        while (p.distance[column] != least);
      }
      p.rank[column] = column | kTaken, p.column_of[row] = lost = column;
      row = std::exchange(p.row_of[column], row);
      if (row >= 0) p.column_of[row] = -1;
    }
  }
  return true;
}

// Shortest augmenting paths from the rows that are left. False if there is no finite assignment.
template <class S>
bool augment(const AssignmentProblem<S>& p) {
  for (int64_t added = 0; added < p.rows; ++added) {
    if (p.column_of[added] >= 0) continue;
    double least = two_least(p, added).first;
    std::fill_n(p.via, p.width, added);
    int64_t column, scanned = 0;
    for (;;) {
      if (!(least < kInfinity)) return false;
      column = nearest(p, least);
      if (column < kTaken) break;
      column -= kTaken;
      const int64_t row = p.row_of[column];
      const double base = least - (p.scale * static_cast<double>(p.row(row)[column]) - p.v[column]);
      p.scanned[scanned] = column, p.reached[scanned++] = least;
      p.distance[column] = std::numeric_limits<double>::quiet_NaN();
      least = scan(p, row, base);
    }
    for (int64_t i = 0; i < scanned; ++i) p.v[p.scanned[i]] -= least - p.reached[i];
    p.rank[column] += kTaken;
    while (column >= 0) {
      const int64_t row = p.via[column];
      p.row_of[column] = row;
      column = std::exchange(p.column_of[row], column);
    }
  }
  return true;
}

// Whether there is a finite assignment, with costs that are neither NaN nor -inf.
template <class S>
Found solve(AssignmentProblem<S>& p) {
  Found found = look_at(p, p.v);
  if (found.wrong) return found;
  if (found.huge) p.scale *= kScale;
  const bool square = p.rows == p.columns;  // then all columns are taken in the end, and their duals may begin anywhere
  for (int64_t j = 0; j < p.columns && square; ++j) found.impossible |= !(p.v[j] < kInfinity);
  for (int64_t j = 0; j < p.width; ++j)
    p.v[j] = !square || j >= p.columns ? 0.0 : found.huge ? p.v[j] * kScale : p.v[j];
  found.impossible = found.impossible || !reduce_rows(p) || !augment(p);
  return found;
}

}  // namespace boxops::BOXOPS_ISA
