// B numbers of a block as vectors; included by the vector loops, once per instruction set (common/isa.h).
namespace boxops::BOXOPS_ISA {

template <class T, int B>
struct PackOf {
  typedef T type __attribute__((vector_size(BOXOPS_VECTOR_BYTES)));
  static constexpr int count = B * sizeof(T) / BOXOPS_VECTOR_BYTES;
};
template <class T>
struct PackOf<T, 1> {
  typedef T type;
  static constexpr int count = 1;
};

// B numbers.
template <class T, int B>
struct Lanes {
  using Pack = typename PackOf<T, B>::type;
  static constexpr int kCount = PackOf<T, B>::count;
  Pack v[kCount];

  static BOXOPS_HD Lanes at(const T* from) {
    Lanes l;
    memcpy(&l, from, sizeof(l));
    return l;
  }
  static BOXOPS_HD Lanes of(T value) {
    Lanes l;
    for (int i = 0; i < kCount; ++i) l.v[i] = Pack{} + value;
    return l;
  }
  BOXOPS_HD void store(T* to) const { memcpy(to, this, sizeof(*this)); }
  BOXOPS_HD void add(const Lanes& o, T weight) {
    for (int i = 0; i < kCount; ++i) v[i] += weight * o.v[i];
  }
  BOXOPS_HD void divide(T divisor) {
    for (int i = 0; i < kCount; ++i) v[i] /= divisor;
  }
};

}  // namespace boxops::BOXOPS_ISA
