"""DETR as it was published, once more in plain torch and SciPy: what `boxops.models.detr` is held against.

Written from the paper (Carion et al. 2020, sections 3.1 and 3.2, appendices A.2 to A.4): sequence first, layer by layer
and image by image, with the names of facebookresearch/detr's state dict.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import box_convert, generalized_box_iou


class Layer(nn.Module):
    def __init__(self, width, heads, hidden, decodes):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads)
        if decodes:
            self.multihead_attn = nn.MultiheadAttention(width, heads)
            self.norm3 = nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def mlp(self, x):
        return self.linear2(self.linear1(x).relu())

    def encode(self, x, at, mask):
        x = self.norm1(x + self.self_attn(x + at, x + at, value=x, key_padding_mask=mask)[0])
        return self.norm2(x + self.mlp(x))

    def decode(self, x, query, memory, at, mask):
        x = self.norm1(x + self.self_attn(x + query, x + query, value=x)[0])
        x = self.norm2(x + self.multihead_attn(x + query, memory + at, value=memory, key_padding_mask=mask)[0])
        return self.norm3(x + self.mlp(x))


class PublishedDETR(nn.Module):
    """Without dropout. ``body`` maps [B, 3, H, W] to the features [B, channels, h, w]."""

    def __init__(self, body, channels, classes, queries, layers, width, heads, hidden):
        super().__init__()
        self.width = width
        self.backbone = nn.ModuleList([nn.ModuleDict({"body": body})])
        self.input_proj = nn.Conv2d(channels, width, 1)
        self.query_embed = nn.Embedding(queries, width)
        self.class_embed = nn.Linear(width, classes + 1)
        self.bbox_embed = nn.ModuleDict(
            {"layers": nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 4)])}
        )
        stacks = {
            kind: nn.ModuleDict({"layers": nn.ModuleList(Layer(width, heads, hidden, decodes) for _ in range(layers))})
            for kind, decodes in (("encoder", False), ("decoder", True))
        }
        stacks["decoder"]["norm"] = nn.LayerNorm(width)
        self.transformer = nn.ModuleDict(stacks)

    def forward(self, images):
        """Logits and boxes after every decoder layer, of normalised images [3, H, W] of any sizes."""
        height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
        batch, mask = torch.zeros(len(images), 3, height, width), torch.ones(len(images), height, width)
        for b, image in enumerate(images):
            batch[b, :, : image.shape[1], : image.shape[2]] = image
            mask[b, : image.shape[1], : image.shape[2]] = 0
        features = self.input_proj(self.backbone[0]["body"](batch))
        mask = F.interpolate(mask[None], size=features.shape[-2:])[0].bool()
        at = positions(mask, self.width).flatten(2).permute(2, 0, 1)
        memory, mask = features.flatten(2).permute(2, 0, 1), mask.flatten(1)
        for layer in self.transformer["encoder"]["layers"]:
            memory = layer.encode(memory, at, mask)
        query = self.query_embed.weight[:, None].repeat(1, len(images), 1)
        x, outputs = torch.zeros_like(query), []
        for layer in self.transformer["decoder"]["layers"]:
            x = layer.decode(x, query, memory, at, mask)
            hidden = self.transformer["decoder"]["norm"](x).transpose(0, 1)
            logits = self.class_embed(hidden)
            for i, linear in enumerate(self.bbox_embed["layers"]):
                hidden = linear(hidden).relu() if i < 2 else linear(hidden).sigmoid()
            outputs.append((logits, hidden))
        return outputs


def positions(mask, width):
    """[B, width, h, w]: each number by itself."""
    half, result = width // 2, torch.zeros(len(mask), width, *mask.shape[1:])
    for b, padded in enumerate(mask):
        rows, columns = int((~padded[:, 0]).sum()), int((~padded[0]).sum())
        for y in range(padded.shape[0]):
            for x in range(padded.shape[1]):
                places = (min(y + 1, rows) / (rows + 1e-6) if x < columns else 0,
                          min(x + 1, columns) / (columns + 1e-6) if y < rows else 0)  # fmt: skip
                for i in range(half):
                    wave = math.sin if i % 2 == 0 else math.cos
                    for k, place in enumerate(places):
                        angle = place * 2 * math.pi / 10000 ** (2 * (i // 2) / half)
                        result[b, k * half + i, y, x] = wave(angle)
    return result


def criterion(outputs, targets, eos):
    """The losses of every decoder layer; targets: labels [G], and boxes [G, 4], cxcywh in shares of the image."""
    from scipy.optimize import linear_sum_assignment

    count, losses = max(1, sum(len(target["labels"]) for target in targets)), {}
    for i, (logits, boxes) in enumerate(outputs):
        no_object = logits.shape[-1] - 1
        weight = torch.ones(no_object + 1)
        weight[-1] = eos
        classes, l1, giou = torch.full(logits.shape[:2], no_object), torch.zeros(()), torch.zeros(())
        for b, target in enumerate(targets):
            labels, wanted = target["labels"], target["boxes"]
            overlap = generalized_box_iou(box_convert(boxes[b], "cxcywh", "xyxy"),
                                          box_convert(wanted, "cxcywh", "xyxy"))  # fmt: skip
            cost = 5 * torch.cdist(boxes[b], wanted, p=1) - logits[b].softmax(-1)[:, labels] - 2 * overlap
            query, of = linear_sum_assignment(cost.detach())
            classes[b, query] = labels[of]
            l1 = l1 + (boxes[b, query] - wanted[of]).abs().sum()
            giou = giou + (1 - overlap[query, of]).sum()
        suffix = "" if i == len(outputs) - 1 else f"_{i}"
        losses["loss_ce" + suffix] = F.cross_entropy(logits.transpose(1, 2), classes, weight)
        losses["loss_bbox" + suffix] = 5 * l1 / count
        losses["loss_giou" + suffix] = 2 * giou / count
    return losses
