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
    const unsigned* saturated;   // what the frames before have counted: see count_saturated
    unsigned* saturated_so_far;  // where it goes
    int row_bytes;
    int column_taps, row_taps;
    int source_width, source_height;
    int width, height;  // of the network's input
    int left, top, content_width, content_height;
    int pitch;     // elements of the output from pixel to pixel: 4, or a multiple of 8
    int form;
    // Interleaved: numbers a pixel, and where R, G and B are. Pairs: where Y, U and V are among
    // four bytes. Planes: where Y, U and V begin. A mosaic: whether the first row and column are
    // without red.
    int numbers, at[3];
    // Planes: bytes of a row of chroma, right shift of row and column to their chroma, and left
    // shift of the chroma's column to its byte.
    int chroma_bytes, halved, by_turns;
    int wide;  // numbers have 16 bits
    int big_endian, white, shift, white_factor;  // see Scale16 in src/vision/preprocess/rows.rs
    float black, luma, chroma[4];                // see Yuv in src/vision/preprocess/pixel.rs
    float factor[3], offset[3];
    float scale;  // of the output's bytes, and their zero point; 0: the output is f16
    int zero;
};

// Forms of an image.
const int INTERLEAVED = 0, PAIRS = 1, PLANES = 2, MOSAIC = 3;

// One, as the share of a row.
const unsigned SHARE_ONE = 65536;

// A number of the image, 255 being 255 · 2^8, times a row's share: as Bits16 and Bits8Shared have
// it (rows.rs).
__device__ __forceinline__ unsigned weighted(const Letterbox& b, int row, int i, unsigned share) {
    const u8* at = b.image + (long long)row * b.row_bytes + (b.wide ? 2 * i : i);
    const unsigned factor = share < SHARE_ONE ? share : SHARE_ONE - 1;
    if (!b.wide) return ((unsigned)at[0] << 8) * factor >> 16;
    const unsigned value = b.big_endian ? (unsigned)at[0] << 8 | at[1] : (unsigned)at[1] << 8 | at[0];
    const unsigned clipped = value < (unsigned)b.white ? value : (unsigned)b.white;
    return (clipped << b.shift) * ((unsigned)b.white_factor * factor >> 16) >> 16 << 1;
}

// The weighted sum over rows of one byte of each, 255 being 255 · 2^8; from `start` on, each
// `row_bytes` long.
__device__ __forceinline__ unsigned bytes(const Letterbox& b, const Tap* rows, long long start, int row_bytes, int halved) {
    unsigned sum = 0;
    for (int r = 0; r < b.row_taps; r++) {
        sum += b.image[start + (long long)(rows[r].index >> halved) * row_bytes] * rows[r].weight;
    }
    return sum;
}

// The same of a number.
__device__ __forceinline__ unsigned samples(const Letterbox& b, const Tap* rows, int i) {
    if (!b.wide) return bytes(b, rows, i, b.row_bytes, 0);
    unsigned sum = 0;
    for (int r = 0; r < b.row_taps; r++) sum += weighted(b, (int)rows[r].index, i, rows[r].weight << 8);
    return sum;
}

__device__ __forceinline__ unsigned mean(unsigned a, unsigned b) { return (a + b + 1) >> 1; }

// Red, green and blue of a mosaic's pixel in a column, summed over rows: mosaic.rs says how.
__device__ __forceinline__ void mosaic(const Letterbox& b, const Tap* rows, int column, unsigned (&rgb)[3]) {
    const int x = min(max(column, 1), b.source_width - 2);
    // Of rows with red and of rows with blue, at the pixel and on either side.
    unsigned own[2][3] = {}, around[2][3] = {};
    for (int r = 0; r < b.row_taps; r++) {
        if (rows[r].weight == 0) continue;
        const int y = min(max((int)rows[r].index, 1), b.source_height - 2);
        const int kind = (y + b.at[0]) & 1;
        for (int i = 0; i < 3; i++) {
            const int column = x + i - 1;
            const unsigned half = rows[r].weight << 7;
            own[kind][i] += weighted(b, y, column, 2 * half);
            around[1 - kind][i] += weighted(b, y - 1, column, half) + weighted(b, y + 1, column, half);
        }
    }
    unsigned here[2], beside[2];
    for (int kind = 0; kind < 2; kind++) {
        here[kind] = own[kind][1] + around[kind][1];
        beside[kind] = mean(own[kind][0], own[kind][2]) + mean(around[kind][0], around[kind][2]);
    }
    const bool in_red = ((x + b.at[1]) & 1) == 0;
    rgb[0] = in_red ? here[0] : beside[0];
    rgb[1] = in_red ? mean(mean(own[0][0], own[0][2]), around[1][1]) + own[1][1]
                    : own[0][1] + mean(mean(own[1][0], own[1][2]), around[0][1]);
    rgb[2] = in_red ? beside[1] : here[1];
}

// The three channels of a column, summed over rows.
__device__ __forceinline__ void channels(const Letterbox& b, const Tap* rows, int column, unsigned (&c)[3]) {
    if (b.form == MOSAIC) return mosaic(b, rows, column, c);
    if (b.form == PLANES) {
        const int chroma = column >> b.halved << b.by_turns;
        c[0] = bytes(b, rows, column, b.row_bytes, 0);
        for (int i = 1; i < 3; i++) c[i] = bytes(b, rows, (long long)b.at[i] + chroma, b.chroma_bytes, b.halved);
        return;
    }
    const bool pairs = b.form == PAIRS;
    const int pixel = pairs ? (column & ~1) * 2 : column * b.numbers;
    c[0] = samples(b, rows, pixel + b.at[0] + (pairs ? (column & 1) * 2 : 0));
    c[1] = samples(b, rows, pixel + b.at[1]);
    c[2] = samples(b, rows, pixel + b.at[2]);
}

// a + b * c, each operation rounded by itself as on the CPU: a compiler may fuse them, and a byte
// come out another.
__device__ __forceinline__ float plus(float a, float b, float c) { return __fadd_rn(a, __fmul_rn(b, c)); }

extern "C" __global__ void __launch_bounds__(128) letterbox(const Letterbox b) {
    let_next_start();
    wait_for_inputs();
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    if (thread == 0) *b.candidates = 0, *b.saturated_so_far = *b.saturated;
    if (thread >= (unsigned)b.width * b.height) return;
    const int y = (int)(thread / b.width) - b.top, x = (int)(thread % b.width) - b.left;
    float rgb[3] = {};
    if (y >= 0 && y < b.content_height && x >= 0 && x < b.content_width) {
        const Tap* rows = b.rows + (long long)y * b.row_taps;
        unsigned sum[3] = {};
        for (int t = 0; t < b.column_taps; t++) {
            const Tap tap = b.columns[(long long)x * b.column_taps + t];
            unsigned c[3];
            channels(b, rows, (int)tap.index, c);
            for (int i = 0; i < 3; i++) sum[i] += c[i] * tap.weight;
        }
        float c[3] = {(float)(int)sum[0], (float)(int)sum[1], (float)(int)sum[2]};
        if (b.form == PAIRS || b.form == PLANES) {
            // ITU-R BT.601. UNIT = 2^8 · 2^15.
            const float unit = 8388608.0f;
            const float luma = fmaxf(c[0] - b.black * unit, 0.0f) * b.luma;
            const float u = c[1] - 128.0f * unit, v = c[2] - 128.0f * unit;
            c[0] = clamp(plus(luma, b.chroma[0], v), 0.0f, 255.0f * unit);
            c[1] = clamp(plus(plus(luma, b.chroma[1], v), b.chroma[2], u), 0.0f, 255.0f * unit);
            c[2] = clamp(plus(luma, b.chroma[3], u), 0.0f, 255.0f * unit);
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
