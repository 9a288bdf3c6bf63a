mod boxops;

fn main() -> Result<(), String> {
    let boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [20.0, 20.0, 30.0, 30.0]];
    println!("boxops {}", boxops::version());
    println!("{:?}", boxops::box_iou(&boxes[..1], &boxes)?);
    println!("{:?}", boxops::nms(&boxes, &[0.5, 0.9, 0.7], 0.4)?);
    println!("{:?}", boxops::nms(&boxes, &[0.5, 0.9], 0.4));
    Ok(())
}
