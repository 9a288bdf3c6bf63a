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

// The first free column at that distance, or the first column.
inline int64_t nearest(const double* distance, double least, const int64_t* row_of, int64_t width) {
  int64_t first = -1;
  for (int64_t j = 0; j < width; j += kLanes) {
    int any = 0;
    for (int64_t i = j; i < j + kLanes; ++i) any |= distance[i] == least;
    if (!any) continue;
    for (int64_t i = j; i < j + kLanes; ++i) {
      if (distance[i] != least) continue;
      if (row_of[i] < 0) return i;
      if (first < 0) first = i;
    }
  }
  return first;
}

// False if there is no finite assignment.
inline bool augment(const AssignmentProblem& p) {
  for (int64_t added = 0; added < p.rows; ++added) {
    double least = scan_first(p.cost + added * p.width, p.v, added, p.width, p.open, p.distance, p.via);
    int64_t column, scanned = 0;
    for (;;) {
      if (!(least < kInfinity)) return false;
      column = nearest(p.distance, least, p.row_of, p.width);
      const int64_t row = p.row_of[column];
      if (row < 0) break;
      p.scanned[scanned] = column, p.reached[scanned] = p.distance[column], ++scanned;
      p.distance[column] = kInfinity, p.open[column] = -kInfinity;
      least = scan(p.cost + row * p.width, p.open, least - p.u[row], row, p.width, p.distance, p.via);
    }
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
