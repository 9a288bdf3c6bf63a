// The shortest augmenting paths of assignment_cpu.cpp; compiled once per instruction set (common/isa.h).
namespace boxops::BOXOPS_ISA {

typedef double Doubles __attribute__((vector_size(64), may_alias));
typedef int64_t Longs __attribute__((vector_size(64), may_alias));

template <class V, class T>
V& at(T* place) {
  return *reinterpret_cast<V*>(place);
}
template <class V, class T>
const V& at(const T* place) {
  return *reinterpret_cast<const V*>(place);
}

inline double least_of(const Doubles& values) {
  double least = values[0];
  for (int i = 1; i < kLanes; ++i) least = values[i] < least ? values[i] : least;
  return least;
}

// Copies costs as `rows` of `columns` into rows of `width`. Where the rows of the copy are columns of the array, a few
// of the array's rows are read at a time, so that both sides stay in the first cache.
template <class From>
void copy_costs(From from, int64_t start, int64_t row_stride, int64_t column_stride, double sign, int64_t rows,
                int64_t columns, double* to, int64_t width) {
  const int64_t whole = columns / kLanes * kLanes;
  if (column_stride == 1) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) to[i * width + j] = sign * from(start + i * row_stride + j);
    return;
  }
  for (int64_t j = 0; j < whole; j += kLanes)
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t first = start + i * row_stride + j * column_stride, s = column_stride;
      // Written out: the compiler would use gather instructions, which are slower on many machines.
      at<Doubles>(to + i * width + j) =
          sign * Doubles{from(first),         from(first + s),     from(first + 2 * s), from(first + 3 * s),
                         from(first + 4 * s), from(first + 5 * s), from(first + 6 * s), from(first + 7 * s)};
    }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = whole; j < columns; ++j)
      to[i * width + j] = sign * from(start + i * row_stride + j * column_stride);
}

// What is special about the costs.
inline Found look_at(const double* cost, int64_t count) {
  Longs wrong = {}, huge = {};
  for (int64_t i = 0; i < count; i += kLanes) {
    const Doubles c = at<Doubles>(cost + i);
    wrong |= (c != c) | (c == -kInfinity);
    huge |= ((c > kHuge) & (c < kInfinity)) | (c < -kHuge);
  }
  Found found;
  for (int i = 0; i < kLanes; ++i) found.wrong |= wrong[i] != 0, found.huge |= huge[i] != 0;
  return found;
}

// Reaches every open column from a row: through costs of cost[j] - open[j] + base. Scanned columns have open -inf and
// distance +inf, so that nothing is ever nearer. Returns the least distance.
inline double scan(const double* cost, const double* open, double base, int64_t row, int64_t width, double* distance,
                   int64_t* via) {
  Doubles least = Doubles{} + kInfinity;
  for (int64_t j = 0; j < width; j += kLanes) {
    const Doubles through = (at<Doubles>(cost + j) - at<Doubles>(open + j)) + base;
    const Doubles before = at<Doubles>(distance + j);
    const auto closer = through < before;
    const Doubles now = closer ? through : before;
    at<Doubles>(distance + j) = now;
    at<Longs>(via + j) = closer ? Longs{} + row : at<Longs>(via + j);
    least = now < least ? now : least;
  }
  return least_of(least);
}

// The same from a row that begins a path, when every column is open and nothing was reached.
inline double scan_first(const double* cost, const double* v, int64_t row, int64_t width, double* open,
                         double* distance, int64_t* via) {
  Doubles least = Doubles{} + kInfinity;
  for (int64_t j = 0; j < width; j += kLanes) {
    const Doubles dual = at<Doubles>(v + j), through = (at<Doubles>(cost + j) - dual) + 0.0;
    at<Doubles>(open + j) = dual;
    at<Doubles>(distance + j) = through;
    at<Longs>(via + j) = Longs{} + row;
    least = through < least ? through : least;
  }
  return least_of(least);
}

// The least rank among the columns at that distance: the first free column, or else the first one.
inline int64_t nearest(const double* distance, double least, const int64_t* rank, int64_t width) {
  Longs best = Longs{} + kNoRank;
  for (int64_t j = 0; j < width; j += kLanes) {
    const Longs candidate = at<Doubles>(distance + j) == least ? at<Longs>(rank + j) : Longs{} + kNoRank;
    best = candidate < best ? candidate : best;
  }
  int64_t first = best[0];
  for (int i = 1; i < kLanes; ++i) first = best[i] < first ? best[i] : first;
  return first;
}

// False if there is no finite assignment.
inline bool augment(const AssignmentProblem& p) {
  for (int64_t added = 0; added < p.rows; ++added) {
    double least = scan_first(p.cost + added * p.width, p.v, added, p.width, p.open, p.distance, p.via);
    int64_t column, scanned = 0;
    for (;;) {
      if (!(least < kInfinity)) return false;
      column = nearest(p.distance, least, p.rank, p.width);
      if (column < kTaken) break;
      column -= kTaken;
      const int64_t row = p.row_of[column];
      p.scanned[scanned] = column, p.reached[scanned] = p.distance[column], ++scanned;
      p.distance[column] = kInfinity, p.open[column] = -kInfinity;
      least = scan(p.cost + row * p.width, p.open, least - p.u[row], row, p.width, p.distance, p.via);
    }
    p.rank[column] += kTaken;
    p.u[added] = least;
    for (int64_t i = 0; i < scanned; ++i) {
      const double change = least - p.reached[i];
      p.u[p.row_of[p.scanned[i]]] += change;
      p.v[p.scanned[i]] -= change;
    }
    while (column >= 0) {
      const int64_t row = p.via[column];
      p.row_of[column] = row;
      column = std::exchange(p.column_of[row], column);
    }
  }
  return true;
}

}  // namespace boxops::BOXOPS_ISA
