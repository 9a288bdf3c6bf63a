// The loops over rows of assignment_cpu.cpp; compiled once per instruction set (common/isa.h).
namespace boxops::BOXOPS_ISA {

// Vectors of n numbers of type S, and of as many whole numbers of the same size.
template <class S, int n>
struct Vectors {
  using Whole = std::conditional_t<sizeof(S) == 4, int32_t, int64_t>;
  typedef S Numbers __attribute__((vector_size(n * sizeof(S))));
  typedef Whole Wholes __attribute__((vector_size(n * sizeof(S))));
};

// As long as the registers: the compiler takes longer ones apart.
template <class S>
constexpr int kLanesOf = BOXOPS_VECTOR_BYTES / sizeof(S);
constexpr int kLanes = kLanesOf<double>;
typedef double Doubles __attribute__((vector_size(8 * kLanes)));
typedef int64_t Longs __attribute__((vector_size(8 * kLanes)));

template <class V, class T>
V at(const T* place) {
  V values;
  std::memcpy(&values, place, sizeof(V));
  return values;
}
template <class T, class V>
void put(T* place, const V& values) {
  std::memcpy(place, &values, sizeof(V));
}

template <class S, class V>
void load_costs(const S* c, V& costs) {
  constexpr int n = sizeof(V) / sizeof(costs[0]);
  // Written out, a conversion becomes one instruction.
  if constexpr (sizeof(S) == sizeof(costs[0])) std::memcpy(&costs, c, sizeof(V));
  else if constexpr (n == 8) costs = V{c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]};
  else if constexpr (n == 4) costs = V{c[0], c[1], c[2], c[3]};
  else costs = V{c[0], c[1]};
}

// body(j, costs of the columns from j on as a V, how many of these were there before, lane set 0 or 1): the last block
// ends with the row, or there is one, filled up with +inf. Two sets, since a chain of minima waits for itself.
template <class V, class S, class Body>
void each_block(const S* row, int64_t columns, double scale, Body body) {
  constexpr int n = sizeof(V) / sizeof(V{}[0]);
  const auto block = [&](const S* place, int64_t j, int64_t again, int set) {
    V costs;
    load_costs(place, costs);
    body(j, static_cast<decltype(0 + V{}[0])>(scale) * costs, again, set);
  };
  int64_t j = 0;
  for (; j + 2 * n <= columns; j += 2 * n) block(row + j, j, 0, 0), block(row + j + n, j + n, 0, 1);
  if (j + n <= columns) block(row + j, j, 0, 0), j += n;
  if (j < columns && columns >= n) {
    block(row + columns - n, columns - n, j + n - columns, 1);
  } else if (j < columns) {
    S rest[n];
    for (int i = 0; i < n; ++i) rest[i] = i < columns ? row[i] : static_cast<S>(scale * kInfinity);
    block(rest, 0, 0, 1);
  }
}

inline double least_of(const Doubles (&values)[2]) {
  double least[kLanes];
  put(least, values[0] < values[1] ? values[0] : values[1]);
  for (int n = kLanes / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) least[i] = least[i] < least[i + n] ? least[i] : least[i + n];
  return least[0];
}

#ifdef __clang__
#define BOXOPS_SHUFFLE(...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define BOXOPS_SHUFFLE(...) __builtin_shuffle(a, b, Places{__VA_ARGS__})
#endif

// A square of costs: as many rows as a vector has lanes.
template <class S>
struct Square {
  static constexpr int n = (BOXOPS_VECTOR_BYTES < 32 ? BOXOPS_VECTOR_BYTES : 32) / sizeof(S);
  using Row = typename Vectors<S, n>::Numbers;
  using Places = typename Vectors<S, n>::Wholes;
  Row rows[n];

  // Each step turns the bits of an element's place (row, column) round by one.
  void transpose() {
    for (int step = 1; step < n; step *= 2) {
      const Square in = *this;
      for (int i = 0; i < n / 2; ++i) interleave(in.rows[i], in.rows[i + n / 2], rows[2 * i], rows[2 * i + 1]);
    }
  }

  static void interleave(const Row& a, const Row& b, Row& low, Row& high) {
    if constexpr (n == 8) {
      low = BOXOPS_SHUFFLE(0, 8, 1, 9, 2, 10, 3, 11), high = BOXOPS_SHUFFLE(4, 12, 5, 13, 6, 14, 7, 15);
    } else if constexpr (n == 4) {
      low = BOXOPS_SHUFFLE(0, 4, 1, 5), high = BOXOPS_SHUFFLE(2, 6, 3, 7);
    } else {
      low = BOXOPS_SHUFFLE(0, 2), high = BOXOPS_SHUFFLE(1, 3);
    }
  }
};
#undef BOXOPS_SHUFFLE

// Copies costs as rows of columns that lie side by side. Where the rows of the copy are columns of the array, a few of
// the array's rows are read at a time, so that both sides stay in the first cache.
template <class S, class From>
void copy_costs(From from, int64_t start, int64_t row_stride, int64_t column_stride, int64_t rows, int64_t columns,
                S* to) {
  const int64_t whole = columns / 8 * 8, s = column_stride;
  if constexpr (std::is_same_v<From, Typed<S>>) {
    constexpr int64_t n = Square<S>::n;
    const S* data = static_cast<const S*>(from.data) + start;
    if (row_stride == 1 && rows >= n && columns >= n) {
      Square<S> block;
      for (int64_t next = 0; next < columns; next += n)
        for (int64_t below = 0; below < rows; below += n) {
          const int64_t j = std::min(next, columns - n), i = std::min(below, rows - n);
          for (int64_t k = 0; k < n; ++k) block.rows[k] = at<typename Square<S>::Row>(data + i + (j + k) * s);
          block.transpose();
          for (int64_t k = 0; k < n; ++k) put(to + (i + k) * columns + j, block.rows[k]);
        }
      return;
    }
  }
  for (int64_t j = 0; j < whole; j += 8)
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t first = start + i * row_stride + j * s;
      // Written out: the compiler would use gather instructions, which are slower on many machines.
      const S costs[8] = {from(first),         from(first + s),     from(first + 2 * s), from(first + 3 * s),
                          from(first + 4 * s), from(first + 5 * s), from(first + 6 * s), from(first + 7 * s)};
      std::memcpy(to + i * columns + j, costs, sizeof(costs));
    }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = whole; j < columns; ++j) to[i * columns + j] = from(start + i * row_stride + j * s);
}

// The two nearest columns of each lane; which one the second is only where `kBoth`.
template <class S, int N, bool kBoth>
struct Lanes {
  using Index = typename Vectors<S, N>::Whole;
  using Distances = typename Vectors<S, N>::Numbers;
  using Columns = typename Vectors<S, N>::Wholes;
  Distances least = Distances{} + static_cast<S>(kInfinity), second = least;
  Columns column = {}, second_column = {};

  void take(const Distances& distance, const Columns& place) {
    // Written so that minima are instructions, and no comparison lies between one minimum and the next.
    const Distances before = least, more = distance < before ? before : distance;
    least = distance < before ? distance : before;
    const Columns same = least == before, other = same ? place : column;
    column = same ? column : place;
    take_second(more, other);
  }
  void take(const Lanes& other) {
    take_second(other.second, other.second_column);
    take(other.least, other.column);
  }
  void take_second(const Distances& distance, const Columns& place) {
    const Distances before = second;
    second = distance < before ? distance : before;
    const Columns same = second == before;
    if constexpr (kBoth) second_column = same ? second_column : place;
  }

  // Inlined, so that lanes stay in registers.
  __attribute__((always_inline)) Nearest of_all() const {
    if constexpr (N == 2) {
      S leasts[2], seconds[2];
      Index columns[2], second_columns[2];
      put(leasts, least), put(seconds, second), put(columns, column), put(second_columns, second_column);
      const int i = leasts[1] < leasts[0];
      // The second nearest is the nearest of the other lane, or else the second of the same lane.
      const S other = std::max(leasts[0], leasts[1]), next = std::min(seconds[0], seconds[1]);
      return {std::min(leasts[0], leasts[1]), std::min(other, next), columns[i],
              other <= next ? columns[1 - i] : second_columns[i]};
    } else {
      using Half = Lanes<S, N / 2, kBoth>;
      Half half[2];
      for (int i = 0; i < 2; ++i) {
        half[i].least = part<typename Half::Distances>(least, i);
        half[i].second = part<typename Half::Distances>(second, i);
        half[i].column = part<typename Half::Columns>(column, i);
        half[i].second_column = part<typename Half::Columns>(second_column, i);
      }
      half[0].take(half[1]);
      return half[0].of_all();
    }
  }

 private:
  template <class H, class V>
  static H part(const V& whole, int i) {
    H half;
    std::memcpy(&half, reinterpret_cast<const char*>(&whole) + i * sizeof(H), sizeof(H));
    return half;
  }
};

// The two nearest columns of a row, at distances of(j, costs from j on). `S` is the type of the distances. Inlined, as
// of_all is, so that what `of` writes to stays in registers.
template <class S, bool kBoth, class T, class Distance>
__attribute__((always_inline)) inline Nearest two_nearest(const AssignmentProblem<T>& p, int64_t row, Distance of) {
  using Some = Lanes<S, kLanesOf<S>, kBoth>;
  using Distances = typename Some::Distances;
  using Columns = typename Some::Columns;
  using Index = typename Some::Index;
  Columns lanes;
  for (int i = 0; i < kLanesOf<S>; ++i) lanes[i] = i;
  Some sets[2];
  each_block<Distances>(p.row(row), p.columns, p.scale, [&](int64_t j, const Distances& cost, int64_t again, int set) {
    const Distances distance = of(j, cost), infinity = Distances{} + static_cast<S>(kInfinity);
    const Columns seen = lanes < static_cast<Index>(again);
    sets[set].take(seen ? infinity : distance, lanes + static_cast<Index>(j));
  });
  sets[0].take(sets[1]);
  return sets[0].of_all();
}

// Looks at all costs once: what is special about them, and the least of each column, or else the nearest two of each
// row where all duals are 0.
template <class S>
Found look_at(const AssignmentProblem<S>& p, S* least) {
  using Costs = typename Vectors<S, kLanesOf<S>>::Numbers;
  typename Vectors<S, kLanesOf<S>>::Wholes wrong = {}, huge = {};
  const auto look = [&](const Costs& cost) {
    wrong |= ~(cost > -static_cast<S>(kInfinity));
    if constexpr (sizeof(S) == 8) huge |= ((cost > kHuge) & (cost < kInfinity)) | (cost < -kHuge);
  };
  for (int64_t j = 0; j < p.width && least != nullptr; j += kLanesOf<S>)
    put(least + j, Costs{} + static_cast<S>(kInfinity));
  for (int64_t i = 0; i < p.rows; ++i) {
    if (least == nullptr) {
      p.nearest[i] = two_nearest<S, true>(p, i, [&](int64_t, const Costs& cost) { return look(cost), cost; });
    } else {
      each_block<Costs>(p.row(i), p.columns, p.scale, [&](int64_t j, const Costs& cost, int64_t, int) {
        look(cost);
        const Costs before = at<Costs>(least + j);
        put(least + j, cost < before ? cost : before);
      });
    }
  }
  Found found;
  for (int i = 0; i < kLanesOf<S>; ++i) found.wrong |= wrong[i] != 0, found.huge |= huge[i] != 0;
  return found;
}

// Writes the reduced costs of a row as distances.
template <class S>
Nearest reduce_costs(const AssignmentProblem<S>& p, int64_t row) {
  double *const v = p.v, *const distance = p.distance;  // the compiler would read them again after each store
  return two_nearest<double, false>(p, row, [&](int64_t j, const Doubles& cost) {
    const Doubles reduced = cost - at<Doubles>(v + j);
    put(distance + j, reduced);
    return reduced;
  });
}

// Reaches every column from a row: through costs of cost - v + base. Scanned columns have distance NaN, so that nothing
// is nearer and they are nowhere the least. Returns the least distance.
template <class S>
double scan(const AssignmentProblem<S>& p, int64_t row, double base) {
  Doubles least[2] = {Doubles{} + kInfinity, Doubles{} + kInfinity};
  double *const v = p.v, *const distance = p.distance;
  int64_t* const via = p.via;
  each_block<Doubles>(p.row(row), p.columns, p.scale, [&](int64_t j, const Doubles& cost, int64_t, int set) {
    const Doubles through = (cost - at<Doubles>(v + j)) + base, before = at<Doubles>(distance + j);
    const auto closer = through < before;
    const Doubles now = closer ? through : before;
    put(distance + j, now);
    put(via + j, closer ? Longs{} + row : at<Longs>(via + j));
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
      const Longs ranks = at<Doubles>(p.distance + k) == least ? at<Longs>(p.rank + k) : Longs{} + kNoRank;
      best[set] = ranks < best[set] ? ranks : best[set];
    }
  best[0] = best[1] < best[0] ? best[1] : best[0];
  int64_t first = kNoRank;
  for (int i = 0; i < kLanes; ++i) first = best[0][i] < first ? best[0][i] : first;
  return first;
}

// Whether a row's nearest columns are clear from those at first, when duals, which only fall, were 0: where the second
// is as near as then, no other is nearer. Only where the row then lowers the nearest column's dual, since no distances
// are written.
template <class S>
bool is_known(const AssignmentProblem<S>& p, int64_t row, Nearest& found) {
  if (p.nearest == nullptr) return false;
  found = p.nearest[row];
  const double dual = p.v[found.column];
  found.least -= dual;
  return found.second < kInfinity && p.v[found.second_column] == 0 && dual - (found.second - found.least) < dual;
}

// Augmenting row reduction. False if a row has no finite cost.
template <class S>
bool reduce_rows(const AssignmentProblem<S>& p) {
  int64_t steps = 2 * p.rows;
  for (int64_t i = 0; i < p.rows; ++i) {
    int64_t row = i, lost = -1;
    int moves = 0;
    while (row >= 0 && steps-- > 0) {
      Nearest found;
      if (!is_known(p, row, found)) found = reduce_costs(p, row);
      if (!(found.least < kInfinity)) return false;
      int64_t column = found.second > found.least ? found.column : nearest(p, found.least) & ~kTaken;
      const double lowered = p.v[column] - (found.second - found.least);
      if (found.second < kInfinity && lowered < p.v[column]) {
        p.v[column] = lowered, moves = 0;
      } else if (p.row_of[column] >= 0) {
        if (moves++ == kTiedMoves) break;
        column = lost;
        do column = column + 1 < p.columns ? column + 1 : 0;
        while (p.distance[column] != found.least);
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
    double least = reduce_costs(p, added).least;
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
  const bool square = p.rows == p.columns;  // then all columns are taken in the end, and their duals may begin anywhere
  S* least = square ? reinterpret_cast<S*>(p.distance) : nullptr;
  Found found = look_at(p, least);
  if (found.wrong) return found;
  if (square || found.huge || p.columns > std::numeric_limits<int32_t>::max()) p.nearest = nullptr;
  if (found.huge) p.scale *= kScale;
  for (int64_t j = 0; j < p.columns && square; ++j) {
    found.impossible |= !(least[j] < kInfinity);
    p.v[j] = found.huge ? least[j] * kScale : least[j];
  }
  std::fill(p.v + (square ? p.columns : 0), p.v + p.width, 0.0);
  std::fill_n(p.distance, p.width, kInfinity);  // beyond the columns it stays so
  found.impossible = found.impossible || !reduce_rows(p) || !augment(p);
  return found;
}

}  // namespace boxops::BOXOPS_ISA
