"""Makes model_int8.onnx of model.onnx: export_int8.py FOLDER

8-bit weights with a scale for each output channel and 8-bit activations, calibrated on the one input in FOLDER: enough
for times, which do not depend on the scales, and for nothing else. onnxruntime and OpenVINO both run the result in
integers.
"""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class OneInput(CalibrationDataReader):
    def __init__(self, folder):
        shape = json.loads((folder / "graph.json").read_text())["layers"][0]["shape"]
        self.rest = iter([{"t0": np.fromfile(folder / "input.f32", "<f4").reshape(1, *shape)}])

    def get_next(self):
        return next(self.rest, None)


def main():
    folder = Path(sys.argv[1])
    prepared = folder / "model_prepared.onnx"
    quant_pre_process(str(folder / "model.onnx"), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(folder / "model_int8.onnx"),
        OneInput(folder),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


if __name__ == "__main__":
    main()
