/* boxops from C: arrays are structs, errors are statuses with words. */
#include <boxops/boxops_c.h>
#include <stdio.h>

static boxops_tensor view(float* data, const int64_t* shape, int ndim) {
  boxops_tensor t = {data, shape, NULL, ndim, BOXOPS_FLOAT32, BOXOPS_CPU, 0};
  return t;
}

int main(void) {
  float corners[] = {0, 0, 10, 10, 0, 0, 10, 5, 20, 20, 30, 30}, confidences[] = {0.5f, 0.9f, 0.7f};
  const int64_t shape[] = {3, 4};
  const boxops_tensor boxes = view(corners, shape, 2), scores = view(confidences, shape, 1);

  boxops_tensor* keep;
  if (boxops_nms(&boxes, &scores, 0.4, &keep, NULL) != BOXOPS_OK) return puts(boxops_last_error()), 1;
  const int64_t* indices = keep->data;
  for (int64_t i = 0; i < keep->shape[0]; ++i) printf("%d ", (int)indices[i]);
  boxops_free(keep);

  if (boxops_nms(&scores, &scores, 0.4, &keep, NULL) != BOXOPS_OK) puts(boxops_last_error());
  return 0;
}
