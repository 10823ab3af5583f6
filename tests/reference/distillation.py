"""Values of every distillation method, computed with PyTorch from the papers' formulas, independently of the crate.

Run once (PyTorch 1.13 or later); its output is committed as distillation.json:

    python3 tests/reference/distillation.py > tests/reference/distillation.json

Unit tests in src/distill/loss/methods/reference.rs read it.
"""

import json

import torch
import torch.nn.functional as F

torch.manual_seed(4)
torch.set_default_dtype(torch.float64)


def draw(*shape, scale=1.0):
    """Normal values with three decimals, so that the file holds exactly what was computed with, and away from zero, where
    the absolute values in FGD have no derivative to compare with finite differences."""
    values = torch.randn(*shape) * scale
    return ((values + 0.05 * values.sign()) * 1000).round() / 1000


IMAGES, CLASSES, BINS = 3, 4, 4
ROWS = 8
data = {
    "student": {
        "class": draw(ROWS, CLASSES, scale=2),
        "sides": draw(ROWS, 4 * BINS),
        "segmentation": draw(IMAGES, CLASSES, 6),
        "fine": draw(IMAGES, 3, 4, 5),
        "coarse": draw(IMAGES, 5, 2, 3),
    },
    "teacher": {
        "class": draw(ROWS, CLASSES, scale=2),
        "sides": draw(ROWS, 4 * BINS),
        "segmentation": draw(IMAGES, CLASSES, 6),
        "fine": draw(IMAGES, 3, 4, 5),
        "coarse": draw(IMAGES, 5, 2, 3),
    },
    "positives": [[1, 2], [4, 0], [6, 3]],
    # x_min, y_min, x_max, y_max in input pixels of 40 x 32; image by image.
    "boxes": [[[9.0, 3.0, 30.0, 20.0], [20.0, 10.0, 38.0, 31.0]], [], [[1.0, 1.0, 6.0, 6.0]]],
    "input": [40, 32],
    # 255: no label.
    "mask": [0, 1, 255, 3, 2, 255] * IMAGES,
}
S, T = data["student"], data["teacher"]
LAYERS = ["fine", "coarse"]


def kl(student, teacher, t, dim):
    """Summed over `dim`, times t squared."""
    p = F.softmax(teacher / t, dim)
    return (p * (F.log_softmax(teacher / t, dim) - F.log_softmax(student / t, dim))).sum(dim) * t * t


def segmentation_rows(x):
    return x.permute(0, 2, 1).reshape(-1, CLASSES)


def kd_class(t, focus):
    p, q = torch.sigmoid(T["class"] / t), torch.sigmoid(S["class"] / t)
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    gap = (torch.sigmoid(T["class"]) - torch.sigmoid(S["class"])).abs()
    foreground = torch.sigmoid(T["class"]).max(1).values.sum().clamp(min=1.0)
    return (divergence * gap**focus).sum() * t * t / foreground


def kd_segmentation(t, labelled=False, balanced=False):
    student, teacher = segmentation_rows(S["segmentation"]), segmentation_rows(T["segmentation"])
    if labelled:
        kept = torch.tensor(data["mask"]) != 255
        student, teacher = student[kept], teacher[kept]
    weight = torch.ones(len(teacher))
    if balanced:
        p = F.softmax(teacher, 1)
        weight = p @ (1 / (1.02 + p.mean(0)).log())
    return (kl(student, teacher, t, 1) * weight).sum() / weight.sum()


def targets(head):
    if head == "class":
        index = [row for row, _ in data["positives"]]
        return S["class"][index], T["class"][index], torch.tensor([c for _, c in data["positives"]])
    student, teacher = segmentation_rows(S["segmentation"]), segmentation_rows(T["segmentation"])
    best = teacher.argmax(1)
    labels = torch.tensor(data["mask"])
    return student, teacher, torch.where(labels == 255, best, labels)


def dkd(head, alpha, beta, t):
    student, teacher, target = targets(head)
    mask = F.one_hot(target, CLASSES).bool()
    p, q = F.softmax(teacher / t, 1), F.softmax(student / t, 1)
    pt, qt = p[mask], q[mask]
    tckd = pt * (pt / qt).log() + (1 - pt) * ((1 - pt) / (1 - qt)).log()
    others = lambda z: z[~mask].reshape(-1, CLASSES - 1)
    nckd = kl(others(student), others(teacher), t, 1)
    return alpha * tckd.mean() * t * t + beta * nckd.mean()


def pearson(a, b):
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (F.cosine_similarity(a, b, dim=1)).mean()


def dist(head, beta, gamma, t):
    student, teacher, _ = targets(head)
    student, teacher = F.softmax(student / t, 1), F.softmax(teacher / t, 1)
    return (beta * (1 - pearson(student, teacher)) + gamma * (1 - pearson(student.T, teacher.T))) * t * t


def hint():
    return sum(0.5 * F.mse_loss(S[l], T[l]) for l in LAYERS)


def attention():
    q = lambda x: F.normalize(x.pow(2).sum(1).flatten(1), dim=1)
    return sum((q(S[l]) - q(T[l])).pow(2).sum(1).mean() for l in LAYERS)


def rkd(distance, angle):
    total = 0.0
    for l in LAYERS:
        e = [x[l].mean((2, 3)) for x in (S, T)]
        d = [torch.cdist(x, x) for x in e]
        d = [x / x[x > 0].mean() for x in d]
        v = [x.unsqueeze(0) - x.unsqueeze(1) for x in e]
        v = [F.normalize(x, p=2, dim=2) for x in v]
        a = [torch.bmm(x, x.transpose(1, 2)) for x in v]
        total = total + distance * F.smooth_l1_loss(*d) + angle * F.smooth_l1_loss(*a)
    return total


def ld(t, min_score):
    w = torch.sigmoid(T["class"]).max(1).values
    w = torch.where(w > min_score, w, torch.zeros_like(w))
    sides = lambda x: x.reshape(ROWS, 4, BINS)
    return (kl(sides(S["sides"]), sides(T["sides"]), t, 2).mean(1) * w).sum() / w.sum()


def pkd():
    total = 0.0
    for l in LAYERS:
        n = [x[l].permute(1, 0, 2, 3).flatten(1) for x in (S, T)]
        n = [(x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, unbiased=False) for x in n]
        total = total + F.mse_loss(*n) / 2
    return total


def cwd(layers, t):
    if not layers:
        return kl(S["segmentation"], T["segmentation"], t, 2).mean()
    return sum(kl(S[l].flatten(2), T[l].flatten(2), t, 2).mean() for l in layers)


def fgd(foreground, background, gamma, t):
    total = 0.0
    for l in LAYERS:
        n, c, h, w = S[l].shape
        fg, bg = torch.zeros(n, h, w), torch.zeros(n, h, w)
        cell_w, cell_h = data["input"][0] / w, data["input"][1] / h
        for i, boxes in enumerate(data["boxes"]):
            for x0, y0, x1, y1 in boxes:
                xs = [x for x in range(w) if x * cell_w < x1 and (x + 1) * cell_w > x0]
                ys = [y for y in range(h) if y * cell_h < y1 and (y + 1) * cell_h > y0]
                for y in ys:
                    for x in xs:
                        fg[i, y, x] = max(fg[i, y, x], 1.0 / (len(xs) * len(ys)))
            empty = fg[i] == 0
            bg[i][empty] = 1.0 / empty.sum()
        space = [h * w * F.softmax(x[l].abs().mean(1).flatten(1) / t, 1).reshape(n, h, w) for x in (S, T)]
        channel = [c * F.softmax(x[l].abs().mean((2, 3)) / t, 1) for x in (S, T)]
        weight = (foreground * fg + background * bg) * space[1]
        features = ((T[l] - S[l]).pow(2) * weight.unsqueeze(1) * channel[1][:, :, None, None]).sum()
        gap = (space[0] - space[1]).abs().sum() + (channel[0] - channel[1]).abs().sum()
        total = total + (features + gamma * gap) / n
    return total


both = {"layers": LAYERS}
data["cases"] = [
    [{"kind": "kd", "on": "class", "temperature": 2.0}, kd_class(2.0, 0.0)],
    [{"kind": "kd", "on": "class", "temperature": 1.0, "focus": 1.5}, kd_class(1.0, 1.5)],
    [{"kind": "kd", "on": "segmentation", "temperature": 3.0}, kd_segmentation(3.0)],
    [{"kind": "kd", "on": "segmentation", "temperature": 3.0, "labelled": True}, kd_segmentation(3.0, labelled=True)],
    [{"kind": "kd", "on": "segmentation", "balanced": True}, kd_segmentation(1.0, balanced=True)],
    [
        {"kind": "kd", "on": "segmentation", "temperature": 2.0, "labelled": True, "balanced": True},
        kd_segmentation(2.0, labelled=True, balanced=True),
    ],
    [{"kind": "dkd", "on": "class", "alpha": 1.0, "beta": 2.0, "temperature": 2.0}, dkd("class", 1.0, 2.0, 2.0)],
    [{"kind": "dkd", "on": "segmentation", "temperature": 4.0}, dkd("segmentation", 1.0, 8.0, 4.0)],
    [{"kind": "dist", "on": "class", "beta": 2.0, "gamma": 0.5}, dist("class", 2.0, 0.5, 1.0)],
    [{"kind": "dist", "on": "segmentation", "temperature": 2.0}, dist("segmentation", 1.0, 1.0, 2.0)],
    [{"kind": "hint", **both}, hint()],
    [{"kind": "attention", **both}, attention()],
    [{"kind": "rkd", **both}, rkd(1.0, 2.0)],
    [{"kind": "ld", "temperature": 10.0, "min_score": 0.6}, ld(10.0, 0.6)],
    [{"kind": "pkd", **both}, pkd()],
    [{"kind": "cwd", "temperature": 4.0}, cwd([], 4.0)],
    [{"kind": "cwd", "temperature": 2.0, **both}, cwd(LAYERS, 2.0)],
    [{"kind": "fgd", "foreground": 0.3, "background": 0.2, "attention": 0.1, **both}, fgd(0.3, 0.2, 0.1, 0.5)],
]


def plain(x):
    if isinstance(x, torch.Tensor):
        return x.tolist()
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    return [plain(v) for v in x] if isinstance(x, list) else x


print(json.dumps(plain(data)))
