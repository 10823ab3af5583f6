"""Projections and bearings by OpenCV, for the geometry to agree with.

    python -m venv V && V/bin/pip install opencv-python-headless==4.11.0.86 'numpy<2'
    V/bin/python tests/reference/camera_opencv.py > tests/reference/camera_opencv.json

For each lens: points of the optical frame with the pixels at which OpenCV sees them, and the direction (x/z, y/z) that
OpenCV finds for each of those pixels.
"""

import json

import cv2
import numpy as np

K = np.array([[900.0, 0, 640.5], [0, 910.0, 355.25], [0, 0, 1]])
LENSES = [
    ("plumb_bob", [-0.28, 0.07, 0.0008, -0.0003, 0.012]),
    ("plumb_bob", [0.11, -0.21, -0.0012, 0.0007, 0.08]),
    ("rational_polynomial", [1.2, -0.4, 0.0005, 0.0002, 0.03, 1.5, -0.2, 0.06]),
    ("equidistant", [-0.03, 0.008, -0.004, 0.0007]),
    ("equidistant", [0.05, -0.01, 0.002, -0.0002]),
]

random = np.random.default_rng(7)
cases = []
for model, d in LENSES:
    # Within the image for the narrow lenses; up to 70 degrees from the axis for the wide ones.
    limit = 2.7 if model == "equidistant" else 0.65
    direction = random.uniform(-1, 1, (40, 2)) * [limit, limit * 0.56]
    points = np.concatenate([direction, np.ones((40, 1))], 1) * random.uniform(0.5, 60, (40, 1))
    zero, d = np.zeros(3), np.array(d)
    if model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(points.reshape(-1, 1, 3), zero, zero, K, d)
        exact = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-15)
        back = cv2.fisheye.undistortPoints(pixels, K, d, criteria=exact)
    else:
        pixels, _ = cv2.projectPoints(points.reshape(-1, 1, 3), zero, zero, K, d)
        exact = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-15)
        back = cv2.undistortPointsIter(pixels, K, d, None, None, exact)
    cases.append(
        {
            "model": model,
            "k": K.reshape(-1).tolist(),
            "d": d.tolist(),
            "points": points.tolist(),
            "pixels": pixels.reshape(-1, 2).tolist(),
            "directions": back.reshape(-1, 2).tolist(),
        }
    )
print(json.dumps({"opencv": cv2.__version__, "cases": cases}, indent=1))
