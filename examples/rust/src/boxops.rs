//! A safe wrapper of two functions of boxops_c.h; others follow the same pattern.
use std::ffi::{c_char, c_int, c_void, CStr};
use std::ptr;

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    shape: *const i64,
    strides: *const i64, // null: contiguous
    ndim: i32,
    dtype: i32,
    device_type: i32,
    device_index: i32,
}

const FLOAT32: i32 = 10;

extern "C" {
    fn boxops_version() -> *const c_char;
    fn boxops_last_error() -> *const c_char;
    fn boxops_free(result: *mut Tensor);
    fn boxops_nms(boxes: *const Tensor, scores: *const Tensor, iou_threshold: f64, keep: *mut *mut Tensor,
                  stream: *mut c_void) -> c_int;
    fn boxops_box_iou(boxes1: *const Tensor, boxes2: *const Tensor, measure: c_int, format: c_int, paired: c_int,
                      eps: f64, iou: *mut *mut Tensor, stream: *mut c_void) -> c_int;
}

fn words(text: *const c_char) -> String {
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

pub fn version() -> String {
    words(unsafe { boxops_version() })
}

fn view(data: &[f32], shape: &[i64]) -> Tensor {
    assert_eq!(data.len() as i64, shape.iter().product::<i64>());
    Tensor {
        data: data.as_ptr() as *mut c_void, // only read
        shape: shape.as_ptr(),
        strides: ptr::null(),
        ndim: shape.len() as i32,
        dtype: FLOAT32,
        device_type: 0,
        device_index: 0,
    }
}

/// The result of a call as a vector, or the words of its error.
fn take<T: Copy>(call: impl FnOnce(*mut *mut Tensor) -> c_int) -> Result<Vec<T>, String> {
    let mut result = ptr::null_mut();
    if call(&mut result) != 0 {
        return Err(words(unsafe { boxops_last_error() }));
    }
    unsafe {
        let shape = std::slice::from_raw_parts((*result).shape, (*result).ndim as usize);
        let count = shape.iter().product::<i64>() as usize;
        let values = std::slice::from_raw_parts((*result).data as *const T, count).to_vec();
        boxops_free(result);
        Ok(values)
    }
}

/// Indices of the boxes that stay, by falling score.
pub fn nms(boxes: &[[f32; 4]], scores: &[f32], iou_threshold: f64) -> Result<Vec<i64>, String> {
    let (boxes_shape, scores_shape) = ([boxes.len() as i64, 4], [scores.len() as i64]);
    let flat = boxes.concat();
    let (boxes, scores) = (view(&flat, &boxes_shape), view(scores, &scores_shape));
    take(|keep| unsafe { boxops_nms(&boxes, &scores, iou_threshold, keep, ptr::null_mut()) })
}

/// IoU of each of `boxes1` with each of `boxes2`, row by row.
pub fn box_iou(boxes1: &[[f32; 4]], boxes2: &[[f32; 4]]) -> Result<Vec<f32>, String> {
    let (flat1, flat2) = (boxes1.concat(), boxes2.concat());
    let (shape1, shape2) = ([boxes1.len() as i64, 4], [boxes2.len() as i64, 4]);
    let (boxes1, boxes2) = (view(&flat1, &shape1), view(&flat2, &shape2));
    take(|iou| unsafe { boxops_box_iou(&boxes1, &boxes2, 0, 0, 0, 0.0, iou, ptr::null_mut()) })
}
