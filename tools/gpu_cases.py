"""A short run of every CUDA kernel, at sizes around the edges of its tiles, for compute-sanitizer.

Each result is compared with the CPU kernel: decisions and IoU to the bit, sums within rounding.
"""

import itertools

import torch

import boxops


def check(name, call, exact=True):
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(call("cuda"), call("cpu"), **tolerance, check_device=False, msg=lambda m: f"{name}: {m}")


def check_all(dtype, n, generator):
    corner = torch.rand(n, 2, generator=generator) * 100
    boxes = torch.cat((corner, corner + torch.rand(n, 2, generator=generator) * 20), 1).to(dtype)
    scores = torch.rand(n, generator=generator)
    groups = torch.randint(-3, 3, (n,), generator=generator)
    few = boxes[:17].clone()
    for name in ("box_iou", "box_ioa", "generalized_box_iou", "distance_box_iou", "complete_box_iou"):
        op = getattr(boxops, name)
        check(name, lambda d, op=op: op(boxes.to(d), few.to(d)), exact=name != "complete_box_iou")
        check(name, lambda d, op=op: op(boxes.to(d), boxes.flip(0).to(d), paired=True), name != "complete_box_iou")

    def gradients(device):
        leaves = [b.to(device).requires_grad_() for b in (boxes, few)]
        boxops.generalized_box_iou(*leaves).sum().backward()
        return [leaf.grad for leaf in leaves]

    if dtype != torch.float16:
        check("iou_backward", gradients, exact=False)
    check("nms", lambda d: boxops.nms(boxes.to(d), scores.to(d), 0.4))
    check("batched_nms", lambda d: boxops.batched_nms(boxes.to(d), scores.to(d), groups.to(d), 0.4))
    three = [t.expand(3, *t.shape) for t in (boxes, scores, groups)]
    padded = [t.clone() for t in three]
    check("nms_padded", lambda d: boxops.nms_padded(padded[0].to(d), padded[1].to(d), 0.4, 30, labels=padded[2].to(d)))
    check("box_area", lambda d: boxops.box_area(boxes.to(d), "cxcywh"))
    check("box_convert", lambda d: boxops.box_convert(boxes.to(d), "xyxy", "cxcywh"))
    check("clip_boxes_to_image", lambda d: boxops.clip_boxes_to_image(boxes.to(d).mT.contiguous().mT, (50, 60)))
    check("remove_small_boxes", lambda d: boxops.remove_small_boxes(boxes.to(d), 9.5))
    torch.cuda.synchronize()
    print(dtype, n, "ok", flush=True)


def main():
    generator = torch.Generator().manual_seed(0)
    for dtype, n in itertools.product((torch.float32, torch.float64, torch.float16), (0, 1, 63, 65, 513, 4100)):
        check_all(dtype, n, generator)


if __name__ == "__main__":
    main()
