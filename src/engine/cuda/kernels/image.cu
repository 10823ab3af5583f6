// From a camera's bytes to the network's input in one pass: colour conversion, letterbox,
// normalisation, layout.
//
// The samples and their weights are those of src/vision/preprocess/letterbox.rs, and so are the
// sums, in whole numbers: the result differs from the CPU's by the rounding to half precision
// alone. For a quantized network the bytes that its first layer reads are written at once.
//
// Why the first layer is a kernel of its own and does not gather from the camera's image: with a
// kernel of 3×3 and a stride of 2 it reads each input pixel 2.25 times, and once more for each
// block of output channels, and a pixel of the input costs the weighted sum of column taps · row
// taps pixels of the image in three channels. Fused, that work is repeated as often, or a tile with
// its border has to wait in shared memory behind a barrier. What it would save is one write and one
// reading of the input (4 bytes a pixel for a quantized network, 8 in half precision: 320 or 640
// KiB at 320×256, which stay in the L2 cache of every device from Orin on) and one dependency of
// the graph: of the 4 µs that this kernel takes on an H200 less than 1.

// A source row or column, and its share.
struct Tap {
    unsigned index, weight;
};

struct Letterbox {
    const u8* image;      // rows without padding
    const Tap* columns;   // [content width][column taps]
    const Tap* rows;      // [content height][row taps]
    void* output;         // R, G, B, 0: f16, or u8 for a quantized network
    unsigned* candidates; // set to zero for the decoder that counts there
    int row_bytes;
    int column_taps, row_taps;
    int width, height;  // of the network's input
    int left, top, content_width, content_height;
    int pitch;     // elements of the output from pixel to pixel: 4, or a multiple of 8
    // Interleaved: bytes a pixel, and where R, G and B are. Pairs of pixels with shared chroma
    // (yuv): where Y, U and V are.
    int yuv, bytes, at[3];
    float factor[3], offset[3];
    float scale;  // of the output's bytes, and their zero point; 0: the output is f16
    int zero;
};

// The weighted sum of the source at one byte of each sample, in units of UNIT = 2^8 · 2^15.
__device__ __forceinline__ unsigned samples(const Letterbox& b, const Tap* rows, int byte) {
    unsigned sum = 0;
    for (int r = 0; r < b.row_taps; r++) sum += b.image[(long long)rows[r].index * b.row_bytes + byte] * rows[r].weight;
    return sum;
}

// a + b * c, each operation rounded by itself as on the CPU: a compiler may fuse them, and a byte
// come out another.
__device__ __forceinline__ float plus(float a, float b, float c) { return __fadd_rn(a, __fmul_rn(b, c)); }

extern "C" __global__ void __launch_bounds__(128) letterbox(const Letterbox b) {
    let_next_start();
    wait_for_inputs();
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    if (thread == 0) *b.candidates = 0;
    if (thread >= (unsigned)b.width * b.height) return;
    const int y = (int)(thread / b.width) - b.top, x = (int)(thread % b.width) - b.left;
    float rgb[3] = {};
    if (y >= 0 && y < b.content_height && x >= 0 && x < b.content_width) {
        const Tap* rows = b.rows + (long long)y * b.row_taps;
        unsigned sum[3] = {};
        for (int t = 0; t < b.column_taps; t++) {
            const Tap tap = b.columns[(long long)x * b.column_taps + t];
            const int column = (int)tap.index;
            const int pixel = b.yuv ? (column & ~1) * 2 : column * b.bytes;
            sum[0] += samples(b, rows, pixel + b.at[0] + (b.yuv ? (column & 1) * 2 : 0)) * tap.weight;
            sum[1] += samples(b, rows, pixel + b.at[1]) * tap.weight;
            sum[2] += samples(b, rows, pixel + b.at[2]) * tap.weight;
        }
        float c[3] = {(float)(int)sum[0], (float)(int)sum[1], (float)(int)sum[2]};
        if (b.yuv) {
            // ITU-R BT.601, limited range.
            const float unit = 8388608.0f;
            const float luma = (c[0] - 16.0f * unit) * (255.0f / 219.0f), u = c[1] - 128.0f * unit, v = c[2] - 128.0f * unit;
            c[0] = clamp(plus(luma, 1.596027f, v), 0.0f, 255.0f * unit);
            c[1] = clamp(plus(plus(luma, -0.812968f, v), -0.391762f, u), 0.0f, 255.0f * unit);
            c[2] = clamp(plus(luma, 2.017232f, u), 0.0f, 255.0f * unit);
        }
        for (int i = 0; i < 3; i++) rgb[i] = plus(b.offset[i], c[i], b.factor[i]);
    }
    if (b.scale != 0.0f) {
        unsigned word = (unsigned)b.zero << 24;
        for (int i = 0; i < 3; i++) word |= quantize(rgb[i], b.scale, b.zero) << 8 * i;
        unsigned* out = (unsigned*)((u8*)b.output + thread * b.pitch);
        *out = word;
        for (int c = 1; c < b.pitch / 4; c++) out[c] = (unsigned)b.zero * 0x01010101u;
        return;
    }
    f16* out = (f16*)b.output + thread * b.pitch;
    *(uint2*)out = make_uint2(pack2(rgb[0], rgb[1]), pack2(rgb[2], 0.0f));
    for (int c = 4; c < b.pitch; c += 4) *(uint2*)(out + c) = make_uint2(0, 0);
}
